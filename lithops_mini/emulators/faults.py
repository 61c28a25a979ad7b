"""Which of the faults that were asked for come now."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Generic, Literal, TypeVar

from lithops_mini.emulators.settings import Faults, change

Asked = TypeVar("Asked", bound=Faults)


class Dice(Generic[Asked]):
    """Throws the dice of some faults; after the same seed the same throws come."""

    def __init__(self, faults: Asked) -> None:
        self._lock = threading.Lock()
        self.set(faults)

    def set(self, faults: Asked) -> None:
        with self._lock:
            self.faults = faults
            # Each fault has dice of its own: how often one is thrown does not change what another shows.
            self._dice = {each.name: random.Random(f"{faults.seed} {each.name}") for each in fields(faults)}

    def change(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set some of the faults, and return all. ``ConfigError`` for a name that is none."""
        self.set(change(self.faults, changes))
        return asdict(self.faults)

    def falls(self, name: str) -> bool:
        """Whether the fault of this name, a share, comes now."""
        return self._throw(name, getattr(self.faults, name))

    def crash(self) -> Literal["event", "response"] | None:
        """Whether a sandbox is killed now, and when: as it gets the event, or as it gives the response."""
        if not self.falls("crash"):
            return None
        return "event" if self._throw("crash", 0.5) else "response"

    def _throw(self, name: str, share: float) -> bool:
        with self._lock:
            return share > 0 and self._dice[name].random() < share
