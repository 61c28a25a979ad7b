"""The storage seam: what a storage backend promises.

A backend holds bytes under (bucket, key). It knows nothing of jobs, calls or results, it does not retry and it does
not cache. Errors of its SDK become ours here, once, raised ``from`` the original.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

Body = bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview] | BinaryIO
"""What put() takes: one buffer, several buffers (written one after the other, never joined in memory), or an open
binary file read from where it stands to its end."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or a head request describes it."""

    key: str
    size: int  # bytes
    etag: str  # changes whenever the content does
    modified: float  # seconds since the epoch
    metadata: Mapping[str, str] = field(default_factory=dict)  # empty in listings


class StorageBackend(ABC):
    """Bytes under (bucket, key). All methods may be called from many threads at once.

    Errors: ``NoSuchBucket``, ``NoSuchObject``, ``ObjectExists``, ``AccessDenied``, else ``StorageError``;
    ``InputError`` for a bucket name or key that no object can have.
    """

    Options: ClassVar[type[Any]]  # a frozen dataclass: the backend's own settings

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
    def open(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> BinaryIO:
        """Return a forward-only binary stream of the same bytes as ``get``, read as it goes. Close it."""

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

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release connections. The backend is not used afterwards."""
