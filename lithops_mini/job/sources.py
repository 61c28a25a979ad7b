"""What a map runs over: from the text the user wrote to the objects, files or URLs that exist."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lithops_mini.errors import InputError, NoSuchBucket, NoSuchObject
from lithops_mini.job.files import find_files
from lithops_mini.job.globs import glob_prefix, glob_regex, is_glob
from lithops_mini.records import OWN_PREFIX
from lithops_mini.storage.base import ObjectInfo, StorageBackend

_KIND_NAMES = {"object": "objects in storage", "path": "local files", "url": "URLs"}
_UNREADABLE = {
    "path": "a file of this machine, which the workers do not see: put it into storage (lithops-mini storage put) and"
    " give its bucket and key",
    "object": "in the storage of this machine, which the workers do not reach: configure an object storage",
}
_STORAGE_SCHEMES = {"s3": "aws_s3", "cos": "ibm_cos"}  # any other scheme is a storage backend's own name
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
_CONCURRENT_REQUESTS = 32

SourceText = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a source points, told from its text alone."""

    text: str  # as the user wrote it
    kind: str  # "object", "path" or "url"
    bucket: str | None  # objects only
    rest: str  # key, prefix or glob in the bucket; path; URL
    bare: bool = False  # written without a scheme, so that a local file may have been meant


@dataclass(frozen=True, slots=True)
class Source:
    """One object, file or URL that exists."""

    kind: str
    bucket: str | None
    key: str  # the object's key, the file's absolute path, or the URL
    size: int | None  # bytes; None if a URL's server does not say
    etag: str | None
    compression: str | None = None
    ranged: bool = True  # parts of it can be read

    @property
    def cuttable(self) -> bool:
        """Whether parts of it can be read and understood on their own."""
        return self.ranged and self.compression is None


def locate(source: SourceText, storage_name: str) -> Location:
    """Tell from a source's text where it points.

    A path object, or text that begins with ``/``, ``./``, ``../``, ``~`` or ``file://``, is a local path; ``http(s)://``
    is a URL; anything else is a bucket and what is in it, with the storage's scheme in front or without.
    """
    if isinstance(source, os.PathLike):
        return Location(os.fspath(source), "path", None, _absolute(os.fspath(source)))
    if not isinstance(source, str) or not source:
        raise InputError(f"{source!r} is not a data source: give text such as 'bucket/key', './file' or a URL")
    scheme, separator, rest = source.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
        if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
            return Location(source, "path", None, _absolute(source))
        return _object_location(source, source, bare=True)
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        return Location(source, "url", None, source)
    if scheme == "file":
        if not rest.removeprefix("localhost").startswith("/"):
            raise InputError(f"{source!r}: a file URL is file:///absolute/path")
        from urllib.parse import unquote

        return Location(source, "path", None, _absolute(unquote(rest.removeprefix("localhost"))))
    wanted = _STORAGE_SCHEMES.get(scheme, scheme)
    if wanted != storage_name:
        raise InputError(f"{source!r} is in the storage {wanted!r}, and the configured storage is {storage_name!r}")
    return _object_location(source, rest)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _object_location(text: str, path: str, bare: bool = False) -> Location:
    bucket, _, rest = path.partition("/")
    if not bucket or is_glob(bucket):
        raise InputError(f"{text!r}: the name of a bucket comes first, and it cannot be a pattern")
    return Location(text, "object", bucket, rest, bare)


def check_kinds(locations: list[Location], readable: Container[str]) -> None:
    """Raise ``InputError`` unless all are of one kind, and of one that workers can read."""
    first = {location.kind: location for location in reversed(locations)}
    if len(first) > 1:
        examples = " and ".join(f"{_KIND_NAMES[kind]} ({where.text!r})" for kind, where in sorted(first.items()))
        raise InputError(f"mixed object kinds: {examples} in one job; run one job for each")
    for kind, where in first.items():
        if kind not in readable:
            raise InputError(f"{where.text!r} is {_UNREADABLE[kind]}")


