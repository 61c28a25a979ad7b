"""The parameters in the URL of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import parse_qsl

from lithops_mini.emulators.openwhisk.refusals import malformed_query

MOST = 200
"""Entities in one answer of a list."""

_DEFAULT = 30
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")

Item = TypeVar("Item")


class Query:
    """``Refused`` from each method for a value that it cannot be."""

    def __init__(self, text: str) -> None:
        self._values = dict(reversed(parse_qsl(text, keep_blank_values=True)))

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() not in _TRUE + _FALSE:
            raise malformed_query(name, f"'{value}' is not a valid Boolean value")
        return value.lower() in _TRUE

    def text(self, name: str) -> str | None:
        """``None`` if it is not there, or blank."""
        return self._values.get(name, "").strip() or None

    def seconds(self, name: str, most: float) -> float:
        """Of a value in milliseconds; ``most`` if there is none."""
        value = self._values.get(name)
        if value is None:
            return most
        if not value.isdecimal() or not 0 < int(value) <= most * 1000:
            raise malformed_query(name, f"Timeout must be number of milliseconds up to {most * 1000:.0f}.")
        return int(value) / 1000

    def moment(self, name: str, default: float) -> float:
        """Milliseconds since 1970."""
        value = self._values.get(name)
        if value is None:
            return default
        if not value.removeprefix("-").isdecimal():
            raise malformed_query(name, f"Parameter is not a valid value for epoch seconds: {value}")
        return int(value)

    def page(self, collection: str, items: Sequence[Item]) -> Sequence[Item]:
        """What ``skip`` and ``limit`` leave."""
        skip = self._whole("skip", collection, 0)
        limit = self._whole("limit", collection, _DEFAULT)
        if skip < 0:
            text = f"The value '{skip}' is not greater than or equal to 0 for {collection}."
            raise malformed_query("skip", text)
        if not 0 <= limit <= MOST:
            raise malformed_query("limit", f"The value '{limit}' is not in the range of 0 to {MOST} for {collection}.")
        return items[skip : skip + (limit or MOST)]

    def count(self, collection: str, items: Sequence[Item]) -> dict[str, int] | None:
        """The answer if they are to be counted only; ``None`` otherwise."""
        if not self.flag("count", False):
            return None
        return {collection: max(len(items) - self._whole("skip", collection, 0), 0)}

    def _whole(self, name: str, collection: str, default: int) -> int:
        value = self._values.get(name)
        try:
            return default if value is None else int(value)
        except ValueError as error:
            text = f"The value '{value}' is not an integer for {collection}."
            raise malformed_query(name, text) from error
