"""What a function of AWS Lambda runs: each event is one message.

    event = {"payload": base64, "place": {...}} or {"sealed": base64 of both, encrypted, "key": the reply's}

The answer goes back to who waits for it. It goes into storage too if the message took long, since the connection may be
lost meanwhile; that of a sealed event, for which nobody waits, goes there only. What goes there says what it has cost,
which Lambda tells only who waits:

    spent = {"left": ms that the invocation had left, "start": ms of a cold start, "stored": ms that storing the answer
             before this one took}
"""

from __future__ import annotations

import json
import logging
import os
import time
from base64 import b64decode, b64encode
from importlib import import_module
from typing import Any, Protocol

from lithops_mini import wire
from lithops_mini.errors import StorageError
from lithops_mini.worker.function import FunctionWorker, most_bytes

logger = logging.getLogger("lithops_mini.worker")

# Lambda takes 6 MB, of a request as of an answer, and 1 MB of an event that waits.
MAX_MESSAGE = most_bytes(6 << 20)
MAX_EVENT = most_bytes(1 << 20)
SEAL = "LITHOPS_MINI_SEAL"
"""The variable of a function with the key of its sealed events, in hexadecimal."""

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
        self._worker = FunctionWorker(f"{WORKER_PREFIX}{stream}", MAX_MESSAGE)
        if SEAL in os.environ:  # every reply goes to storage: its SDK loads while the runner starts
            import_module("botocore.session")
        # What is charged for and has not been told yet, in milliseconds.
        self._start, self._stored = _age(), 0

    def __call__(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the message of an event."""
        began, seconds = time.monotonic(), context.get_remaining_time_in_millis() / 1000
        worker = self._worker
        if "sealed" in event:
            place, payload = _unseal(event["sealed"])
            if not worker.comes_too_late(place):
                self._store(place, worker.answer(payload, seconds), context)
            return {}
        answer = worker.answer(b64decode(event["payload"]), seconds)
        place = event.get("place", {})
        if place and time.monotonic() - began > place["after"]:
            try:
                self._store(place, answer, context)
            except StorageError as error:
                logger.warning("the reply could not be stored, and goes back all the same: %s", error)
            answer["stored"] = True
        self._start = 0  # Lambda has told it
        return answer

    def _store(self, place: dict[str, Any], answer: dict[str, Any], context: Context) -> None:
        left = 0

        def spent() -> dict[str, Any]:
            nonlocal left
            left = context.get_remaining_time_in_millis()
            return {"spent": {"left": left, "start": self._start, "stored": self._stored}}

        self._worker.store(place, answer, spent)
        self._start, self._stored = 0, left - context.get_remaining_time_in_millis()

    def close(self) -> None:
        self._worker.close()


def _age() -> int:
    """Milliseconds since this process was started; 0 where that is not known."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
        return round(1000 * (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")))
    except (OSError, AttributeError):  # no Linux
        return 0
