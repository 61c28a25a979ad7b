"""When to send again after a service has refused a message as one too many in its second, minute or hour."""

from __future__ import annotations

import time

# Seconds to the next try after a refusal, twice as many after each further one. Nobody tells when a minute of the
# service begins, and what is refused costs nothing in the next one.
_LEAST, _MOST = 0.2, 10.0
# Seconds in which a refusal would have come.
_QUICK = 1.0


class Pace:
    """After a refusal messages try one at a time; all go on when one has passed. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._wait = 0.0  # seconds after the last refusal; 0 where all may go
        self._refused = 0.0  # when that was
        self._open = 0.0  # when the next may try
        self._trying = False

    def left(self) -> float:
        """Seconds until a message may be sent."""
        return max(0.0, self._open - time.monotonic()) if self._wait else 0.0

    def sent(self) -> None:
        """A message is sent now."""
        if self._trying:  # whoever has tried was not refused
            self._go_on()
        elif self._wait:
            self._trying = True
            self._open = time.monotonic() + _QUICK

    def passed(self, began: float) -> None:
        """What was sent at this time was taken."""
        if began >= self._refused:
            self._go_on()

    def refused(self, began: float) -> None:
        """What was sent at this time was refused."""
        if began >= self._refused:  # not one of those that were under way when the first was refused
            self._wait = min(_MOST, max(_LEAST, 2 * self._wait))
            self._refused, self._trying = time.monotonic(), False
            self._open = self._refused + self._wait

    def _go_on(self) -> None:
        self._wait, self._trying = 0.0, False
