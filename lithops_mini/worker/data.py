"""What a function gets as ``obj``: one partition of an object, a file or a URL."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from operator import methodcaller
from typing import TYPE_CHECKING, cast

from lithops_mini.errors import AccessDenied, InputError, IntegrityError, NoSuchObject, ObjectChanged, StorageError
from lithops_mini.records import Partition
from lithops_mini.worker.delimiter import OpenRange, Readable
from lithops_mini.worker.reader import buffered
from lithops_mini.worker.stream import PartitionStream

if TYPE_CHECKING:
    from lithops_mini.storage.base import StorageBackend


class DataObject:
    """One partition of a data source. Nothing is opened before ``data_stream`` is read."""

    bucket: str | None  # objects only
    key: str | None  # objects only
    path: str | None  # local files only
    url: str | None  # URLs only
    part: int  # the partition's number, from 0
    total_parts: int  # partitions of this source
    data_byte_range: tuple[int, int | None]  # as planned; the records are those that begin in it. None: to the end
    chunk_size: int | None  # bytes of that range
    size: int | None  # bytes of the whole source; None: its server does not say
    etag: str | None  # the source's version, where known

    def __init__(self, partition: Partition, storage: StorageBackend | None) -> None:
        kind, key = partition.kind, partition.key
        self.bucket = partition.bucket
        self.key = key if kind == "object" else None
        self.path = key if kind == "path" else None
        self.url = key if kind == "url" else None
        self.part = partition.part
        self.total_parts = partition.total_parts
        self.data_byte_range = (partition.start, partition.stop)
        self.chunk_size = None if partition.stop is None else partition.stop - partition.start
        self.size = partition.size
        self.etag = partition.etag
        self._partition = partition
        self._storage = storage
        self._stream: io.BufferedIOBase | None = None
        self._source: PartitionStream | None = None

    @property
    def bytes_read(self) -> int:
        """How many bytes of the source have been read so far, compressed ones if it is compressed."""
        return 0 if self._source is None else self._source.delivered

    @property
    def data_stream(self) -> io.BufferedIOBase:
        """A binary stream of the partition's records, read as it goes: ``read``, ``read(n)``, ``readinto``,
        ``readline``, iteration. Lines end with the delimiter the job was given (``\\n`` if it was given None).

        Reading raises ``IntegrityError`` if the source changed since the job was planned, ``StorageError`` if it
        cannot be read or ends too early.
        """
        if self._stream is None:
            part = self._partition
            self._source = PartitionStream(
                _opener(part, self._storage), str(self), part.start, part.stop, part.size, part.delimiter
            )
            raw: io.RawIOBase = self._source
            if part.compression:
                from lithops_mini.worker.decompress import DecompressedStream

                raw = DecompressedStream(raw, part.compression, str(self))
            self._stream = buffered(raw, part.delimiter)
        return self._stream

    def records(self) -> Iterator[bytes]:
        """Iterate over the records, without their delimiter."""
        delimiter = self._partition.delimiter
        if delimiter is None:
            raise InputError(f"{self} is cut into exact bytes (obj_newline=None), which have no records")
        return map(methodcaller("removesuffix", delimiter), self.data_stream)

    def close(self) -> None:
        """Close the stream, if it was opened. May be called again."""
        if self._stream is not None:
            self._stream.close()

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}" if self._partition.kind == "object" else self._partition.key

    def __repr__(self) -> str:
        return f"<DataObject {self}, part {self.part} of {self.total_parts}>"


def open_partition(partition: Partition, storage: StorageBackend | None) -> DataObject:
    """Return what the function gets for ``partition``; ``storage`` holds the objects, for partitions of objects."""
    if partition.kind == "object" and storage is None:
        raise StorageError(f"{partition.bucket}/{partition.key} is in object storage, and this worker has none")
    return DataObject(partition, storage)


def file_version(status: os.stat_result) -> str:
    """The ``etag`` of a local file."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _opener(partition: Partition, storage: StorageBackend | None) -> OpenRange:
    key, etag = partition.key, partition.etag
    if partition.kind == "path":
        return lambda start, _: _open_file(key, etag, start)
    if partition.kind == "url":
        from lithops_mini.worker import http  # urllib takes longer to import than all the rest of a worker

        return lambda start, stop: http.open_range(key, start, stop, partition.size, etag)
    assert storage is not None
    assert partition.bucket is not None
    bucket = partition.bucket
    return lambda start, stop: _open_object(storage, bucket, key, etag, start, stop)


def _open_object(
    storage: StorageBackend, bucket: str, key: str, etag: str | None, start: int, stop: int | None
) -> Readable:
    try:
        return cast("Readable", storage.open(bucket, key, start, stop, etag=etag))
    except ObjectChanged as error:
        raise IntegrityError(f"{bucket}/{key} changed after it was planned; run the job again") from error


def _open_file(path: str, etag: str | None, start: int) -> Readable:
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise NoSuchObject(f"the file {path} does not exist where the function runs") from error
    except PermissionError as error:
        raise AccessDenied(f"the file {path} may not be read") from error
    except OSError as error:
        raise StorageError(f"the file {path} cannot be read: {error.strerror}") from error
    if etag is not None and file_version(os.fstat(file.fileno())) != etag:
        file.close()
        raise IntegrityError(f"the file {path} changed after it was planned; run the job again")
    file.seek(start)
    return file
