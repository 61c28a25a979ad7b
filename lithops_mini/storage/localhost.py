"""Objects as files of this machine: key ``x/y`` of bucket ``b`` is the file ``<storage_path>/b/x/y``.

    <storage_path>/                 0700, owned by the user
      .temporary/                   bodies being written; renamed to their place when complete
      <bucket>/lithops_mini/.temporary/  the same for the jobs' own objects
      .metadata/<etag>              the metadata of the objects that have some, as JSON
      <bucket>/<part>/<part>/...    directories 0700, files 0600

Every operation opens the directories on its way one below the other, never through a symbolic link, and works on what
it has opened: nothing outside the bucket is reached, even if somebody swaps a directory for a link meanwhile.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, ClassVar

from lithops_mini.errors import AccessDenied, ConfigError, InputError, ObjectChanged, ObjectExists, StorageError
from lithops_mini.records import OWN_PREFIX
from lithops_mini.storage.base import MAX_METADATA, Body, HostPath, ObjectInfo, StorageBackend, WorkerNeeds
from lithops_mini.storage.tree import (
    TEMPORARY,
    Tree,
    etag_of,
    info_of,
    listing,
    make_private,
    open_root,
    split_key,
)

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_BLOCK = 1 << 20  # bytes copied at a time from a file
_READ_AHEAD = 1 << 18  # bytes a stream reads at a time
_ONE_READ = 1 << 30  # bytes one read system call surely returns (Linux stops at 2 GiB)
_BATCH = 1024  # buffers per write system call: IOV_MAX of Linux and macOS

_FAILURES: dict[int, tuple[type[Exception], str]] = {
    errno.ENOSPC: (StorageError, "the disk is full"),
    errno.EDQUOT: (StorageError, "your disk quota is used up"),
    errno.EFBIG: (StorageError, "it is larger than a file may be here"),
    errno.EROFS: (AccessDenied, "the file system is read-only"),
    errno.EACCES: (AccessDenied, "the permissions of the file or of its directory do not let you"),
    errno.EPERM: (AccessDenied, "the operating system does not let you"),
    errno.ELOOP: (AccessDenied, "a part of its path is a symbolic link, and links are not followed"),
    errno.EXDEV: (StorageError, "the bucket is on another file system than its storage_path"),
    errno.ENOTDIR: (StorageError, "a part of its path is an object, so no key can lie below that"),
    errno.EISDIR: (StorageError, "other keys lie below it, so it cannot be an object as well"),
    errno.ENAMETOOLONG: (InputError, "a part of it between slashes is longer than a file name may be there"),
}


@dataclass(frozen=True, slots=True)
class LocalhostStorageOptions:
    """The settings of the ``localhost`` storage backend."""

    storage_path: str = field(
        default="~/.lithops_mini/storage",
        metadata={"help": "The directory that holds the buckets; created readable by you alone. ~ is your home."},
    )


class LocalhostStorage(StorageBackend):
    """A directory tree of this machine.

    Keys have at most 1,024 bytes; their parts between slashes are file names: at most 255 bytes, not empty, ``.`` or
    ``..``. A key cannot be an object and the beginning of another key's path at once. Symbolic links are neither
    followed nor listed. Files that other programs put there are objects too; one that they change loses its metadata.
    """

    Options: ClassVar[type[Any]] = LocalhostStorageOptions

    def __init__(self, options: LocalhostStorageOptions) -> None:
        path = os.path.expanduser(options.storage_path)
        if not path or path.startswith("~") or "\0" in path:
            raise ConfigError(f"storage_path {options.storage_path!r} is not a directory's path")
        self.path = os.path.abspath(path)

    def put(
        self,
        bucket: str,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        parts, packed = split_key(key), _pack_metadata(metadata)
        with self._tree(bucket, f"store {key!r} in") as tree:
            if if_absent and tree.holds(parts):  # the publishing decides; this spares writing a large body in vain
                raise _exists(bucket, key)
            fd, draft = tree.create_draft(parts)
            try:
                try:
                    _write_body(fd, body)
                    now = time.time_ns()  # the kernel's own stamps are a tick apart: quick puts would share an etag
                    os.utime(fd, ns=(now, now))
                    if packed:
                        tree.write_metadata(etag_of(os.fstat(fd)), packed)
                finally:
                    os.close(fd)
                if not tree.publish(draft, parts, if_absent=if_absent):
                    raise _exists(bucket, key)
            except BaseException:
                tree.discard(draft)
                raise

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        fd, stop = self._open_object(bucket, key, start, stop)
        try:
            return _read(fd, start, stop)
        except OSError as error:
            raise _translated(error, f"read {key!r} in", self._describe(bucket)) from error
        finally:
            os.close(fd)

    def open(
        self, bucket: str, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> BinaryIO:
        fd, stop = self._open_object(bucket, key, start, stop)
        if etag is not None and etag_of(os.fstat(fd)) != etag:
            os.close(fd)
            raise ObjectChanged(f"{key!r} in {self._describe(bucket)} was replaced meanwhile")
        return io.BufferedReader(_Range(fd, start, stop), _READ_AHEAD)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        parts = split_key(key)
        with self._tree(bucket, f"describe {key!r} in") as tree:
            status, packed = tree.describe(parts)
        return info_of(key, status, json.loads(packed) if packed else {})

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        action, start = f"list {prefix!r} in", prefix.encode("utf-8", "surrogatepass")
        with self._tree(bucket, action) as tree:
            if not tree.leads_to_keys(start):
                return iter(())
        return self._listing(bucket, action, start, after.encode("utf-8", "surrogatepass"))

    def _listing(self, bucket: str, action: str, prefix: bytes, after: bytes) -> Iterator[ObjectInfo]:
        try:
            yield from listing(os.fsencode(f"{self.path}/{bucket}/"), prefix, after)
        except StorageError:
            raise
        except OSError as error:
            raise _translated(error, action, self._describe(bucket)) from error

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise InputError(f"delete takes several keys, as in [{keys!r}], not one string")
        with self._tree(bucket, "delete in") as tree:
            for key in keys:
                tree.delete(split_key(key))

    def create_bucket(self, bucket: str) -> None:
        _check_bucket(bucket)
        try:
            make_private(self.path)
        except OSError as error:
            raise _refused(
                error, f"make the directory {error.filename} for bucket {bucket!r}", os.path.dirname(error.filename)
            ) from error
        try:
            root = open_root(self.path)
            try:
                with suppress(FileExistsError):
                    os.mkdir(bucket, 0o700, dir_fd=root)
            finally:
                os.close(root)
        except StorageError:
            raise
        except OSError as error:
            raise _refused(error, f"create bucket {bucket!r}", self.path) from error
        with self._tree(bucket, "open") as tree:
            tree.reap()

    def head_bucket(self, bucket: str) -> None:
        with self._tree(bucket, "open"):
            return

    def worker_options(self) -> dict[str, Any]:
        return asdict(LocalhostStorageOptions(self.path))

    def worker_needs(self, bucket: str) -> WorkerNeeds:
        own = OWN_PREFIX.rstrip("/")
        with self._tree(bucket, "prepare") as tree:
            tree.directory([own.encode(), TEMPORARY], create=True)
        return WorkerNeeds(paths=(HostPath(self.path), HostPath(f"{self.path}/{bucket}/{own}", writable=True)))

    def _describe(self, bucket: str) -> str:
        return f"bucket {bucket!r} (a directory of {self.path})"

    @contextmanager
    def _tree(self, bucket: str, action: str) -> Iterator[Tree]:
        """Open the bucket for one operation; the system's errors in the ``with`` block become ours."""
        _check_bucket(bucket)
        try:
            tree = Tree(self.path, bucket)
            try:
                yield tree
            finally:
                tree.close()
        except StorageError:
            raise
        except OSError as error:
            raise _translated(error, action, self._describe(bucket)) from error

    def _open_object(self, bucket: str, key: str, start: int, stop: int | None) -> tuple[int, int]:
        """Return a descriptor, and ``stop`` clipped at the object's end."""
        if start < 0 or (stop is not None and stop < 0):
            raise InputError(f"the byte range ({start}, {stop}) is not one: positions count from 0")
        parts = split_key(key)
        with self._tree(bucket, f"read {key!r} in") as tree:
            fd = tree.open_object(parts)
            size = os.fstat(fd).st_size
            return fd, size if stop is None else min(stop, size)


