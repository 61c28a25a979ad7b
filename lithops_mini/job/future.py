"""The future of one call: a ``concurrent.futures.Future`` that knows its call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

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


class Settled(NamedTuple):
    """What settling a call took note of: turned into ``CallStats`` when somebody asks, since most never do."""

    submitted: float
    dispatched: float | None
    settled: float
    worker_id: str
    outcome: wire.Outcome

    def stats(self) -> CallStats:
        outcome = self.outcome
        return CallStats(
            call_id=outcome.call,
            submitted=self.submitted,
            dispatched=self.dispatched,
            started=outcome.started or None,
            ended=outcome.ended or None,
            settled=self.settled,
            cpu_user=outcome.cpu_user,
            cpu_system=outcome.cpu_system,
            peak_memory=outcome.peak_memory,
            bytes_in=outcome.bytes_in,
            bytes_out=outcome.bytes_out,
            attempt=outcome.attempt,
            worker_id=self.worker_id,
            cold=bool(outcome.cold),
            status=wire.Status(outcome.status).name.lower(),
        )


class ResponseFuture(Future[T]):
    """The future of one call.

    Everything of ``concurrent.futures.Future`` works, and so do ``concurrent.futures.wait``, ``as_completed`` and
    ``asyncio.wrap_future``. A large result stays in storage until ``result()`` is first called.
    """

    def __init__(self, job_id: str, call_id: int, job: Job | None = None) -> None:
        super().__init__()
        self.job_id = job_id
        self.call_id = call_id
        self.job = job  # None once the future has travelled to another process
        self.was_read = False
        self._settled: Settled | None = None
        self._log: bytes = b""
        self._unread: Unread | None = None
        self._failure: Failure | None = None

    @property
    def executor_id(self) -> str:
        """The executor that made the call."""
        return self.job_id.rpartition("-")[0]

    @property
    def stats(self) -> CallStats | None:
        """Times, memory, bytes, attempt and worker of the outcome that counted; ``None`` until the call is settled."""
        return None if self._settled is None else self._settled.stats()

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
        error = self.exception(timeout)
        if error is not None:
            # Raised here, and not where it was last: its traceback is that of the worker, which it carries.
            raise error.with_traceback(None)
        self.was_read = True
        value: Any = self._result
        if type(value) is Unread:
            loaded = value.load()
            with self._condition:
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
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING
            return self._state == RUNNING

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
