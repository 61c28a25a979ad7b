"""Messages that come as JSON to a function of some platform, and the answers to them.

    answer = {"reply": base64}, or {"refused": {"text", "reason", "retryable"}} if there can be no reply

The process that the platform knows is the supervisor, so that it can tell how the runner ended.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from lithops_mini import registry, wire
from lithops_mini.errors import InvocationError, Reason, StorageError
from lithops_mini.storage.base import StorageBackend
from lithops_mini.worker.supervisor import Supervisor

# What is left of the time of an invocation, in seconds, when its calls are stopped: for the answer.
_MARGIN = 0.75
# What of a message or an answer is there besides the payload or the reply, in bytes, at most.
_BESIDE = 4096
_FRESH = 5.0  # seconds in which nobody looks whether the reply to an event is still wanted


def most_bytes(largest: int) -> int:
    """How many bytes a payload, or a reply, may have where a platform takes JSON of the ``largest`` size."""
    return (largest - _BESIDE) // 4 * 3


class FunctionWorker:
    """What answers messages. ``name`` identifies it in replies; ``room``: bytes that a reply may have.

    It is made while the platform starts the function.
    """

    def __init__(self, name: str, room: int) -> None:
        self._room = room
        # Where a platform's own runtime has packages from, another process would not look for them.
        path = os.pathsep.join(filter(None, sys.path))
        directory = tempfile.mkdtemp(prefix="lithops-mini-")
        self._supervisor = Supervisor(name, directory, environment={"PYTHONPATH": path})
        self._supervisor.start()
        self._opened: tuple[str, StorageBackend] | None = None
        self._opening = threading.Lock()

    def answer(self, payload: bytes, seconds: float) -> dict[str, Any]:
        """Run the calls of a message, within so many seconds."""
        until = time.monotonic() + seconds - _MARGIN
        try:
            reply = self._supervisor.run(payload, until=until, room=self._room)
            if len(reply) > self._room:
                text = f"a reply of {len(reply):,} bytes is over the platform's limit of {self._room:,}"
                raise InvocationError(text, reason=Reason.REFUSED)
        except InvocationError as error:
            return {"refused": {"text": str(error), "reason": error.reason, "retryable": error.retryable}}
        return {"reply": b64encode(reply).decode("ascii")}

    def close(self) -> None:
        self._supervisor.close()

    # -- answers that go into storage: to a place that the message names

    def comes_too_late(self, place: Mapping[str, Any]) -> bool:
        """Whether a message has waited for long, and meanwhile nobody waits for its reply."""
        if time.time() - place["sent"] < _FRESH:
            return False
        try:
            self._storage(place).head(place["bucket"], place["closed"])
        except StorageError:  # there is no such object, or nobody knows
            return False
        return True

    def prepare(self, place: Mapping[str, Any]) -> None:
        """See that the storage is open when the answer is known: the SDK may take long to import."""
        if self._opened is None:
            threading.Thread(target=self._storage, args=(place,), name="open-storage", daemon=True).start()

    def store(
        self, place: Mapping[str, Any], answer: Mapping[str, Any], last: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        """Put a signed answer there, and what is known only when the storage is open. Raises ``StorageError``."""
        storage = self._storage(place)
        storage.prepare()
        data = json.dumps({**answer, **last()}).encode()
        signature = wire.sign(bytes.fromhex(place["secret"]), place["key"], data)
        storage.put(place["bucket"], place["key"], [data, signature])

    def _storage(self, place: Mapping[str, Any]) -> StorageBackend:
        which = json.dumps([place["storage"], place["options"]])
        with self._opening:
            if self._opened is None or self._opened[0] != which:
                backend = registry.find("storage", place["storage"])
                self._opened = which, backend(backend.Options(**place["options"]))
            return self._opened[1]
