"""The only place that decides what became of a call: a value, an exception, or another attempt."""

from __future__ import annotations

import copy
import logging
import pickle
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from functools import partial
from typing import Any

from lithops_mini import wire
from lithops_mini.compute.base import ComputeBackend
from lithops_mini.errors import (
    CallTimeout,
    InvocationError,
    LithopsMiniError,
    OutOfMemory,
    Reason,
    RemoteError,
    SerializationError,
    StorageError,
    WorkerDied,
)
from lithops_mini.failures import Failure
from lithops_mini.job.future import ResponseFuture, Unread
from lithops_mini.job.job import Call, Job
from lithops_mini.job.manifest import Recorder
from lithops_mini.records import Attempt
from lithops_mini.shorten import short_repr, shorten
from lithops_mini.sizes import format_size
from lithops_mini.storage.base import StorageBackend
from lithops_mini.wire import Outcome, Status
from lithops_mini.worker import dependencies, serialize
from lithops_mini.worker.call import encode_failure
from lithops_mini.worker.pipe import empty_outcome

logger = logging.getLogger("lithops_mini.job")

# Seconds before the second attempt; doubled for each further one, up to the longest, and spread by half.
_BACKOFF, _LONGEST_BACKOFF = 0.1, 20.0
# A service that has too much to do, or is not there, is asked again this often; with the backoff above, for some four
# minutes.
_POSTPONED = (Reason.THROTTLED, Reason.PACED, Reason.UNAVAILABLE)
_POSTPONEMENTS = 20

# Of the reason for another attempt, in characters.
_WHY = 300

LOST: dict[Status, type[LithopsMiniError]] = {
    Status.DIED: WorkerDied,
    Status.TIMEOUT: CallTimeout,
    Status.OUT_OF_MEMORY: OutOfMemory,
    Status.UNAVAILABLE: StorageError,
}
_REASONS = {
    Reason.DIED: Status.DIED,
    Reason.TIMEOUT: Status.TIMEOUT,
    Reason.OUT_OF_MEMORY: Status.OUT_OF_MEMORY,
}
# Lost through no fault of the call's that is known: another attempt may well succeed.
_RETRIED = (Status.DIED, Status.UNAVAILABLE)


