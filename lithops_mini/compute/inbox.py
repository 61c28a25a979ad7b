"""Replies that come by storage: each has a key of its own, and one thread looks for all that are waited for.

A reply is deleted once it was read, so a listing shows only what is new.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from lithops_mini import records, wire
from lithops_mini.errors import IntegrityError, InvocationError, NoSuchObject, Reason, StorageError
from lithops_mini.storage.base import StorageBackend

logger = logging.getLogger("lithops_mini.inbox")

# Seconds between two looks: a share of the time in which nothing has come, but neither less nor more than these.
_LEAST, _SHARE, _MOST = 0.1, 0.1, 5.0
_DELETED = 1000  # keys at a time
_KEY_SIZE = 32  # bytes
# Seconds after which no key comes any more that is smaller than one that has been there.
_ORDERED = 60.0

ReadLoss = Callable[[bytes], tuple[str, InvocationError] | None]


class Looks(NamedTuple):
    """How often an inbox was looked into."""

    number: int = 0
    requests: int = 0  # to list what is there
    seconds: float = 0.0  # that they took

    def since(self, earlier: Looks) -> Looks:
        """Those that are not among the ``earlier`` ones."""
        return Looks(self.number - earlier.number, self.requests - earlier.requests, self.seconds - earlier.seconds)


def pause(quiet: float) -> float:
    """Seconds until the next look, if nothing was sent and nothing has come for so many."""
    return min(_MOST, max(_LEAST, _SHARE * quiet))


class Inbox:
    """The replies to the messages of one executor that come by storage."""

    def __init__(self, name: str, storage: StorageBackend, bucket: str, executor_id: str) -> None:
        """``name``: of the storage backend."""
        self._name = name
        self._storage = storage
        self._bucket = bucket
        self._executor_id = executor_id
        self._prefix = records.inbox_prefix(executor_id)
        self.looks = Looks()
        self._condition = threading.Condition()
        self._expected: dict[str, Expected] = {}
        self._waiting = 0  # of the expected ones, those that are waited for
        self._read: list[str] = []  # keys to delete
        self._quiet_since = 0.0  # monotonic: when something was last sent, or has come
        self._number = 0
        self._losses: list[_Losses] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def bucket(self) -> str:
        return self._bucket

    @property
    def place(self) -> dict[str, Any]:
        """What a worker must know to put replies here: ``storage``, its ``options``, the ``bucket``."""
        return {"storage": self._name, "options": self._storage.worker_options(), "bucket": self._bucket}

    @property
    def closed_key(self) -> str:
        """An object that is there once nobody waits any more: what has not begun need not begin."""
        return records.inbox_closed_key(self._executor_id)

    def watch_losses(self, prefix: str, read: ReadLoss) -> None:
        """Have objects read that come to lie below ``prefix``: there platforms tell of messages that came to nothing.

        ``read(object)`` returns the key of the reply that will not come and why, or ``None`` for what is no record.
        Others may have theirs there: what is not ours is left. Raises ``StorageError``.
        """
        losses = _Losses(prefix, read, {info.key for info in self._storage.list(self._bucket, prefix)})
        with self._condition:
            self._losses.append(losses)

    def expect(self) -> Expected:
        """A reply that is to come, with a key for it. Use it as a context manager: at the end nobody expects it."""
        with self._condition:
            self._number += 1
            expected = Expected(self, f"{self._prefix}{self._number:08d}")
            self._expected[expected.key] = expected
            self._quiet_since = time.monotonic()
        return expected

    def close(self) -> None:
        """Nobody is to wait any more. May be called again."""
        with self._condition:
            self._closed = True
            for expected in self._expected.values():
                expected.tell(InvocationError("the executor was closed", reason=Reason.CANCELLED))
            self._condition.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            try:  # there may be second deliveries, even when nobody waits
                self._storage.put(self._bucket, self.closed_key, b"")
            except StorageError as error:
                logger.warning("messages that have not begun may still run: nobody could be told not to: %s", error)
            thread.join()
        self._delete_read()

    # -- for Expected

    def wait(self, expected: Expected, until: float) -> None:
        """Return when something is known of it. Raises ``InvocationError``."""
        with self._condition:
            known = expected.watch()
            self._waiting += 1
            self._quiet_since = max(self._quiet_since, time.monotonic() - 1)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._look_forever, name="lithops_mini-inbox", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        try:
            known.wait(until - time.monotonic())
        finally:
            with self._condition:
                self._waiting -= 1

    def take(self, expected: Expected) -> bytes:
        """The bytes of a reply that is there. Raises ``InvocationError`` if they cannot be had."""
        try:
            data = self._storage.get(self._bucket, expected.key)
            return bytes(wire.verify(expected.secret, expected.key, data))
        except (StorageError, IntegrityError) as error:
            raise InvocationError(f"the reply could not be read: {error}", retryable=True) from error

    def forget(self, expected: Expected) -> None:
        with self._condition:
            self._expected.pop(expected.key, None)
            if expected.there:
                self._read.append(expected.key)

    # -- the thread that looks

    def _look_forever(self) -> None:
        while True:
            with self._condition:
                while not self._closed and not self._waiting:
                    self._condition.wait()
                if self._condition.wait_for(lambda: self._closed, pause(time.monotonic() - self._quiet_since)):
                    return
            began = time.monotonic()
            number, requests, seconds = self.looks
            self.looks = Looks(number + 1, requests + 1 + len(self._losses), seconds)
            self._delete_read()
            try:
                self._look()
            except StorageError as error:
                # Whoever waits does so up to a time of its own.
                logger.warning("replies cannot be looked for: %s", error)
            self.looks = self.looks._replace(seconds=seconds + time.monotonic() - began)

    def _delete_read(self) -> None:
        with self._condition:
            read, self._read = self._read, []
        try:
            for start in range(0, len(read), _DELETED):
                self._storage.delete(self._bucket, read[start : start + _DELETED])
        except StorageError as error:
            logger.warning("replies that were read stay in the bucket %r: %s", self._bucket, error)

    def _look(self) -> None:
        unwanted = []
        for info in self._storage.list(self._bucket, self._prefix):
            with self._condition:
                expected = self._expected.get(info.key)
                if expected is not None and not expected.there:
                    expected.there = True
                    if expected.known is not None:
                        expected.known.set()
                    self._quiet_since = time.monotonic()
            if expected is None and info.key != self.closed_key:  # a second delivery, or one that came too late
                unwanted.append(info.key)
        with self._condition:
            self._read = sorted({*self._read, *unwanted})
            losses = list(self._losses)
        for each in losses:
            self._look_for_losses(each)

    def _look_for_losses(self, losses: _Losses) -> None:
        for info in self._storage.list(self._bucket, losses.prefix, after=losses.after()):
            if info.key in losses.seen:
                continue
            losses.seen.add(info.key)
            try:
                found = losses.read(self._storage.get(self._bucket, info.key))
            except NoSuchObject:  # its owner has read it
                continue
            if found is None or not found[0].startswith(self._prefix):
                continue
            key, error = found
            with self._condition:
                self._read.append(info.key)
                self._quiet_since = time.monotonic()
                if (expected := self._expected.get(key)) is not None:
                    expected.tell(error)


@dataclass
class _Losses:
    """Where a platform tells of lost messages, under keys that are in the order of time, if not to the second."""

    prefix: str
    read: ReadLoss
    seen: set[str]
    _newest: deque[tuple[float, str]] = field(default_factory=deque)  # at each of the last looks

    def after(self) -> str:
        """The key after which new ones may come."""
        now = time.monotonic()
        self._newest.append((now, max(self.seen, default="")))
        while len(self._newest) > 1 and self._newest[1][0] < now - _ORDERED:
            self._newest.popleft()
        at, key = self._newest[0]
        if at >= now - _ORDERED:
            return ""
        self.seen = {each for each in self.seen if each >= key}
        return key


class Awaited:
    """A reply that is to come, and what becomes known of it."""

    def __init__(self) -> None:
        self.known: threading.Event | None = None  # made when somebody waits: few ever do
        self.there = False
        self._woken = False
        self._error: InvocationError | None = None

    def watch(self) -> threading.Event:
        """For who waits: set when something is known of it."""
        self.known = known = threading.Event()
        if self.there or self._woken or self._error is not None:
            known.set()
        return known

    def tell(self, error: InvocationError) -> None:
        """It will not come."""
        self._error = self._error or error
        self._wake()

    def wake(self) -> None:
        """Nobody need wait for it any more: what has become of it can be found out."""
        self._woken = True
        self._wake()

    def wait(self, until: float) -> bytes | None:
        """The reply; ``None`` if it is not there at the time ``until``, of the monotonic clock, or nobody need wait.

        Raises ``InvocationError`` if it will not come.
        """
        self.watch().wait(until - time.monotonic())
        if self._error is not None:
            raise self._error
        return None

    def find(self) -> bytes | None:
        """The reply, if it is there although nobody has seen it: for who was woken."""
        return None

    def drop(self) -> None:
        """It came by another way too."""

    def _wake(self) -> None:
        if self.known is not None:
            self.known.set()


class Expected(Awaited):
    """A reply that is to come under ``key``, signed with ``secret``."""

    def __init__(self, inbox: Inbox, key: str) -> None:
        super().__init__()
        self.key = key
        self.secret = os.urandom(_KEY_SIZE)
        self._inbox = inbox

    def wait(self, until: float) -> bytes | None:
        self._inbox.wait(self, until)
        if self.there:
            return self._inbox.take(self)
        if self._error is not None:
            raise self._error
        return None

    def find(self) -> bytes | None:
        try:
            reply = self._inbox.take(self)
        except InvocationError as error:
            logger.info("%s", error)
            return None
        self.there = True
        return reply

    def drop(self) -> None:
        """It came by another way too: what is in storage is to be deleted."""
        self.there = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inbox.forget(self)
