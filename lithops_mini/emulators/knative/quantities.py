"""Amounts and times as Kubernetes writes them."""

from __future__ import annotations

import re
from decimal import Decimal

_POWERS = {name: Decimal(10) ** power for name, power in {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6}.items()}
_POWERS |= {name: Decimal(10) ** power for name, power in {"G": 9, "T": 12, "P": 15, "E": 18}.items()}
_POWERS |= {f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]?))")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def quantity(value: str | int) -> float:
    """The number of ``"512Mi"``, ``"500m"``, ``2``. ``ValueError`` if it is none."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity")
    number, exponent, suffix = match.groups()
    return float(Decimal(number + (exponent or "")) * _POWERS[suffix or ""])


def seconds(text: str) -> float:
    """Those of ``"1m30s"``. ``ValueError`` if it is no duration."""
    parts = re.findall(r"(\d+\.?\d*)(ms|us|ns|h|m|s)", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
