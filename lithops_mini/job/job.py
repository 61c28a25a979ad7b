"""A job: the calls of one map, one reduce or one call_async, and what they share, as the client holds it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lithops_mini.job.future import ResponseFuture
from lithops_mini.progress import Counters


@dataclass(frozen=True)
class Policy:
    """What is done about calls that do not return."""

    retries: int = 2  # more attempts for a call whose worker or message was lost
    retry_exceptions: bool | tuple[type[BaseException], ...] = False  # and for which exceptions of the function
    chunksize: int | None = None  # calls in one message; None: as many as their length allows
    show_inputs: bool = True  # in errors and logs


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
        "source",
        "stored",
        "throttled",
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
        self.throttled = 0  # times a service said it has too much to do
        self.dispatched: float | None = None
        self.activation = ""  # of the message it is in


class Job:
    """Made by the executor, carried by the dispatcher, ended by settle."""

    def __init__(
        self,
        job_id: str,
        name: str,
        *,
        header: bytes,
        code: bytes,
        key: bytes,
        policy: Policy,
        submitted: float,
        upstream: Sequence[Job] = (),
        home: object = None,
        stop: Callable[[Job, Call], None],
    ) -> None:
        """``upstream``: jobs whose results this one waits for; ``home``: equal for jobs with the same storage."""
        self.id = job_id
        self.name = name  # of the function
        self.header = header
        self.code = code  # travels in each message; empty when it is in storage
        self.key = key
        self.policy = policy
        self.submitted = submitted
        self.upstream = upstream
        self.home = home
        self._stop = stop
        self.calls: list[Call] = []
        self.ready: deque[Call] = deque()
        self.followed = False  # calls of another job wait for results of this one
        self.pace = 0.0  # seconds the longest calls took lately; 0.0: not known yet
        self.counters = Counters()
        self.lock = threading.Lock()  # of the counters

    @property
    def futures(self) -> list[ResponseFuture[Any]]:
        return [call.future for call in self.calls]

    def stop(self, call_id: int) -> None:
        """Take note that the future of a call was cancelled."""
        self._stop(self, self.calls[call_id])

    def cancel(self) -> None:
        """Cancel every call that has not ended, the last ones first: what waits must not start meanwhile."""
        for call in reversed(self.calls):
            call.future.cancel()

    @property
    def ended(self) -> bool:
        return self.counters.done == self.counters.total