class RemoteTraceback(Exception):
    """The traceback of an exception that was raised in a worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Settle:
    """Resolves futures, from many threads at once."""

    def __init__(
        self,
        compute: ComputeBackend,
        storage: StorageBackend,
        bucket: str,
        recorder: Recorder,
        again: Callable[[Job, Call, float], None],
    ) -> None:
        """``again(job, call, delay)`` has a call run once more, ``delay`` seconds from now."""
        self._compute = compute
        self._storage = storage
        self._bucket = bucket
        self._recorder = recorder
        self._again = again

    def reply(self, job: Job, calls: Sequence[Call], reply: bytes) -> float:
        """Take in the outcomes of a message; return the seconds the longest of its calls ran."""
        worker_id, outcomes = wire.split_reply(reply)
        missing = {call.id: call for call in _unended(calls)}
        sent = _sent_at(calls)  # now: those that are given back leave again soon
        settled: list[Outcome] = []
        given_back: list[Call] = []
        failed, received, longest, as_it_came = 0, 0, 0.0, True
        for outcome in wire.iter_outcomes(outcomes):
            received += 1
            call = missing.get(outcome.call)
            if call is None or outcome.attempt != call.attempt:
                continue  # not asked for: only what was sent can come back
            del missing[call.id]
            if call.attempt > 1:
                outcome, as_it_came = outcome.after(call.requests), False
            if (took := outcome.ended - outcome.started) > longest:
                longest = took
            if outcome.log and not self._compute.shows_output and logger.isEnabledFor(logging.DEBUG):
                for line in bytes(outcome.log).decode(errors="replace").splitlines():
                    logger.debug("call %d of %s: %s", call.id, job.name, line)
            if outcome.status == Status.OK:
                ended = self._succeed(job, call, outcome, worker_id)
            elif outcome.status == Status.UNSTARTED:
                given_back.append(call)
                continue
            else:
                ended = self._fail(job, call, outcome, worker_id)
            if ended:
                settled.append(outcome)
                failed += call.future.failure is not None  # also of a result that cannot be unpickled here
        for call in reversed(given_back):  # each goes before all others: so the first is the first again
            self._again(job, call, 0.0)
        for call in missing.values():
            lost = _lost(call, Status.DIED, "the worker's reply has no word of this call")
            if self._fail(job, call, lost, worker_id):
                settled.append(lost)
                failed += 1
        if missing or len(settled) < received or not as_it_came:
            reply = _record(worker_id, settled)
        self._count(job, reply, done=len(settled), failed=failed, dispatched=sent)
        return longest

    def undeliverable(self, job: Job, calls: Sequence[Call], error: InvocationError | StorageError) -> None:
        """A message could not be carried, or its reply was lost."""
        settled: list[Outcome] = []
        sent = _sent_at(calls)
        # Together, as one message again. One too many in a time goes first when the dispatcher sends again.
        paced = isinstance(error, InvocationError) and error.reason == Reason.PACED
        postponed = 0.0 if paced else backoff(1 + max((call.postponed for call in calls), default=0))
        for call in _unended(calls):
            if isinstance(error, StorageError):
                status, retryable, reason = Status.UNAVAILABLE, True, Reason.UNAVAILABLE
            else:
                status, retryable, reason = _REASONS.get(error.reason, Status.DIED), error.retryable, error.reason
            if retryable and isinstance(error, InvocationError) and reason in _POSTPONED:
                if retryable := call.postponed < _POSTPONEMENTS:
                    call.postponed += 1
                    logger.info("call %d of %s is postponed: %s", call.id, job.name, error)
                    self._again(job, call, postponed)
                    continue
            elif reason == Reason.OUT_OF_MEMORY:
                retryable = self._give_more(job, call)
            if retryable and call.attempt <= job.policy.retries:
                self._retry(job, call, _lost(call, status, ""), "", str(error))
            else:
                lost = _lost(call, status, str(error))
                # Each future its own exception: what is noted on one is not true of the others.
                own = LOST[status](str(error)) if reason in _REASONS else copy.copy(error)
                if self._resolve(job, call, lost, "", own):
                    settled.append(lost)
        self._count(job, _record("", settled), done=len(settled), failed=len(settled), dispatched=sent)

    def failed_before(self, job: Job, call: Call, dependency: ResponseFuture[Any]) -> bool:
        """End a call because one it depends on failed; False if it had ended already."""
        if call.future.done():
            return False
        cause = CancelledError() if dependency.cancelled() else dependency.exception()
        name, text = type(cause).__name__, f"call {dependency.call_id} of {dependency.job_id} failed"
        outcome = empty_outcome(_sent(call), Status.ERROR)._replace(data=encode_failure(name, text))
        self._note(job, call, outcome, "")
        call.future._failure = dependency.failure
        try:
            call.future.set_exception(cause)
        except InvalidStateError:
            return False
        self._count(job, _record("", [outcome]), done=1, failed=1, dispatched=call.dispatched)
        return True

    def cancelled(self, job: Job, call: Call) -> None:
        """Take note of a call whose future has been cancelled."""
        record = _record("", [self._note_cancelled(job, call)])
        self._count(job, record, done=1, cancelled=1, dispatched=call.dispatched)

    # -- one outcome

    def _succeed(self, job: Job, call: Call, outcome: Outcome, worker_id: str) -> bool:
        """Give the future its value; False if it had been cancelled."""
        value: Any
        if outcome.place == wire.STORED:
            value = self._unread(job, call, outcome)
        else:
            try:
                value = _load(call.id, serialize.loads_own, outcome.data)
            except LithopsMiniError as problem:
                return self._resolve(job, call, outcome._replace(status=Status.ERROR), worker_id, problem)
        self._note(job, call, outcome, worker_id)
        try:
            call.future.set_result(value)
        except InvalidStateError:  # cancelled meanwhile
            self._note_cancelled(job, call)
            return False
        return True

    def _unread(self, job: Job, call: Call, outcome: Outcome) -> Unread:
        at = wire.Stored.decode(outcome.data)
        load = partial(_load, call.id, dependencies.load_stored, self._storage, self._bucket, at, job.key)
        return Unread(at, job.key, load)

    def _fail(self, job: Job, call: Call, outcome: Outcome, worker_id: str) -> bool:
        """Retry or resolve a call that did not return; whether it is settled now."""
        status = Status(outcome.status)
        if status == Status.CANCELLED:
            # It was stopped in another's place, or waited for what will not come: that was no attempt of its own.
            self._again(job, call, 0.0)
            return False
        if status == Status.ERROR:
            error, failure = self._rebuild(job, call, outcome, worker_id)
            wanted = job.policy.retry_exceptions
            retry = isinstance(error, wanted) if isinstance(wanted, tuple) else wanted
        else:
            text = bytes(outcome.data).decode()
            error, failure, retry = LOST[status](text), None, status in _RETRIED
            if status == Status.OUT_OF_MEMORY:
                retry = self._give_more(job, call)
        if retry and call.attempt <= job.policy.retries:
            call.requests = outcome.requests
            why = f"{failure.type_name}: {failure.message}" if failure else str(error)
            self._retry(job, call, outcome, worker_id, why)
            return False
        return self._resolve(job, call, outcome, worker_id, error, failure)

    def _give_more(self, job: Job, call: Call) -> bool:
        """Whether a call that ran out of memory may have twice as much, and another attempt."""
        had = self._compute.usual_memory if call.memory is None else call.memory
        if job.policy.on_oom == "fail" or had is None or call.attempt > job.policy.retries:
            return False
        more = 2 * had if self._compute.most_memory is None else min(2 * had, self._compute.most_memory)
        if more <= had:
            return False
        call.memory = more
        logger.info("call %d of %s gets %d MiB", call.id, job.name, call.memory >> 20)
        return True

    def _retry(self, job: Job, call: Call, outcome: Outcome, worker_id: str, why: str) -> None:
        attempt = _attempt_of(call, outcome, worker_id, why)
        job.attempts.append(attempt)
        logger.info("call %d of %s, attempt %d: %s; it is run again", call.id, job.name, call.attempt, why)
        delay = backoff(call.attempt)
        call.attempt += 1
        self._move(job, attempt, retried=1)
        self._again(job, call, delay)

    def sent(self, job: Job) -> None:
        """Count a message that is under way now."""
        self._move(job, running=1)

    def _move(self, job: Job, attempt: Attempt | None = None, **counts: int) -> None:
        with job.lock:  # as with ``_count``: nothing is noted of a job after its last batch
            if not job.count(**counts):
                self._recorder.moved(job, attempt)

    def _rebuild(self, job: Job, call: Call, outcome: Outcome, worker_id: str) -> tuple[BaseException, Failure]:
        """The exception of the user's function, and what is known of it."""
        # The reply came to us directly from the worker that ran the call.
        name, message, text, user_line, blob = pickle.loads(outcome.data)
        error: BaseException | None = None
        if blob is not None:
            try:
                error = serialize.loads(blob)
            except BaseException as problem:  # noqa: BLE001 - its class may not exist here, or run code that fails
                logger.debug("call %d: %s cannot be rebuilt here: %s", call.id, name, short_repr(problem))
        if not isinstance(error, Exception):
            error = RemoteError(f"{name}: {message}", type_name=name, remote_traceback=text)
        error.__cause__ = RemoteTraceback(text)
        failure = self._failure(job, call, outcome, worker_id, name, message, user_line, text)
        return error, failure

    def _failure(
        self,
        job: Job,
        call: Call,
        outcome: Outcome,
        worker_id: str,
        name: str,
        message: str,
        user_line: str,
        text: str,
    ) -> Failure:
        shown = describe_input(call) if job.policy.show_inputs else ""
        return Failure(call.id, name, message, user_line, text, outcome.attempt, worker_id, shown)

    def _notes(self, job: Job, failure: Failure) -> list[str]:
        where = f", worker {failure.worker_id}" if failure.worker_id else ""
        output = "its output is in future.logs"
        if not failure.worker_id and self._compute.keeps_log:  # nobody has sent it
            output = f"lithops-mini logs {job.id} --call {failure.call_id} shows its output"
        call = f"call {failure.call_id} of {job.id}: {job.name}({failure.input}), attempt {failure.attempt}{where}"
        return [f"{call}; {output}"]

    def _resolve(
        self,
        job: Job,
        call: Call,
        outcome: Outcome,
        worker_id: str,
        error: BaseException,
        failure: Failure | None = None,
    ) -> bool:
        """Give the future its exception; False if it had been cancelled."""
        if failure is None:
            name = type(error).__name__
            failure = self._failure(job, call, outcome, worker_id, name, str(error), "", "")
        add_notes(error, self._notes(job, failure))
        self._note(job, call, outcome, worker_id)
        call.future._failure = failure
        try:
            call.future.set_exception(error)
        except InvalidStateError:  # cancelled meanwhile
            self._note_cancelled(job, call)
            call.future._failure = None
            return False
        logger.info("call %d of %s failed: %s: %s", call.id, job.name, failure.type_name, failure.message)
        return True

    def _note_cancelled(self, job: Job, call: Call) -> Outcome:
        outcome = _lost(call, Status.CANCELLED, "cancelled")
        self._note(job, call, outcome, "")
        return outcome

    def _note(self, job: Job, call: Call, outcome: Outcome, worker_id: str) -> None:
        future = call.future
        if outcome.log:
            future._log = bytes(outcome.log)
        # Without log and data, whose bytes belong to the reply: it must not live as long as the future.
        future._settled = (job.submitted, call.dispatched, time.time(), worker_id, outcome[:-2])

    def _count(
        self,
        job: Job,
        record: bytes,
        *,
        done: int,
        failed: int = 0,
        cancelled: int = 0,
        dispatched: float | None,
    ) -> None:
        with job.lock:
            ended = job.count(done=done, failed=failed, cancelled=cancelled)
            # In one step with the counting: no batch may be noted after the one that is noted as the last.
            self._recorder.settled(job, record, ended=ended, dispatched=dispatched)
        if ended:
            job.release()
            job.over.set()
            if job.when_over is not None:
                job.when_over(job)


