"""The bytes of a partition as a stream: from the first record that begins in it to the end of the last one.

``edge(p)`` is the first record start at or after byte p, records being what splitting the whole source at its
delimiters from byte 0 on gives. ``[start, stop)`` stands for the bytes ``edge(start)`` to ``edge(stop)``: neighbours
share an edge, so every record is in exactly one partition.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from operator import add
from typing import TYPE_CHECKING, Any, Protocol

from lithops_mini.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 512 << 10  # bytes; larger ones fall out of the cache, smaller ones pay more Python for each byte
_LOOKBACK = 4096  # bytes read before the partition for the beginning of a run of overlapping delimiters
_FIRST_WINDOW = 64 << 10  # bytes read past the partition for the end of its last record; then twice as many, ...
_LARGEST_WINDOW = 16 << 20
_LARGEST_PIECE = 1 << 20  # bytes past the partition searched at a time


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


class RawStream(io.RawIOBase):
    """A readable raw stream. ``io.BufferedReader`` looks at ``closed`` for each line it returns, and finds a slot three
    times faster than the property of ``io.IOBase``: that was a quarter of the time of iterating over lines."""

    __slots__ = ("closed",)
    closed: bool

    def __init__(self) -> None:
        self.closed = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        super().close()
        self.closed = True


class PartitionStream(RawStream):
    """Yields the bytes of one partition. One range is opened for ``[start, stop)``; what the last record has beyond
    ``stop`` is read in growing ranges when the reader gets there. ``StorageError`` if the source ends too early.

    ``size`` is the source's, in bytes. ``stop`` and ``size`` are ``None`` for a source of unknown size read whole.
    Nothing is opened before the first read.
    """

    def __init__(
        self, open_range: OpenRange, name: str, start: int, stop: int | None, size: int | None, delimiter: bytes | None
    ) -> None:
        super().__init__()
        self._open_range = open_range
        self._name = name
        self._start = start
        self._stop = stop
        self._size = size
        self._delimiter = Delimiter(delimiter) if delimiter else None
        self._stream: Readable | None = None
        self._begun = self._ended = False
        self._position = start  # of the next byte of _stream
        self._limit = stop  # where _stream ends
        self._edge = start  # where the first record begins
        self._head = memoryview(b"")  # read while looking for the first record, and belonging to it
        self._tail = b""  # the last bytes before stop
        self._tail_start: int | None = None  # the position from which _tail is kept; None: never
        self._rest: bytes | None = None  # past stop: what Delimiter.rest gives at _position
        self._window = _FIRST_WINDOW

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._begun:
            self._begin()
        if self._head:
            count = min(len(view), len(self._head))
            view[:count] = self._head[:count]
            self._head = self._head[count:]
            if count < len(view) and not self._ended and self._position != self._limit:
                count += self._receive(view[count:])  # a full buffer now saves a copy of all that follows
            return count
        while not self._ended and len(view):
            if self._position == self._limit:
                self._advance()
            elif self._rest is None:
                return self._receive(view)
            else:
                return self._receive_last_record(view[:_LARGEST_PIECE], self._rest)
        return 0

    def readall(self) -> bytes:
        """Read to the end into one buffer: the partition may be most of the memory there is."""
        pieces = []
        while True:
            room = max(0, (self._stop or 0) - self._position) + len(self._head) + _LARGEST_PIECE
            out, filled = io.BytesIO(bytes(room)), 0
            with out.getbuffer() as view:
                while filled < room and (count := self.readinto(view[filled:])):
                    filled += count
            out.truncate(filled)
            pieces.append(out.getvalue())
            if filled < room:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        self._close_stream()
        self._ended = True
        super().close()

    def _begin(self) -> None:
        """Open the partition's range and find its first record; after an error, again from the beginning."""
        self._close_stream()
        self._tail = b""
        if self._start == self._stop:
            self._begun = self._ended = True
            return
        delimiter = self._delimiter
        lookback = min(self._start, delimiter.lookback) if delimiter else 0
        self._position = self._start - lookback
        self._stream = self._open_range(self._position, self._stop)
        if delimiter and self._stop is not None and self._stop != self._size:
            self._tail_start = self._stop - delimiter.lookback
        if delimiter and self._start:
            known = bytearray(lookback)
            with memoryview(known) as view:
                filled = 0
                while filled < lookback:
                    filled += self._receive(view[filled:])
            self._find_first_record(delimiter, delimiter.rest_at(self._start, bytes(known), 0, self._open_range))
        self._begun = True

    def _find_first_record(self, delimiter: Delimiter, rest: bytes) -> None:
        """Read on, from ``start`` and what ``rest_at`` gives there, to the first record that begins before ``stop``."""
        found = not rest
        block = bytearray(_FIRST_WINDOW)
        while not found and self._position != self._stop:
            count = self._receive(memoryview(block))
            data = rest + block[:count]
            offset = data.find(delimiter.text)
            found = offset >= 0
            if found:
                self._head = memoryview(data)[offset + len(delimiter.text) :]
            rest = data[-len(delimiter.text) :]
        self._edge = self._position - len(self._head)
        if not found or self._edge == self._stop:
            self._finish()

    def _receive(self, view: memoryview) -> int:
        """Read some bytes up to ``_limit``."""
        assert self._stream is not None
        if self._limit is not None:
            view = view[: self._limit - self._position]
        count = self._stream.readinto(view)
        if not count:
            if self._limit is not None:
                raise StorageError(
                    f"{self._name}: the data ended at byte {self._position}, "
                    f"{self._limit - self._position} bytes before the end of the range that was asked for"
                )
            self._finish()
            return 0
        self._position += count
        if self._tail_start is not None and self._position > self._tail_start and self._delimiter:
            lookback = self._delimiter.lookback
            self._tail = (self._tail + bytes(view[max(0, count - lookback) : count]))[-lookback:]
        return count

    def _receive_last_record(self, view: memoryview, rest: bytes) -> int:
        """Read some bytes past ``stop``, at most to the end of the last record."""
        assert self._delimiter is not None
        count = self._receive(view)
        data = rest + view[:count]
        text = self._delimiter.text
        offset = data.find(text)
        if offset >= 0:
            self._finish()
            return offset + len(text) - len(rest)
        self._rest = data[-len(text) :]
        return count

    def _advance(self) -> None:
        """``_limit`` is reached: open what the last record may have beyond it, or finish."""
        self._close_stream()
        if self._delimiter is None or self._position == self._size:
            self._finish()
            return
        if self._rest is None:
            known = self._tail[-min(len(self._tail), self._position - self._edge) :]
            self._tail_start = None
            self._rest = self._delimiter.rest_at(self._position, known, self._edge, self._open_range)
            if not self._rest:
                self._finish()
                return
        stop = self._position + self._window
        self._limit = stop if self._size is None else min(stop, self._size)
        self._window = min(2 * self._window, _LARGEST_WINDOW)
        self._stream = self._open_range(self._position, self._limit)

    def _finish(self) -> None:
        self._ended = True
        self._close_stream()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class RecordReader(io.BufferedIOBase):
    """A buffered stream whose lines are records that end with ``delimiter``; otherwise like ``io.BufferedReader``."""

    def __init__(self, raw: io.RawIOBase, delimiter: bytes) -> None:
        self._stream = io.BufferedReader(raw, BUFFER)
        self._delimiter = delimiter
        self._whole: Iterator[bytes] = iter(())  # records read ahead and split: most of the speed is in these
        self._buffer = b""  # what follows them in the source, from _offset on, read ahead as well
        self._offset = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        self._whole, self._buffer = iter(()), b""
        super().close()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            ahead = self._take(None)
            return ahead + self._stream.read() if ahead else self._stream.read()
        ahead = self._take(size)
        return ahead + self._stream.read(size - len(ahead)) if len(ahead) < size else ahead

    def read1(self, size: int = -1, /) -> bytes:
        return self._take(None if size < 0 else size) or self._stream.read1(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        ahead = self._take(len(view))
        view[: len(ahead)] = ahead
        return len(ahead) + self._stream.readinto(view[len(ahead) :])

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        ahead = self._take(len(view))
        view[: len(ahead)] = ahead
        return len(ahead) or self._stream.readinto1(view)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next record with its delimiter, or its first ``size`` bytes; ``b""`` at the end."""
        if size is not None and size >= 0:
            self._gather()
            if (missing := size - len(self._buffer) + self._offset) > 0:
                self._buffer = self._buffer[self._offset :] + self._stream.read(max(BUFFER, missing))
                self._offset = 0
            end = self._buffer.find(self._delimiter, self._offset, self._offset + size)
            return self._take(size if end < 0 else end + len(self._delimiter) - self._offset)
        for record in self._whole:
            return record
        end = self._buffer.find(self._delimiter, self._offset)
        if end >= 0:
            return self._take(end + len(self._delimiter) - self._offset)
        self._split_more()
        for record in self._whole:
            return record
        return self._take(None)

    def __next__(self) -> bytes:
        if record := self.readline():
            return record
        raise StopIteration

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterable[bytes]]:
        while record := self.readline():
            yield (record,)
            yield self._whole

    def _split_more(self) -> None:
        """Read until there is a whole record, or to the end: as much each time as is there already, so that long
        records take linear time."""
        records: list[bytes] = []
        while not records:
            ahead = self._buffer[self._offset :]
            more = self._stream.read(max(BUFFER // 4, len(ahead)))  # measured: the pieces then stay in the cache
            if not more:
                return
            *records, self._buffer = (ahead + more).split(self._delimiter)
            self._offset = 0
        self._whole = map(add, records, repeat(self._delimiter))

    def _gather(self) -> None:
        """Put the records that were split off back into the buffer."""
        if records := b"".join(self._whole):
            self._buffer, self._offset = records + self._buffer[self._offset :], 0

    def _take(self, size: int | None) -> bytes:
        """Remove up to ``size`` bytes of what was read ahead."""
        self._gather()
        end = len(self._buffer) if size is None else self._offset + size
        data = self._buffer[self._offset : end]
        self._offset += len(data)
        return data


def buffered(raw: io.RawIOBase, delimiter: bytes | None) -> io.BufferedIOBase:
    """Wrap ``raw`` so that its lines end with ``delimiter`` (``\\n`` when there is none)."""
    if delimiter in (None, b"\n"):
        return io.BufferedReader(raw, BUFFER)
    return RecordReader(raw, delimiter)
