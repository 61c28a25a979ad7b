"""``runtime_memory="auto"``: how much memory workers get for what their calls read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lithops_mini.job.plan import DATA, PlannedCall
from lithops_mini.records import Partition

# What there is without any input, and for each byte of it, in bytes: Python with some packages; the bytes as they are
# read, what is made of them, and what is made of that.
_BASE, _TIMES = 256 << 20, 4
# Compressed data, unpacked, is taken for so many times as large.
_UNPACKED = 4
# The sizes that are given, in MiB: these and the doubles between them, since each may be a function to be made.
_LEAST, _MOST = 512, 8192


def fitting(calls: Iterable[PlannedCall], arguments: int = 0) -> int:
    """MiB for the calls: 256 and four times the largest input, as 512, 1,024, 2,048, 4,096 or 8,192.

    The input of a call is the largest piece of data that it reads, and its pickled arguments, of which the longest have
    so many bytes.
    """
    largest = max((size for call in calls for size in _pieces(call)), default=0)
    needed = (_BASE + _TIMES * (largest + arguments)) >> 20
    memory = _LEAST
    while memory < min(needed, _MOST):
        memory *= 2
    return memory


def _pieces(call: PlannedCall) -> Iterator[int]:
    for name in DATA:
        planned: Any = call.kwargs.get(name)
        for piece in planned if isinstance(planned, list) else [planned]:
            if isinstance(piece, Partition):
                stop = piece.stop if piece.stop is not None else piece.size or 0
                yield max(0, stop - piece.start) * (_UNPACKED if piece.compression else 1)
