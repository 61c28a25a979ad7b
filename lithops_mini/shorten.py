"""Values of any size and kind as a few characters of text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

_ITEMS = 6  # of a container that are shown
_DEPTH = 3  # of containers in containers


def short_repr(value: object, limit: int = 120) -> str:
    """Return what ``value`` looks like in at most ``limit`` characters (20 or more), on one line.

    Cheap however large the value is: only the beginnings of strings and containers are looked at, arrays and tables are
    described by their shape. Never raises: a ``__repr__`` that does leaves the type's name.
    """
    return shorten(_repr(value, _DEPTH, limit), limit)


def printable(text: str, keep: str = "") -> str:
    """Return text from anywhere without characters that steer what shows it: those that cannot be printed, those that
    turn its direction among them, are escaped, but for those to ``keep``.
    """
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


def shorten(text: str, limit: int) -> str:
    """Return ``text`` with its middle cut out if it is longer than ``limit``: both ends say what it is."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def _repr(value: Any, depth: int, limit: int) -> str:
    try:
        return _known(value, depth, limit) or _own(value)
    except Exception as error:  # noqa: BLE001 - any code may run in there, and it is not the error this text is about
        return f"<{type(value).__name__}, its repr raises {type(error).__name__}>"


def _known(value: Any, depth: int, limit: int) -> str:
    """What needs no ``__repr__``, since that would be long; empty for everything else."""
    kind = type(value)
    if isinstance(value, str | bytes | bytearray):
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[:limit]!r}… ({len(value):,} {unit})" if len(value) > limit else ""
    if isinstance(value, int):
        return f"<{kind.__name__} of {value.bit_length():,} bits>" if value.bit_length() > 1024 else ""
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _container(value, depth, limit)
    if _is_table(value):
        element = f", {value.dtype}" if hasattr(value, "dtype") else ""
        return f"<{kind.__name__} of shape {tuple(value.shape)}{element}>"
    if hasattr(kind, "__dataclass_fields__") and hasattr(
        kind.__repr__, "__wrapped__"
    ):  # not a __repr__ of its author's
        fields = (field for field in kind.__dataclass_fields__.values() if field.repr)
        pairs = (f"{field.name}={_repr(getattr(value, field.name), depth - 1, limit)}" for field in fields)
        return f"{kind.__name__}({_items(pairs, len(kind.__dataclass_fields__)) if depth else '…'})"
    if hasattr(kind, "__len__") and kind is not range and len(value) > 1000:
        return f"<{kind.__name__} of {len(value):,} items>"
    return ""


def _own(value: Any) -> str:
    """The value's own ``__repr__`` on one line, without addresses, which mean nothing to a reader."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))


def _is_table(value: Any) -> bool:
    """A numpy array, a pandas or polars table, a tensor; small plain arrays say more themselves."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple):
        return False
    if hasattr(value, "columns") or hasattr(value, "index"):
        return True
    return len(shape) > 1 or str(getattr(value, "dtype", "")) == "object" or any(length > 8 for length in shape)


def _container(value: Any, depth: int, limit: int) -> str:
    kind = type(value)
    parts: Iterable[str]
    if isinstance(value, dict):
        brackets = "{}"
        parts = (f"{_repr(key, depth - 1, limit)}: {_repr(item, depth - 1, limit)}" for key, item in value.items())
    else:
        brackets = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        parts = (_repr(item, depth - 1, limit) for item in value)
    named = isinstance(value, tuple) and hasattr(kind, "_fields")
    if named:
        parts = (f"{name}={part}" for name, part in zip(kind._fields, parts, strict=False))
    inner = _items(parts, len(value)) if depth else "…" if value else ""
    if kind is tuple and len(value) == 1:
        inner += ","
    text = f"{brackets[0]}{inner}{brackets[1]}"
    if kind in (dict, list, tuple) or (kind is set and value):
        return text
    return f"{kind.__name__}{text}" if named else f"{kind.__name__}({text if value else ''})"


def _items(parts: Iterable[str], count: int) -> str:
    """Join the first of ``count`` parts, without making the others."""
    shown = ", ".join(islice(parts, _ITEMS))
    return f"{shown}, … ({count:,} in all)" if count > _ITEMS else shown
