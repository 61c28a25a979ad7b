"""What the study shows: for each metric a picture and a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lithops_mini.costs import dollars
from lithops_mini.durations import format_duration
from lithops_mini.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    Points,
    counted,
    plain_axes,
    titled_figure,
    write_title,
)
from lithops_mini.plots.usage import count_bytes, level_over_time
from lithops_mini.plots.workers import worker_lifetimes
from lithops_mini.sizes import format_size
from lithops_mini.study.grid import OTHER, SAME, Measurement, Run, medians

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, INK, GREY)
_MARKERS = {"python": "o", "pandas": "s"}
_HEIGHT = 4.2  # inches of one panel
_LOW = 2.0  # of one of several

Cell = str | int | float
Table = tuple[Sequence[str], Sequence[Sequence[Cell]]]
Lines = Mapping[tuple[str, float, str], Mapping[int, float]]


@dataclass(frozen=True)
class Metric:
    """One thing that is measured, and how it is shown."""

    name: str  # of its files
    title: str
    caption: str
    table: Callable[[Sequence[Run]], Table]
    draw: Callable[[Sequence[Run]], Figure]


def metrics_of(runs: Sequence[Run]) -> list[Metric]:
    """Those that these runs tell something of; there must be at least one run in the workers' own region."""
    regions = {run.measured.region for run in runs}
    return [metric for metric in METRICS if metric.name != "regions" or OTHER in regions]


def fullest(runs: Iterable[Run]) -> Run:
    """The run of the most data by the most workers; of its repeats, the one of the median time."""
    here = [run for run in runs if run.measured.region == SAME]
    most = max((run.measured.gigabytes, run.measured.workers, run.measured.engine) for run in here)
    same = [run for run in here if (run.measured.gigabytes, run.measured.workers, run.measured.engine) == most]
    return sorted(same, key=lambda run: run.measured.wall_time)[(len(same) - 1) // 2]


def _largest(runs: Sequence[Run]) -> list[Run]:
    """One run for each number of workers, of the most data."""
    most = fullest(runs).measured
    chosen: dict[int, list[Run]] = {}
    for run in runs:
        each = run.measured
        if (each.engine, each.gigabytes, each.region) == (most.engine, most.gigabytes, SAME):
            chosen.setdefault(each.workers, []).append(run)
    return [fullest(same) for _, same in sorted(chosen.items())]


# Tables.


def _spread(*names: str) -> Callable[[Sequence[Run]], Table]:
    """A table of medians, and the least and the most of the repeats."""

    def table(runs: Sequence[Run]) -> Table:
        groups: dict[tuple[str, float, str, int], list[Measurement]] = {}
        for run in runs:
            each = run.measured
            groups.setdefault((each.engine, each.gigabytes, each.region, each.workers), []).append(each)
        headings = ["engine", "gigabytes", "region", "workers", "repeats"]
        headings += [f"{name}{kind}" for name in names for kind in ("", "_least", "_most")]
        rows = []
        for group, measured in sorted(groups.items()):
            row: list[Cell] = [*group, len(measured)]
            for name in names:
                values = [getattr(each, name) for each in measured]
                row += [statistics.median(values), min(values), max(values)]
            rows.append(row)
        return headings, rows

    return table


def _speed_up_table(runs: Sequence[Run]) -> Table:
    rows: list[list[Cell]] = [
        [*line, workers, value]
        for line, values in _speed_up(_of(runs, "wall_time")).items()
        for workers, value in values.items()
    ]
    return ["engine", "gigabytes", "region", "workers", "speed_up"], rows


def _network_table(runs: Sequence[Run]) -> Table:
    cpu, network = _use(fullest(runs))
    rows = [[*row] for row in zip(cpu[0], cpu[1], network[1], strict=True)]
    return ["seconds", "processors", "bytes_per_second"], rows


def _bytes_table(runs: Sequence[Run]) -> Table:
    rows = [
        [run.measured.workers, seconds, count]
        for run in _largest(runs)
        for seconds, count in zip(*_bytes_read(run), strict=True)
    ]
    return ["workers", "seconds", "bytes"], rows


def _lifetimes_table(runs: Sequence[Run]) -> Table:
    run = fullest(runs)
    origin = _origin(run)
    calls: dict[str, list[tuple[float, float]]] = {}
    for _, stats in run.stages:
        for call in stats:
            if call.started is not None:
                end = call.settled if call.ended is None else call.ended
                calls.setdefault(call.worker_id, []).append((call.started - origin, end - origin))
    rows = [
        [worker, min(times)[0], max(end for _, end in times), sum(end - begin for begin, end in times), len(times)]
        for worker, times in sorted(calls.items(), key=lambda each: min(each[1]))
    ]
    return ["worker", "first_start", "last_end", "busy", "calls"], rows


# Pictures.


def _of(runs: Sequence[Run], what: str, *, region: str | None = SAME) -> Lines:
    return medians((run.measured for run in runs if region in (None, run.measured.region)), what)


def _speed_up(times: Lines) -> Lines:
    """Against the fewest workers, taken as that fast for each."""
    found = {}
    for line, values in times.items():
        fewest = min(values)
        found[line] = {workers: values[fewest] * fewest / time for workers, time in values.items()}
    return found


def _label(line: tuple[str, float, str], lines: Lines) -> str:
    engine, gigabytes, region = line
    parts = [f"{gigabytes:g} GB"]
    parts += [engine] if len({line[0] for line in lines}) > 1 else []
    parts += [f"{region} region"] if len({line[2] for line in lines}) > 1 else []
    return ", ".join(parts)


def _draw_by_workers(ax: Axes, lines: Lines, told: str, format_value: Callable[[float], str]) -> None:
    """A line for each engine, amount and region over the number of workers."""
    amounts = sorted({gigabytes for _, gigabytes, _ in lines})
    for line, values in lines.items():
        engine, gigabytes, region = line
        ax.plot(
            list(values),
            list(values.values()),
            color=_COLOURS[(amounts.index(gigabytes) + (region == OTHER)) % len(_COLOURS)],
            marker=_MARKERS[engine],
            linestyle="--" if region == OTHER else "-",
            linewidth=1.6,
            label=_label(line, lines),
        )
    plain_axes([ax])
    _count_workers(ax, {workers for values in lines.values() for workers in values})
    _plain_ticks(ax)
    ax.yaxis.set_major_formatter(lambda value, _: format_value(value))
    ax.set_ylim(bottom=0)
    write_title(ax, told)


def _count_workers(ax: Axes, workers: set[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(workers), [f"{number:,}" for number in sorted(workers)])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("workers", color=INK)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)


def _plain_ticks(ax: Axes) -> None:
    """Ticks also between whole numbers."""
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6))


