"""The future of one call: a ``concurrent.futures.Future`` that knows its call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from lithops_mini import wire
from lithops_mini.failures import Failure
from lithops_mini.records import CallStats
from lithops_mini.wire import Stored

if TYPE_CHECKING:
    from lithops_mini.job.job import Job

T = TypeVar("T")


class Unread:
    """A result that is still in storage; loaded when somebody asks for it."""

    __slots__ = ("at", "key", "load")

    def __init__(self, at: Stored, key: bytes, load: Callable[[], Any]) -> None:
        self.at = at
        self.key = key  # that signed it
        self.load = load


# What settling a call took note of: when it was submitted, dispatched and settled, the worker's id, and the outcome
# without log and data. Plain tuples: there is one for each call ever made, and most are never turned into CallStats.
Settled = tuple[float, float | None, float, str, tuple[Any, ...]]


def stats_of(settled: Settled) -> CallStats:
    """``settled`` as it is told to the user."""
    submitted, dispatched, when, worker_id, fields = settled
    outcome = wire.Outcome._make((*fields, b"", b""))
    return CallStats(
        call_id=outcome.call,
        submitted=submitted,
        dispatched=dispatched,
        started=outcome.started or None,
        ended=outcome.ended or None,
        settled=when,
        cpu_user=outcome.cpu_user,
        cpu_system=outcome.cpu_system,
        peak_memory=outcome.peak_memory,
        bytes_in=outcome.bytes_in,
        bytes_out=outcome.bytes_out,
        data_read=outcome.data_read,
        attempt=outcome.attempt,
        worker_id=worker_id,
        cold=bool(outcome.cold),
        status=wire.Status(outcome.status).name.lower(),
        storage_puts=outcome.storage_puts,
        storage_gets=outcome.storage_gets,
        storage_deletes=outcome.storage_deletes,
    )


# Held to change the state of any future: one lock for all of them, and for the conditions of those that have one.
_changing = threading.RLock()


class _WhenWatched:
    """An attribute of a future that is made when it is first asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: ResponseFuture[Any], owner: type) -> Any:
        future._watch()
        return getattr(future, self._name)