def _attempt_of(call: Call, outcome: Outcome, worker_id: str, why: str) -> Attempt:
    """What is told of an attempt that is not the last."""
    return Attempt(
        call_id=call.id,
        attempt=call.attempt,
        dispatched=call.dispatched,
        started=outcome.started or None,
        ended=outcome.ended or None,
        given_up=time.time(),
        worker_id=worker_id,
        status=Status(outcome.status).name.lower(),
        why=shorten(why, _WHY),
    )


def _sent_at(calls: Sequence[Call]) -> float | None:
    """When the message of these calls left."""
    return calls[0].dispatched if calls else None


def _unended(calls: Sequence[Call]) -> list[Call]:
    """Without those that were cancelled, or failed with one they waited for, while their message was under way."""
    return [call for call in calls if not call.future.done()]


def _load(call: int, load: Callable[..., Any], *what: Any) -> Any:
    try:
        return load(*what)
    except (LithopsMiniError, KeyboardInterrupt):
        raise
    except BaseException as error:
        text = f"the result of call {call} cannot be unpickled here: {short_repr(error)}"
        raise SerializationError(text) from error


def backoff(attempt: int) -> float:
    """Seconds to wait after the given number of attempts."""
    return float(min(_LONGEST_BACKOFF, _BACKOFF * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5))