def _double_log(ax: Axes, format_value: Callable[[float], str]) -> None:
    ax.autoscale(axis="y")  # from 0 on, as others begin, a logarithm does not go
    ax.set_yscale("log", base=2)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, high / 4), high)  # so that there are always ticks
    ax.yaxis.set_major_formatter(lambda value, _: format_value(value))
    ax.set_yticks([], minor=True)


_LEGEND: Mapping[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK}


def _legend(figure: Figure, ax: Axes) -> None:
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", **_LEGEND)


def _draw_scalability(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("Scalability: time to the result, by workers", _HEIGHT)
    ax = figure.subplots()
    lines = _of(runs, "wall_time")
    _draw_by_workers(ax, lines, "median of the repeats; dotted: as if twice the workers took half the time", _seconds)
    for number, values in enumerate(lines.values()):
        fewest = min(values)
        ideal = [values[fewest] * fewest / workers for workers in values]
        ax.plot(list(values), ideal, color=GREY, linestyle=":", linewidth=1.2, label="" if number else "ideal")
    _double_log(ax, _seconds)
    _legend(figure, ax)
    return figure


def _draw_speed_up(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("Speed-up, by workers", _HEIGHT)
    ax = figure.subplots()
    lines = _speed_up(_of(runs, "wall_time"))
    _draw_by_workers(ax, lines, "against the fewest workers", _number)
    workers = sorted({workers for values in lines.values() for workers in values})
    ax.plot(workers, workers, color=GREY, linestyle=":", linewidth=1.2, label="ideal")
    _double_log(ax, _number)
    _legend(figure, ax)
    return figure


def _draw_utilisation(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("Utilisation: share of the workers' time in which they held a processor", _HEIGHT)
    ax = figure.subplots()
    _draw_by_workers(ax, _of(runs, "cpu_share"), "median of the repeats", lambda value: f"{value:.0%}")
    ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
    _legend(figure, ax)
    return figure


def _draw_network(runs: Sequence[Run]) -> Figure:
    run = fullest(runs)
    figure = titled_figure(f"Processors and network: {_told(run)}", 2 * _LOW + 1.2)
    above, below = figure.subplots(2, 1, sharex=True)
    cpu, network = _use(run)
    plain_axes([above, below])
    for ax, (times, levels), colour in ((above, cpu, BLUE), (below, network, SKY)):
        ax.fill_between(times, levels, step="post", color=colour, alpha=0.3, linewidth=0)
        ax.step(times, levels, where="post", color=colour, linewidth=1)
        ax.set_ylim(bottom=0)
    _plain_ticks(above)
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    count_bytes(below)
    write_title(above, f"processors in use by the map: at most {max(cpu[1]):.3g}")
    write_title(below, f"read from storage per second: at most {format_size(round(max(network[1])))}")
    _clock(below, run)
    return figure


def _draw_bytes(runs: Sequence[Run]) -> Figure:
    chosen = _largest(runs)
    figure = titled_figure(f"Bytes over time: {chosen[0].measured.gigabytes:g} GB", _HEIGHT)
    ax = figure.subplots()
    for colour, run in zip(_cycle(), chosen, strict=False):
        times, counts = _bytes_read(run)
        ax.plot(times, counts, color=colour, linewidth=1.4, label=counted(run.measured.workers, "worker"))
    plain_axes([ax])
    ax.set_ylim(bottom=0)
    count_bytes(ax)
    write_title(ax, "read from storage by all workers together, from the call of map_reduce")
    ax.set_xlabel("seconds since the submit", color=INK)
    _legend(figure, ax)
    return figure


def _draw_memory(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("Memory occupied", 2 * _LOW + 2.0)
    above, below = figure.subplots(2, 1)
    _draw_by_workers(above, _of(runs, "peak_memory"), "of one worker, at most", _size)
    count_bytes(above)
    _legend(figure, above)
    chosen = _largest(runs)
    for colour, run in zip(_cycle(), chosen, strict=False):
        times, levels = _memory(run)
        below.step(
            times, levels, where="post", color=colour, linewidth=1.2, label=counted(run.measured.workers, "worker")
        )
    plain_axes([below])
    below.set_ylim(bottom=0)
    count_bytes(below)
    write_title(below, f"of all workers that read, {chosen[0].measured.gigabytes:g} GB, over time")
    below.set_xlabel("seconds since the submit", color=INK)
    below.legend(**_LEGEND)
    return figure


def _draw_lifetimes(runs: Sequence[Run]) -> Figure:
    return worker_lifetimes(fullest(runs).stages)


def _draw_distribution(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("From the start to the distribution of all tasks", _HEIGHT)
    ax = figure.subplots()
    told = "from the submit until every worker has begun, cold starts included; median of the repeats"
    _draw_by_workers(ax, _of(runs, "distribution_time"), told, _seconds)
    _legend(figure, ax)
    return figure


def _draw_regions(runs: Sequence[Run]) -> Figure:
    compared = [run for run in runs if run.measured.region == OTHER]
    there = {(run.measured.engine, run.measured.gigabytes) for run in compared}
    both = [run for run in runs if (run.measured.engine, run.measured.gigabytes) in there]
    figure = titled_figure("Data in the workers' region, and in another", 2 * _LOW + 2.0)
    above, below = figure.subplots(2, 1)
    _draw_by_workers(above, _of(both, "wall_time", region=None), "time to the result", _seconds)
    _legend(figure, above)
    _draw_by_workers(
        below, _of(both, "bytes_per_second", region=None), "read per second by all workers together", _size
    )
    count_bytes(below)
    return figure


def _draw_cost(runs: Sequence[Run]) -> Figure:
    figure = titled_figure("Cost of a run", 2 * _LOW + 2.0)
    above, below = figure.subplots(2, 1)
    _draw_by_workers(above, _of(runs, "dollars"), "dollars, by workers", _dollars)
    _legend(figure, above)
    amounts = sorted({run.measured.gigabytes for run in runs})
    times, prices = _of(runs, "wall_time"), _of(runs, "dollars")
    for line, values in times.items():
        below.plot(
            list(values.values()),
            list(prices[line].values()),
            color=_COLOURS[amounts.index(line[1]) % len(_COLOURS)],
            marker=_MARKERS[line[0]],
            linewidth=1.6,
        )
    plain_axes([below])
    _plain_ticks(below)
    below.set_ylim(bottom=0)
    below.set_xlim(left=0)
    below.yaxis.set_major_formatter(lambda value, _: _dollars(value))
    below.xaxis.set_major_formatter(lambda value, _: _seconds(value))
    write_title(below, "dollars, by the time to the result: each point is a number of workers")
    return figure


# From samples to what is drawn.


def _origin(run: Run) -> float:
    return min(call.submitted for _, stats in run.stages for call in stats)


def _end(run: Run) -> float:
    return max(call.settled for _, stats in run.stages for call in stats)


def _steps(run: Run) -> Iterator[tuple[Sequence[float], Sequence[float]]]:
    """Two samples of a call that follow each other."""
    for samples in run.samples:
        yield from pairwise(samples)


def _use(run: Run) -> tuple[Points, Points]:
    """Processors in use, and bytes read in a second, over time."""
    origin, end = _origin(run), _end(run)
    cpu = level_over_time(origin, end, [(old[0], new[0], new[2] - old[2]) for old, new in _steps(run)])
    network = level_over_time(origin, end, [(old[0], new[0], new[1] - old[1]) for old, new in _steps(run)])
    return cpu, network


def _memory(run: Run) -> Points:
    spans = [(old[0], new[0], old[3] * (new[0] - old[0])) for old, new in _steps(run)]
    return level_over_time(_origin(run), _end(run), spans)


def _bytes_read(run: Run) -> Points:
    """All bytes read until then."""
    origin = _origin(run)
    reads = sorted((new[0] - origin, new[1] - old[1]) for old, new in _steps(run))
    times, counts, total = [0.0], [0.0], 0.0
    for time, count in reads:
        total += count
        times.append(time)
        counts.append(total)
    return times, counts


def _clock(ax: Axes, run: Run) -> None:
    ax.set_xlim(0, _end(run) - _origin(run))
    ax.set_xlabel("seconds since the submit", color=INK)


def _cycle() -> Iterator[str]:
    while True:
        yield from _COLOURS


def _told(run: Run) -> str:
    return f"{run.measured.gigabytes:g} GB, {counted(run.measured.workers, 'worker')}, {run.measured.engine}"


def _seconds(value: float) -> str:
    return format_duration(value, 2)


def _number(value: float) -> str:
    return f"{value:g}"


def _dollars(value: float) -> str:
    return dollars(value).rstrip("0").rstrip(".")


def _size(value: float) -> str:
    return format_size(round(value))


METRICS = (
    Metric(
        "scalability",
        "Scalability",
        "Both axes are logarithmic, to the base 2: on the dotted line twice the workers take half the time.",
        _spread("wall_time", "map_time", "reduce_time"),
        _draw_scalability,
    ),
    Metric(
        "speedup",
        "Speed-up",
        "How many times faster than one worker, where the fewest workers count as many times one.",
        _speed_up_table,
        _draw_speed_up,
    ),
    Metric(
        "utilisation",
        "Utilisation",
        "The rest is waiting: for storage, for the start of workers, for the last call.",
        _spread("cpu_share", "cpu_time", "function_time"),
        _draw_utilisation,
    ),
    Metric(
        "cpu-network",
        "Processors and network",
        "Of the run with the most data and the most workers, as the workers have counted it.",
        _network_table,
        _draw_network,
    ),
    Metric(
        "bytes",
        "Bytes over time",
        "How much of the data was read at each moment.",
        _bytes_table,
        _draw_bytes,
    ),
    Metric(
        "memory",
        "Memory",
        "Workers read their share file by file and line by line: memory grows with the number of averages.",
        _spread("peak_memory"),
        _draw_memory,
    ),
    Metric(
        "lifetimes",
        "Lifetimes of workers",
        "Of the run with the most data and the most workers.",
        _lifetimes_table,
        _draw_lifetimes,
    ),
    Metric(
        "distribution",
        "Distribution of tasks",
        "How long it takes until all workers have something to do.",
        _spread("distribution_time", "cold_starts"),
        _draw_distribution,
    ),
    Metric(
        "regions",
        "Regions",
        "The same runs, over storage that is far from the workers.",
        _spread("wall_time", "bytes_per_second"),
        _draw_regions,
    ),
    Metric(
        "cost",
        "Cost",
        "What a run costs; where nobody charges for the backend, what it would have cost on AWS Lambda.",
        _spread("dollars", "gb_seconds", "storage_requests"),
        _draw_cost,
    ),
)
