"""The average of each pollutant at each station on each day, by map and reduce; and the same plainly, to check it.

The functions for workers need nothing of this package there: they travel by value.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, BinaryIO

from lithops_mini.study.generator import MISSING

if TYPE_CHECKING:
    from lithops_mini.storage.api import Storage

ENGINES = ("python", "pandas")

_BUFFER = 1 << 18  # bytes that are read at a time
_ROWS = 10_000  # of a table of pandas
_SAMPLES = 100  # that are kept of one call

Sums = dict[str, dict[str, tuple[int, float]]]
"""By station and pollutant, with a tab between them, and by day: how many values, and their sum."""
Part = dict[str, Any]
"""What one call found: ``sums``, ``lines``, and ``samples`` of what it used at which time."""


class Meter(io.RawIOBase):
    """Streams one after the other, counted, and what the process has used while they were read.

    ``samples``: lists of seconds since the epoch, bytes read by this call, and seconds of the processor and bytes of
    memory, both of the whole process.
    """

    def __init__(self, streams: Iterable[BinaryIO]) -> None:
        self._streams = iter(streams)
        self._stream = next(self._streams, None)
        self._count = 0
        self._every = 0.05
        self.samples: list[list[float]] = []
        self.sample()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = 0
        while self._stream is not None and not (count := self._stream.readinto(buffer)):  # type: ignore[attr-defined]
            self._stream = next(self._streams, None)
        self._count += count
        if time.time() >= self.samples[-1][0] + self._every:
            self.sample()
        return count

    def sample(self) -> None:
        """Take note of now."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        try:
            with open("/proc/self/statm", "rb") as file:
                memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except FileNotFoundError:  # not Linux: the most there was
            memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.samples.append([time.time(), self._count, used.ru_utime + used.ru_stime, memory])
        if len(self.samples) > _SAMPLES:
            del self.samples[1:-1:2]
            self._every *= 2


def partial_sums(obj: Any, engine: str) -> Part:
    """The map function: count and add up the values in one share of the data, which may be several files.

    It is read as it is used: memory grows with the number of sums, and not with that of bytes.
    """
    pieces = obj if isinstance(obj, list) else [obj]
    meter = Meter(piece.data_stream for piece in pieces)
    stream = io.BufferedReader(meter, _BUFFER)
    sums, lines = _with_pandas(stream) if engine == "pandas" else _plainly(stream)
    meter.sample()
    return {"sums": sums, "lines": lines, "samples": meter.samples}


def _plainly(stream: Iterable[bytes]) -> tuple[Sums, int]:
    sums: Sums = {}
    count = 0
    for line in stream:
        count += 1
        row = json.loads(line)
        value = row["value"]
        if value != MISSING:
            days = sums.setdefault(f"{row['location']}\t{row['parameter']}", {})
            day = row["date"]["utc"][:10]
            number, total = days.get(day, (0, 0.0))
            days[day] = number + 1, total + value
    return sums, count


def _with_pandas(stream: Any) -> tuple[Sums, int]:
    import pandas

    sums: Sums = {}
    count = 0
    if not stream.peek(1):  # which pandas would take for a mistake
        return sums, 0
    for table in pandas.read_json(stream, lines=True, chunksize=_ROWS, dtype=False, precise_float=True):
        count += len(table)
        table["day"] = table["date"].map(lambda date: date["utc"][:10])
        found = table[table["value"] != MISSING].groupby(["location", "parameter", "day"])["value"]
        for (location, parameter, day), number, total in found.agg(["count", "sum"]).itertuples():
            add(sums, f"{location}\t{parameter}", day, number, total)
    return sums, count


def add(sums: Sums, sensor: str, day: str, number: int, total: float) -> None:
    """Add so many values of this sum."""
    days = sums.setdefault(sensor, {})
    before, sum_before = days.get(day, (0, 0.0))
    days[day] = before + int(number), sum_before + float(total)


def averages(results: Iterable[Part], storage: Storage, bucket: str, key: str) -> dict[str, Any]:
    """The reduce function: join the sums, divide, and store the averages as an object.

    Returns how many ``averages`` that are, of how many ``lines``, and the ``samples`` of each part.
    """
    sums: Sums = {}
    samples = []
    lines = 0
    for part in results:
        lines += part["lines"]
        samples.append(part["samples"])
        for sensor, days in part["sums"].items():
            for day, (number, total) in days.items():
                add(sums, sensor, day, number, total)
    with storage.open(bucket, key, "w") as file:
        file.writelines(table(sums))
    return {"averages": sum(map(len, sums.values())), "lines": lines, "samples": samples}


def table(sums: Sums) -> Iterator[str]:
    """Lines of station, pollutant, day, number of values and average, with tabs between them, in order."""
    for sensor in sorted(sums):
        for day in sorted(sums[sensor]):
            number, total = sums[sensor][day]
            yield f"{sensor}\t{day}\t{number}\t{total / number!r}\n"


def truth(files: Iterable[BinaryIO], at: Sequence[int]) -> Iterator[Iterator[str]]:
    """The table, made by one process and without rounding: for the first file, for two of them, and so on.

    ``at``: after how many files there is one to be had, in ascending order.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for number, file in enumerate(files, start=1):
        for line in file:
            row = json.loads(line, parse_float=Decimal)
            if row["value"] != MISSING:
                days = found.setdefault(f"{row['location']}\t{row['parameter']}", {})
                sum_of_day = days.setdefault(row["date"]["utc"][:10], [0, Decimal(0)])
                sum_of_day[0] += 1
                sum_of_day[1] += row["value"]
        if number in at:
            yield _exact_table(found)


def _exact_table(found: dict[str, dict[str, list[Any]]]) -> Iterator[str]:
    for sensor, days in sorted(found.items()):
        for day, (number, total) in sorted(days.items()):
            yield f"{sensor}\t{day}\t{number}\t{float(total / number)!r}\n"


def differences(found: Iterable[str], right: Iterable[str]) -> Iterator[str]:
    """What is not the same in two tables: numbers exactly, averages within the rounding of sums."""
    for line, expected in zip_longest(found, right, fillvalue=""):
        key, _, average = line.rstrip("\n").rpartition("\t")
        right_key, _, right_average = expected.rstrip("\n").rpartition("\t")
        if key != right_key or not math.isclose(float(average), float(right_average), rel_tol=1e-9, abs_tol=1e-12):
            yield f"{line.strip()!r} instead of {expected.strip()!r}"