class ResponseFuture(Future[T]):
    """The future of one call.

    Everything of ``concurrent.futures.Future`` works, and so do ``concurrent.futures.wait``, ``as_completed`` and
    ``asyncio.wrap_future``. A large result stays in storage until ``result()`` is first called.
    """

    was_read = False
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _watched = False  # somebody waits for this very future, or wants to be called back: it has the next three
    _condition: Any = _WhenWatched()
    _waiters: Any = _WhenWatched()
    _done_callbacks: Any = _WhenWatched()
    _settled: Settled | None = None
    _log = b""
    _unread: Unread | None = None
    _failure: Failure | None = None

    def __init__(self, job_id: str, call_id: int, job: Job | None = None) -> None:
        # Without super().__init__(): a condition is most of what a future costs, and few are ever waited for one by
        # one. They get it when it is first asked for, and the state of the others begins with what the class says.
        self.job_id = job_id
        self.call_id = call_id
        self.job = job  # None once the future has travelled to another process

    def _watch(self) -> None:
        with _changing:
            if not self._watched:
                self._condition = threading.Condition(_changing)
                self._waiters = []
                self._done_callbacks = []
                self._watched = True

    def __repr__(self) -> str:
        return f"<ResponseFuture {self.job_id}, call {self.call_id}: {self._state.lower()}>"

    def _repr_html_(self) -> str:
        from lithops_mini.html.notebook import futures_html
        from lithops_mini.progress import Counters

        name = self.job_id if self.job is None else self.job.name
        cancelled = self.cancelled()
        failed = self.done() and not cancelled and self._exception is not None
        counters = Counters(1, *map(int, (self.done(), self.running(), failed, False, cancelled)))
        return futures_html(f"{name}, call {self.call_id}", counters, [] if self.failure is None else [self.failure])

    @property
    def executor_id(self) -> str:
        """The executor that made the call."""
        return self.job_id.rpartition("-")[0]

    @property
    def stats(self) -> CallStats | None:
        """Times, memory, bytes, attempt and worker of the outcome that counted; ``None`` until the call is settled."""
        return None if self._settled is None else stats_of(self._settled)

    @property
    def logs(self) -> str:
        """What the call wrote to standard output and error, shortened in the middle when long; of its last attempt."""
        return self._log.decode(errors="replace")

    @property
    def failure(self) -> Failure | None:
        """What is known of a failed call, as values; ``None`` for any other."""
        return self._failure

    def result(self, timeout: float | None = None) -> T:
        """Return the value of the call, or raise its exception.

        Raises ``TimeoutError`` after ``timeout`` seconds, ``CancelledError`` if the call was cancelled, and
        ``StorageError`` or ``IntegrityError`` if a stored result cannot be had.
        """
        error = self._exception if self._state == FINISHED else self.exception(timeout)
        if error is not None:
            # Raised here, and not where it was last: its traceback is that of the worker, which it carries.
            raise error.with_traceback(None)
        self.was_read = True
        value: Any = self._result
        if type(value) is Unread:
            loaded = value.load()
            with _changing:
                # Another thread may have been faster; everybody shall hold the same object.
                if type(self._result) is Unread:
                    self._unread, self._result = value, loaded
                value = self._result
        return value  # type: ignore[no-any-return]

    @property
    def holds_unread(self) -> bool:
        """Whether the result is in storage and nobody has read it."""
        return type(self._result) is Unread

    @property
    def stored(self) -> Unread | None:
        """Where the result lies in storage, if it does."""
        if self._unread is not None:
            return self._unread
        result = self._result
        return result if type(result) is Unread else None

    def claim(self) -> bool:
        """Mark the call as running; False if it has been cancelled and must not start."""
        with _changing:
            if self._state == PENDING:
                self._state = RUNNING
            return self._state == RUNNING

    def done(self) -> bool:
        return self._state not in (PENDING, RUNNING)

    def running(self) -> bool:
        return self._state == RUNNING

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def set_result(self, result: T) -> None:
        with _changing:
            if not self._watched and self._state in (PENDING, RUNNING):
                self._result = result
                self._state = FINISHED
                return
        super().set_result(result)

    def cancel(self) -> bool:
        """Cancel the call: one that waits never starts, one that runs is stopped where the backend can.

        Returns False if it had ended before.
        """
        with self._condition:
            if self._state not in (PENDING, RUNNING):
                return self._state != FINISHED
            self._state = CANCELLED
            self._condition.notify_all()
        self.set_running_or_notify_cancel()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        if self.job is not None:
            self.job.stop(self.call_id)
        return True

    def remove_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Undo ``add_done_callback`` for a call that has not ended: who waits often must not leave many behind."""
        with self._condition:
            if not self.done() and fn in self._done_callbacks:
                self._done_callbacks.remove(fn)

    def rest(self, timeout: float) -> None:
        """Return when the call has ended, or ``timeout`` seconds are over."""
        with self._condition:
            if self._state in (PENDING, RUNNING):
                self._condition.wait(timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        """A future travels as what came of it, so sending one waits for its call."""
        error = self.exception()
        return _settled, (self.job_id, self.call_id, None if error else self.result(), error)


def _settled(job_id: str, call_id: int, value: Any, error: BaseException | None) -> ResponseFuture[Any]:
    future: ResponseFuture[Any] = ResponseFuture(job_id, call_id)
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
    return future


def resolve(value: Any) -> Any:
    """Replace a future, or a list or tuple of futures, that a call has returned by what came of it."""
    if isinstance(value, ResponseFuture):
        return resolve(value.result())
    if type(value) in (list, tuple) and value and all(isinstance(item, ResponseFuture) for item in value):
        return type(value)(resolve(item.result()) for item in value)
    return value
