"""What an action of OpenWhisk runs: each activation is one message.

    params = {"payload": base64, "room": bytes, "environment": {name: value}, "place": {...}}

``room`` is what a reply may have, as the limits of the namespace say. ``environment`` is bound to the action, which is
how OpenWhisk keeps the credentials of its worker. The answer is the result. It goes to the ``place`` in storage too if
the message took long, since the connection of who waits may be lost meanwhile; that of an event, for which nobody
waits, goes there only, or is in the error that says that it could not.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from lithops_mini.errors import StorageError
from lithops_mini.worker.function import FunctionWorker, most_bytes

logger = logging.getLogger("lithops_mini.worker")

MAX_MESSAGE = most_bytes(1 << 20)
"""Bytes of a payload, or of a reply, where a namespace has OpenWhisk's own limit: 1 MB of a request as of a result."""

WORKER_PREFIX = "openwhisk/"
"""What the id of a worker begins with."""


# Seconds that must be left of an activation to store its answer too.
_STORES = 1.0


class Worker:
    """The function that a runtime calls with the parameters of each activation; there is one in a container."""

    def __init__(self) -> None:
        self._worker: FunctionWorker | None = None
        # OpenWhisk's own runtimes start what they run without one, and calls may start programs.
        os.environ.setdefault("PATH", os.pathsep.join((os.path.dirname(sys.executable), os.defpath)))

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        """Run the message of an activation, as long as ``__OW_DEADLINE`` permits: milliseconds since the epoch."""
        ends = int(os.environ["__OW_DEADLINE"]) / 1000
        if self._worker is None:  # what is bound comes with the first activation, and is for calls as for replies
            os.environ.update(params.get("environment", {}))
            self._worker = FunctionWorker(f"{WORKER_PREFIX}{os.urandom(6).hex()}", MAX_MESSAGE)
        self._worker.room = params.get("room", MAX_MESSAGE)
        payload, place = b64decode(params["payload"]), params.get("place", {})
        answer = self._answer_event if "closed" in place else self._answer
        return answer(self._worker, payload, place, ends)

    @staticmethod
    def _answer(worker: FunctionWorker, payload: bytes, place: Mapping[str, Any], ends: float) -> dict[str, Any]:
        began = time.monotonic()
        answer = worker.answer(payload, ends - time.time())
        if place and time.monotonic() - began > place["after"] and time.time() < ends - _STORES:
            try:
                worker.store(place, answer)
            except StorageError as error:
                logger.warning("the reply could not be stored, and goes back all the same: %s", error)
        return answer

    @staticmethod
    def _answer_event(worker: FunctionWorker, payload: bytes, place: Mapping[str, Any], ends: float) -> dict[str, Any]:
        if worker.comes_too_late(place):
            return {}
        worker.prepare(place)
        answer = worker.answer(payload, ends - time.time())
        try:
            worker.store(place, answer)
        except StorageError as error:
            # Of an error OpenWhisk keeps the value, whatever it is, and nothing beside it.
            return {"error": {"text": f"the reply could not be stored: {error}", **answer}}
        return {}

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
