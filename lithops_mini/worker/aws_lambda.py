"""What a function of AWS Lambda runs: each event is one message.

    event  = {"payload": base64, "place": {...}} or {"sealed": base64 of both, encrypted, "key": the reply's}
    answer = {"reply": base64}, or {"refused": {"text", "reason", "retryable"}} if there can be no reply

Lambda carries JSON. The process that Lambda knows is the supervisor, so that it can tell how the runner ended.

The answer goes back to who waits for it. It goes into storage too if the message took long, since the connection may be
lost meanwhile; that of a sealed event, for which nobody waits, goes there only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from importlib import import_module
from typing import Any, Protocol

from lithops_mini import registry, wire
from lithops_mini.errors import InvocationError, NoSuchObject, Reason, StorageError
from lithops_mini.storage.base import StorageBackend
from lithops_mini.worker.supervisor import Supervisor

logger = logging.getLogger("lithops_mini.worker")

# What is left of the time of an invocation, in seconds, when its calls are stopped: for the answer.
_MARGIN = 0.75
# Bytes that Lambda takes, of a request as of an answer, and of an event that waits; and those of a message or a reply
# that fit in, beside what else is told.
_LARGEST, _LARGEST_EVENT = 6 << 20, 1 << 20
_BESIDE = 4096
MAX_MESSAGE = (_LARGEST - _BESIDE) // 4 * 3
MAX_EVENT = (_LARGEST_EVENT - _BESIDE) // 4 * 3
SEAL = "LITHOPS_MINI_SEAL"
"""The variable of a function with the key of its sealed events, in hexadecimal."""
_FRESH = 5.0  # seconds in which nobody looks whether the reply to an event is still wanted

WORKER_PREFIX = "lambda/"
"""What the id of a worker begins with; the name of its log stream follows."""


class Context(Protocol):
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


def seal(key: str, place: dict[str, Any], payload: bytes) -> dict[str, str]:
    """An event that only the function can read: AWS writes those that came to nothing into a bucket."""
    sealed = wire.encrypt(bytes.fromhex(key), wire.encode_header(place) + b"\n" + payload)
    return {"sealed": b64encode(sealed).decode("ascii"), "key": place["key"]}


def _unseal(sealed: str) -> tuple[dict[str, Any], bytes]:
    head, _, payload = wire.decrypt(bytes.fromhex(os.environ[SEAL]), b64decode(sealed)).partition(b"\n")
    return json.loads(head), payload


class Worker:
    """The handler of a function. It is made while Lambda gives a sandbox all the processor it has to start with."""

    def __init__(self) -> None:
        # The name of a log stream is as unique as its sandbox, and leads to what the sandbox has logged.
        stream = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") or os.urandom(8).hex()
        directory = tempfile.mkdtemp(prefix="lithops-mini-")
        # Where Lambda's own runtime has the packages of layers from, another process would not look for them.
        path = os.pathsep.join(filter(None, sys.path))
        self._supervisor = Supervisor(f"{WORKER_PREFIX}{stream}", directory, environment={"PYTHONPATH": path})
        self._supervisor.start()
        if SEAL in os.environ:  # every reply goes to storage: its SDK loads while the runner starts
            import_module("botocore.session")
        self._opened: tuple[str, StorageBackend] | None = None

    def __call__(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the message of an event."""
        began = time.monotonic()
        until = began + context.get_remaining_time_in_millis() / 1000 - _MARGIN
        sealed = "sealed" in event
        if sealed:
            place, payload = _unseal(event["sealed"])
            if self._came_too_late(place):
                return {}
        else:
            place, payload = event.get("place", {}), b64decode(event["payload"])
        answer = self._answer(payload, until)
        if sealed:
            self._store(place, answer)
            return {}
        if place and time.monotonic() - began > place["after"]:
            try:
                self._store(place, answer)
            except StorageError as error:
                logger.warning("the reply could not be stored, and goes back all the same: %s", error)
        return answer

    def _answer(self, payload: bytes, until: float) -> dict[str, Any]:
        try:
            reply = self._supervisor.run(payload, until=until, room=MAX_MESSAGE)
            if len(reply) > MAX_MESSAGE:
                text = f"a reply of {len(reply):,} bytes is over AWS Lambda's limit of {MAX_MESSAGE:,}"
                raise InvocationError(text, reason=Reason.REFUSED)
        except InvocationError as error:
            return {"refused": {"text": str(error), "reason": error.reason, "retryable": error.retryable}}
        return {"reply": b64encode(reply).decode("ascii")}

    # -- answers in storage

    def _came_too_late(self, place: dict[str, Any]) -> bool:
        """Whether an event has waited for long, and meanwhile nobody waits for its reply."""
        if time.time() - place["sent"] < _FRESH:
            return False
        try:
            self._storage(place).head(place["bucket"], place["closed"])
        except NoSuchObject:
            return False
        return True

    def _store(self, place: dict[str, Any], answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        signature = wire.sign(bytes.fromhex(place["secret"]), place["key"], data)
        self._storage(place).put(place["bucket"], place["key"], [data, signature])

    def _storage(self, place: dict[str, Any]) -> StorageBackend:
        which = json.dumps([place["storage"], place["options"]])
        if self._opened is None or self._opened[0] != which:
            backend = registry.find("storage", place["storage"])
            self._opened = which, backend(backend.Options(**place["options"]))
        return self._opened[1]
