"""How far each stage was at each moment, and how long its functions took."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log10
from typing import TYPE_CHECKING

from lithops_mini.durations import format_duration
from lithops_mini.measures import function_times, quantile, straggler_limit
from lithops_mini.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    Panel,
    blank_figure,
    counted,
    draw_clock,
    draw_legend,
    label_rows,
    panel_title,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import NO_ATTEMPTS, Attempts, Stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 40
_HEIGHTS = (2.4, 1.25)  # inches: of the one stage there is, of each of six


def stage_progress(stages: Stages, attempts: Attempts = NO_ATTEMPTS) -> Figure:
    """Draw for each stage how many calls were sent, started, ended and settled at each moment, and beside it how many
    functions took how long; stragglers as ``measures.straggler_limit`` has them. A call that was run again was sent and
    started when that was first.

    Arguments, time and errors as in ``timeline``.
    """
    panels = panels_of(stages, attempts)
    height = max(_HEIGHTS[1], _HEIGHTS[0] - 0.25 * (len(panels) - 1))
    figure = blank_figure(panels, "Stages", (height + 0.3) * len(panels) + 1.2)
    axes = figure.subplots(len(panels), 2, squeeze=False, width_ratios=[3, 1])
    plain_axes(axes.flat)
    for row, (panel, (curves, times)) in enumerate(zip(panels, axes, strict=True)):
        _draw_curves(curves, panel)
        _draw_times(times, panel)
        draw_clock(curves, panel)
        if row < len(panels) - 1:
            curves.set_xlabel("")
    draw_legend(figure)
    return figure


def _draw_curves(ax: Axes, panel: Panel) -> None:
    calls = panel.calls
    moments: dict[tuple[str, str, float], Iterable[float | None]] = {  # where two are the same, both are seen
        ("sent", SKY, 3.0): (panel.first("dispatched", call) for call in calls),
        ("started", ORANGE, 1.2): (panel.first("started", call) for call in calls),
        ("result here", GREEN, 3.0): (call.settled for call in calls),
        ("ended", BLUE, 1.2): (call.ended for call in calls),
    }
    for (label, colour, width), times in moments.items():
        reached = sorted(time - panel.origin for time in times if time is not None)
        if reached:
            x = [reached[0], *reached, panel.end - panel.origin]
            y = [0, *range(1, len(reached) + 1), len(reached)]
            ax.step(x, y, where="post", color=colour, linewidth=width, label=label, rasterized=len(x) > 2000)
    ax.set_ylim(0, len(calls) * 1.06)
    label_rows(ax, "calls")
    failed = sum(call.status not in ("ok", "cancelled") for call in calls)
    write_title(ax, panel_title(panel) + (f", {failed:,} failed" if failed else ""))


def _draw_times(ax: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator

    times = function_times(panel.calls)
    label_rows(ax, "functions")
    if not times:
        ax.set_xticks([])
        write_title(ax, "no function ran")
        return
    low, high = max(times[0], 1e-6), max(times[-1], 1e-6)
    wide = high / low > 30
    if wide:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        edges = [10 ** (log10(low) + n * (log10(high) - log10(low)) / _BINS) for n in range(_BINS + 1)]
    else:
        begin, spread = (low, high - low) if high > low else (low / 2, low)
        edges = [begin + n * spread / _BINS for n in range(_BINS + 1)]
    figures = 2 if wide else min(max(3, ceil(log10(5 * edges[-1] / (edges[-1] - edges[0])))), 6)  # so that ticks differ
    edges[0], edges[-1] = min(times[0], edges[0]), max(times[-1], edges[-1])
    limit = straggler_limit(panel.calls)
    slow = [time for time in times if limit is not None and time > limit]
    usual = times[: len(times) - len(slow)]
    ax.hist(usual, bins=edges, color=BLUE)
    if slow:
        # Marks at the foot, since of thousands of calls a few are a bar too low to be seen.
        feet = ax.get_xaxis_transform()
        ax.plot(slow, [0.02] * len(slow), "|", color=VERMILLION, markersize=9, label="straggler", transform=feet)
        ax.hist(slow, bins=edges, color=VERMILLION)
    ax.axvline(quantile(times, 0.5), color=INK, linewidth=1, linestyle="--")
    ax.xaxis.set_major_formatter(lambda value, _: _tick(value, figures))
    ax.xaxis.set_minor_formatter(lambda *_: "")
    if not wide:
        ax.locator_params(axis="x", nbins=4)
    told = f"functions: median {format_duration(quantile(times, 0.5))}"
    write_title(ax, told + (f",\n{counted(len(slow), 'straggler')}" if slow else ""))


def _tick(seconds: float, figures: int) -> str:
    """A duration in one unit, since ticks are close to each other."""
    if seconds < 60:
        return format_duration(seconds, figures)
    return f"{seconds / 60:.{figures}g} min" if seconds < 3600 else f"{round(seconds / 3600, figures - 1):,g} h"
