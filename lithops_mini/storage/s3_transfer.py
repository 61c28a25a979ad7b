"""Bodies on their way to and from an S3 service: streams that survive lost connections, and bodies in parts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, BinaryIO

from lithops_mini.errors import InputError, StorageUnavailable
from lithops_mini.storage.base import Body

PART = 8 << 20  # bytes of a part; what is not larger is stored, or fetched, by one request
THREADS = 4  # parts of one body under way at once: so many parts are in memory
_PARTS_OF_A_SIZE = 1000  # then they are twice as large: 10,000, the most there may be, are more than the largest object
_RESUMES = 5  # times in a row that a stream goes on after a loss, with less than a block between them
_BLOCK = 1 << 20  # bytes
_READ = 1 << 18  # bytes read at a time: when the connection is lost, so many may be, and come again

Fetch = Callable[[int, int | None, str | None], Any]
"""(start, stop, etag) -> the service's answer: a mapping with Body, ContentLength, ETag and, of a part of an object,
ContentRange; ``None`` if ``start`` is not before the object's end. ``ObjectChanged`` if it has not this ``etag``."""


class Damaged(StorageUnavailable):
    """A body came to its end, and its checksum is not that of its bytes."""


class Download(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of one version of an object, forward only.

    When the connection is lost it goes on, from the byte where it stands, with the same version; ``ObjectChanged`` says
    that this is gone.
    """

    def __init__(
        self,
        fetch: Fetch,
        start: int,
        stop: int | None,
        etag: str | None,
        translated: Callable[[Exception], Exception],
    ) -> None:
        """Sends the first request. ``translated`` makes an error of ours of what the body raises."""
        self._fetch = fetch
        self._translated = translated
        self._start = self._position = self._end = start
        self._body: Any = None
        self._left = _RESUMES
        self._progress = 0  # bytes since the last loss
        answer = fetch(start, stop, etag)
        self.etag: str = etag or ""
        self.size = start  # bytes of the whole object, unless the range lies beyond its end
        if answer is not None:
            self._body = answer["Body"]
            self.etag = answer.get("ETag", "").strip('"')
            self._end = self.size = start + answer["ContentLength"]
            if "ContentRange" in answer:
                self.size = int(answer["ContentRange"].rpartition("/")[2])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._receive(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        blocks = list(self.blocks())
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes in pieces as large as serve."""
        while data := self._receive(_BLOCK):
            yield data

    def tell(self) -> int:
        return self._position - self._start

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()

    def _receive(self, size: int) -> bytes:
        if self.closed:
            raise ValueError("read of a closed stream")
        size = min(size, _READ)
        if not size or self._body is None:
            return b""
        while True:
            try:
                # At its end too: only then does the SDK check length and checksum.
                data: bytes = self._body.read(size)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the connection's
                self._resume(error)
                continue
            self._position += len(data)
            self._progress += len(data)
            return data

    def _resume(self, error: Exception) -> None:
        self._body.close()
        if self._position >= self._end:  # all has come, and been handed out: it is too late to ask for it again
            raise Damaged(str(self._translated(error))) from error
        if self._progress >= _BLOCK:
            self._left = _RESUMES
        self._progress = 0
        self._left -= 1
        answer = self._fetch(self._position, self._end, self.etag) if self._left >= 0 else None
        if answer is None:
            raise self._translated(error) from error
        self._body = answer["Body"]


def parts(body: Body) -> Iterator[bytes]:
    """Cut a body into parts, each in one buffer of its own: the first of ``PART`` bytes, if there are that many."""
    file = body if hasattr(body, "read") else _Buffers(body)
    for number in count():
        part = b"".join(_pieces(file, PART << (number // _PARTS_OF_A_SIZE)))
        if number and not part:
            return
        yield part
        del part  # or it would be one more in memory


def _pieces(file: Any, size: int) -> Iterator[Any]:
    """Yield the next ``size`` bytes in as few pieces as the file gives: joining a single one copies nothing."""
    while size and (piece := file.read(size)):
        size -= as_bytes(piece).nbytes
        yield piece


class _Buffers:
    """A buffer, or several, read as a file."""

    def __init__(self, body: Any) -> None:
        several = isinstance(body, Sequence) and not isinstance(body, bytes | bytearray | memoryview | str)
        self._following = map(as_bytes, body if several else (body,))
        self._rest = memoryview(b"")

    def read(self, size: int) -> memoryview:
        """Return up to ``size`` bytes of one buffer; none at the end of the last."""
        while not self._rest:
            following = next(self._following, None)
            if following is None:
                break
            self._rest = following
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def as_bytes(buffer: Any) -> memoryview:
    """A view of the buffer's bytes, whatever its items are."""
    try:
        view = memoryview(buffer)
        return view.cast("B") if view.nbytes else memoryview(b"")  # views without bytes cannot be cast
    except TypeError as error:
        raise InputError(
            f"a body is bytes, a list of buffers or an open binary file, not {type(buffer).__name__}"
        ) from error


def in_parallel(jobs: Iterator[Callable[[], Any]]) -> list[Any]:
    """Run the jobs, ``THREADS`` at once, and return their results in order.

    A job is taken from the iterator when there is a thread for it, so what it holds is in memory no sooner. After the
    first failure, which is raised, no other job starts.
    """
    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

    futures: list[Future[Any]] = []
    running: set[Future[Any]] = set()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="lithops_mini-transfer") as pool:
        try:
            for job in jobs:
                futures.append(pool.submit(job))
                running.add(futures[-1])
                del job  # or it would be one more in memory
                if len(running) == THREADS:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
            return [future.result() for future in futures]
        finally:
            for future in running:
                future.cancel()


def write_at(file: BinaryIO, position: int, data: Any) -> None:
    """Write to a file from several threads at once."""
    from os import pwrite

    view = memoryview(data)
    while view:
        count = pwrite(file.fileno(), view, position)
        position, view = position + count, view[count:]
