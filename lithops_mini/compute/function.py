"""What backends have in common whose workers are functions of a platform, such as AWS Lambda and OpenWhisk.

* ``Sizes``: what there is for each size of memory, made by one thread when it is first needed.
* ``UnderWay``: the messages that are under way, until the backend is closed.
* Replies that come by storage, as ``carrier`` says: with ``reply`` those of messages that took long, for an answer may
  be lost with its connection; with ``event`` all of them. ``worker.outbox`` knows the places that workers are told.

Any backend may use them, the last ones if it is given an ``Inbox``.
"""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from lithops_mini.compute.base import Activation
from lithops_mini.compute.inbox import Awaited, Expected, Inbox
from lithops_mini.errors import ConfigError, InvocationError, Reason

LATE = 30.0
"""Seconds for which a reply may be late, when the time of its message is over."""
STARTS = 15.0
"""Seconds a message may need besides the time of its calls: to start a worker, and to answer."""
STORED_AFTER = 5.0
"""Seconds after which a worker stores its reply too: so much work is worth a request to storage."""

There = TypeVar("There")
Told = dict[str, Any]
"""What a worker answers to a message."""


class Sizes(Generic[There]):
    """What there is for each size of memory. May be used from several threads."""

    def __init__(self, make: Callable[[int], There]) -> None:
        """``make(memory)`` sees that there is what runs calls with so many MiB; ``ConfigError`` if there cannot be."""
        self._make = make
        self._lock = threading.Lock()
        self._making: dict[int, threading.Lock] = {}
        self.there: Mapping[int, There] = {}  # what is ready, by MiB

    def ready(self, memory: int) -> There:
        """What there is with so many MiB, made by one thread if it is missing, while others wait. ``ConfigError``."""
        if (found := self.there.get(memory)) is not None:
            return found
        with self._lock:
            making = self._making.setdefault(memory, threading.Lock())
        with making:
            if (found := self.there.get(memory)) is None:
                found = self._make(memory)
                with self._lock:
                    self.there = {**self.there, memory: found}
        return found

    def ready_for_message(self, memory: int) -> There:
        """The same, for a message that is to be sent. Raises ``InvocationError``."""
        try:
            return self.ready(memory)
        except ConfigError as error:
            raise InvocationError(str(error), reason=Reason.REFUSED) from error

    def forget(self, gone: There) -> None:
        """It is not there any more: who needs it makes it again."""
        with self._lock:
            self.there = {memory: each for memory, each in self.there.items() if each != gone}


class UnderWay:
    """Counts the messages of a backend, until it is closed."""

    def __init__(self, name: str) -> None:
        """``name``: of the backend."""
        self._name = name
        self._lock = threading.Lock()
        self._count = 0
        self.closed = threading.Event()

    @contextmanager
    def one(
        self, errors: tuple[type[Exception], ...], translated: Callable[[Exception], InvocationError]
    ) -> Iterator[None]:
        """A message, which is under way within the ``with`` block; the platform's ``errors`` there become ours."""
        with self._lock:
            if self.closed.is_set():
                raise self.was_closed()
            self._count += 1
        try:
            yield
        except errors as error:
            if self.closed.is_set():
                raise self.was_closed() from error
            raise translated(error) from error
        finally:
            with self._lock:
                self._count -= 1

    def close(self) -> int:
        """Send no more; how many are left under way, the first time."""
        with self._lock:
            left = 0 if self.closed.is_set() else self._count
            self.closed.set()
        return left

    def was_closed(self) -> InvocationError:
        return InvocationError(f"the {self._name} backend was closed", reason=Reason.CANCELLED)


def opened(told: Told) -> bytes:
    """The reply that a worker has answered. Raises ``InvocationError`` for what it has refused."""
    if refused := told.get("refused"):
        raise InvocationError(refused["text"], reason=Reason(refused["reason"]), retryable=refused["retryable"])
    return b64decode(told["reply"])


def allowed(activation: Activation, most: float) -> float:
    """Seconds that a message may take once it has begun, where the platform permits so many at ``most``.

    A worker starts no further call of a message that has taken long, so one call's time is what counts.
    """
    return most if activation.timeout is None else min(most, activation.timeout + STARTS)


def late_place(inbox: Inbox, expected: Expected) -> dict[str, Any]:
    """Where a worker puts the reply to a message that takes long, besides answering."""
    return {**inbox.place, "key": expected.key, "secret": expected.secret.hex(), "after": STORED_AFTER}


def event_place(inbox: Inbox, expected: Expected) -> dict[str, Any]:
    """Where a worker puts the reply to a message that nobody waits with, unless meanwhile nobody wants it."""
    place = {**inbox.place, "key": expected.key, "secret": expected.secret.hex()}
    return {**place, "sent": time.time(), "closed": inbox.closed_key}


def answered(ask: Callable[[], Told], awaited: Awaited, most: float, is_lost: Callable[[Exception], bool]) -> Told:
    """What ``ask()`` returns; or what the worker has stored, if the answer is lost.

    ``most``: seconds that the message may take; ``is_lost(error)``: whether it went out, and no answer came back.
    """
    began = time.monotonic()
    try:
        told = ask()
    except Exception as error:
        if not is_lost(error):
            raise
        now = time.monotonic()
        ran = now - began
        # What has run for long will be stored when it ends. What has not may just have ended.
        stored = awaited.wait(began + most + LATE if ran > STORED_AFTER else now + max(1.0, ran))
        if stored is None:
            raise
        return dict(json.loads(stored))
    if time.monotonic() - began > STORED_AFTER:
        awaited.drop()
    return told
