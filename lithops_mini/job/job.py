"""A job: the calls of one map, one reduce or one call_async, and what they share, as the client holds it."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lithops_mini import records, wire
from lithops_mini.compute.base import Activation
from lithops_mini.failures import Failure
from lithops_mini.job.future import ResponseFuture, Settled, stats_of
from lithops_mini.progress import Counters
from lithops_mini.records import NO_REQUESTS, Attempt, CallStats, Invocation, Platform, Usage
from lithops_mini.worker import serialize

if TYPE_CHECKING:
    from lithops_mini.job.budget import Budget

# A job keeps so many of the last invocations by themselves, and of the others only what they have used together.
_INVOCATIONS = 100


@dataclass(frozen=True)
class Policy:
    """What is done about calls that do not return."""

    retries: int = 2  # more attempts for a call whose worker or message was lost
    retry_exceptions: bool | tuple[type[BaseException], ...] = False  # and for which exceptions of the function
    on_oom: Literal["fail", "double"] = "fail"  # "double": a call that ran out of memory has another attempt with twice
    chunksize: int | None = None  # calls in one message; None: as many as their length allows
    show_inputs: bool = True  # in errors and logs

    @property
    def told_exceptions(self) -> bool | list[str]:
        """``retry_exceptions`` as a job's record has it: by name."""
        wanted = self.retry_exceptions
        return [f"{each.__module__}.{each.__qualname__}" for each in wanted] if isinstance(wanted, tuple) else wanted


class Call:
    """One call and where it stands. Only the thread that holds the call changes it."""

    __slots__ = (
        "activation",
        "arguments",
        "attempt",
        "dependencies",
        "dispatched",
        "future",
        "id",
        "memory",
        "postponed",
        "requests",
        "source",
        "stored",
        "waiting_for",
    )

    def __init__(
        self,
        number: int,
        future: ResponseFuture[Any],
        arguments: bytes,
        stored: int,
        dependencies: Sequence[ResponseFuture[Any]],
        source: int,
    ) -> None:
        self.id = number
        self.future = future
        self.arguments = arguments
        self.stored = stored  # wire.STORED_ARGUMENTS, when arguments is a reference
        self.dependencies = dependencies
        self.source = source  # number of the data object it reads
        self.waiting_for = len(dependencies)  # how many of them must end before it may start
        self.attempt = 1
        self.memory: int | None = None  # bytes it may hold
        self.requests = NO_REQUESTS  # its earlier attempts sent to storage, as far as they were answered
        self.postponed = 0  # times a service had too much to do, or was not there
        self.dispatched: float | None = None
        self.activation: Activation | None = None  # of the message it is in


class Inputs:
    """The pickled arguments of a job's calls: small ones as they travel, large ones as references into ``bulk``."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes up to which arguments are small."""
        self._limit = limit
        self.calls: list[tuple[bytes | wire.Stored, Sequence[ResponseFuture[Any]]]] = []
        self.bulk: list[serialize.Buffer] = []  # becomes one object, under records.inputs_key
        self._position = 0
        self.longest = 0  # bytes of the arguments of a call
        self.upstream: set[Job] = set()  # the jobs of all futures among the arguments

    def add(self, parts: Sequence[serialize.Buffer], dependencies: Sequence[ResponseFuture[Any]]) -> None:
        size = serialize.size_of(parts)
        self.longest = max(self.longest, size)
        if size <= self._limit:
            self.calls.append((bytes(parts[0]) if len(parts) == 1 else b"".join(parts), dependencies))
        else:
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part)
            # The key is put in when the job has its name.
            self.calls.append(
                (wire.Stored("", self._position, self._position + size, digest.hexdigest()), dependencies)
            )
            self.bulk += parts
            self._position += size
        for future in dependencies:
            if future.job is not None:
                self.upstream.add(future.job)


