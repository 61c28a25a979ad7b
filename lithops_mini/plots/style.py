"""What the pictures have in common: colours, panels on one clock, titles, legend.

matplotlib draws them, imported when the first picture is made. Only its object interface is used: no pyplot, no window,
no state that the picture of another thread could see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import log2, log10
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lithops_mini.durations import format_duration
from lithops_mini.errors import ConfigError, InputError
from lithops_mini.records import Attempt, Attempts, CallStats, Stages
from lithops_mini.shorten import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = tuple[list[float], list[float]]

# Of Okabe and Ito's palette: people who do not see red, green or blue tell them apart.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
PURPLE = "#CC79A7"
PALE, GREY, INK = "#D0D0D0", "#808080", "#333333"

# All that any picture has in its legend, in that order.
LEGEND = (
    *("queued", "to a worker", "to a cold worker", "function", "warm worker", "result on its way", "idle"),
    *("cold start", "lost attempt", "worker there", "worker busy"),
    *("sent", "started", "ended", "result here", "processors in use", "calls running", "memory"),
    *("in", "out", "straggler", "retried", "cancelled", "failed"),
)

MOST_PANELS = 6  # stages with a panel of their own; more than these share one
MOST_ROWS = 20_000  # calls of a panel that are drawn; of more, every second, third, ...
TALL_ROW = 9.0  # points; in rows from this height every moment of a call gets a dot
THIN_ROW = 3.0  # in rows below it what matters about a call gets one, since its line cannot be found
FAILED = 1.35  # times the size of other marks: its arms are thin, and it matters most
WIDTH = 11.0  # inches, as the heights
HEIGHT, ROW, LOWEST = 6.0, 0.26, 0.75  # of all panels together, of a row when there is room, of any panel
_LEGEND_LINE = 140  # characters, with six for each mark
ROOMY_ROWS = 12  # up to which a row has that room


@dataclass(frozen=True, slots=True)
class Panel:
    """The calls of one stage, a row each from the top."""

    name: str
    origin: float  # the first submit of all stages
    end: float  # when the last call of all stages was settled
    calls: Sequence[CallStats]  # all of them, in the order of their rows
    height: float  # inches
    note: str  # how many they are
    lost: Mapping[CallStats, Sequence[Attempt]]  # of calls of any stage that were run again: the earlier attempts

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

    def lost_functions(self, call: CallStats) -> list[tuple[float, float]]:
        """From when to when its function ran in each of the earlier attempts in which it was entered."""
        return [
            (attempt.started, first_known(attempt.ended, attempt.given_up))
            for attempt in self.lost.get(call, ())
            if attempt.started is not None
        ]

    def functions(self, call: CallStats) -> list[tuple[float, float]]:
        """From when to when its function ran, in all attempts."""
        own = [] if call.started is None else [(call.started, first_known(call.ended, call.settled))]
        return [*self.lost_functions(call), *own]

    def first(self, moment: str, call: CallStats) -> float | None:
        """When that was, ``dispatched`` or ``started``, in the first attempt that got so far."""
        times = (getattr(each, moment) for each in (*self.lost.get(call, ()), call))
        return next((time for time in times if time is not None), None)

    def started(self) -> Panel:
        """The calls whose function was entered, in the order in which that was first."""
        begun = {call: time for call in self.calls if (time := self.first("started", call)) is not None}
        calls = sorted(begun, key=lambda call: (begun[call], call.call_id))
        never = len(self.calls) - len(calls)
        return replace(self, calls=calls, note=f"{self.note}, {never:,} of them never started" if never else self.note)


def panels_of(stages: Stages, attempts: Attempts) -> list[Panel]:
    """A panel for each stage that has calls. ``InputError`` if there is none."""
    lost = {call: earlier for name, calls in stages for call, earlier in _lost(calls, attempts.get(name, ()))}
    kept = [(name, list(calls)) for name, calls in stages if calls]
    if not kept:
        raise InputError("there is nothing to plot: no call has been settled")
    if len(kept) > MOST_PANELS:
        kept = [(f"{len(kept)} stages", [call for _, calls in kept for call in calls])]
    origin = min(call.submitted for _, calls in kept for call in calls)
    end = max(call.settled for _, calls in kept for call in calls)
    extra = [height_of(len(calls)) - LOWEST for _, calls in kept]
    scale = min(1.0, (HEIGHT - LOWEST * len(kept)) / max(sum(extra), 1e-9))
    return [
        Panel(
            name,
            origin,
            end,
            sorted(calls, key=attrgetter("submitted", "call_id")),
            height=LOWEST + more * scale,
            note=counted(len(calls), "call"),
            lost=lost,
        )
        for (name, calls), more in zip(kept, extra, strict=True)
    ]


def _lost(calls: Sequence[CallStats], attempts: Sequence[Attempt]) -> Iterable[tuple[CallStats, list[Attempt]]]:
    """The calls of a stage that have earlier attempts, and these in their order."""
    by_call: dict[int, list[Attempt]] = {}
    for attempt in sorted(attempts, key=attrgetter("attempt")):
        by_call.setdefault(attempt.call_id, []).append(attempt)
    return ((call, by_call[call.call_id]) for call in calls if call.call_id in by_call)


def height_of(rows: int) -> float:
    """Inches: in proportion to the rows while they are few, then slowly more."""
    if rows <= ROOMY_ROWS:
        return max(LOWEST, ROW * rows)
    return ROW * ROOMY_ROWS + 0.3 * log2(rows / ROOMY_ROWS)


def new_figure(panels: Sequence[Panel], title: str, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure of these calls with axes one below the other, of these heights in inches, on one clock.

    ``ConfigError`` when matplotlib is not installed.
    """
    figure = blank_figure(panels, title, sum(heights) + 0.25 * len(heights) + 1.2)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    figure.align_ylabels(axes)
    return figure, list(axes)


