"""Numbers of an emulator: what may be used, and what goes wrong. Set by flags and, later, by requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MOST = 1e9  # seconds: a wait for as long as one can say comes to nothing but an error


def share(text: str) -> Any:
    """A field between 0 and 1."""
    return field(default=0.0, metadata={"help": text, "le": 1.0})


@dataclass(frozen=True)
class Faults:
    """What goes wrong in every emulator. ``ConfigError`` for what is out of range."""

    cold_start: float = field(default=0.0, metadata={"help": "Seconds by which each cold start takes longer."})
    crash: float = share(
        "Share of the invocations whose sandbox is killed: half with the event, half with the response."
    )
    seed: int = field(default=0, metadata={"help": "Of the dice."})

    def __post_init__(self) -> None:
        check_numbers(self)


def check_numbers(settings: Any) -> None:
    """``ConfigError`` if a field of a dataclass of numbers is not of its type, or out of its range.

    The range is from ``ge``, or 0, to ``le``, or for seconds and the like a thousand million. ``up_to`` is the name of
    another field that it must not be above.
    """
    for each in fields(settings):
        value = getattr(settings, each.name)
        whole = isinstance(each.default, int)
        least = each.metadata.get("ge", 0)
        most = each.metadata.get("le", math.inf if whole else _MOST)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            allowed = f"between {least:g} and {most:g}" if most < math.inf else f"not below {least:g}"
            raise ConfigError(f"{each.name} is {value!r}, and must be {kind} {allowed}")
    for each in fields(settings):
        if (other := each.metadata.get("up_to")) and getattr(settings, each.name) > getattr(settings, other):
            least, most = getattr(settings, each.name), getattr(settings, other)
            raise ConfigError(f"{each.name} is {least!r}, and must not be above {other}, which is {most!r}")


Numbers = TypeVar("Numbers", bound="DataclassInstance")


def change(settings: Numbers, changes: Mapping[str, Any]) -> Numbers:
    """The settings with some fields changed. ``ConfigError`` for a name that is none of them."""
    known = [each.name for each in fields(settings)]
    if unknown := sorted(set(changes) - set(known)):
        raise ConfigError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    return replace(settings, **changes)