class Job:
    """Made by the executor, carried by the dispatcher, ended by settle."""

    def __init__(
        self,
        job_id: str,
        name: str,
        *,
        header: bytes,
        memory: int | None,
        timeout: float | None,
        code: bytes,
        key: bytes,
        policy: Policy,
        submitted: float,
        upstream: Sequence[Job] = (),
        home: object = None,
        stop: Callable[[Job, Call], None],
    ) -> None:
        """``header``: of its messages, which says that a call may hold ``memory`` bytes, and run for ``timeout``
        seconds; ``upstream``: jobs whose results this one waits for; ``home``: equal for jobs with the same storage.
        """
        self.id = job_id
        self.name = name  # of the function
        self.header = header
        self.memory = memory
        self.timeout = timeout
        self.code = code  # travels in each message; empty when it is in storage
        self.key = key
        self.policy = policy
        self.submitted = submitted
        self.upstream = upstream
        self.home = home
        self._stop = stop
        self.calls: list[Call] = []
        self.ready: deque[Call] = deque()
        self.followed = False  # calls of another job wait in their workers for results of this one
        self.unrecorded = False  # some of what was settled could not be written to its record
        self.consumed = False  # its results are there to be reduced
        self.pace = 0.0  # seconds the longest calls took lately; 0.0: not known yet
        self.counters = Counters()
        self.usage = Usage()
        self.invocations: deque[Invocation] = deque(maxlen=_INVOCATIONS)  # the last of those in the usage
        self.platform = Platform()
        self.budget: Budget | None = None
        self.lock = threading.RLock()  # of the counters and the usage
        self.over = threading.Event()  # every call is settled, counted and handed to the recorder
        self.when_over: Callable[[Job], object] | None = None  # called then, in the thread that settled the last one
        self.attempts: list[Attempt] = []  # that were followed by another one
        self._settled: list[Settled] = []  # of the calls, once the job has ended
        self._failures: list[Failure] = []  # the same
        self._stored: weakref.WeakSet[ResponseFuture[Any]] = weakref.WeakSet()

    def add_calls(self, inputs: Inputs, sources: Sequence[int], spawn: float) -> None:
        """Make the calls and their futures. ``spawn``: the share of its dependencies that end before a call starts."""
        for index, ((arguments, dependencies), source) in enumerate(zip(inputs.calls, sources, strict=True)):
            stored = 0
            if isinstance(arguments, wire.Stored):
                arguments = replace(arguments, key=records.inputs_key(self.id)).encode()
                stored = wire.STORED_ARGUMENTS
            call = Call(index, ResponseFuture(self.id, index, self), arguments, stored, dependencies, source)
            call.memory = self.memory
            if dependencies:
                call.waiting_for = max(1, math.ceil(len(dependencies) * spawn))
            self.calls.append(call)
        self.counters.total = len(self.calls)
        if not self.calls:
            self.over.set()

    def header_for(self, memory: int | None) -> bytes:
        """The header of a message whose calls may hold so many bytes."""
        return (
            self.header if memory == self.memory else wire.encode_header(json.loads(self.header) | {"memory": memory})
        )

    def stop(self, call_id: int) -> None:
        """Take note that the future of a call was cancelled."""
        self._stop(self, self.calls[call_id])

    def cancel(self) -> None:
        """Cancel every call that has not ended, the last ones first: what waits must not start meanwhile."""
        for call in reversed(self.calls):
            call.future.cancel()

    def rest(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for a call that has not ended; False if there is none."""
        for call in self.calls:
            if not call.future.done():
                call.future.rest(timeout)
                return True
        return False

    def count(self, *, done: int = 0, failed: int = 0, cancelled: int = 0, retried: int = 0, running: int = 0) -> bool:
        """Add to the counters; return whether every call is settled now."""
        with self.lock:
            counters = self.counters
            counters.done += done
            counters.failed += failed
            counters.cancelled += cancelled
            counters.retried += retried
            counters.running += running
            return self.ended

    def use(self, invocation: Invocation) -> None:
        """Take note of what a message has used."""
        with self.lock:
            self.usage = self.usage.plus(Usage.of(invocation))
            self.invocations.append(invocation)
        if self.budget is not None:
            self.budget.use(invocation)

    def settled(self) -> bool:
        """Whether every future has ended; that is also counted a moment later, when ``over`` is set."""
        return all(call.future.done() for call in self.calls)

    def release(self) -> None:
        """The job has ended: keep what is told of its calls, and let go of the futures with their values."""
        for call in self.calls:
            if call.future._settled is not None:
                self._settled.append(call.future._settled)
            if call.future.failure is not None:
                self._failures.append(call.future.failure)
            if call.future.stored is not None:
                self._stored.add(call.future)
        self.calls = []

    def stats(self) -> list[CallStats]:
        """Of the calls that are settled."""
        settled = [s for call in self.calls if (s := call.future._settled) is not None] or self._settled
        return [stats_of(each) for each in settled]

    def failures(self) -> list[Failure]:
        """Of the calls that have failed."""
        return [f for call in self.calls if (f := call.future.failure) is not None] or list(self._failures)

    def unread(self) -> list[str]:
        """The keys of stored results that somebody can still ask for and nobody has."""
        return [u.at.key for future in self._stored if future.holds_unread and (u := future.stored) is not None]

    def forget_stored(self) -> None:
        """The stored results are deleted: those that have been read are in their futures alone."""
        for future in list(self._stored):
            if not future.holds_unread:
                future._unread = None

    @property
    def ended(self) -> bool:
        return self.counters.done == self.counters.total
