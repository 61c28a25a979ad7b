"""What a backend gives its workers: processors, storage, starts and containers that are used again."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle

import lithops_mini.study
from lithops_mini.durations import format_duration
from lithops_mini.executor import FunctionExecutor, function_executor
from lithops_mini.measures import quantile
from lithops_mini.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, plain_axes, titled_figure, write_title
from lithops_mini.records import STUDY_PREFIX
from lithops_mini.study.grid import with_workers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lithops_mini.storage.api import Storage

# Workers elsewhere have of lithops_mini what runs calls, and no more.
cloudpickle.register_pickle_by_value(lithops_mini.study)

_HEIGHT = 4.2  # inches
_BLOCK = 1 << 20
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Cell = str | int | float


@dataclass(frozen=True)
class Result:
    """A table, and how to draw it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    draw: Callable[[], Figure]
    note: str = ""


# What runs in workers.


def _multiply(_: int, size: int, seconds: float) -> tuple[int, float, float, str]:
    """Multiply matrices for so long; return operations, begin, end, and by what."""
    try:
        import numpy
    except ImportError:
        return _add_up(seconds)
    matrix = numpy.random.default_rng(1).random((size, size))
    matrix @ matrix
    done, begin = 0, time.time()
    while time.time() < begin + seconds:
        matrix @ matrix
        done += 2 * size**3
    return done, begin, time.time(), f"numpy {numpy.__version__}"


def _add_up(seconds: float) -> tuple[int, float, float, str]:
    values = [0.5 + number for number in range(10_000)]
    done, begin = 0, time.time()
    while time.time() < begin + seconds:
        total = 0.0
        for value in values:
            total += value * value
        done += 2 * len(values)
    return done, begin, time.time(), "plain Python, since workers have no numpy"


