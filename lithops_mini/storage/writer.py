"""Files that become objects when they are closed."""

from __future__ import annotations

import io
import warnings
from types import TracebackType
from typing import Any, BinaryIO, cast

from lithops_mini.storage.base import StorageBackend

_SPOOL = 8 << 20  # bytes kept in memory; more go to a temporary file


class Writer(io.BufferedIOBase):
    """An object being written; stored by ``close()``, unless it was discarded."""

    def __init__(self, backend: StorageBackend, bucket: str, key: str) -> None:
        from tempfile import SpooledTemporaryFile  # 10 ms, and few functions write this way

        self._backend, self._bucket, self._key = backend, bucket, key
        self.name = f"{bucket}/{key}"
        self._spool: BinaryIO | None = cast(BinaryIO, SpooledTemporaryFile(_SPOOL))  # noqa: SIM115 - close() does

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self.closed:
            raise ValueError("write to a closed file")
        view = memoryview(data)
        if self._spool is not None and view.nbytes:
            try:
                self._spool.write(view.cast("B"))
            except BaseException:
                self.discard()  # closing must not store a body with a hole
                raise
        return view.nbytes

    def tell(self) -> int:
        return 0 if self._spool is None else self._spool.tell()

    def discard(self) -> None:
        """Forget what was written; ``close()`` then stores nothing."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._spool is not None:
                self._spool.seek(0)
                self._backend.put(self._bucket, self._key, self._spool)
        finally:
            self.discard()
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_spool", None) is not None:
            warnings.warn(f"{self.name} was not stored: its file was never closed", ResourceWarning, stacklevel=2)
            self.discard()


class TextWriter(io.TextIOWrapper):
    """Text being written to a ``Writer``, with the same promises."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.buffer.discard()  # type: ignore[attr-defined]  # it is a Writer
        self.close()

    def __del__(self) -> None:
        """Do not close, as files do: what was not finished is not stored; the ``Writer`` warns."""
