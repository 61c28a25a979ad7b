"""The bytes of a partition as a stream: from the first record that begins in it to the end of the last one.

``edge(p)`` is the first record start at or after byte p, records being what splitting the whole source at its
delimiters from byte 0 on gives. ``[start, stop)`` stands for the bytes ``edge(start)`` to ``edge(stop)``: neighbours
share an edge, so every record is in exactly one partition.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING

from lithops_mini.errors import StorageError, StorageUnavailable
from lithops_mini.worker.delimiter import Delimiter, OpenRange, Readable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FIRST_WINDOW = 64 << 10  # bytes read past the partition for the end of its last record; then twice as many, ...
_LARGEST_WINDOW = 16 << 20
_LARGEST_PIECE = 1 << 20  # bytes past the partition searched at a time


class RawStream(io.RawIOBase):
    """A readable raw stream that, once it has failed, goes on failing.

    ``closed`` is a slot because ``io.BufferedReader`` looks at it for each line: the property of ``io.IOBase`` took a
    quarter of the time of iterating over lines.
    """

    __slots__ = ("_failure", "closed", "delivered")
    closed: bool
    delivered: int  # bytes that were read from it

    def __init__(self) -> None:
        self.closed = False
        self.delivered = 0
        self._failure: BaseException | None = None

    @abstractmethod
    def fill(self, view: memoryview) -> int:
        """Read some bytes into ``view``; return how many, 0 at the end."""

    def least(self) -> int:
        """How many bytes are surely still to come, or at least are planned to."""
        return 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self._failure is not None:  # what was read when it failed is lost: going on would leave it out
            kind = StorageUnavailable if isinstance(self._failure, StorageUnavailable) else StorageError
            raise kind(f"reading failed before: {self._failure}") from self._failure
        try:
            count = self.fill(memoryview(buffer).cast("B"))
        except BaseException as error:
            self._failure = error
            raise
        self.delivered += count
        return count

    def readall(self) -> bytes:
        """Read to the end into one buffer, which may be most of the memory there is."""
        pieces = []
        while True:
            room = self.least() + _LARGEST_PIECE
            out, filled = io.BytesIO(bytes(room)), 0
            with out.getbuffer() as view:
                while filled < room and (count := self.readinto(view[filled:])):
                    filled += count
            try:
                out.truncate(filled)
            except BufferError:  # an error that was healed below keeps a frame alive, and that a view of the buffer
                pieces.append(out.getvalue()[:filled])
            else:
                pieces.append(out.getvalue())
            if filled < room:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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

    def fill(self, view: memoryview) -> int:
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

    def least(self) -> int:
        return max(0, (self._stop or 0) - self._position) + len(self._head)

    def close(self) -> None:
        self._close_stream()
        self._ended = True
        super().close()

    def _begin(self) -> None:
        """Open the partition's range and find its first record."""
        self._begun = True
        if self._start == self._stop:
            self._ended = True
            return
        delimiter = self._delimiter
        lookback = min(self._start, delimiter.lookback) if delimiter else 0
        self._position = self._start - lookback
        self._stream = self._open_range(self._position, self._stop)
        if delimiter and self._stop is not None and self._stop != self._size:
            self._tail_start = self._stop - delimiter.lookback
        if delimiter and self._start:
            known, filled = bytearray(lookback), 0
            while filled < lookback:
                filled += self._receive(memoryview(known)[filled:])
            self._find_first_record(delimiter, delimiter.rest_at(self._start, bytes(known), 0, self._open_range))

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