def discover_all(locations: list[Location], storage: StorageBackend, decompress: bool) -> list[list[Source]]:
    """``discover`` for each, several at a time."""
    if len(locations) == 1:
        return [discover(locations[0], storage, decompress)]
    pool = ThreadPoolExecutor(_CONCURRENT_REQUESTS, thread_name_prefix="lithops_mini-discover")
    try:
        return list(pool.map(lambda location: discover(location, storage, decompress), locations))
    finally:
        pool.shutdown(cancel_futures=True)


def discover(location: Location, storage: StorageBackend, decompress: bool = True) -> list[Source]:
    """Return what is at ``location``, at least one source, in key order.

    ``NoSuchBucket``, ``NoSuchObject`` if there is nothing; ``StorageError`` if a server cannot be asked.
    """
    if location.kind == "url":
        return [_discover_url(location.rest, decompress)]
    if location.kind == "path":
        found = [
            Source("path", None, file.path, file.size, file.version)
            for file in find_files(location.rest, location.text)
        ]
    else:
        found = _discover_objects(location, storage)
    return [replace(source, compression=_compression(source.key)) for source in found] if decompress else found


def _discover_url(url: str, decompress: bool) -> Source:
    from urllib.parse import unquote, urlsplit

    from lithops_mini.worker import http

    info = http.probe(url)
    compression = None
    if decompress:
        compression = "gzip" if "gzip" in info.encoding else _compression(unquote(urlsplit(url).path))
    return Source("url", None, url, info.size, info.etag, compression, info.ranged)


def _compression(name: str) -> str | None:
    return _COMPRESSIONS.get(os.path.splitext(name)[1].lower())


def _discover_objects(location: Location, storage: StorageBackend) -> list[Source]:
    bucket, rest = location.bucket, location.rest
    assert bucket is not None
    try:
        if is_glob(rest):
            matches = glob_regex(rest).fullmatch
            found = [info for info in _listing(storage, bucket, glob_prefix(rest)) if matches(info.key)]
        elif not rest or rest.endswith("/"):
            found = list(_listing(storage, bucket, rest))
        else:
            found = [_head(storage, location)]
    except (NoSuchBucket, InputError) as error:  # InputError: no bucket can have this name
        if location.bare and os.path.lexists(location.text):
            raise NoSuchBucket(
                f"there is no bucket {bucket!r}; for the local file or directory write './{location.text}'"
            ) from error
        raise
    if not found:
        what = f"matches {rest!r}" if is_glob(rest) else f"has a key that begins with {rest!r}" if rest else "is there"
        raise NoSuchObject(f"{location.text!r}: no object in the bucket {bucket!r} {what}")
    return [Source("object", bucket, info.key, info.size, info.etag) for info in found]


def _listing(storage: StorageBackend, bucket: str, prefix: str) -> Iterator[ObjectInfo]:
    """The data under a prefix: not what we stored ourselves, nor the empty objects that stand for directories."""
    # Whoever names our own prefix means it.
    ours = () if prefix.startswith(OWN_PREFIX) else (OWN_PREFIX,)
    for info in storage.list(bucket, prefix):
        if not info.key.startswith(ours) and not (info.size == 0 and info.key.endswith("/")):
            yield info


def _head(storage: StorageBackend, location: Location) -> ObjectInfo:
    bucket, key = location.bucket, location.rest
    assert bucket is not None
    try:
        return storage.head(bucket, key)
    except NoSuchObject as error:
        if next(storage.list(bucket, key + "/"), None) is not None:
            raise NoSuchObject(
                f"{location.text!r}: there is no such object, but there are objects below it: write '{location.text}/'"
            ) from error
        raise NoSuchObject(f"{location.text!r}: the bucket {bucket!r} has no object {key!r}") from error
