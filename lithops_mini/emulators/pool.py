"""Sandboxes that wait to be used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

_ENDING = 8  # sandboxes that are ended at a time, in the end
_LOOK = 1.0  # seconds between looks for sandboxes that nobody needs


class Kept(Protocol):
    """A sandbox, as a pool sees it."""

    last_used: float  # monotonic
    ended: threading.Event

    def kill(self) -> None:
        """End it and remove what belongs to it; also twice."""


Sandbox = TypeVar("Sandbox", bound=Kept)
Code = TypeVar("Code")
Key = TypeVar("Key", bound=Hashable)


class Pool(Generic[Key, Code, Sandbox]):
    """Sandboxes by a key of the code that they run. ``close`` ends every one."""

    def __init__(
        self,
        make: Callable[[Code], Sandbox],
        there: Callable[[Key], bool],
        idle: Callable[[], float],
        refusal: Callable[[], Exception],
    ) -> None:
        """``there``: whether the code of a key is there, unchanged; ``idle``: seconds that a sandbox may wait.

        ``refusal``: makes what is raised when a sandbox is asked for after the end.
        """
        self._make = make
        self._there = there
        self._idle = idle
        self._refusal = refusal
        self._lock = threading.Condition()  # notified when a sandbox has been made
        self._making = 0
        self._waiting: dict[Key, list[Sandbox]] = {}
        self._sandboxes: set[Sandbox] = set()
        self.closed = threading.Event()
        self._remover = threading.Thread(target=self._remove_unused, name="idle-sandboxes", daemon=True)
        self._remover.start()

    def take(self, key: Key) -> Sandbox | None:
        """One that has run the code before, if there is any."""
        while True:
            with self._lock:
                waiting = self._waiting.get(key)
                if not waiting:
                    return None
                sandbox = waiting.pop()
            if not sandbox.ended.is_set():
                return sandbox
            self.remove(sandbox)  # it has died in its sleep

    def make(self, code: Code) -> Sandbox:
        """A new one. Raises what making it does."""
        with self._lock:
            if self.closed.is_set():
                raise self._refusal()
            self._making += 1
        sandbox = None
        try:
            sandbox = self._make(code)
            return sandbox
        finally:
            with self._lock:
                self._making -= 1
                if sandbox is not None:
                    self._sandboxes.add(sandbox)
                self._lock.notify_all()

    def give(self, key: Key, sandbox: Sandbox) -> None:
        """It may be used again."""
        sandbox.last_used = time.monotonic()
        with self._lock:
            self._waiting.setdefault(key, []).append(sandbox)

    def remove(self, sandbox: Sandbox) -> None:
        sandbox.kill()
        with self._lock:
            self._sandboxes.discard(sandbox)

    def close(self) -> None:
        self.closed.set()
        self._remover.join()
        with self._lock:
            self._lock.wait_for(lambda: not self._making)
            sandboxes = list(self._sandboxes)
        with ThreadPoolExecutor(_ENDING) as executor:
            list(executor.map(self.remove, sandboxes))

    def __len__(self) -> int:
        return len(self._sandboxes)

    def _remove_unused(self) -> None:
        while not self.closed.wait(_LOOK):
            oldest = time.monotonic() - self._idle()
            unused = []
            with self._lock:
                for key, waiting in list(self._waiting.items()):
                    gone = [each for each in waiting if each.last_used < oldest or not self._there(key)]
                    self._waiting[key] = [each for each in waiting if each not in gone]
                    if not self._waiting[key]:
                        del self._waiting[key]
                    unused += gone
            for sandbox in unused:
                self.remove(sandbox)
