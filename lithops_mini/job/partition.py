"""How data is cut: sources in, partitions out, and partitions packed into calls."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import SupportsIndex

from lithops_mini.errors import InputError
from lithops_mini.job.sources import Source, check_kinds, discover_all, locate
from lithops_mini.job.sources import SourceText as SourceText
from lithops_mini.records import Partition
from lithops_mini.sizes import parse_size
from lithops_mini.storage.base import StorageBackend

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cutting:
    """How sources are cut; checked by ``cutting``. With neither size nor number a source is one partition."""

    chunk_size: int | None = None  # bytes
    chunk_number: int | None = None  # of partitions per source
    delimiter: bytes | None = b"\n"
    decompress: bool = True
    pack_size: int | None = None  # bytes; sources up to this size are not cut


def plan_partitions(
    sources: SourceText | Iterable[SourceText],
    *,
    storage: StorageBackend,
    storage_name: str,
    readable: Container[str],
    obj_chunk_size: SupportsIndex | str | None = None,
    obj_chunk_number: int | None = None,
    obj_newline: str | bytes | None = "\n",
    obj_decompress: bool = True,
    obj_pack_size: SupportsIndex | str | None = None,
) -> list[list[list[Partition]]]:
    """Return ``plan[i][j]``: the partitions, in order, of the j-th object (file, URL) of the i-th source.

    ``storage_name`` is the configured storage backend's name, which a scheme must stand for; ``readable``: the
    kinds of ``Partition`` that workers can read. An object has at least one partition, also when it is empty.
    Nothing is read; what cannot be run raises ``InputError``, ``NoSuchBucket`` or ``NoSuchObject`` here. See ``pack``.
    """
    how = cutting(obj_chunk_size, obj_chunk_number, obj_newline, obj_decompress, obj_pack_size)
    texts = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    locations = [locate(text, storage_name) for text in texts]
    check_kinds(locations, readable)
    found = discover_all(locations, storage, how.decompress)
    whole = sum(not source.cuttable for item in found for source in item)
    if whole and (how.chunk_size or how.chunk_number):
        logger.warning("%d of the sources cannot be cut (compressed, or no range requests): one call for each", whole)
    return [[cut(source, how) for source in item] for item in found]


def cutting(
    chunk_size: SupportsIndex | str | None,
    chunk_number: int | None,
    newline: str | bytes | None,
    decompress: bool,
    pack_size: SupportsIndex | str | None,
) -> Cutting:
    """Check the arguments that say how to cut."""
    if chunk_size is not None and chunk_number is not None:
        raise InputError("give obj_chunk_size or obj_chunk_number, not both")
    if newline is not None and (not isinstance(newline, (str, bytes)) or not newline):
        raise InputError(f"obj_newline={newline!r}: give the text that ends a record, or None for exact bytes")
    return Cutting(
        _positive("obj_chunk_size", None if chunk_size is None else parse_size(chunk_size)),
        _positive("obj_chunk_number", chunk_number),
        newline.encode() if isinstance(newline, str) else newline,
        decompress,
        _positive("obj_pack_size", None if pack_size is None else parse_size(pack_size)),
    )


def _positive(name: str, value: int | None) -> int | None:
    try:
        count = None if value is None else operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r}: give a whole number") from None
    if count is not None and count < 1:
        raise InputError(f"{name}={value!r}: it must be at least 1")
    return count


def cut(source: Source, how: Cutting) -> list[Partition]:
    """Return the partitions of a source, at least one. Together their ranges are all of it."""
    size = source.size
    edges = [0, size]
    if size is not None and source.cuttable and not (how.pack_size and size <= how.pack_size):
        if how.chunk_number:
            edges = [size * part // how.chunk_number for part in range(how.chunk_number + 1)]
        elif how.chunk_size and size:
            edges = [*range(0, size, how.chunk_size), size]
    total = len(edges) - 1
    return [
        Partition(
            kind=source.kind,
            bucket=source.bucket,
            key=source.key,
            size=size,
            part=part,
            total_parts=total,
            start=edges[part] or 0,
            stop=edges[part + 1],
            delimiter=how.delimiter,
            compression=source.compression if size != 0 else None,
            etag=source.etag,
        )
        for part in range(total)
    ]


def pack(objects: Iterable[list[Partition]], pack_size: SupportsIndex | str | None = None) -> list[list[Partition]]:
    """Return each call's partitions: one, or, with ``pack_size``, those of neighbouring small objects.

    A pack holds at most ``pack_size`` bytes of whole objects; an object that is larger, was cut, or does not say its
    size is not packed. The order is kept.
    """
    limit = None if pack_size is None else _positive("obj_pack_size", parse_size(pack_size))
    calls: list[list[Partition]] = []
    room = -1  # bytes left in the last call's pack; negative: it takes no more
    for partitions in objects:
        size = partitions[0].size
        if limit is None or size is None or size > limit or len(partitions) > 1:
            calls.extend([partition] for partition in partitions)
            room = -1
        elif size <= room:
            calls[-1].append(partitions[0])
            room -= size
        else:
            calls.append([partitions[0]])
            room = limit - size
    return calls
