"""Compressed sources, decompressed as they are read."""

from __future__ import annotations

import io
from typing import Any

from lithops_mini.errors import StorageError
from lithops_mini.worker.reader import BUFFER
from lithops_mini.worker.stream import RawStream


class DecompressedStream(RawStream):
    """Decompresses a stream as it is read. ``StorageError`` if the compressed data is cut short or broken."""

    def __init__(self, raw: io.RawIOBase, compression: str, name: str) -> None:
        super().__init__()
        self._what = f"{name}: its {compression} data"
        source: Any = io.BufferedReader(raw, BUFFER)
        self._file: Any
        self._errors: tuple[type[Exception], ...]
        if compression == "gzip":
            import gzip
            import zlib

            self._file, self._errors = gzip.GzipFile(fileobj=source), (gzip.BadGzipFile, zlib.error)
        elif compression == "bz2":
            import bz2

            self._file, self._errors = bz2.BZ2File(source), ()
        elif compression == "xz":
            import lzma

            self._file, self._errors = lzma.LZMAFile(source), (lzma.LZMAError,)  # noqa: SIM115 - close() does
        else:
            raise StorageError(f"{name} is compressed as {compression!r}; gzip, bz2 and xz can be read")
        self._source = source

    def fill(self, view: memoryview) -> int:
        try:
            return int(self._file.readinto(view))
        except EOFError as error:
            raise StorageError(f"{self._what} is cut short: the file ends before the data does") from error
        except self._errors as error:
            raise StorageError(f"{self._what} is broken: {error}") from error
        except StorageError:
            raise
        except OSError as error:  # bz2's word for broken data
            raise StorageError(f"{self._what} cannot be read: {error}") from error

    def close(self) -> None:
        self._file.close()
        self._source.close()
        super().close()
