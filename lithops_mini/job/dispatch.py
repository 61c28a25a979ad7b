"""From calls that are ready to messages on their way: a pool of senders, each carrying one message at a time."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from lithops_mini import records, wire
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.costs import Prices
from lithops_mini.errors import InvocationError, Reason, StorageError
from lithops_mini.job.budget import Budget
from lithops_mini.job.future import ResponseFuture
from lithops_mini.job.job import Call, Job
from lithops_mini.job.manifest import Recorder
from lithops_mini.job.pace import Pace
from lithops_mini.job.settle import Settle
from lithops_mini.records import Invocation, Platform
from lithops_mini.storage.base import StorageBackend
from lithops_mini.worker import dependencies, serialize

logger = logging.getLogger("lithops_mini.job")

# Short calls are put together into messages of this much work, in seconds: long beside the cost of a message, short
# beside the patience of somebody who waits for one of them.
_MESSAGE_SECONDS = 0.02
# Less work than this is not worth a message while there is more, in seconds.
_LEAST_MESSAGE_SECONDS = 0.002
# What the shortest call costs its worker, in seconds.
_LEAST_SECONDS = 1e-5
# A message is never more than this many times larger than the last, since the calls to come may be longer.
_GROWTH = 32
# Results a call depends on travel with it up to this size, in bytes; larger tables go through storage.
_TABLE_INLINE = 128 << 10
# Why a message has reached no worker.
_NOT_CARRIED = (Reason.THROTTLED, Reason.PACED, Reason.REFUSED, Reason.UNAVAILABLE)


class Dispatcher:
    """Sends what is ready, as many messages at once as the backend takes. Its threads start when there is work."""

    def __init__(
        self,
        compute: ComputeBackend,
        storage: StorageBackend,
        bucket: str,
        recorder: Recorder,
    ) -> None:
        self._compute = compute
        self._storage = storage
        self._bucket = bucket
        self._lanes = compute.concurrency
        self._share = float(self._lanes)  # how many messages the service takes at once, as far as is known
        self._under_way = 0  # messages
        self._throttled = 0.0  # monotonic: when that became less
        self._pace = Pace()
        self._settle = Settle(compute, storage, bucket, recorder, self._again)
        self._condition = threading.Condition()
        self._ready: list[Job] = []  # jobs with calls to send, the one whose turn it is first
        self._delayed: list[tuple[float, int, Job, Call]] = []  # a heap by time
        self._order = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._early: dict[Call, Job] = {}  # calls that may start, but would wait in the worker for others
        self._early_running: set[Call] = set()
        self._held: list[Job] = []  # until a message of their budget is over, which may leave something
        self._failing = threading.local()  # calls this thread is about to fail, because those before them did
        self._closed = False
        recorder.when_lost(self._unrecorded)

    # -- what comes in

    def add(self, job: Job) -> None:
        """Send the job's calls, each when what it depends on is there."""
        for call in job.calls:
            if call.dependencies:
                self._watch(job, call)
        self._enqueue(job, [call for call in job.calls if not call.dependencies])

    def budget(self, limit: float, platform: Platform, prices: Prices) -> Budget:
        """So many dollars for jobs to come, which may share it."""
        stop = self._over_budget if self._compute.stops else None
        return Budget(limit, platform, prices, self._storage.requests, stop)

    def stop(self, job: Job, call: Call) -> None:
        """The call's future was cancelled: see that it does not start, or end it where it runs."""
        self._settle.cancelled(job, call)
        self._stop_running(call)

    @staticmethod
    def _stop_running(call: Call) -> None:
        if (activation := call.activation) is not None:
            activation.stop(frozenset((call.id,)))

    def close(self) -> None:
        """Stop sending. What is under way is left to the backend's close()."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def join(self) -> None:
        """Wait for the senders; call it after the backend was closed."""
        for thread in self._threads:
            thread.join()

    def _watch(self, job: Job, call: Call) -> None:
        """Count down to the end of what the call depends on; end the call if one of those fails."""
        total, needed = len(call.dependencies), call.waiting_for
        ended = itertools.count(1)  # counting is atomic

        def one_ended(future: ResponseFuture[object]) -> None:
            if future.cancelled() or future.exception() is not None:
                self._fail_after(job, call, future)
                return
            count = next(ended)
            if count == total:
                with self._condition:
                    waiting = self._early.pop(call, None) is not None or call.dispatched is None
                if waiting:
                    self._enqueue(job, [call])
            elif count == needed:
                with self._condition:
                    if not _all_done(call.dependencies):  # else who counted the last one has it sent
                        self._early[call] = job
                        self._wake_senders()

        for future in call.dependencies:
            future.add_done_callback(one_ended)  # type: ignore[arg-type]

    def _unrecorded(self, job: Job) -> None:
        """Results could not be recorded: a call that waits for them there is stopped, and sent when all are at hand."""
        job.unrecorded = True
        with self._condition:
            stuck = [call for call in self._early_running if _misses_results(call)]
        for call in stuck:
            self._stop_running(call)

    def _fail_after(self, job: Job, call: Call, failed: ResponseFuture[object]) -> None:
        """End a call because one it depends on failed. That may end others: a long chain must not be a deep stack."""
        waiting: deque[tuple[Job, Call, ResponseFuture[object]]] | None = getattr(self._failing, "calls", None)
        if waiting is not None:  # this thread is in the loop below, further up
            waiting.append((job, call, failed))
            return
        waiting = self._failing.calls = deque([(job, call, failed)])
        try:
            while waiting:
                job, call, failed = waiting.popleft()
                if self._settle.failed_before(job, call, failed):
                    self._stop_running(call)
        finally:
            del self._failing.calls

    def _enqueue(self, job: Job, calls: Sequence[Call]) -> None:
        if not calls:
            return
        with self._condition:
            job.ready.extend(calls)
            if job not in self._ready:
                self._ready.append(job)
            self._wake_senders()

    def _wake_senders(self) -> None:
        queued = sum(len(job.ready) for job in self._ready) + len(self._early)
        # An idle thread that was woken and has not yet run counts, as does what it was woken for.
        for _ in range(min(queued - self._idle, self._lanes - len(self._threads))):
            name = f"lithops_mini-sender-{len(self._threads)}"
            thread = threading.Thread(target=self._send_forever, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._condition.notify(queued)

    def _again(self, job: Job, call: Call, delay: float) -> None:
        with self._condition:
            if delay:
                heapq.heappush(self._delayed, (time.monotonic() + delay, next(self._order), job, call))
                self._condition.notify_all()  # whoever is idle when its time comes must know of it
            else:
                self._put_first(job, call)
                self._condition.notify()

    def _put_first(self, job: Job, call: Call) -> None:
        if not _all_done(call.dependencies):
            self._early[call] = job
            return
        job.ready.appendleft(call)
        if job not in self._ready:
            self._ready.insert(0, job)

    # -- the senders

    def _send_forever(self) -> None:
        while (batch := self._take()) is not None:
            job, left = batch
            try:
                self._send(job, left)
            except BaseException as error:
                # A mistake of ours must not leave anybody waiting.
                logger.exception("sending calls of %s failed", job.id)
                self._settle.undeliverable(job, list(left.values()), InvocationError(f"sending failed: {error!r}"))

    def _take(self) -> tuple[Job, dict[int, Call]] | None:
        """Wait for something to send, and return it; ``None`` when closed."""
        with self._condition:
            while not self._closed:
                wait = self._release_delayed()
                pause = self._pace.left()
                # An early one waits in its worker, for others to run.
                room = self._under_way - len(self._early_running) < int(self._share)
                if self._ready and room and not pause:
                    # Jobs take turns.
                    job = self._ready.pop(0)
                    if self._holds(job):
                        continue
                    calls = self._next_calls(job)
                    if job.ready:
                        self._ready.append(job)
                    if calls:
                        return self._begun(job, calls)
                elif self._early and not pause and not self._delayed and len(self._early_running) < self._lanes - 1:
                    # One lane stays free for what the early ones wait for.
                    call, job = self._early.popitem()
                    if _misses_results(call) or (job.budget and not job.budget.admits(job, call.memory)):
                        call.dispatched = None  # it waits here, until all it depends on have ended
                    elif calls := _claim([call]):
                        self._early_running.update(calls)
                        return self._begun(job, calls)
                else:
                    self._idle += 1
                    self._condition.wait(min(filter(None, (wait, pause)), default=None))
                    self._idle -= 1
            return None

    def _begun(self, job: Job, calls: list[Call]) -> tuple[Job, dict[int, Call]]:
        self._under_way += 1
        self._pace.sent()
        left = {call.id: call for call in calls}
        if job.budget is not None:
            job.budget.begin(job, left, calls[0].memory)
        return job, left

    def _holds(self, job: Job) -> bool:
        """Whether a job may not send its next call: it would cost more than is left of its budget."""
        budget = job.budget
        if budget is None or not job.ready or (admitted := budget.admits(job, job.ready[0].memory)):
            return False
        if admitted is None:
            self._held.append(job)
        else:
            calls = list(job.ready)
            job.ready.clear()
            self._condition.release()  # who waits for the calls may call us
            try:
                self._settle.undeliverable(job, calls, budget.exceeded())
            finally:
                self._condition.acquire()
        return True

    def _over_budget(self, budget: Budget) -> None:
        """Stop what is under way: it would pass the budget."""
        for job, calls in budget.stopped():
            self._settle.undeliverable(job, calls, budget.exceeded())
            for call in calls:
                self._stop_running(call)

    def _release_delayed(self) -> float | None:
        """Move calls whose delay is over to the front; return the seconds until the next one."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            _, _, job, call = heapq.heappop(self._delayed)
            self._put_first(job, call)
        return self._delayed[0][0] - now if self._delayed else None

    def _next_calls(self, job: Job) -> list[Call]:
        limit = job.policy.chunksize or message_size(job.pace, len(job.ready), self._lanes)
        calls: list[Call] = []
        room = self._compute.max_payload - len(job.header) - len(job.code) - 64
        while job.ready and len(calls) < limit:
            call = job.ready[0]
            alone = call.attempt > 1 or bool(call.dependencies)
            room -= len(call.arguments) + wire.CALL_OVERHEAD
            if calls and (alone or room < 0):
                break
            calls.append(job.ready.popleft())
            if alone:  # whatever it did to its last worker, it does not do to neighbours
                break
        return _claim(calls)

    def _send(self, job: Job, left: dict[int, Call]) -> None:
        began = time.monotonic()
        error: InvocationError | StorageError | None = None
        try:
            reply = self._carry(job, left)
            if job.budget is not None:
                job.budget.settle(wire.iter_outcomes(wire.split_reply(reply)[1]))
        except (InvocationError, StorageError) as problem:
            error = problem
        finally:  # before its calls are given back: what is known now counts for them
            if job.budget is not None:
                job.budget.end(left)
            self._adapt(began, getattr(error, "reason", None))
        if error is not None:
            self._settle.undeliverable(job, list(left.values()), error)
        else:
            longest = self._settle.reply(job, list(left.values()), reply)
            job.pace = max(_LEAST_SECONDS, longest, job.pace / _GROWTH)

    def _adapt(self, began: float, reason: Reason | None) -> None:
        """A message that was sent at ``began`` is over: the service may take more, or has refused it as one too many.

        Too many at once: half as many, once for all that were sent before it was known; and one more after each round.
        Too many in a time: none for a while.
        """
        with self._condition:
            if reason == Reason.PACED:
                self._pace.refused(began)
            elif reason == Reason.THROTTLED:
                if began >= self._throttled:
                    self._share = max(1.0, min(self._share, self._under_way) / 2)
                    self._throttled = time.monotonic()
            else:
                if self._share < self._lanes:
                    self._share = min(self._lanes, self._share + 1 / self._share)
                    self._condition.notify()
                if self._pace.left():
                    self._condition.notify_all()
                self._pace.passed(began)
            self._under_way -= 1
            if self._held:
                self._ready += [job for job in self._held if job not in self._ready]
                self._held.clear()
                self._condition.notify()

    def _carry(self, job: Job, left: dict[int, Call]) -> bytes:
        """Return the reply about the calls that are ``left``; others are settled and taken out of it before."""

        def take_in(reply: bytes) -> None:
            """Settle the calls that a reply is about; the others are still under way."""
            if job.budget is not None:
                job.budget.settle(wire.iter_outcomes(wire.split_reply(reply)[1]))
            told = [left.pop(o.call) for o in wire.iter_outcomes(wire.split_reply(reply)[1]) if o.call in left]
            for call in told:
                call.activation = None
            self._settle.reply(job, told, reply)

        early = self._early_running.intersection(left.values())
        memory = next(iter(left.values())).memory  # the same for all: one that was given more travels alone
        activation = Activation(take_in, memory=memory, timeout=job.timeout)
        for call in left.values():
            call.activation = activation
        try:
            stuck = early if any(map(_misses_results, early)) else ()
            # A call that was cancelled, or failed with one before it, since it was taken is stopped like any other; one
            # that waits in vain is sent again.
            activation.stop(frozenset(call.id for call in left.values() if call.future.done() or call in stuck))
            self._settle.sent(job)
            began = time.monotonic()
            try:
                # Without a name here: while it is under way, nobody else keeps it.
                reply = self._compute.invoke(self._payload(job, left, memory), activation)
            except InvocationError as error:
                _use(job, activation, began, error.reason)
                raise
            else:
                _use(job, activation, began)
                return reply
            finally:
                job.count(running=-1)
        finally:
            activation.end()
            # Before the reply is settled: what that gives back may be under way again at once, in another thread.
            for call in left.values():
                call.activation = None
            if early:
                with self._condition:
                    self._early_running -= early

    def _payload(self, job: Job, calls: Mapping[int, Call], memory: int | None) -> bytes:
        payload = wire.encode_payload(
            job.header_for(memory), job.code, [self._message(job, call) for call in calls.values()]
        )
        if len(payload) > self._compute.max_payload:
            raise InvocationError(
                f"a message of {len(payload):,} bytes is over the backend's limit of {self._compute.max_payload:,}",
                reason=Reason.REFUSED,
            )
        return payload

    def _message(self, job: Job, call: Call) -> wire.Call:
        if not call.dependencies:
            return wire.Call(call.id, call.attempt, call.stored, b"", call.arguments)
        table = dependencies.encode_table([self._entry(job, future) for future in call.dependencies])
        if len(table) <= _TABLE_INLINE:
            return wire.Call(call.id, call.attempt, call.stored, table, call.arguments)
        key = records.dependencies_key(job.id, call.id)
        self._storage.put(self._bucket, key, table)
        at = wire.Stored(key, 0, len(table), hashlib.sha256(table).hexdigest())
        return wire.Call(call.id, call.attempt, call.stored | wire.STORED_DEPENDENCIES, at.encode(), call.arguments)

    def _entry(self, job: Job, future: ResponseFuture[object]) -> tuple[dependencies.Entry, bytes]:
        near = future.job is not None and future.job.home == job.home
        if near and not future.done():
            return ["pending", future.job_id, future.call_id], b""
        if near and (unread := future.stored) is not None:
            return ["stored", future.job_id, unread.at.key, unread.at.stop], b""
        data = b"".join(serialize.fast_dumps(future.result()))
        return ["inline", len(data)], data


