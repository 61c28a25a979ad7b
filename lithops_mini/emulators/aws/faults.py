"""Which of the faults that were asked for come now."""

from __future__ import annotations

from lithops_mini.emulators import faults
from lithops_mini.emulators.aws.settings import Faults


class Dice(faults.Dice[Faults]):
    """Throws the dice of the local AWS."""

    def copies(self) -> int:
        """How many times an event is delivered."""
        if self.falls("lose"):
            return 0
        return 2 if self.falls("duplicate") else 1
