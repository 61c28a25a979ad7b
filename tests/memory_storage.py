"""A storage backend in memory that keeps a record of the requests it got."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from hashlib import md5
from typing import Any, BinaryIO

from lithops_mini.errors import NoSuchBucket, NoSuchObject, ObjectChanged
from lithops_mini.storage.base import ObjectInfo, StorageBackend


class MemoryStorage(StorageBackend):
    def __init__(self, **buckets: dict[str, bytes]) -> None:
        self.buckets = buckets
        self.requests: list[tuple[Any, ...]] = []
        self.streams: list[io.BytesIO] = []

    def _object(self, bucket: str, key: str) -> bytes:
        self.head_bucket(bucket)
        if key not in self.buckets[bucket]:
            raise NoSuchObject(f"no {key!r} in {bucket!r}")
        return self.buckets[bucket][key]

    def put(self, bucket: str, key: str, body: Any, **_: Any) -> None:
        self.head_bucket(bucket)
        self.buckets[bucket][key] = bytes(body)

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.requests.append(("get", key, start, stop))
        return self._object(bucket, key)[start:stop]

    def open(
        self, bucket: str, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> BinaryIO:
        self.requests.append(("open", key, start, stop))
        data = self._object(bucket, key)
        if etag is not None and etag != self._info(key, data).etag:
            raise ObjectChanged(f"another version of {key!r} is there")
        stream = io.BytesIO(data[start:stop])
        self.streams.append(stream)
        return stream

    def _info(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), md5(data).hexdigest(), 0.0)

    def head(self, bucket: str, key: str) -> ObjectInfo:
        self.requests.append(("head", key))
        return self._info(key, self._object(bucket, key))

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        self.head_bucket(bucket)
        self.requests.append(("list", prefix))
        for key in sorted(self.buckets[bucket]):
            if key.startswith(prefix) and key > after:
                yield self._info(key, self.buckets[bucket][key])

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.buckets[bucket].pop(key, None)

    def create_bucket(self, bucket: str) -> None:
        self.buckets.setdefault(bucket, {})

    def head_bucket(self, bucket: str) -> None:
        if bucket not in self.buckets:
            raise NoSuchBucket(f"no bucket {bucket!r}")

    def worker_options(self) -> dict[str, Any]:
        return {}