def message_size(pace: float, ready: int, lanes: int) -> int:
    """How many of the ``ready`` calls make a message worth sending, and still leave work for the other lanes.

    ``pace``: seconds of a call, 0.0 if that is not known.
    """
    if not pace:
        return 1
    share = -(-ready // (2 * lanes))
    return max(1, min(int(_MESSAGE_SECONDS / pace), max(int(_LEAST_MESSAGE_SECONDS / pace), share)))


def _use(job: Job, activation: Activation, began: float, failed: Reason | None = None) -> None:
    """Note what a message has used, which began then: what the backend tells, else the time that it took here."""
    used = activation.invocation
    if used is None and failed not in _NOT_CARRIED:
        waited = math.ceil(1000 * (time.monotonic() - began))
        used = Invocation(waited, -(-(activation.memory or 0) >> 20), told=False)
    if used is not None:
        job.use(used)


def _all_done(futures: Sequence[ResponseFuture[object]]) -> bool:
    return all(future.done() for future in futures)


def _misses_results(call: Call) -> bool:
    """Whether results that the call depends on may never be in their job's record."""
    return any(future.job is not None and future.job.unrecorded for future in call.dependencies)


def _claim(calls: list[Call]) -> list[Call]:
    """Take calls to send them; return those that were not cancelled."""
    claimed = [call for call in calls if call.future.claim()]
    now = time.time()
    for call in claimed:
        call.dispatched = now
    return claimed
