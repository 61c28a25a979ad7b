"""How many invocations a namespace may begin in a minute, and have at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter

from lithops_mini.emulators.openwhisk.faults import Dice
from lithops_mini.emulators.openwhisk.refusals import Refused
from lithops_mini.emulators.openwhisk.settings import Limits


class Throttles:
    """Counts invocations."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._lock = threading.Lock()
        self._minute = 0
        self._begun: Counter[str] = Counter()  # in this minute of the clock
        self._running: Counter[str] = Counter()
        self.refused = 0

    def admit(self, namespace: str, limits: Limits) -> None:
        """Count an invocation, until ``release``. ``Refused`` if it is one too many; in the minute it counts still."""
        with self._lock:
            minute = int(time.time() // 60)
            if minute != self._minute:
                self._minute = minute
                self._begun.clear()
            self._begun[namespace] += 1
            begun, running = self._begun[namespace], self._running[namespace]
            if self._dice.falls("throttle_rate"):
                begun = max(begun, limits.per_minute + 1)
            if self._dice.falls("throttle_concurrency"):
                running = max(running, limits.concurrent)
            self._check("requests in the last minute", begun, limits.per_minute, begun <= limits.per_minute)
            self._check("concurrent requests in flight", running, limits.concurrent, running < limits.concurrent)
            self._running[namespace] += 1

    def release(self, namespace: str) -> None:
        """An invocation has ended, or was refused for another reason."""
        with self._lock:
            self._running[namespace] -= 1

    def running(self) -> int:
        """Invocations of all namespaces at this moment."""
        with self._lock:
            return self._running.total()

    def _check(self, what: str, count: int, allowed: int, fine: bool) -> None:
        if not fine:
            self.refused += 1
            raise Refused(429, f"Too many {what} (count: {count}, allowed: {allowed}).")
