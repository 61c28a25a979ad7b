"""The study: one analysis for each number of workers and each amount of data, measured and kept."""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from lithops_mini.config import load
from lithops_mini.durations import format_duration
from lithops_mini.errors import ConfigError, InputError, LithopsMiniError
from lithops_mini.executor import FunctionExecutor, function_executor
from lithops_mini.measures import time_to_distribute
from lithops_mini.plots.style import counted
from lithops_mini.records import CallStats
from lithops_mini.study import analysis, dataset
from lithops_mini.study.dataset import DataSet, File

SAME, OTHER = "same", "other"
"""Regions: that of the workers, and one far from them."""

_TABLE = "measurements.csv"
_RUNS = "runs"  # a directory
_GIGABYTE = 1e9


class Point(NamedTuple):
    """One run of the study."""

    engine: str
    workers: int
    gigabytes: float  # of data, as they were asked for
    repeat: int
    region: str = SAME

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.workers}-{self.gigabytes:g}-{self.region}-{self.repeat}"


@dataclass(frozen=True)
class Measurement:
    """What a run has come to. Times are seconds, sizes are bytes, for all workers together."""

    backend: str
    storage: str
    data: str  # its seed and stations
    engine: str
    workers: int
    gigabytes: float
    repeat: int
    region: str
    bytes_read: int
    lines: int
    averages: int
    calls: int  # of the map
    cold_starts: int
    retries: int
    wall_time: float  # from the call of map_reduce to its result
    map_time: float
    reduce_time: float
    distribution_time: float  # until each worker has begun
    function_time: float  # of the map, all calls
    cpu_time: float  # of the map, all calls
    cpu_share: float  # of the workers' time in which they held a processor
    bytes_per_second: float
    peak_memory: int  # of one worker
    bytes_in: int
    bytes_out: int
    storage_requests: int
    gb_seconds: float
    dollars: float
    checked: int  # 1: the result was compared with the truth, and is right; 0: it was not compared

    @property
    def point(self) -> Point:
        return Point(self.engine, self.workers, self.gigabytes, self.repeat, self.region)


@dataclass(frozen=True)
class Run:
    """A measurement, and what its pictures are made of."""

    measured: Measurement
    stages: Sequence[tuple[str, Sequence[CallStats]]]
    samples: Sequence[Sequence[Sequence[float]]]  # of each call of the map: see analysis.Meter


@dataclass(frozen=True)
class Place:
    """Where runs of a region take place: arguments of ``function_executor``, and what must hold meanwhile."""

    settings: Mapping[str, Any]
    meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Grid:
    """What is measured."""

    workers: Sequence[int]
    gigabytes: Sequence[float]
    engines: Sequence[str] = ("python",)
    repeat: int = 3

    def points(self, *, other_region: bool) -> Iterator[Point]:
        """Every run. The other region is compared with the largest data, by one engine."""
        for repeat in range(1, self.repeat + 1):
            for gigabytes in sorted(self.gigabytes):
                for engine in self.engines:
                    for workers in sorted(self.workers, reverse=True):
                        yield Point(engine, workers, gigabytes, repeat)
            if other_region:
                for workers in sorted(self.workers, reverse=True):
                    yield Point(self.engines[0], workers, max(self.gigabytes), repeat, OTHER)