def _write(number: int, storage: Storage, prefix: str, size: int) -> tuple[int, float, float]:
    block = os.urandom(_BLOCK)
    body = [*[block] * (size // _BLOCK), block[: size % _BLOCK]]
    begin = time.time()
    storage.put_object(None, f"{prefix}{number}", body)
    return size, begin, time.time()


def _read(number: int, storage: Storage, prefix: str) -> tuple[int, float, float]:
    done, begin = 0, time.time()
    with storage.get_object(None, f"{prefix}{number}", stream=True) as file:
        while block := file.read(_BLOCK):
            done += len(block)
    return done, begin, time.time()


def _nothing(_: int) -> None:
    return None


def _hold(_: int, seconds: float) -> None:
    time.sleep(seconds)


# What is measured.


def flops(settings: Mapping[str, Any], workers: Sequence[int], *, size: int = 1024, seconds: float = 2.0) -> Result:
    """Floating-point operations a second of so many workers at once, one thread each: products of matrices of ``size``.

    Without numpy in the workers, products of numbers in plain Python.
    """
    rows: list[list[Cell]] = []
    means: set[str] = set()
    with function_executor(**with_workers(settings, max(workers))) as executor:
        for number in workers:
            call = partial(_multiply, size=size, seconds=seconds)
            found = _at_once(executor, call, number, extra_env=_ONE_THREAD)
            means |= {each[3] for each in found}
            alone, together = _rates(found)
            rows.append([number, alone / 1e9, together / 1e9])
        executor.clean()
    headings = ["workers", "gflops_per_worker", "gflops"]
    note = f"Products of matrices of {size:,}, by {', '.join(sorted(means))}"
    return Result(headings, rows, partial(_draw_rates, "Floating-point operations", "GFLOPS", [("", rows)]), note)


def storage(settings: Mapping[str, Any], workers: Sequence[int], *, size: int) -> Result:
    """Bytes a second that so many workers at once write to and read from storage, an object of ``size`` bytes each."""
    rows: list[list[Cell]] = []
    drawn: dict[str, list[list[Cell]]] = {"write": [], "read": []}
    with function_executor(**with_workers(settings, max(workers))) as executor:
        prefix = f"{STUDY_PREFIX}bench/{os.urandom(6).hex()}/"
        try:
            for number in workers:
                write = partial(_write, prefix=prefix, size=size)
                read = partial(_read, prefix=prefix)
                for name, call in (("write", write), ("read", read)):
                    found = _at_once(executor, call, number)
                    alone, together = _rates(found)
                    drawn[name].append([number, alone / 1e6, together / 1e6])
                    rows.append([name, *drawn[name][-1]])
        finally:
            executor.storage.delete_objects(None, list(executor.storage.list_keys(None, prefix)))
        executor.clean()
    headings = ["what", "workers", "mb_per_second_per_worker", "mb_per_second"]
    note = f"Objects of {size / 1e6:,.0f} MB, one for each worker"
    return Result(headings, rows, partial(_draw_rates, "Storage", "MB/s", list(drawn.items())), note)


def latency(settings: Mapping[str, Any], *, cold: int = 5, warm: int = 50) -> Result:
    """Seconds from submit to result of a call that does nothing: the first ones of executors, and later ones."""
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(cold):
        with function_executor(**with_workers(settings, 1)) as executor:
            for _ in range(1 + (warm if number == cold - 1 else 0)):
                began = time.perf_counter()
                future = executor.submit(_nothing, 0)
                executor.get_result(future)
                took = time.perf_counter() - began
                times["cold" if future.stats and future.stats.cold else "warm"].append(took)
            executor.clean()
    rows: list[list[Cell]] = []
    for kind, found in times.items():
        if found:
            ordered = sorted(found)
            rows.append([kind, len(found), ordered[0], *(quantile(ordered, share) for share in (0.5, 0.95, 1.0))])
    headings = ["start", "calls", "least_seconds", "median_seconds", "percentile_95_seconds", "most_seconds"]
    note = "" if times["cold"] else "No start was cold: there are workers from before"
    return Result(headings, rows, partial(_draw_latency, times), note)


def reuse(settings: Mapping[str, Any], *, workers: int, rounds: int = 5, calls: int, seconds: float = 0.1) -> Result:
    """Which workers ran calls of one round after the other: ``calls`` of each, which take so many seconds each."""
    rows: list[list[Cell]] = []
    known: set[str] = set()
    with function_executor(**with_workers(settings, workers)) as executor:
        for number in range(1, rounds + 1):
            futures = executor.map(_hold, range(calls), chunksize=1, extra_args={"seconds": seconds})
            executor.get_result(futures)
            names = [future.stats.worker_id for future in futures if future.stats is not None]
            fresh = set(names) - known
            reused = sum(name in known for name in names)
            rows.append([number, len(names), len(set(names)), len(fresh), reused / len(names)])
            known |= set(names)
        executor.clean()
    headings = ["round", "calls", "workers", "new_workers", "share_of_calls_on_known_workers"]
    return Result(headings, rows, partial(_draw_reuse, rows))


def _at_once(
    executor: FunctionExecutor, call: Callable[..., Any], number: int, *, extra_env: Mapping[str, str] | None = None
) -> list[Any]:
    """One call for each of so many workers, once these are warm."""
    warm = partial(_hold, seconds=0.05)
    executor.get_result(executor.map(warm, range(number), chunksize=1, extra_env=extra_env))
    found: list[Any] = executor.get_result(executor.map(call, range(number), chunksize=1, extra_env=extra_env))
    return found


def _rates(found: Iterable[Sequence[Any]]) -> tuple[float, float]:
    """What a worker did a second, the median; and what all did together, from the first begin to the last end."""
    amounts = [(each[0], each[1], each[2]) for each in found]
    alone = statistics.median(amount / (end - begin) for amount, begin, end in amounts)
    took = max(end for _, _, end in amounts) - min(begin for _, begin, _ in amounts)
    return alone, sum(amount for amount, _, _ in amounts) / took


# Pictures.


def _draw_rates(title: str, unit: str, series: Sequence[tuple[str, Sequence[Sequence[Cell]]]]) -> Figure:
    figure = titled_figure(f"{title}, by workers", _HEIGHT)
    for ax, column, told in zip(figure.subplots(1, 2), (2, 1), ("together", "per worker, median"), strict=True):
        plain_axes([ax])
        for (name, rows), colour in zip(series, (BLUE, ORANGE), strict=False):
            workers = [row[0] for row in rows]
            values = [float(row[column]) for row in rows]
            ax.plot(workers, values, color=colour, marker="o", label=name or "measured")
            if column == 2:
                first = values[0] / float(workers[0])
                ideal = [first * float(number) for number in workers]
                ax.plot(
                    workers, ideal, color=GREY, linestyle=":", linewidth=1.2, label="ideal" if colour == BLUE else ""
                )
        _count(ax, {int(row[0]) for _, rows in series for row in rows})
        ax.set_ylim(bottom=0)
        write_title(ax, f"{unit} {told}")
    figure.axes[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _count(ax: Axes, workers: set[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(workers), [f"{number:,}" for number in sorted(workers)])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("workers", color=INK)


def _draw_latency(times: Mapping[str, Sequence[float]]) -> Figure:
    figure = titled_figure("Latency of a call that does nothing, from submit to result", _HEIGHT)
    there = [(kind, sorted(found)) for kind, found in times.items() if found]
    for ax, (kind, found) in zip(figure.subplots(1, len(there), squeeze=False)[0], there, strict=True):
        plain_axes([ax])
        shares = [(number + 1) / len(found) for number in range(len(found))]
        ax.step([found[0], *found], [0.0, *shares], where="post", color=ORANGE if kind == "cold" else BLUE)
        ax.axvline(quantile(found, 0.5), color=INK, linewidth=1, linestyle="--")
        ax.set_ylim(0, 1.02)
        ax.set_xlim(left=0)
        ax.locator_params(axis="x", nbins=5)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        ax.xaxis.set_major_formatter(lambda value, _: format_duration(value, 2))
        write_title(ax, f"{kind} worker: median {format_duration(quantile(found, 0.5))} of {len(found):,} calls")
    return figure


def _draw_reuse(rows: Sequence[Sequence[Cell]]) -> Figure:
    figure = titled_figure("Workers of one round of calls after the other", _HEIGHT)
    ax = figure.subplots()
    plain_axes([ax])
    rounds = [int(row[0]) for row in rows]
    fresh = [int(row[3]) for row in rows]
    known = [int(row[2]) - int(row[3]) for row in rows]
    ax.bar(rounds, known, color=GREEN, width=0.6, label="seen in a round before")
    ax.bar(rounds, fresh, bottom=known, color=PALE, width=0.6, label="new")
    ax.set_xticks(rounds)
    ax.set_xlabel("round", color=INK)
    write_title(ax, f"workers of {rows[0][1]} calls")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return figure
