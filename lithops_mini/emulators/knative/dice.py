"""Which of the faults that were asked for come now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lithops_mini.emulators import faults
from lithops_mini.emulators.knative.settings import Faults
from lithops_mini.errors import ConfigError


class Dice(faults.Dice[Faults]):
    """Throws the dice of the local Knative, and counts what is to come for certain."""

    def set(self, faults: Faults) -> None:
        super().set(faults)
        self._certain: Counter[str] = Counter()

    def order(self, counts: Mapping[str, Any]) -> dict[str, int]:
        """Let some faults come the next so many times, and return all that are to come.

        ``ConfigError`` for what is no share, or no count.
        """
        shares = [each.name for each in fields(self.faults) if "le" in each.metadata]
        for name, count in counts.items():
            if name not in shares:
                raise ConfigError(f"there is no {name!r}; there are {', '.join(shares)}")
            if not isinstance(count, int) or count < 0:
                raise ConfigError(f"{name} is {count!r}, and must be a whole number not below 0")
        with self._lock:
            self._certain.update(dict(counts))
            return dict(+self._certain)

    def falls(self, name: str) -> bool:
        with self._lock:
            if self._certain[name] > 0:
                self._certain[name] -= 1
                return True
        return super().falls(name)
