"""How long workers lived, and when they were busy."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from lithops_mini.plots.levels import counts, draw_level, drawn_as
from lithops_mini.plots.style import (
    BLUE,
    FAILED,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    TALL_ROW,
    VERMILLION,
    Panel,
    counted,
    draw_clock,
    draw_dots,
    draw_legend,
    draw_lines,
    first_known,
    height_of,
    label_rows,
    new_figure,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import NO_ATTEMPTS, Attempt, Attempts, CallStats, Stages
from lithops_mini.shorten import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 24  # workers up to which each row has its worker's name
_WIDTHS = (16, 24, 36)  # characters of a name: the first in which all names differ


def worker_lifetimes(stages: Stages, attempts: Attempts = NO_ATTEMPTS) -> Figure:
    """Draw a row for each worker, from its first call to the end of its last: starting cold, running calls, idle.

    Above it, how many workers are there at each moment and how many of them are busy. A worker is there from the
    message of its first call on if that was a cold start, else from that call's start; its real life may be longer.
    Attempts that were lost are calls too, from their start, or from their message if they had none. Arguments, time and
    errors as in ``timeline``.
    """
    panels = panels_of(stages, attempts)
    whole = panels[0]
    lives = _lives([call for panel in panels for call in panel.calls], whole)
    height = min(height_of(len(lives)), 6.0)
    figure, (above, rows) = new_figure(panels, "Worker lifetimes", [1.6, height])
    _draw_counts(above, whole, lives)
    _draw_lives(rows, whole, lives, height * 72 / max(len(lives), 1))
    plain_axes([above, rows])
    label_rows(above, "workers")
    rows.set_ylim(max(len(lives), 1) - 0.5, -0.5)
    common, names = row_names([printable(life.name) for life in lives])
    if 0 < len(lives) <= _NAMED:
        rows.set_yticks(range(len(lives)), names, parse_math=False)
    else:
        label_rows(rows, "workers,\nby begin")
    write_title(rows, counted(len(lives), "worker") + (f": {shorten(common, 70)}…" if common else ""))
    draw_clock(rows, whole)
    draw_legend(figure)
    return figure


def row_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names begin with, up to a character that separates their parts, and the names without it: shortened,
    yet no two alike.
    """
    pairs = zip(min(names, default=""), max(names, default=""), strict=False)  # what these two share all of them do
    common = "".join(char for char, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) if len(names) > 1 else ""
    common = common[: len(common) - len(re.split(r"[^0-9A-Za-z]", common)[-1])]
    common = "" if common in names else common
    rests = [name[len(common) :] for name in names]
    for width in _WIDTHS:
        short = [shorten(rest, width) for rest in rests]
        if len(set(short)) == len(names):
            return common, short
    return common, [f"{number}: {name}" for number, name in enumerate(short, 1)]


class _Life:
    """A worker, as its calls tell of it."""

    def __init__(self, name: str, calls: Iterable[CallStats], attempts: Sequence[Attempt]) -> None:
        self.name = name
        self.calls = sorted(calls, key=lambda call: call.started or 0.0)
        self.functions = [(call.started or 0.0, first_known(call.ended, call.settled)) for call in self.calls]
        spans = [_span(attempt) for attempt in attempts if attempt.started is not None]
        self.busy = sorted([*self.functions, *spans])
        # One that never entered its function was with the worker after all that did.
        last = max((end for _, end in self.busy), default=0.0)
        spans += [(max(begin, last), end) for begin, end in map(_span, attempts) if end > last]
        self.lost = sorted(set(spans))
        self.ready = min(begin for begin, _ in (*self.functions, *spans))
        self.cold = bool(self.calls) and self.calls[0].cold and self.functions[0][0] == self.ready
        self.begin = first_known(self.calls[0].dispatched, self.ready) if self.cold else self.ready
        self.end = max(end for _, end in (*self.functions, *spans))


def _lives(calls: Iterable[CallStats], panel: Panel) -> list[_Life]:
    """All workers, in the order of their beginnings."""
    ran: dict[str, list[CallStats]] = defaultdict(list)
    lost: dict[str, list[Attempt]] = defaultdict(list)
    for call in calls:
        if call.worker_id and call.started is not None:
            ran[call.worker_id].append(call)
        for attempt in panel.lost.get(call, ()):
            if attempt.worker_id and (attempt.started is not None or attempt.dispatched is not None):
                lost[attempt.worker_id].append(attempt)
    lives = [_Life(name, ran.get(name, ()), lost.get(name, ())) for name in {**ran, **lost}]
    return sorted(lives, key=lambda life: (life.begin, life.name))


def _span(attempt: Attempt) -> tuple[float, float]:
    begin = first_known(attempt.started, attempt.dispatched, attempt.given_up)
    return begin, max(begin, first_known(attempt.ended, attempt.given_up))


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
    told = f"workers: at most {most:,} at once, busy {min(share, 1.0):.0%} of their time{drawn_as(busy)}"
    write_title(ax, told if lives else "no worker ran a call")


def _draw_lives(ax: Axes, panel: Panel, lives: Sequence[_Life], row_height: float) -> None:
    thick, thin = (min(max(0.7, share * row_height), most) for share, most in ((0.72, 14), (0.3, 3)))
    rows = list(enumerate(lives))
    draw_lines(ax, panel, "idle", PALE, thin, [(row, life.ready, life.end) for row, life in rows])
    cold = [(row, life.begin, life.ready) for row, life in rows if life.cold]
    draw_lines(ax, panel, "cold start", ORANGE, thick, cold)
    draw_lines(ax, panel, "lost attempt", PURPLE, thick, [(row, *span) for row, life in rows for span in life.lost])
    spans = [(row, *span) for row, life in rows for span in life.functions]
    draw_lines(ax, panel, "function", BLUE, thick, spans)
    failed = [
        (row, first_known(call.ended, call.settled))
        for row, life in rows
        for call in life.calls
        if call.status not in ("ok", "cancelled")
    ]
    draw_dots(ax, panel, "failed", "X", VERMILLION, "white", failed, scale=FAILED, tall=row_height >= TALL_ROW)
    if row_height >= TALL_ROW:
        # Where one call ends and the next begins cannot be seen otherwise.
        begins = [(row, begin) for row, life in rows for begin, _ in life.busy[1:]]
        if len(begins) < 30 * len(lives):
            draw_dots(ax, panel, "", "|", INK, "white", begins, tall=True)
