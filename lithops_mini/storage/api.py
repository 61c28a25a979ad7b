"""``Storage``: what users hold to read and write objects, and their functions in a parameter named ``storage``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Literal, Self, overload

from lithops_mini.errors import InputError
from lithops_mini.records import CLOUDOBJECTS_PREFIX
from lithops_mini.storage.base import Body, ObjectInfo, Progress, StorageBackend
from lithops_mini.storage.writer import TextWriter, Writer

_BLOCK = 1 << 20  # bytes of a file read at a time


@dataclass(frozen=True, slots=True)
class CloudObject:
    """Names an object that a function stored, so that other functions and the client can fetch it."""

    backend: str  # the class of its storage backend
    bucket: str
    key: str


class Storage:
    """Objects of one storage backend.

    Every ``bucket`` argument may be None: the default bucket, ``bucket``. Errors are those of ``StorageBackend``:
    ``NoSuchBucket``, ``NoSuchObject``, ``ObjectExists``, ``AccessDenied``, ``StorageError``, and ``InputError`` for
    arguments that cannot be right. All methods may be called from many threads at once.
    """

    def __init__(self, backend: StorageBackend, bucket: str, *, cloudobject_prefix: str = CLOUDOBJECTS_PREFIX) -> None:
        self._backend = backend
        self._bucket = bucket
        self._cloudobject_prefix = cloudobject_prefix

    @property
    def backend(self) -> StorageBackend:
        """The backend that holds the objects."""
        return self._backend

    @property
    def bucket(self) -> str:
        """The bucket meant by None."""
        return self._bucket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the backend's connections."""
        self._backend.close()

    def _in(self, bucket: str | None) -> str:
        return self._bucket if bucket is None else bucket

    def put_object(
        self,
        bucket: str | None,
        key: str,
        body: Body | str,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
    ) -> None:
        """Store a body atomically: bytes, text (as UTF-8), a list of buffers, or a binary file from where it stands.

        With ``if_absent`` raises ``ObjectExists``, and changes nothing, when the key is taken.
        """
        self._backend.put(self._in(bucket), key, _encoded(body), if_absent=if_absent, metadata=metadata)

    @overload
    def get_object(
        self,
        bucket: str | None,
        key: str,
        *,
        stream: Literal[False] = False,
        range: tuple[int, int | None] | None = None,
    ) -> bytes: ...
    @overload
    def get_object(
        self, bucket: str | None, key: str, *, stream: Literal[True], range: tuple[int, int | None] | None = None
    ) -> BinaryIO: ...
    def get_object(
        self,
        bucket: str | None,
        key: str,
        *,
        stream: bool = False,
        range: tuple[int, int | None] | None = None,  # noqa: A002 - the word of HTTP and of every storage API
    ) -> bytes | BinaryIO:
        """Return the object's bytes, or with ``stream`` a binary stream that reads as it goes and wants closing.

        ``range`` is ``(start, stop)``: bytes start <= i < stop, clipped at the object's end; a stop of None is its end.
        """
        start, stop = (0, None) if range is None else range
        read = self._backend.open if stream else self._backend.get
        return read(self._in(bucket), key, start, stop)

    def open(
        self,
        bucket: str | None,
        key: str,
        mode: str = "rb",
        *,
        start: int = 0,
        stop: int | None = None,
        encoding: str = "utf-8",
        newline: str | None = None,
    ) -> IO[Any]:
        """Open an object as a file: "rb" or "r" to read bytes ``start`` to ``stop``, "wb" or "w" to write it anew.

        Both go forward only. A written object appears, whole, when the file is closed; if the ``with`` block raises, or
        the file is never closed, it does not appear. ``encoding`` and ``newline`` are those of the builtin ``open``.
        """
        if mode in ("r", "rt", "rb"):
            stream = self._backend.open(self._in(bucket), key, start, stop)
            if mode == "rb":
                return stream
            try:
                return io.TextIOWrapper(stream, encoding, newline=newline)
            except BaseException:
                stream.close()
                raise
        if mode not in ("w", "wt", "wb"):
            raise InputError(f"mode {mode!r} is not one of 'rb', 'r', 'wb' and 'w'")
        if start != 0 or stop is not None:
            raise InputError("start and stop are for reading: an object is written as a whole")
        writer = Writer(self._backend, self._in(bucket), key)
        if mode == "wb":
            return writer  # type: ignore[return-value]  # typeshed: BufferedIOBase is no IO, though all its heirs are
        try:
            return TextWriter(writer, encoding, newline=newline)
        except BaseException:
            writer.discard()
            raise

    def head_object(self, bucket: str | None, key: str) -> ObjectInfo:
        """Return size, etag, time and metadata of an object."""
        return self._backend.head(self._in(bucket), key)

    def head_bucket(self, bucket: str | None = None) -> None:
        """Return if the bucket exists and may be used; raise ``NoSuchBucket`` or ``AccessDenied``."""
        self._backend.head_bucket(self._in(bucket))

    def create_bucket(self, bucket: str | None = None) -> None:
        """Make the bucket; it may exist already."""
        self._backend.create_bucket(self._in(bucket))

    def list_objects(self, bucket: str | None = None, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys' UTF-8 bytes, lazily."""
        return self._backend.list(self._in(bucket), prefix)

    def list_keys(self, bucket: str | None = None, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with ``prefix``, in the order of their UTF-8 bytes, lazily."""
        return (info.key for info in self.list_objects(bucket, prefix))

    def delete_object(self, bucket: str | None, key: str) -> None:
        """Delete an object; a missing one is fine."""
        self._backend.delete(self._in(bucket), [key])

    def delete_objects(self, bucket: str | None, keys: Iterable[str]) -> None:
        """Delete several objects; missing ones are fine."""
        if isinstance(keys, str):
            raise InputError(f"delete_objects takes several keys, not the string {keys!r}: see delete_object")
        self._backend.delete(self._in(bucket), keys)

    def upload_file(
        self,
        path: str | os.PathLike[str],
        bucket: str | None = None,
        key: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Store a local file; ``key`` is by default its name without directories."""
        with open(path, "rb") as file:
            body = file if progress is None else io.BufferedReader(_Counted(file, progress), _BLOCK)
            self._backend.put(self._in(bucket), os.path.basename(path) if key is None else key, body)

    def download_file(
        self,
        bucket: str | None,
        key: str,
        path: str | os.PathLike[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> str:
        """Write an object to a local file and return the file's path.

        ``path`` is by default the key's last part, in the working directory; if it is a directory or ends with a slash,
        that name in there. Missing directories are made. The file appears when it is complete; an existing one is
        replaced.
        """
        target = _target(key, path)
        directory, name = os.path.split(target)
        self._backend.head(self._in(bucket), key)  # a missing object leaves no directories behind
        os.makedirs(directory or ".", exist_ok=True)
        draft = os.path.join(directory, f".{name[:100]}.{os.urandom(8).hex()}.part")
        try:
            with open(draft, "xb") as file:
                self._backend.download(self._in(bucket), key, file, progress)
            os.replace(draft, target)
        except BaseException as error:
            with suppress(FileNotFoundError):
                os.unlink(draft)
            if isinstance(error, OSError) and error.filename == draft:
                error.filename, error.filename2 = target, None  # the draft's name tells nobody anything
            raise
        return target

    def presigned_url(
        self, bucket: str | None, key: str, *, method: Literal["get", "put"] = "get", expires: float = 3600
    ) -> str:
        """Return a URL by which anybody may get (or ``put``) this object for ``expires`` seconds.

        ``InputError`` if the storage has no URLs, as ``localhost``.
        """
        return self._backend.presigned_url(self._in(bucket), key, method=method, expires=expires)

    def put_cloudobject(self, body: Body | str, bucket: str | None = None, key: str | None = None) -> CloudObject:
        """Store a body, under a key that no other process ever makes unless one is given, and return its name."""
        name = CloudObject(
            type(self._backend).__name__,
            self._in(bucket),
            f"{self._cloudobject_prefix}{os.urandom(16).hex()}" if key is None else key,
        )
        self._backend.put(name.bucket, name.key, _encoded(body))
        return name

    @overload
    def get_cloudobject(self, cloudobject: CloudObject, stream: Literal[False] = False) -> bytes: ...
    @overload
    def get_cloudobject(self, cloudobject: CloudObject, stream: Literal[True]) -> BinaryIO: ...
    def get_cloudobject(self, cloudobject: CloudObject, stream: bool = False) -> bytes | BinaryIO:
        """Return the bytes of a cloud object, or with ``stream`` a binary stream that reads as it goes."""
        self._check_here(cloudobject)
        read = self._backend.open if stream else self._backend.get
        return read(cloudobject.bucket, cloudobject.key)

    def delete_cloudobject(self, cloudobject: CloudObject) -> None:
        """Delete a cloud object; a missing one is fine."""
        self.delete_cloudobjects([cloudobject])

    def delete_cloudobjects(self, cloudobjects: Iterable[CloudObject]) -> None:
        """Delete several cloud objects; missing ones are fine."""
        keys: dict[str, list[str]] = {}
        for cloudobject in cloudobjects:
            self._check_here(cloudobject)
            keys.setdefault(cloudobject.bucket, []).append(cloudobject.key)
        for bucket, in_bucket in keys.items():
            self._backend.delete(bucket, in_bucket)

    def _check_here(self, cloudobject: CloudObject) -> None:
        if not isinstance(cloudobject, CloudObject):
            raise InputError(f"{cloudobject!r:.120} is not a CloudObject, as put_cloudobject returns them")
        here = type(self._backend).__name__
        if cloudobject.backend != here:
            raise InputError(f"{cloudobject.key!r} lies in a {cloudobject.backend}, and this storage is a {here}")


def _encoded(body: Body | str) -> Body:
    return body.encode() if isinstance(body, str) else body


def _target(key: str, path: str | os.PathLike[str] | None) -> str:
    target = "" if path is None else os.fspath(path)
    if target and not target.endswith(os.sep) and not os.path.isdir(target):
        return target
    name = key.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise InputError(f"the key {key!r} does not end in a file name: say which path the file is to have")
    return os.path.join(target, name)


class _Counted(io.RawIOBase):
    """A file being read, whose bytes are told to a progress callback."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file, self._progress = file, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]  # typeshed's BinaryIO lacks it
        if count:
            self._progress(count)
        return count
