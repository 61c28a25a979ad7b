"""Where records begin, seen from the middle of a source."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from lithops_mini.errors import StorageError

_LOOKBACK = 4096  # bytes before a partition that are read for the beginning of a run of overlapping delimiters
_FIRST_WINDOW = 64 << 10  # bytes read further back at first; then twice as many, ...
_LARGEST_WINDOW = 16 << 20
_LARGEST_PIECE = 1 << 20  # bytes split at a time


class Readable(Protocol):
    """What a storage backend's open() returns, as far as it is used here."""

    def readinto(self, buffer: Any, /) -> int | None: ...
    def close(self) -> None: ...


OpenRange = Callable[[int, int | None], Readable]
"""Opens bytes ``[start, stop)`` of the source; ``None``: to its end."""


class Delimiter:
    """Where records begin, seen from the middle of the source.

    An occurrence of a delimiter that cannot overlap itself always ends a record. Of occurrences that do overlap
    (``aa`` in ``aaaaa``) only every other may, depending on where their run begins, so that has to be looked for.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        size = len(text)
        shifts = [n for n in range(1, size) if text.endswith(text[: size - n])]
        self._runs: re.Pattern[bytes] | None = None
        if shifts:  # a run: an occurrence, then the ends of occurrences that overlap the one before
            tails = b"|".join(re.escape(text[size - n :]) for n in shifts)
            self._runs = re.compile(re.escape(text) + b"(?:" + tails + b")*+")
        self.lookback = max(_LOOKBACK, 4 * size) if shifts else size

    def rest(self, data: bytes) -> bytes:
        """Split ``data``, which begins where a delimiter may, and return the end of what follows the last delimiter.

        At most a delimiter's length of it is returned: enough to find a delimiter that ends later. Empty: a record
        begins at the end of ``data``.
        """
        return data.split(self.text)[-1][-len(self.text) :]

    def rest_at(self, position: int, known: bytes, floor: int, open_range: OpenRange) -> bytes:
        """What ``rest`` gives at ``position`` of the source, of which the bytes just before it are ``known``.

        ``floor`` is a record start at or before ``known``, which is at least ``lookback`` long or begins at ``floor``.
        """
        if not self._runs:
            return self.rest(known[-len(self.text) :])
        low = position - len(known)
        start = self._clear_position(self._runs, position, known, floor, open_range)
        if start >= low:
            return self.rest(known[start - low :])
        rest = b""
        while start < position:
            stop = min(position, start + _LARGEST_PIECE)
            rest = self.rest(rest + read_range(open_range, start, stop))
            start = stop
        return rest

    def _clear_position(
        self, runs: re.Pattern[bytes], position: int, known: bytes, floor: int, open_range: OpenRange
    ) -> int:
        """The last place, a delimiter's length before ``position`` or earlier, that no occurrence lies across.

        No record end depends on what is before such a place. Reads back from ``known`` while a run covers it all.
        """
        size = len(self.text)
        candidate, low, data, window = position - size, position - len(known), known, _FIRST_WINDOW + 2 * size
        while candidate > floor:
            across = (m.start() for m in runs.finditer(data) if low + m.start() < candidate < low + m.end())
            offset = next(across, None)
            if offset is None:
                return candidate
            candidate = low + offset
            if low == floor or offset >= size - 1:  # the run begins here: data shows that nothing lies across it
                return candidate
            low = max(floor, candidate - window)
            data = read_range(open_range, low, candidate + size - 1)
            window = max(window, min(2 * window, _LARGEST_WINDOW))
        return floor


def read_range(open_range: OpenRange, start: int, stop: int) -> bytes:
    """Return exactly the bytes ``[start, stop)``."""
    stream = open_range(start, stop)
    try:
        return read_exactly(stream, stop - start)
    finally:
        stream.close()


def read_exactly(stream: Readable, size: int) -> bytes:
    """Return ``size`` bytes; ``StorageError`` if the stream ends before."""
    data = bytearray(size)
    with memoryview(data) as view:
        filled = 0
        while filled < size:
            count = stream.readinto(view[filled:])
            if not count:
                raise StorageError(f"a stream ended {size - filled} bytes before its time")
            filled += count
    return bytes(data)
