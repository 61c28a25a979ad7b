"""Which of the faults that were asked for come now."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal

from lithops_mini.emulators.aws.settings import Faults, change


class Dice:
    """Throws the dice of some faults; after the same seed the same throws come."""

    def __init__(self, faults: Faults) -> None:
        self._lock = threading.Lock()
        self.set(faults)

    def set(self, faults: Faults) -> None:
        with self._lock:
            self.faults = faults
            # Each fault has dice of its own: how often one is thrown does not change what another shows.
            self._dice = {each.name: random.Random(f"{faults.seed} {each.name}") for each in fields(faults)}

    def change(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set some of the faults, and return all. ``ConfigError`` for a name that is none."""
        self.set(change(self.faults, changes))
        return asdict(self.faults)

    def crash(self) -> Literal["event", "response"] | None:
        """Whether a sandbox is killed now, and when: as it gets the event, or as it posts the response."""
        if not self._falls("crash", self.faults.crash):
            return None
        return "event" if self._falls("crash", 0.5) else "response"

    def copies(self) -> int:
        """How many times an event is delivered."""
        if self._falls("lose", self.faults.lose):
            return 0
        return 2 if self._falls("duplicate", self.faults.duplicate) else 1

    def _falls(self, name: str, share: float) -> bool:
        with self._lock:
            return share > 0 and self._dice[name].random() < share