class Study:
    """A directory of measurements; those that are there already are not made again."""

    def __init__(self, directory: Path, places: Mapping[str, Place], *, seed: int, stations: int, check: bool) -> None:
        """``places`` by region; ``SAME`` is among them. With ``check``, every result is compared with the truth."""
        self._directory = directory
        self._places = places
        self._seed, self._stations = seed, stations
        self._check = check
        self._files: dict[str, list[File]] = {}  # of the largest amount, by region
        (directory / _RUNS).mkdir(parents=True, exist_ok=True)

    def measured(self) -> list[Measurement]:
        """Those in the directory, in the order in which they were made."""
        try:
            with open(self._directory / _TABLE, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except FileNotFoundError:
            return []
        try:
            return [_measurement(row) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._directory / _TABLE} is not a table of this version of the study: give another directory"
            ) from error

    def runs(self) -> list[Run]:
        """Measurements with what their pictures are made of."""
        return [self._run_of(measured) for measured in self.measured()]

    def run(self, grid: Grid, *, again: bool, tell: Callable[[str], None]) -> None:
        """Make the measurements of this grid that are not there, or all with ``again``.

        ``LithopsMiniError`` if a result is not the truth.
        """
        config = {region: place.settings for region, place in self._places.items()}
        points = list(grid.points(other_region=OTHER in config))
        here = self._identity()
        before = self.measured()
        if any((each.backend, each.storage, each.data) != here for each in before if each.region == SAME):
            raise InputError(f"{self._directory} has measurements of other backends or data: give another directory")
        if again:
            before = [each for each in before if each.point not in points]
            self._write(before)
        there = {each.point for each in before}
        missing = [point for point in points if point not in there]
        if not missing:
            tell("Everything was measured before: --again measures it anew.")
            return
        self._provide(missing, tell)
        for number, point in enumerate(missing, start=1):
            run = self._run(point)
            self._keep(run)
            tell(f"{number} of {len(missing)}: {_told(run.measured)}")

    def _identity(self) -> tuple[str, str, str]:
        config = load(**self._places[SAME].settings)
        return config.backend, config.storage, f"{self._seed}-{self._stations}"

    def _data(self, executor: FunctionExecutor) -> DataSet:
        return DataSet(executor.storage.bucket, self._seed, self._stations)

    def _provide(self, points: Sequence[Point], tell: Callable[[str], None]) -> None:
        for region in sorted({point.region for point in points}, reverse=True):
            place = self._places[region]
            amounts = sorted({point.gigabytes for point in points if point.region == region})
            began = time.perf_counter()
            with function_executor(**place.settings) as executor:
                data = self._data(executor)
                counts = [data.count(amount * _GIGABYTE) for amount in amounts]
                files = self._files[region] = dataset.provide(executor, data, max(counts))
                if self._check:
                    dataset.provide_truths(executor.storage, data, counts)
                executor.clean()
            size = sum(file.size for file in files)
            where = " in the other region" if region == OTHER else ""
            took = format_duration(time.perf_counter() - began)
            tell(f"{size / _GIGABYTE:.3g} GB in {counted(len(files), 'file')}{where}, after {took}")

    def _run(self, point: Point) -> Run:
        place = self._places[point.region]
        with function_executor(**with_workers(place.settings, point.workers)) as executor, place.meanwhile():
            data = self._data(executor)
            files = self._files[point.region][: data.count(point.gigabytes * _GIGABYTE)]
            key = f"{data.prefix}results/{point.name}.tsv"
            began = time.time()
            futures = executor.map_reduce(
                analysis.partial_sums,
                [f"{data.bucket}/{data.key(file.number)}" for file in files],
                analysis.averages,
                chunksize=1,
                extra_args={"engine": point.engine},
                extra_args_reduce={"bucket": data.bucket, "key": key},
                **dataset.shares([file.size for file in files], point.workers),
            )
            found = executor.get_result(futures)
            wall_time = time.time() - began
            if self._check and (wrong := dataset.check(executor.storage, data, key, len(files))):
                raise LithopsMiniError(f"{data.bucket}/{key} is not the truth: {'; '.join(wrong)}")
            executor.storage.delete_object(data.bucket, key)
            run = _measure(executor, point, data, found, wall_time, checked=self._check)
            executor.clean()
        return run

    def _keep(self, run: Run) -> None:
        calls = [(name, [asdict(call) for call in stats]) for name, stats in run.stages]
        self._path(run.measured.point).write_text(json.dumps({"stages": calls, "samples": run.samples}))
        self._write([*self.measured(), run.measured])

    def _write(self, measured: Iterable[Measurement]) -> None:
        path = self._directory / _TABLE
        beside = path.with_suffix(".part")
        with open(beside, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(field.name for field in fields(Measurement))
            rows.writerows(astuple(each) for each in measured)
        beside.replace(path)

    def _path(self, point: Point) -> Path:
        return self._directory / _RUNS / f"{point.name}.json"

    def _run_of(self, measured: Measurement) -> Run:
        told = json.loads(self._path(measured.point).read_text())
        stages = [(name, [CallStats(**call) for call in stats]) for name, stats in told["stages"]]
        return Run(measured, stages, told["samples"])


def _measure(
    executor: FunctionExecutor,
    point: Point,
    data: DataSet,
    found: Mapping[str, Any],
    wall_time: float,
    *,
    checked: bool,
) -> Run:
    stages = executor.stats()
    mapped, reduced = (stats for _, stats in stages)
    bill = executor.bill().total
    function_time = sum(call.function_time or 0.0 for call in mapped)
    cpu_time = sum(call.cpu_user + call.cpu_system for call in mapped)
    map_time = max(call.settled for call in mapped) - min(call.submitted for call in mapped)
    bytes_read = int(sum(samples[-1][1] for samples in found["samples"]))
    measured = Measurement(
        backend=executor.config.backend,
        storage=executor.config.storage,
        data=f"{data.seed}-{data.stations}",
        engine=point.engine,
        workers=point.workers,
        gigabytes=point.gigabytes,
        repeat=point.repeat,
        region=point.region,
        bytes_read=bytes_read,
        lines=found["lines"],
        averages=found["averages"],
        calls=len(mapped),
        cold_starts=sum(call.cold for call in mapped),
        retries=sum(max(call.attempt - 1, 0) for call in mapped),
        wall_time=wall_time,
        map_time=map_time,
        reduce_time=max(call.function_time or 0.0 for call in reduced),
        distribution_time=time_to_distribute(mapped) or 0.0,
        function_time=function_time,
        cpu_time=cpu_time,
        cpu_share=cpu_time / (point.workers * map_time),
        bytes_per_second=bytes_read / map_time,
        peak_memory=max(call.peak_memory for call in mapped),
        bytes_in=sum(call.bytes_in for call in (*mapped, *reduced)),
        bytes_out=sum(call.bytes_out for call in (*mapped, *reduced)),
        storage_requests=sum(bill.requests),
        gb_seconds=bill.gb_seconds,
        dollars=bill.dollars,
        checked=int(checked),
    )
    return Run(measured, stages, found["samples"])


def _measurement(row: Mapping[str, str]) -> Measurement:
    kinds = {"int": int, "float": float, "str": str}
    return Measurement(**{field.name: kinds[str(field.type)](row[field.name]) for field in fields(Measurement)})


def _told(run: Measurement) -> str:
    where = ", other region" if run.region == OTHER else ""
    return (
        f"{run.engine}, {counted(run.workers, 'worker')}, {run.gigabytes:g} GB{where}: {run.wall_time:.2f} s,"
        f" {run.bytes_per_second / 1e6:.1f} MB/s"
    )


def with_workers(settings: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The arguments of ``function_executor``, and that there are to be so many workers at most."""
    config = load(**settings)
    if hasattr(config.compute_options, "max_workers"):
        return {**settings, "max_workers": number}
    if number > 1:
        raise ConfigError(f"the backend {config.backend} has one worker, not {number:,}: use --workers 1")
    return dict(settings)


def medians(runs: Iterable[Measurement], what: str) -> dict[tuple[str, float, str], dict[int, float]]:
    """The median of the repeats: for engine, gigabytes and region, by the number of workers."""
    found: dict[tuple[str, float, str], dict[int, list[float]]] = {}
    for run in runs:
        by_workers = found.setdefault((run.engine, run.gigabytes, run.region), {})
        by_workers.setdefault(run.workers, []).append(getattr(run, what))
    return {
        line: {workers: statistics.median(values) for workers, values in sorted(by_workers.items())}
        for line, by_workers in sorted(found.items(), key=lambda each: (*each[0][:2], each[0][2] != SAME))
    }
