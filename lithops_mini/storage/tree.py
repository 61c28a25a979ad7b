"""The directories of the ``localhost`` storage: walked without following links, listed in key order."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from lithops_mini import records
from lithops_mini.errors import AccessDenied, InputError, NoSuchBucket, NoSuchObject, StorageError
from lithops_mini.storage.base import ObjectInfo

MAX_KEY = 1024  # bytes of UTF-8, as in S3
MAX_PART = 255  # bytes of a file name on the file systems in use
STALE = 24 * 3600.0  # seconds after its last write until a temporary file is taken for a crashed writer's

TEMPORARY = b".temporary"  # the name of directories with drafts; no key has it as a part
_OWN = records.OWN_PREFIX.rstrip("/").encode()
_METADATA = b".metadata"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPEN_OBJECT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: a named pipe must not hang us
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_ATTEMPTS = 100  # at making a key's directories while others remove them


def split_key(key: str) -> Sequence[bytes]:
    """Return the key's parts, each fit to be a file name, or raise ``InputError``."""
    try:
        encoded = key.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise InputError(f"{key!r:.120} cannot be a key: a key is a string that UTF-8 can encode") from error
    return _split(encoded)


def _split(key: bytes) -> Sequence[bytes]:
    parts = key.split(b"/")
    if len(key) > MAX_KEY:
        raise InputError(f"{_shown(key[:60])}... cannot be a key: it has {len(key):,} bytes, more than {MAX_KEY:,}")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in key:
        raise InputError(
            f"{_shown(key)} cannot be a key here: its parts between slashes are file names, so none is empty, '.' or "
            "'..' or contains a NUL"
        )
    if TEMPORARY in parts:
        raise InputError(f"{_shown(key)} cannot be a key here: what is in {TEMPORARY.decode()} is no object yet")
    if len(key) > MAX_PART and len(max(parts, key=len)) > MAX_PART:
        raise InputError(
            f"{_shown(key)} cannot be a key here: a part of it is longer than a file name ({MAX_PART} bytes)"
        )
    return parts


def _shown(key: bytes) -> str:
    return repr(key.decode("utf-8", "replace"))


