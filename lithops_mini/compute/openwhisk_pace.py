"""When to send again after an OpenWhisk has refused an activation as one too many in a minute."""

from __future__ import annotations

import threading
import time

# Seconds to the next try after a refusal, twice as many after each further one. Nobody tells when a minute of the
# service begins, and those that are refused cost nothing in the next one.
_LEAST, _MOST = 0.2, 5.0
# Seconds in which a refusal would have come.
_QUICK = 1.0
# Seconds of nothing but refusals: this is not only the end of a minute.
_PATIENCE = 240.0


class Pace:
    """Holds back what would be refused: once one was, one at a time tries, and all go on when one has passed.

    All threads that send share it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wait = 0.0  # seconds after the last refusal; 0 where all may go
        self._refused = self._since = 0.0  # monotonic: the last refusal, and the first since one has passed
        self._open = 0.0  # monotonic: when the next may try
        self._trying = False
        self._ended = False
        self._held = 0

    @property
    def held(self) -> int:
        """How many are held back."""
        return self._held

    def begin(self) -> float | None:
        """Return as soon as one may be sent: when that is, by the monotonic clock; ``None`` after the end."""
        with self._changed:
            self._held += 1
            try:
                while self._wait and not self._ended and (left := self._open - time.monotonic()) > 0:
                    self._changed.wait(left)
            finally:
                self._held -= 1
            if self._ended:
                return None
            if self._wait:
                if self._trying:  # whoever has tried was not refused
                    self._go_on()
                else:
                    self._trying = True
                    self._open = time.monotonic() + _QUICK
            return time.monotonic()

    def passed(self, began: float) -> None:
        """What was sent at this time has passed."""
        with self._changed:
            if began >= self._refused:
                self._go_on()

    def refused(self, began: float) -> bool:
        """What was sent at this time was refused; whether to try again."""
        with self._changed:
            now = time.monotonic()
            if not self._wait:
                self._since = now
            if began >= self._refused:  # not one of those that were under way when the first was refused
                self._wait = min(_MOST, max(_LEAST, 2 * self._wait))
                self._refused, self._open, self._trying = now, now + self._wait, False
            return now - self._since < _PATIENCE

    def end(self) -> None:
        """Hold nobody back any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _go_on(self) -> None:
        self._wait, self._trying = 0.0, False
        self._changed.notify_all()
