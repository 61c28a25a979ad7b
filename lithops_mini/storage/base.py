"""The storage seam: what a storage backend promises.

A backend holds bytes under (bucket, key). It knows nothing of jobs, calls or results, it does not retry and it does
not cache. Errors of its SDK become ours here, once, raised ``from`` the original.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

from lithops_mini.errors import InputError
from lithops_mini.records import Requests

Body = bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview] | BinaryIO
"""What put() takes: one buffer, several buffers (written one after the other, never joined in memory), or an open
binary file read from where it stands to its end."""

Progress = Callable[[int], object]
"""Called with the number of bytes moved since the last time."""

MAX_METADATA = 2048  # bytes of all names and values in UTF-8, as in S3

_BLOCK = 1 << 20  # bytes copied at a time


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or a head request describes it."""

    key: str
    size: int  # bytes
    etag: str  # changes whenever the content does
    modified: float  # seconds since the epoch
    metadata: Mapping[str, str] = field(default_factory=dict)  # empty in listings


@dataclass(frozen=True, slots=True)
class HostPath:
    """A directory or file of the client's machine that workers must see under the same path."""

    path: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class WorkerNeeds:
    """What a worker must have, besides ``worker_options()``, to reach a storage."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables with the credentials that a configuration gives. They are secret: they go into the environment of a
    worker's processes or to its platform, never into a message or an object."""
    found: Callable[[], Mapping[str, str]] = field(default=dict, repr=False)
    """The same with the credentials that were found on this machine, for workers that find neither these nor their own:
    as good as the ``environment``, and as long as they are valid."""
    packages: tuple[str, ...] = ()  # distributions that must be installed there
    paths: tuple[HostPath, ...] = ()
    endpoint: str | None = None  # the URL of the service, where one was given

    @property
    def remote(self) -> bool:
        """Whether it is reached from another machine: without an address, a storage with directories is these."""
        return not self.paths or self.endpoint is not None


class StorageBackend(ABC):
    """Bytes under (bucket, key). All methods may be called from many threads at once.

    Errors: ``NoSuchBucket``, ``NoSuchObject``, ``ObjectExists``, ``ObjectChanged``, ``AccessDenied``,
    ``StorageUnavailable`` when the same request may succeed later, else ``StorageError``; ``InputError`` for a bucket
    name or key that no object can have.
    """

    Options: ClassVar[type[Any]]  # a frozen dataclass: the backend's own settings
    worker_packages: ClassVar[tuple[str, ...]] = ()  # distributions a worker must have, such as "botocore"

    @abstractmethod
    def put(
        self,
        bucket: str,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Store ``body`` atomically: a reader sees the old object, or the whole new one, never a part.

        With ``if_absent`` raises ``ObjectExists`` and changes nothing when the key is taken; of several racing
        writers exactly one succeeds.
        """

    @abstractmethod
    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start <= i < stop``, clipped at the object's end (so possibly empty)."""

    @abstractmethod
    def open(
        self, bucket: str, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> BinaryIO:
        """Return a forward-only binary stream of the same bytes as ``get``, read as it goes. Close it.

        All of it is of one version of the object: of the one with this ``etag``, if one is given. Raises
        ``ObjectChanged``, at once or while it is read, when that version is gone.
        """

    def download(self, bucket: str, key: str, file: BinaryIO, progress: Progress | None = None) -> None:
        """Write the object to an empty file, opened for writing; ``progress`` is called by one thread at a time."""
        with self.open(bucket, key) as stream:
            while block := stream.read(_BLOCK):
                file.write(block)
                if progress is not None:
                    progress(len(block))

    @abstractmethod
    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Describe the object without reading it."""

    @abstractmethod
    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix`` and is greater than ``after``, in key order, lazily."""

    @abstractmethod
    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete the objects; missing ones are fine."""

    @abstractmethod
    def create_bucket(self, bucket: str) -> None:
        """Make the bucket; it may exist already."""

    @abstractmethod
    def head_bucket(self, bucket: str) -> None:
        """Return if the bucket exists and may be used; raise ``NoSuchBucket`` or ``AccessDenied``."""

    @abstractmethod
    def worker_options(self) -> dict[str, Any]:
        """The options a worker needs to reach the same objects; never a credential."""

    def worker_needs(self, bucket: str) -> WorkerNeeds:
        """What workers must have to read all objects, and to write those of jobs in ``bucket``, which exists."""
        return WorkerNeeds()

    def prepare(self) -> None:  # noqa: B027 - most backends have nothing to do
        """Do what the first request would have to do before it is sent, as importing an SDK. Another time is fine."""

    def requests(self) -> Requests | None:
        """The requests this backend has sent so far; ``None`` if it has no service that would charge for them."""
        return None

    def presigned_url(self, bucket: str, key: str, *, method: str = "get", expires: float = 3600) -> str:
        """Return a URL by which anybody may get (or ``put``) this object for so many seconds, without credentials."""
        raise InputError(f"objects of {type(self).__name__} have no URLs")

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release connections. The backend is not used afterwards."""