def describe_input(call: Call) -> str:
    """The arguments of a call, shortened for a reader; says so where they are not at hand."""
    if call.stored:
        at = wire.Stored.decode(call.arguments)
        return f"<{format_size(at.stop - at.start)}, in storage>"
    if call.dependencies:
        return "<results of other calls>"
    try:
        args, kwargs = serialize.loads(call.arguments)
    except Exception as error:  # noqa: BLE001 - unpickling runs the user's code
        return f"<not shown: {type(error).__name__}>"
    shown = [short_repr(arg) for arg in args] + [f"{name}={short_repr(value)}" for name, value in kwargs.items()]
    return ", ".join(shown)


def add_notes(error: BaseException, notes: Sequence[str]) -> None:
    """Add those an exception does not have yet, if it takes any."""
    try:
        for note in notes:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
    except Exception as problem:  # noqa: BLE001 - its class is the user's code, and may not take notes
        logger.debug("%s takes no notes: %s", type(error).__name__, short_repr(problem))


def _record(worker_id: str, settled: Sequence[Outcome]) -> bytes:
    """A reply with just the outcomes that counted; empty if there are none."""
    return wire.encode_reply(worker_id, b"".join(map(wire.encode_outcome, settled))) if settled else b""


def _lost(call: Call, status: Status, text: str) -> Outcome:
    """The outcome of an attempt that has none of its own."""
    return empty_outcome(_sent(call), status, text).after(call.requests)


def _sent(call: Call) -> wire.Call:
    return wire.Call(call.id, call.attempt, call.stored, b"", call.arguments)
