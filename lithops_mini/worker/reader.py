"""Buffered streams over a partition: by lines, or by records with another delimiter."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 512 << 10  # bytes; larger ones fall out of the cache, smaller ones pay more Python for each byte


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
