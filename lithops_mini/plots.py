"""Pictures of jobs: where each call was at which time, and how many ran at each moment.

matplotlib draws them, imported when the first picture is made. Only its object interface is used: no pyplot, no window,
no state that the picture of another thread could see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import accumulate
from math import log2, log10
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lithops_mini.durations import format_duration
from lithops_mini.errors import ConfigError, InputError
from lithops_mini.records import CallStats
from lithops_mini.shorten import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Stages = Sequence[tuple[str, Sequence[CallStats]]]

# Of Okabe and Ito's palette: people who do not see red, green or blue tell them apart.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
PALE, INK = "#D0D0D0", "#333333"

LEGEND = (
    *("queued", "to a worker", "to a cold worker", "function", "result on its way"),
    *("warm worker", "cold start", "retried", "cancelled", "failed"),
)

MOST_PANELS = 6  # stages with a panel of their own; more than these share one
MOST_ROWS = 20_000  # calls of a panel that are drawn; of more, every second, third, ...
TALL_ROW = 9.0  # points; in rows from this height every moment of a call gets a dot
WIDTH = 11.0  # inches, as the heights
HEIGHT, ROW, LOWEST = 6.0, 0.26, 0.75  # of all panels together, of a row when there is room, of any panel
ROOMY_ROWS = 12  # up to which a row has that room


def plot(stages: Stages, dst: str | Path | None = None, *, name: str = "lithops_mini") -> list[str]:
    """Write the timeline and the histogram of these stages; return the paths of the two files.

    ``dst`` is a directory (one that exists, or ends in ``/``), where they are ``<name>_timeline.png`` and
    ``<name>_histogram.png``; or what the paths begin with: ``out/job`` gives ``out/job_timeline.png``. Ending in
    ``.png``, ``.svg`` or ``.pdf`` it also says the format. Default: the current directory. Missing directories are
    made, pictures that exist are replaced. Raises what ``timeline`` raises, and ``OSError``.
    """
    prefix, suffix = _destination(dst, name)
    paths = []
    for kind, draw in (("timeline", timeline), ("histogram", histogram)):
        figure = draw(stages)
        path = prefix.with_name(f"{prefix.name}_{kind}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        paths.append(str(path))
    return paths


def timeline(stages: Stages) -> Figure:
    """Draw a row for each call, from submit to settled: queued, on its way, in its function, on its way back.

    ``stages`` are names with the stats of settled calls, in the order they ran; each has a panel. Seconds count from
    the first submit. ``InputError`` when there is no call at all, ``ConfigError`` when matplotlib is not installed.
    """
    panels = _panels(stages)
    figure, axes = _figure(panels, "Timeline")
    for panel, ax in zip(panels, axes, strict=True):
        _draw_phases(ax, panel)
    _finish(figure, axes, panels)
    return figure


def histogram(stages: Stages) -> Figure:
    """Draw how many calls run at each moment, above a line for each call from its function's start to its end.

    The lines of a stage are in the order of their starts, cold starts and failures marked; calls that never started
    have none. Arguments, time and errors as in ``timeline``.
    """
    panels = _panels(stages)
    figure, (running, *axes) = _figure(panels, "Calls running", above=1.6)
    _draw_running(running, panels)
    started = [panel.started() for panel in panels]
    for panel, ax in zip(started, axes, strict=True):
        _draw_functions(ax, panel)
    _finish(figure, [running, *axes], started)
    return figure


@dataclass(frozen=True, slots=True)
class _Panel:
    """The calls of one stage, a row each from the top."""

    name: str
    origin: float  # the first submit of all stages
    end: float  # when the last call of all stages was settled
    calls: Sequence[CallStats]  # all of them, in the order of their rows
    height: float  # inches
    note: str  # how many they are

    @property
    def rows(self) -> list[tuple[int, CallStats]]:
        """The rows that are drawn; a call that failed always is."""
        return [(row, call) for row, call in enumerate(self.calls) if row % self.step == 0 or call.status != "ok"]

    @property
    def step(self) -> int:
        """One row in so many is drawn."""
        return max(1, -(-len(self.calls) // MOST_ROWS))

    @property
    def row_height(self) -> float:
        """Points."""
        return self.height * 72 / max(len(self.calls), 1)

    def line_width(self, share: float, most: float) -> float:
        """Points: this share of a row, but so much that it can be seen and no more than ``most``."""
        return min(max(0.7, share * self.row_height), most)

    def started(self) -> _Panel:
        """The calls whose function was entered, in the order in which that was."""
        calls = sorted((call for call in self.calls if call.started is not None), key=attrgetter("started", "call_id"))
        never = len(self.calls) - len(calls)
        return replace(self, calls=calls, note=f"{self.note}, {never:,} of them never started" if never else self.note)


def _panels(stages: Stages) -> list[_Panel]:
    kept = [(name, list(calls)) for name, calls in stages if calls]
    if not kept:
        raise InputError("there is nothing to plot: no call has been settled")
    if len(kept) > MOST_PANELS:
        kept = [(f"{len(kept)} stages", [call for _, calls in kept for call in calls])]
    origin = min(call.submitted for _, calls in kept for call in calls)
    end = max(call.settled for _, calls in kept for call in calls)
    extra = [_wanted_height(len(calls)) - LOWEST for _, calls in kept]
    scale = min(1.0, (HEIGHT - LOWEST * len(kept)) / max(sum(extra), 1e-9))
    return [
        _Panel(
            name,
            origin,
            end,
            sorted(calls, key=attrgetter("submitted", "call_id")),
            height=LOWEST + more * scale,
            note=_count(len(calls), "call"),
        )
        for (name, calls), more in zip(kept, extra, strict=True)
    ]


def _wanted_height(rows: int) -> float:
    """Inches: in proportion to the rows while they are few, then slowly more."""
    if rows <= ROOMY_ROWS:
        return max(LOWEST, ROW * rows)
    return ROW * ROOMY_ROWS + 0.3 * log2(rows / ROOMY_ROWS)


def _figure(panels: list[_Panel], title: str, above: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Make the axes, one for each panel, and one before them that is ``above`` inches high, if any."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib, which is not installed: pip install 'lithops_mini[plot]'") from error
    heights = [above] * (above > 0) + [panel.height for panel in panels]
    size = WIDTH, sum(heights) + 0.25 * len(heights) + 1.2
    figure = Figure(size, dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    calls = [call for panel in panels for call in panel.calls]
    workers = len({call.worker_id for call in calls} - {""})
    facts = f"{_count(len(calls), 'call')}, {_count(workers, 'worker')}"
    took = format_duration(panels[0].end - panels[0].origin)
    figure.suptitle(f"{title}: {facts}, {took}", x=0.01, ha="left", fontsize=11, color=INK)
    return figure, list(axes)


def _draw_phases(ax: Axes, panel: _Panel) -> None:
    thick, thin = panel.line_width(0.72, 14), panel.line_width(0.3, 3)
    rows = panel.rows

    def phase(
        label: str, colour: str, width: float, begin: str, end: str, chosen: Iterable[tuple[int, CallStats]]
    ) -> None:
        spans = ((row, getattr(call, begin), getattr(call, end)) for row, call in chosen)
        _lines(ax, panel, label, colour, width, [span for span in spans if None not in span])

    def selected(holds: Callable[[CallStats], bool]) -> list[tuple[int, CallStats]]:
        return [(row, call) for row, call in rows if holds(call)]

    phase("queued", PALE, thin, "submitted", "dispatched", rows)
    phase("queued", PALE, thin, "submitted", "settled", selected(lambda call: call.dispatched is None))
    phase("to a worker", SKY, thin, "dispatched", "started", selected(lambda call: not call.cold))
    phase("to a cold worker", ORANGE, thin, "dispatched", "started", selected(lambda call: call.cold))
    lost = selected(lambda call: call.dispatched is not None and call.started is None)
    phase("to a worker", SKY, thin, "dispatched", "settled", lost)
    phase("result on its way", GREEN, thin, "ended", "settled", rows)
    phase("function", BLUE, thick, "started", "ended", rows)  # last: where rows are thinner than lines, it is seen
    if panel.row_height >= TALL_ROW:
        for moment, colour in (("submitted", "#808080"), ("dispatched", SKY), ("settled", GREEN)):
            points = [(row, time) for row, call in rows if (time := getattr(call, moment)) is not None]
            _dots(ax, panel, "", "o", colour, colour, points)
    _draw_marks(ax, panel)


def _draw_functions(ax: Axes, panel: _Panel) -> None:
    width = panel.line_width(0.72, 14)
    for label, colour, cold in (("warm worker", BLUE, False), ("cold start", ORANGE, True)):
        spans = [
            (row, call.started, call.settled if call.ended is None else call.ended)
            for row, call in panel.rows
            if call.started is not None and call.cold is cold
        ]
        _lines(ax, panel, label, colour, width, spans)
    _draw_marks(ax, panel)


def _draw_marks(ax: Axes, panel: _Panel) -> None:
    """Retries and failures, above everything else: a mark is there to be found among thousands of rows."""
    rows = panel.rows
    retried = [(row, _first(call.started, call.settled)) for row, call in rows if call.attempt > 1]
    _dots(ax, panel, "retried", "o", "white", INK, retried)
    cancelled = [(row, _first(call.ended, call.settled)) for row, call in rows if call.status == "cancelled"]
    _dots(ax, panel, "cancelled", "s", INK, "white", cancelled)
    failed = [(row, _first(call.ended, call.settled)) for row, call in rows if call.status not in ("ok", "cancelled")]
    _dots(ax, panel, "failed", "X", VERMILLION, "white", failed)


def _draw_running(ax: Axes, panels: list[_Panel]) -> None:
    origin = panels[0].origin
    changes = sorted(
        change
        for panel in panels
        for call in panel.calls
        if call.started is not None
        for change in ((call.started - origin, 1), (_first(call.ended, call.settled) - origin, -1))
    )
    times = [0.0, *(time for time, _ in changes)]
    counts = list(accumulate((change for _, change in changes), initial=0))
    many = len(changes) > 2000
    ax.fill_between(times, counts, step="post", color=SKY, alpha=0.45, linewidth=0, rasterized=many)
    ax.step(times, counts, where="post", color=BLUE, linewidth=1, rasterized=many)
    ax.set_ylim(0, max(1, *counts) * 1.08)
    _title(ax, f"running: at most {_count(max(counts), 'call')} at once" if changes else "no call started")


def _lines(
    ax: Axes, panel: _Panel, label: str, colour: str, width: float, spans: Sequence[tuple[int, float, float]]
) -> None:
    """Draw horizontal lines (row, begin, end); those that run backwards, by clocks of two machines, are left out."""
    from matplotlib.collections import LineCollection

    segments = [[(begin - panel.origin, row), (end - panel.origin, row)] for row, begin, end in spans if end >= begin]
    if segments:
        lines = LineCollection(segments, colors=colour, linewidths=width, label=label, capstyle="butt")
        lines.set_rasterized(len(segments) > 1000)
        ax.add_collection(lines, autolim=False)


def _dots(
    ax: Axes,
    panel: _Panel,
    label: str,
    marker: str,
    face: str,
    edge: str,
    points: Sequence[tuple[int, float]],
) -> None:
    """Draw a marker at each (row, time), the smaller the more there are."""
    if points:
        size = 5.0 if panel.row_height >= TALL_ROW else max(2.5, 4.8 - 0.6 * log10(len(points)))
        size *= 1.35 if marker == "X" else 1.0  # its arms are thin, and it matters most
        ax.plot(
            [time - panel.origin for _, time in points],
            [row for row, _ in points],
            linestyle="none",
            marker=marker,
            markersize=size,
            markerfacecolor=face,
            markeredgecolor=edge,
            markeredgewidth=size / 8,
            label=label or None,
            rasterized=len(points) > 1000,
            clip_on=False,
        )


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=9, color=INK, parse_math=False)


def _finish(figure: Figure, axes: list[Axes], panels: list[_Panel]) -> None:
    from matplotlib.ticker import MaxNLocator

    for ax in axes:
        ax.grid(axis="x", color="#E6E6E6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=INK)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for panel, ax in zip(panels, axes[-len(panels) :], strict=True):
        count = len(panel.calls)
        ax.set_ylim(max(count, 1) - 0.5, -0.5)
        sample = f", 1 in {panel.step} drawn" if panel.step > 1 else ""
        _title(ax, f"{shorten(panel.name, 60)}: {panel.note}{sample}")
    end = panels[0].end - panels[0].origin or 1.0
    axes[-1].set_xlim(-0.01 * end, 1.01 * end)
    axes[-1].set_xlabel("seconds since the first submit", color=INK)
    _draw_legend(figure, axes)


def _draw_legend(figure: Figure, axes: list[Axes]) -> None:
    """One entry for each label of all axes, below them; lines of any width are shown equally wide."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for ax in axes:
        for mark, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if isinstance(mark, LineCollection):
                colour: Any = mark.get_colors()[0]
                entries[label] = Line2D([], [], color=colour, linewidth=5, solid_capstyle="butt")
            else:
                marker: Any = copy(mark)
                marker.set_markersize(7)
                entries[label] = marker
    if labels := sorted(entries, key=LEGEND.index):
        figure.legend(
            [entries[label] for label in labels],
            labels,
            loc="outside lower left",
            ncols=len(entries),
            frameon=False,
            fontsize=9,
            handlelength=1.6,
            labelcolor=INK,
        )


def _first(*times: float | None) -> float:
    """The first that is known."""
    return next(time for time in times if time is not None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _destination(dst: str | Path | None, name: str) -> tuple[Path, str]:
    """Return what the files' paths begin with, and their suffix."""
    path = Path("" if dst is None else dst)
    if path.is_dir() or str(dst).endswith("/"):
        return path / name, ".png"
    if path.suffix.lower() in (".png", ".svg", ".pdf"):
        return path.with_suffix(""), path.suffix.lower()
    return path, ".png"
