"""Numbers of bytes as people write them."""

from __future__ import annotations

import operator
import re
from fractions import Fraction
from typing import SupportsIndex

from lithops_mini.errors import InputError

_PREFIXES = "kmgtp"


def parse_size(size: SupportsIndex | str) -> int:
    """Return a number of bytes, given as a number or as text: ``"64MiB"``, ``"64 MB"``, ``"64k"``, ``"1.5GiB"``.

    KiB, MiB, GiB, TiB, PiB and the single letters are powers of 1024; kB, MB, GB, TB, PB are powers of 1000. Case does
    not matter. ``InputError`` for anything else, for fractions of a byte, and for what is negative.
    """
    if isinstance(size, str):
        match = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*(?:([{_PREFIXES}])(i?b)?|b)?\s*", size, re.IGNORECASE | re.ASCII)
        if not match:
            raise InputError(f"{size!r} is not a size: write a number of bytes, or for example '64MiB'")
        number, prefix, unit = match.groups()
        base = 1000 if unit and unit.lower() == "b" else 1024
        value = Fraction(number) * (base ** (_PREFIXES.index(prefix.lower()) + 1) if prefix else 1)
        if value.denominator != 1:
            raise InputError(f"{size!r} is not a whole number of bytes")
        return int(value)
    try:
        count = operator.index(size)
    except TypeError:
        raise InputError(f"{size!r} is not a size: write a number of bytes, or for example '64MiB'") from None
    if isinstance(size, bool) or count < 0:
        raise InputError(f"{size!r} is not a size: write a number of bytes, or for example '64MiB'")
    return count


def format_size(size: int) -> str:
    """Write a number of bytes to three or four figures: ``"512 B"``, ``"64 MiB"``, ``"1.5 GiB"``."""
    value, unit = float(size), "B"
    for name in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1023.95:
            break
        value, unit = value / 1024, name
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"
