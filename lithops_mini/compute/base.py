"""The compute seam: what a compute backend promises.

A backend carries bytes to a worker and the worker's reply back. It does not read them, retry them, count them or learn
what came of them: payload and reply are made and read by the layers above it and by the worker below it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from lithops_mini.errors import ConfigError
from lithops_mini.records import Invocation, Platform
from lithops_mini.storage.base import WorkerNeeds

if TYPE_CHECKING:
    from lithops_mini.compute.inbox import Inbox
    from lithops_mini.runtimes.base import Runtimes


class Activation:
    """One message in flight: how its sender has calls of it stopped, and learns of some while others still run."""

    def __init__(
        self,
        deliver: Callable[[bytes], None] | None = None,
        *,
        memory: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """``deliver(reply)`` takes a reply about some of the calls; ``None``: one reply about all is wanted.
        ``memory``: bytes that a call may hold; ``None``: what the backend gives. ``timeout``: seconds a call may run;
        ``None``: as long as the backend lets it.
        """
        self.deliver = deliver  # for the backend, before invoke() returns a reply about the other calls
        self.memory = memory
        self.timeout = timeout
        self.invocation: Invocation | None = None  # for the backend to set: what the platform charges for, as it tells
        self._lock = threading.Lock()
        self._stopped: frozenset[int] = frozenset()
        self._stop: Callable[[frozenset[int]], None] | None = None
        self._ended = False

    def stoppable(self, stop: Callable[[frozenset[int]], None]) -> None:
        """For the backend: ``stop(calls)`` stops these calls of the message; it must return at once."""
        with self._lock:
            self._stop = stop
            if self._stopped:
                stop(self._stopped)

    def stop(self, calls: frozenset[int]) -> None:
        """For the sender: stop these calls, now or when they come to run, if the backend can."""
        with self._lock:
            self._stopped |= calls
            if self._stop is not None and not self._ended:
                self._stop(calls)

    def end(self) -> None:
        """For the sender: the message is no longer in flight."""
        with self._lock:
            self._ended = True


class ComputeBackend(ABC):
    """Carries messages. All methods may be called from many threads at once."""

    Options: ClassVar[type[Any]]  # a frozen dataclass: the backend's own settings

    max_payload: int  # bytes of one message
    max_reply: int  # bytes of one reply
    max_time: float | None = None  # seconds a call may run, as its setting of that name says; None: no limit is known
    most_time: float | None = None  # seconds that it could be; None: no limit is known
    usual_memory: int | None = None  # bytes that calls without runtime_memory may hold; None: nobody limits them
    most_memory: int | None = None  # bytes that they can be given; None: no limit is known
    shares_files: ClassVar[bool] = False  # workers see this machine's files under the same paths
    shows_output: ClassVar[bool] = False  # it logs what calls print, at DEBUG, while they run
    keeps_log: ClassVar[bool] = False  # what calls print stays where they ran: read_log and log_url tell of it
    isolates: ClassVar[bool] = True  # a call that kills its process does not kill ours
    stops: bool = True  # a call that runs can be stopped from here, be it by closing the backend
    composes: ClassVar[bool] = True  # functions can start executors of their own

    @property
    def reaches_files(self) -> bool:
        """Whether workers can be given directories of this machine; settled once it is deployed."""
        return True

    @property
    def platform(self) -> Platform:
        """What is charged for calls, but for their storage; without a service, nothing is."""
        return Platform()

    @property
    @abstractmethod
    def concurrency(self) -> int:
        """How many messages may be in flight at once (at least 1)."""

    @abstractmethod
    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        """Carry ``payload`` to a worker, wait, and return its reply.

        Replies about some of the calls may go to ``activation.deliver`` before; what is returned is about the rest.
        A backend that can stop calls of a message in flight says how by ``activation.stoppable``; the reply then has
        their outcome. Raises ``InvocationError`` with a reason.
        """

    def use_inbox(self, inbox: Inbox) -> None:  # noqa: B027 - most services answer
        """Replies may come by this way too; who uses it closes it.

        Called once, before ``deploy``, if the storage can be reached from other machines.
        """

    @abstractmethod
    def deploy(self, needs: WorkerNeeds) -> None:
        """Make the runtime ready, with what workers need to reach their storage; the second time it changes nothing.

        A backend whose workers have an identity of their own leaves the credentials aside. Raises ``ConfigError`` for
        what the workers cannot be given.
        """

    def runtimes(self, bucket: str) -> Runtimes:
        """What the workers of this backend run in, where that is built first; ``ConfigError`` if nothing is.

        ``bucket``: of the jobs.
        """
        raise ConfigError(f"{type(self).__name__} builds no runtime: its workers run in what is there")

    def tail(self, take: Callable[[str, int, str], object]) -> AbstractContextManager[None]:
        """Within the ``with`` block, ``take(job, call, line)`` gets what calls print, while they run.

        Of all workers, whichever client they belong to, and of each from its last lines on; in other threads. It may be
        asked of a backend that is not deployed. ``ConfigError`` if it cannot be had from outside of the client.
        """
        raise ConfigError(
            f"{type(self).__name__} shows what calls print, while they run, only in the program that runs the job: with"
            " log_level DEBUG"
        )

    def read_log(self, job: str, call: int, since: float) -> Iterator[str]:
        """Yield the lines that a call has printed since a time, in seconds since the epoch, in all its attempts.

        As far as ``keeps_log`` says that there are any. It may be asked of a backend that is not deployed. Raises
        ``ConfigError`` and ``InvocationError``.
        """
        return iter(())

    def log_url(self, worker_id: str = "") -> str | None:
        """The web page of a worker's log, or without one of all workers'; ``None`` if there is no such page."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Stop what runs, if the platform can, and remove everything that was started. May be called again."""
