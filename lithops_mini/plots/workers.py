"""How long workers lived, and when they were busy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lithops_mini.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALE,
    SKY,
    TALL_ROW,
    VERMILLION,
    Panel,
    Stages,
    counted,
    counts,
    draw_clock,
    draw_dots,
    draw_legend,
    draw_level,
    draw_lines,
    first_known,
    height_of,
    new_figure,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import CallStats
from lithops_mini.shorten import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 24  # workers up to which each row has its worker's name


def worker_lifetimes(stages: Stages) -> Figure:
    """Draw a row for each worker, from its first call to the end of its last: starting cold, running calls, idle.

    Above it, how many workers are there at each moment and how many of them are busy. A worker is there from the
    message of its first call on if that was a cold start, else from that call's start; its real life may be longer.
    Arguments, time and errors as in ``timeline``.
    """
    panels = panels_of(stages)
    whole = panels[0]
    groups: dict[str, list[CallStats]] = defaultdict(list)
    for panel in panels:
        for call in panel.calls:
            if call.worker_id and call.started is not None:
                groups[call.worker_id].append(call)
    lives = sorted((_Life(name, calls) for name, calls in groups.items()), key=lambda life: (life.begin, life.name))
    height = min(height_of(len(lives)), 6.0)
    figure, (above, rows) = new_figure(panels, "Worker lifetimes", [1.6, height])
    _draw_counts(above, whole, lives)
    _draw_lives(rows, whole, lives, height * 72 / max(len(lives), 1))
    plain_axes([above, rows])
    rows.set_ylim(max(len(lives), 1) - 0.5, -0.5)
    if 0 < len(lives) <= _NAMED:
        rows.set_yticks(range(len(lives)), [shorten(printable(life.name), 16) for life in lives], parse_math=False)
    draw_clock(rows, whole)
    draw_legend(figure)
    return figure


class _Life:
    """A worker, as its calls tell of it."""

    def __init__(self, name: str, calls: Sequence[CallStats]) -> None:
        self.name = name
        self.calls = sorted(calls, key=lambda call: call.started or 0.0)
        self.busy = [(call.started or 0.0, first_known(call.ended, call.settled)) for call in self.calls]
        self.ready = self.busy[0][0]
        self.begin = first_known(self.calls[0].dispatched, self.ready) if self.calls[0].cold else self.ready
        self.end = max(end for _, end in self.busy)


def _draw_counts(ax: Axes, panel: Panel, lives: Sequence[_Life]) -> None:
    there = counts(panel.origin, [(life.begin, life.end) for life in lives])
    busy = counts(panel.origin, [span for life in lives for span in life.busy])
    draw_level(ax, "worker there", SKY, there)
    draw_level(ax, "worker busy", BLUE, busy)
    most = int(max(there[1]))
    ax.set_ylim(0, max(1, most) * 1.08)
    share = sum(end - begin for life in lives for begin, end in life.busy) / max(
        sum(life.end - life.begin for life in lives), 1e-9
    )
    told = f"workers: at most {most:,} at once, busy {min(share, 1.0):.0%} of their time"
    write_title(ax, told if lives else "no worker ran a call")


def _draw_lives(ax: Axes, panel: Panel, lives: Sequence[_Life], row_height: float) -> None:
    thick, thin = (min(max(0.7, share * row_height), most) for share, most in ((0.72, 14), (0.3, 3)))
    rows = list(enumerate(lives))
    draw_lines(ax, panel, "idle", PALE, thin, [(row, life.ready, life.end) for row, life in rows])
    cold = [(row, life.begin, life.ready) for row, life in rows if life.calls[0].cold]
    draw_lines(ax, panel, "cold start", ORANGE, thick, cold)
    spans = [(row, begin, end) for row, life in rows for begin, end in life.busy]
    draw_lines(ax, panel, "function", BLUE, thick, spans)
    failed = [
        (row, first_known(call.ended, call.settled))
        for row, life in rows
        for call in life.calls
        if call.status not in ("ok", "cancelled")
    ]
    draw_dots(ax, panel, "failed", "X", VERMILLION, "white", failed, tall=row_height >= TALL_ROW)
    if row_height >= TALL_ROW:
        # Where one call ends and the next begins cannot be seen otherwise.
        begins = [(row, begin) for row, life in rows for begin, _ in life.busy[1:]]
        if len(begins) < 30 * len(lives):
            draw_dots(ax, panel, "", "|", INK, "white", begins, tall=True)
    write_title(ax, counted(len(lives), "worker"))
