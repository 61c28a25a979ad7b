"""What goes wrong, and how often: set by flags and, while the emulator runs, by its users."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from lithops_mini.errors import ConfigError


def _share(text: str) -> Any:
    return field(default=0.0, metadata={"help": text, "le": 1.0})


@dataclass(frozen=True)
class Faults:
    """Shares are between 0 and 1. ``ConfigError`` for what is out of range."""

    cold_start: float = field(default=0.0, metadata={"help": "Seconds by which each cold start takes longer."})
    crash: float = _share(
        "Share of the invocations whose sandbox is killed: half with the event, half with the response."
    )
    duplicate: float = _share("Share of the asynchronous events that are delivered twice.")
    lose: float = _share("Share of the asynchronous events that are never delivered.")
    seed: int = field(default=0, metadata={"help": "Of the dice."})

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kinds = (int,) if each.name == "seed" else (int, float)
            limit = each.metadata.get("le", float("inf"))
            if not isinstance(value, kinds) or isinstance(value, bool) or not 0 <= value <= limit:
                most = f" and {limit:g}" if limit <= 1 else " and more"
                raise ConfigError(f"the fault {each.name} is {value!r}, and must be a number between 0{most}")


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
        known = {each.name for each in fields(Faults)}
        if unknown := sorted(set(changes) - known):
            raise ConfigError(f"there is no fault {unknown[0]!r}; there are {', '.join(sorted(known))}")
        self.set(replace(self.faults, **changes))
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