def blank_figure(panels: Sequence[Panel], title: str, height: float) -> Figure:
    """A figure without axes, titled with what its calls are. ``ConfigError`` when matplotlib is not installed."""
    calls = [call for panel in panels for call in panel.calls]
    lost = {attempt.worker_id for earlier in panels[0].lost.values() for attempt in earlier}
    workers = len(lost.union(call.worker_id for call in calls) - {""})
    facts = f"{counted(len(calls), 'call')}, {counted(workers, 'worker')}"
    took = format_duration(panels[0].end - panels[0].origin)
    return titled_figure(f"{title}: {facts}, {took}", height)


def titled_figure(title: str, height: float) -> Figure:
    """A figure without axes. ``ConfigError`` when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib, which is not installed: pip install 'lithops_mini[plot]'") from error
    figure = Figure((WIDTH, height), dpi=150, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def draw_lines(
    ax: Axes, panel: Panel, label: str, colour: str, width: float, spans: Iterable[tuple[int, float, float]]
) -> None:
    """Draw horizontal lines (row, begin, end); those that run backwards, by clocks of two machines, are left out."""
    from matplotlib.collections import LineCollection

    segments = [[(begin - panel.origin, row), (end - panel.origin, row)] for row, begin, end in spans if end >= begin]
    if segments:
        lines = LineCollection(segments, colors=colour, linewidths=width, label=label, capstyle="butt")
        lines.set_rasterized(len(segments) > 1000)
        ax.add_collection(lines, autolim=False)


def draw_dots(
    ax: Axes,
    panel: Panel,
    label: str,
    marker: str,
    face: str,
    edge: str,
    points: Sequence[tuple[int, float]],
    *,
    scale: float = 1.0,
    tall: bool | None = None,
) -> None:
    """Draw a marker at each (row, time), the smaller the more there are; ``tall`` says that rows have room for it.

    Times beyond the panel's, by the clock of another machine, are drawn at its edge: no mark is lost.
    """
    if points:
        roomy = panel.row_height >= TALL_ROW if tall is None else tall
        size = 5.0 if roomy else max(2.5, 4.8 - 0.6 * log10(len(points)))
        size *= scale
        ax.plot(
            [min(max(time, panel.origin), panel.end) - panel.origin for _, time in points],
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


def write_title(ax: Axes, text: str) -> None:
    """Put text over the axes, as it is; ``\n`` begins a line."""
    ax.set_title(printable(text, keep="\n"), loc="left", fontsize=9, color=INK, parse_math=False)


def panel_title(panel: Panel) -> str:
    """Its stage, how many calls that is, and how many of them are drawn."""
    sample = f", 1 in {panel.step} drawn" if panel.step > 1 else ""
    return f"{shorten(printable(panel.name), 60)}: {panel.note}{sample}"


def label_rows(ax: Axes, text: str) -> None:
    """Say what the numbers at the left are; in lines short enough for the lowest panel."""
    ax.set_ylabel(text, fontsize=8, color=INK)


def plain_axes(axes: Iterable[Axes]) -> None:
    """Grid and ticks as all pictures have them."""
    from matplotlib.ticker import MaxNLocator

    for ax in axes:
        ax.grid(axis="x", color="#E6E6E6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=INK)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def draw_clock(ax: Axes, panel: Panel) -> None:
    """The axis of time, of all axes that share it."""
    end = panel.end - panel.origin or 1.0
    ax.set_xlim(-0.01 * end, 1.01 * end)
    ax.set_xlabel("seconds since the first submit", color=INK)


def draw_legend(figure: Figure) -> None:
    """One entry for each label of all axes, below them; lines of any width are shown equally wide."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for ax in figure.axes:
        for mark, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if isinstance(mark, LineCollection):
                colour: Any = mark.get_colors()[0]
                entries[label] = Line2D([], [], color=colour, linewidth=5, solid_capstyle="butt")
            else:
                marker: Any = copy(mark)
                if isinstance(marker, Line2D):
                    marker.set_markersize(7)
                entries[label] = marker
    if labels := sorted(entries, key=LEGEND.index):
        lines = -(-sum(len(label) + 6 for label in labels) // _LEGEND_LINE)
        figure.legend(
            [entries[label] for label in labels],
            labels,
            loc="outside lower left",
            ncols=-(-len(labels) // lines),
            frameon=False,
            fontsize=9,
            handlelength=1.6,
            labelcolor=INK,
        )


def first_known(*times: float | None) -> float:
    """The first that is not ``None``."""
    return next(time for time in times if time is not None)


def counted(number: int, noun: str) -> str:
    """``"1 call"``, ``"1,200 calls"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
