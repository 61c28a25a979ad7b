"""Numbers of an emulator: what may be used, and what goes wrong. Set by flags and, later, by requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
    """``ConfigError`` if a field of a dataclass of numbers is below 0, above its ``le``, or not of its type."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        kinds = (int,) if isinstance(each.default, int) else (int, float)
        limit = each.metadata.get("le", float("inf"))
        if not isinstance(value, kinds) or isinstance(value, bool) or not 0 <= value <= limit:
            kind = "a whole number" if kinds == (int,) else "a number"
            most = f"between 0 and {limit:g}" if "le" in each.metadata else "not below 0"
            raise ConfigError(f"{each.name} is {value!r}, and must be {kind} {most}")


Numbers = TypeVar("Numbers", bound="DataclassInstance")


def change(settings: Numbers, changes: Mapping[str, Any]) -> Numbers:
    """The settings with some fields changed. ``ConfigError`` for a name that is none of them."""
    known = [each.name for each in fields(settings)]
    if unknown := sorted(set(changes) - set(known)):
        raise ConfigError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    return replace(settings, **changes)