class _Range(io.FileIO):
    """The bytes of an open file from ``start`` to ``stop``, forward only."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        os.lseek(fd, start, os.SEEK_SET)
        super().__init__(fd, "rb")
        self._start, self._position, self._stop = start, start, stop

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)[: max(0, self._stop - self._position)]
        count = super().readinto(view) if view else 0
        self._position += count
        return count

    def readall(self) -> bytes:
        data = _read(self.fileno(), self._position, self._stop)
        self._position += len(data)
        return data

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._position - self._start


def _check_bucket(bucket: str) -> None:
    if not isinstance(bucket, str) or not _BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{bucket!r} cannot be a bucket: its name is 1 to 63 ASCII letters, digits, '.', '_' or '-', "
            "and begins with a letter or digit"
        )


def _pack_metadata(metadata: Mapping[str, str] | None) -> bytes | None:
    if not metadata:
        return None
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise InputError("metadata maps strings to strings")
    size = sum(len(text.encode()) for pair in metadata.items() for text in pair)
    if size > MAX_METADATA:
        raise InputError(f"metadata of {size:,} bytes is too large: at most {MAX_METADATA:,}, as in S3")
    return json.dumps(dict(metadata)).encode()


def _read(fd: int, start: int, stop: int) -> bytes:
    size = max(0, stop - start)
    if size <= _ONE_READ:
        data = os.pread(fd, size, start)
        if len(data) == size:
            return data
    with open(fd, "rb", closefd=False) as file:
        file.seek(start)
        return file.read(size)


def _write_body(fd: int, body: Body) -> None:
    if hasattr(body, "read"):
        _write_file(fd, body)
        return
    buffers = (
        body if isinstance(body, Sequence) and not isinstance(body, bytes | bytearray | memoryview | str) else (body,)
    )
    batch: list[memoryview] = []
    for buffer in buffers:
        batch.append(_as_bytes(buffer))
        if len(batch) == _BATCH:
            _write_all(fd, batch)
            batch = []
    _write_all(fd, batch)


def _as_bytes(buffer: Any) -> memoryview:
    try:
        view = memoryview(buffer)
        return view.cast("B") if view.nbytes else memoryview(b"")  # views without bytes cannot be cast
    except TypeError as error:
        raise InputError(
            f"a body is bytes, a list of buffers that are contiguous, or a binary file, not {type(buffer).__name__}"
        ) from error


def _write_all(fd: int, views: list[memoryview]) -> None:
    """Write the buffers with as few system calls as the kernel allows; it may take less than it is given."""
    while views:
        written = os.writev(fd, views)
        done = 0
        while done < len(views) and written >= len(views[done]):
            written -= len(views[done])
            done += 1
        views = views[done:]
        if views and written:
            views[0] = views[0][written:]


def _write_file(fd: int, file: Any) -> None:
    if not hasattr(file, "readinto"):
        while block := file.read(_BLOCK):
            _write_body(fd, block)
        return
    view = memoryview(bytearray(_BLOCK))
    while count := file.readinto(view):
        _write_all(fd, [view[:count]])


def _exists(bucket: str, key: str) -> ObjectExists:
    return ObjectExists(f"there is an object {key!r} in bucket {bucket!r} already")


def _refused(error: OSError, action: str, directory: str) -> Exception:
    """Return the error of ours for a directory that takes no new one."""
    kind, why = _failure(error)
    if isinstance(error, PermissionError):
        why = f"the permissions of {directory} do not let you"
    elif isinstance(error, FileNotFoundError):  # as of /proc
        why = f"{directory} takes no directories"
    return _with_errno(kind(f"cannot {action}: {why}; set storage_path to a directory of yours"), error)


def _translated(error: OSError, action: str, where: str) -> Exception:
    """Return the error of ours that says the same."""
    kind, why = _failure(error)
    return _with_errno(kind(f"cannot {action} {where}: {why}"), error)


def _failure(error: OSError) -> tuple[type[Exception], str]:
    return _FAILURES.get(error.errno or 0, (StorageError, error.strerror or str(error)))


def _with_errno(ours: Exception, error: OSError) -> Exception:
    if isinstance(ours, OSError):
        ours.errno = error.errno
    return ours
