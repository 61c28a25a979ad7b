"""Sandboxes that wait to be used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lithops_mini.emulators.openwhisk.entities import Action
from lithops_mini.emulators.openwhisk.sandbox import NoSandbox, Sandbox

_ENDING = 8  # sandboxes that are ended at a time, in the end
_LOOK = 1.0  # seconds between looks for sandboxes that nobody needs


class Pool:
    """Sandboxes by the revision of their action. ``close`` ends every one.

    ``there``: whether the action of a revision is there, unchanged; ``idle``: seconds that a sandbox may wait.
    """

    def __init__(
        self, make: Callable[[Action], Sandbox], there: Callable[[int], bool], idle: Callable[[], float]
    ) -> None:
        self._make = make
        self._there = there
        self._idle = idle
        self._lock = threading.Condition()  # notified when a sandbox has been made
        self._making = 0
        self._waiting: dict[int, list[Sandbox]] = {}
        self._sandboxes: set[Sandbox] = set()
        self.closed = threading.Event()
        self._remover = threading.Thread(target=self._remove_unused, name="idle-sandboxes", daemon=True)
        self._remover.start()

    def take(self, action: Action) -> Sandbox | None:
        """One that has run the action before, if there is any."""
        while True:
            with self._lock:
                waiting = self._waiting.get(action.revision)
                if not waiting:
                    return None
                sandbox = waiting.pop()
            if not sandbox.ended.is_set():
                return sandbox
            self.remove(sandbox)  # it has died in its sleep

    def make(self, action: Action) -> Sandbox:
        """A new one. ``NoSandbox`` if there can be none."""
        with self._lock:
            if self.closed.is_set():
                raise NoSandbox("Failed to provision resources to run the action.", developer=False)
            self._making += 1
        sandbox = None
        try:
            sandbox = self._make(action)
            return sandbox
        finally:
            with self._lock:
                self._making -= 1
                if sandbox is not None:
                    self._sandboxes.add(sandbox)
                self._lock.notify_all()

    def give(self, sandbox: Sandbox) -> None:
        """It may be used again."""
        sandbox.last_used = time.monotonic()
        with self._lock:
            self._waiting.setdefault(sandbox.action.revision, []).append(sandbox)

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
                for revision, waiting in list(self._waiting.items()):
                    gone = [each for each in waiting if each.last_used < oldest or not self._there(revision)]
                    self._waiting[revision] = [each for each in waiting if each not in gone]
                    if not self._waiting[revision]:
                        del self._waiting[revision]
                    unused += gone
            for sandbox in unused:
                self.remove(sandbox)