class Tree:
    """A bucket's open directories, for one operation in one thread."""

    __slots__ = ("_drafts", "_parent", "bucket", "bucket_name", "path", "root")

    def __init__(self, path: str, bucket: str) -> None:
        self.path, self.bucket_name = path, bucket
        self._drafts = -1
        try:
            self.root = open_root(path)
        except FileNotFoundError as error:
            raise NoSuchBucket(f"there is no bucket {bucket!r}: {path} does not exist yet") from error
        try:
            self.bucket = self._parent = _open_bucket(self.root, path, bucket)
        except BaseException:
            os.close(self.root)
            raise

    def close(self) -> None:
        self._close_drafts()
        self._leave()
        os.close(self.bucket)
        os.close(self.root)

    def _leave(self) -> None:
        if self._parent != self.bucket:
            os.close(self._parent)
            self._parent = self.bucket

    def directory(self, parts: Sequence[bytes], *, create: bool = False) -> int:
        """Return a descriptor of the directory; it stays open until the next call."""
        self._leave()
        for part in parts:
            try:
                child = os.open(part, _OPEN_DIRECTORY, dir_fd=self._parent)
            except FileNotFoundError:
                if not create:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=self._parent)
                child = os.open(part, _OPEN_DIRECTORY, dir_fd=self._parent)
            except NotADirectoryError as error:
                if stat.S_ISLNK(os.stat(part, dir_fd=self._parent, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
                raise
            self._leave()
            self._parent = child
        return self._parent

    def _no_such_object(self, parts: Sequence[bytes]) -> NoSuchObject:
        return NoSuchObject(f"there is no object {b'/'.join(parts).decode()!r} in bucket {self.bucket_name!r}")

    def status(self, parts: Sequence[bytes]) -> os.stat_result:
        """Return the file's status, or raise ``NoSuchObject``."""
        try:
            status = os.stat(parts[-1], dir_fd=self.directory(parts[:-1]), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_such_object(parts) from error
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not stat.S_ISREG(status.st_mode):
            raise self._no_such_object(parts)
        return status

    def describe(self, parts: Sequence[bytes]) -> tuple[os.stat_result, bytes | None]:
        """Return the file's status and its packed metadata, both of one version of the object."""
        while True:
            status = self.status(parts)
            packed = self.read_metadata(etag_of(status))
            # Metadata is removed after its object: when it is missing and the object is the same, there is none.
            if packed is not None or etag_of(self.status(parts)) == etag_of(status):
                return status, packed

    def holds(self, parts: Sequence[bytes]) -> bool:
        """Whether the key is taken by something that is not a directory, at this moment."""
        try:
            status = os.stat(b"/".join(parts), dir_fd=self.bucket, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return not stat.S_ISDIR(status.st_mode)

    def leads_to_keys(self, prefix: bytes) -> bool:
        """Whether the directory that a prefix names exists; one that no key can have, or behind a link, does not."""
        directory = prefix.rpartition(b"/")[0]
        try:
            self.directory(_split(directory) if b"/" in prefix else ())
        except (InputError, FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                return False
            raise
        return True

    def open_object(self, parts: Sequence[bytes]) -> int:
        """Return a descriptor to read from, or raise ``NoSuchObject``."""
        try:
            fd = os.open(parts[-1], _OPEN_OBJECT, dir_fd=self.directory(parts[:-1]))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_such_object(parts) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._no_such_object(parts)
        return fd

    def create_draft(self, parts: Sequence[bytes]) -> tuple[int, bytes]:
        """Return the descriptor of a new file for the body of this key, and its name for the other methods."""
        self._open_drafts(own=parts[0] == _OWN, create=True)
        name = os.urandom(12).hex().encode()
        return os.open(name, _OPEN_NEW, 0o600, dir_fd=self._drafts), name

    def _open_drafts(self, *, own: bool, create: bool) -> None:
        """Those of the jobs' own objects are beside these: a container has that directory alone to write to, and
        nothing can be renamed from one mounted directory to another.
        """
        if own:
            self._drafts = os.dup(self.directory([_OWN, TEMPORARY], create=create))
            return
        try:
            self._drafts = os.open(TEMPORARY, _OPEN_DIRECTORY, dir_fd=self.root)
        except FileNotFoundError:
            if not create:
                raise
            with suppress(FileExistsError):
                os.mkdir(TEMPORARY, 0o700, dir_fd=self.root)
            self._drafts = os.open(TEMPORARY, _OPEN_DIRECTORY, dir_fd=self.root)

    def _create_private(self, name: bytes) -> int:
        try:
            return os.open(name, _OPEN_NEW, 0o600, dir_fd=self.root)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(name), 0o700, dir_fd=self.root)
            return os.open(name, _OPEN_NEW, 0o600, dir_fd=self.root)

    def publish(self, draft: bytes, parts: Sequence[bytes], *, if_absent: bool) -> bool:
        """Give the complete draft its key; False if ``if_absent`` and the key is taken."""
        name = parts[-1]
        for _ in range(_ATTEMPTS):
            try:
                parent = self.directory(parts[:-1], create=True)
                if if_absent:
                    self._link(draft, parent, name)
                else:
                    self._replace(draft, parent, name)
                return True
            except FileNotFoundError:
                continue  # a delete removed the directory, just emptied, before our file was in it
            except (IsADirectoryError, FileExistsError):
                if if_absent and self.holds(parts):
                    return False
                self._remove_empty(parts)
        raise StorageError(f"{self.path}/{self.bucket_name} or its directories are removed as fast as they are made")

    def _link(self, draft: bytes, parent: int, name: bytes) -> None:
        os.link(draft, name, src_dir_fd=self._drafts, dst_dir_fd=parent)
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self._drafts)

    def _replace(self, draft: bytes, parent: int, name: bytes) -> None:
        try:
            replaced = etag_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
        except FileNotFoundError:
            replaced = ""
        os.rename(draft, name, src_dir_fd=self._drafts, dst_dir_fd=parent)
        if replaced:
            _remove_metadata(self.root, replaced)

    def _remove_empty(self, parts: Sequence[bytes]) -> None:
        """Remove a directory that holds no objects, as a writer that crashed may leave; else ``IsADirectoryError``."""
        top = b"/".join(parts)
        try:
            for _, directories, _, fd in os.fwalk(top, topdown=False, dir_fd=self.bucket):
                for directory in directories:
                    os.rmdir(directory, dir_fd=fd)
            os.rmdir(top, dir_fd=self.bucket)
        except (FileNotFoundError, NotADirectoryError):
            return  # somebody else did
        except OSError as error:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR)) from error

    def discard(self, draft: bytes) -> None:
        """Remove what a failed put has left."""
        self._discard(draft)

    def _discard(self, draft: bytes) -> None:
        with suppress(FileNotFoundError):
            status = os.stat(draft, dir_fd=self._drafts, follow_symlinks=False)
            os.unlink(draft, dir_fd=self._drafts)
            if status.st_nlink == 1:  # otherwise the writer was interrupted after the draft had got its key
                _remove_metadata(self.root, etag_of(status))

    def reap(self) -> None:
        """Remove what writers that crashed have left."""
        for own in (False, True):
            try:
                self._open_drafts(own=own, create=False)
            except FileNotFoundError:
                continue
            for name in map(os.fsencode, os.listdir(self._drafts)):
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=self._drafts, follow_symlinks=False)
                    if time.time() - status.st_mtime > STALE:
                        self._discard(name)
            self._close_drafts()

    def _close_drafts(self) -> None:
        if self._drafts >= 0:
            os.close(self._drafts)
            self._drafts = -1

    def delete(self, parts: Sequence[bytes]) -> None:
        """Remove the object, if it exists, and the directories that it leaves empty."""
        try:
            parent = self.directory(parts[:-1])
            status = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            os.unlink(parts[-1], dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        _remove_metadata(self.root, etag_of(status))
        for depth in range(len(parts) - 1, 0, -1):
            try:
                os.rmdir(b"/".join(parts[:depth]), dir_fd=self.bucket)
            except OSError:  # not empty, or gone: the object is deleted all the same
                return

    def write_metadata(self, etag: str, packed: bytes) -> None:
        fd = self._create_private(b"%s/%s" % (_METADATA, etag.encode()))
        with open(fd, "wb") as file:
            file.write(packed)

    def read_metadata(self, etag: str) -> bytes | None:
        try:
            fd = os.open(b"%s/%s" % (_METADATA, etag.encode()), _OPEN_OBJECT, dir_fd=self.root)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()


def make_private(path: str) -> None:
    """Make the directory, and those above it, for this user alone."""
    try:
        os.mkdir(path, 0o700)
    except (FileExistsError, NotADirectoryError):
        return  # open_root tells a file from a directory
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)


