"""Answers that go into storage: to a place that the message names."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from lithops_mini import registry, wire
from lithops_mini.errors import StorageError
from lithops_mini.storage.base import StorageBackend

_FRESH = 5.0  # seconds in which nobody looks whether the reply to an event is still wanted


class Outbox:
    """Knows one storage at a time, which is opened when it is first needed. May be used from several threads."""

    def __init__(self) -> None:
        self._opened: tuple[str, StorageBackend] | None = None
        self._opening = threading.Lock()

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
