"""The compute seam: what a compute backend promises.

A backend carries bytes to a worker and the worker's reply back. It does not read them, retry them, count them or learn
what came of them: payload and reply are made and read by the layers above it and by the worker below it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class ComputeBackend(ABC):
    """Carries messages. All methods may be called from many threads at once."""

    Options: ClassVar[type[Any]]  # a frozen dataclass: the backend's own settings

    max_payload: ClassVar[int]  # bytes of one message
    max_reply: ClassVar[int]  # bytes of one reply
    shares_files: ClassVar[bool] = False  # workers see this machine's files under the same paths
    shows_output: ClassVar[bool] = False  # it logs what calls print, at DEBUG, while they run
    isolates: ClassVar[bool] = True  # a call that kills its process does not kill ours, and can be stopped

    @property
    @abstractmethod
    def concurrency(self) -> int:
        """How many messages may be in flight at once (at least 1)."""

    @abstractmethod
    def invoke(self, payload: bytes, activation: str) -> bytes:
        """Carry ``payload`` to a worker, wait, and return its reply.

        ``activation`` names this message for ``stop``. Raises ``InvocationError`` with a reason.
        """

    @abstractmethod
    def stop(self, activation: str, calls: frozenset[int]) -> None:
        """Stop these calls of a message in flight, if the service can; the reply then says so.

        Names that are not (or no longer) in flight are fine.
        """

    @abstractmethod
    def deploy(self) -> None:
        """Make the runtime ready, as far as that needs no waiting; may be repeated, does nothing the second time."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything that runs and remove everything that was started. May be called again."""