def open_root(path: str) -> int:
    """Return a descriptor of the root, or raise ``AccessDenied`` if another user could feed us objects there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # it may be a link: the user chose it
    except NotADirectoryError as error:
        raise StorageError(f"storage_path {path} is not a directory: it, or a part of it, is a file") from error
    try:
        _check_own(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_own(fd: int, path: str) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise AccessDenied(
            f"{path} belongs to user {status.st_uid}, and you are user {os.geteuid()}: "
            "set storage_path to a directory of yours"
        )
    if status.st_mode & 0o022:
        raise AccessDenied(f"other users can write into {path}: run 'chmod go-w {path}', or set another storage_path")


def _open_bucket(root: int, path: str, bucket: str) -> int:
    try:
        fd = os.open(bucket, _OPEN_DIRECTORY, dir_fd=root)
    except FileNotFoundError as error:
        raise NoSuchBucket(f"there is no bucket {bucket!r} in {path}") from error
    except NotADirectoryError as error:
        raise NoSuchBucket(f"{path}/{bucket} is a file or a link, and a bucket is a directory") from error
    try:
        if os.fstat(root).st_mode & 0o077:  # otherwise nobody else gets there anyway
            _check_own(fd, f"{path}/{bucket}")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _remove_metadata(root: int, etag: str) -> None:
    name = b"%s/%s" % (_METADATA, etag.encode())
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=root)  # where nothing can be removed, mostly nothing has to be
        os.unlink(name, dir_fd=root)


def listing(top: bytes, prefix: bytes, after: bytes) -> Iterator[ObjectInfo]:
    """Yield the objects below ``top``, which ends with a slash, that the prefix and ``after`` select, in key order."""
    base = prefix[: prefix.rfind(b"/") + 1]
    stack = [(base, iter(_children(top, base, prefix, after)))]
    while stack:
        base, names = stack[-1]
        for name in names:
            key = base + name
            if key.endswith(b"/"):
                stack.append((key, iter(_children(top, key, prefix, after))))
                break
            try:
                status = os.stat(top + key, follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted since its directory was read
            yield info_of(_decoded(key, top), status, {})
        else:
            stack.pop()


def _children(top: bytes, base: bytes, prefix: bytes, after: bytes) -> Sequence[bytes]:
    """Return the names in a directory that lead to wanted keys; directories end with a slash.

    With that slash the order of names is the order of the keys below them: "a-b" < "a/b" < "a0".
    """
    names = []
    start = prefix[len(base) :]
    try:
        with os.scandir(top + base) as entries:
            for entry in entries:
                if not entry.name.startswith(start) or entry.name == TEMPORARY:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    name = entry.name + b"/"
                    wanted = base + name > after or after.startswith(base + name)
                else:
                    name = entry.name
                    wanted = base + name > after and entry.is_file(follow_symlinks=False)
                if wanted:
                    names.append(name)
    except (FileNotFoundError, NotADirectoryError):
        return ()  # deleted since its parent was read
    names.sort()
    return names


def _decoded(key: bytes, top: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise StorageError(f"the file {os.fsdecode(top + key)!r} is not named in UTF-8, so it has no key") from error


def etag_of(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def info_of(key: str, status: os.stat_result, metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, etag_of(status), status.st_mtime_ns / 1e9, metadata)
