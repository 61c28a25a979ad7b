"""Where each call was at which time, and how many ran at each moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import log10
from typing import TYPE_CHECKING

from lithops_mini.plots.levels import counts, draw_level, drawn_as
from lithops_mini.plots.style import (
    BLUE,
    FAILED,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    TALL_ROW,
    THIN_ROW,
    VERMILLION,
    Panel,
    counted,
    draw_clock,
    draw_dots,
    draw_legend,
    draw_lines,
    first_known,
    label_rows,
    new_figure,
    panel_title,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import NO_ATTEMPTS, Attempts, CallStats, Stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def timeline(stages: Stages, attempts: Attempts = NO_ATTEMPTS) -> Figure:
    """Draw a row for each call, from submit to settled: queued, on its way, in its function, on its way back.

    ``stages`` are names with the stats of settled calls, in the order they ran; each has a panel. ``attempts``, by
    these names, are the earlier ones of calls that were run again: each is a line from when it was sent to when it was
    given up. Seconds count from the first submit. ``InputError`` when there is no call at all, ``ConfigError`` when
    matplotlib is not installed.
    """
    panels = panels_of(stages, attempts)
    figure, axes = new_figure(panels, "Timeline", [panel.height for panel in panels])
    for panel, ax in zip(panels, axes, strict=True):
        _draw_phases(ax, panel)
        label_rows(ax, "calls,\nby submit")
    plain_axes(axes)
    _number_rows(axes, panels)
    draw_legend(figure)
    return figure


def histogram(stages: Stages, attempts: Attempts = NO_ATTEMPTS) -> Figure:
    """Draw how many calls run at each moment, above a line for each call from its function's start to its end.

    The lines of a stage are in the order of their starts, cold starts and failures marked; calls that never started
    have none. Attempts that were lost count while their function ran. Arguments, time and errors as in ``timeline``.
    """
    panels = panels_of(stages, attempts)
    figure, (running, *axes) = new_figure(panels, "Calls running", [1.6, *(panel.height for panel in panels)])
    _draw_running(running, panels)
    started = [panel.started() for panel in panels]
    for panel, ax in zip(started, axes, strict=True):
        _draw_functions(ax, panel)
        label_rows(ax, "calls,\nby start")
    plain_axes([running, *axes])
    _number_rows(axes, started)
    draw_legend(figure)
    return figure


def _draw_phases(ax: Axes, panel: Panel) -> None:
    thick, thin = panel.line_width(0.72, 14), panel.line_width(0.3, 3)
    rows = panel.rows

    def phase(
        label: str, colour: str, width: float, begin: str, end: str, chosen: Iterable[tuple[int, CallStats]]
    ) -> None:
        spans = ((row, getattr(call, begin), getattr(call, end)) for row, call in chosen)
        draw_lines(ax, panel, label, colour, width, [span for span in spans if None not in span])

    def selected(holds: Callable[[CallStats], bool]) -> list[tuple[int, CallStats]]:
        return [(row, call) for row, call in rows if holds(call)]

    draw_lines(ax, panel, "queued", PALE, thin, [(row, *span) for row, call in rows for span in _waits(panel, call)])
    phase("to a worker", SKY, thin, "dispatched", "started", selected(lambda call: not call.cold))
    phase("to a cold worker", ORANGE, thin, "dispatched", "started", selected(lambda call: call.cold))
    unanswered = selected(lambda call: call.dispatched is not None and call.started is None)
    phase("to a worker", SKY, thin, "dispatched", "settled", unanswered)
    phase("result on its way", GREEN, thin, "ended", "settled", rows)
    lost = [
        (row, attempt.dispatched, attempt.given_up)
        for row, call in rows
        for attempt in panel.lost.get(call, ())
        if attempt.dispatched is not None
    ]
    draw_lines(ax, panel, "lost attempt", PURPLE, thick, lost)
    phase("function", BLUE, thick, "started", "ended", rows)  # last: where rows are thinner than lines, it is seen
    if panel.row_height >= TALL_ROW:
        for moment, colour in (("submitted", GREY), ("dispatched", SKY), ("settled", GREEN)):
            points = [(row, time) for row, call in rows if (time := getattr(call, moment)) is not None]
            draw_dots(ax, panel, "", "o", colour, colour, points)
    _draw_marks(ax, panel)


def _waits(panel: Panel, call: CallStats) -> Iterator[tuple[float, float]]:
    """From when to when it was queued: before it was first sent, and before it was sent again."""
    begin = call.submitted
    for attempt in panel.lost.get(call, ()):
        if attempt.dispatched is not None:
            yield begin, attempt.dispatched
            begin = attempt.given_up
    yield begin, first_known(call.dispatched, call.settled)


def _draw_functions(ax: Axes, panel: Panel) -> None:
    width = panel.line_width(0.72, 14)
    for label, colour, cold in (("warm worker", BLUE, False), ("cold start", ORANGE, True)):
        spans = [
            (row, call.started, call.settled if call.ended is None else call.ended)
            for row, call in panel.rows
            if call.started is not None and call.cold is cold
        ]
        draw_lines(ax, panel, label, colour, width, spans)
    lost = [(row, *span) for row, call in panel.rows for span in panel.lost_functions(call)]
    draw_lines(ax, panel, "lost attempt", PURPLE, width, lost)
    _draw_marks(ax, panel)


def _draw_marks(ax: Axes, panel: Panel) -> None:
    """Retries and failures, above everything else: a mark is there to be found among thousands of rows. Cold starts
    too, where their lines are too thin to be found.
    """
    rows = panel.rows
    if panel.row_height < THIN_ROW:
        cold = [(row, call.started) for row, call in rows if call.cold and call.started is not None]
        # The fewer and the thinner the rows, the wider: other marks of the same call must not hide them.
        scale = max(1.0, 2.0 - 0.35 * log10(max(len(cold), 1)) - 0.3 * panel.row_height)
        draw_dots(ax, panel, "", "o", ORANGE, ORANGE, cold, scale=scale)
    retried = [(row, first_known(call.started, call.settled)) for row, call in rows if call.attempt > 1]
    draw_dots(ax, panel, "retried", "o", "white", INK, retried)
    cancelled = [(row, first_known(call.ended, call.settled)) for row, call in rows if call.status == "cancelled"]
    draw_dots(ax, panel, "cancelled", "s", INK, "white", cancelled)
    failed = [
        (row, first_known(call.ended, call.settled)) for row, call in rows if call.status not in ("ok", "cancelled")
    ]
    draw_dots(ax, panel, "failed", "X", VERMILLION, "white", failed, scale=FAILED)


def _draw_running(ax: Axes, panels: list[Panel]) -> None:
    spans = [span for panel in panels for call in panel.calls for span in panel.functions(call)]
    points = counts(panels[0].origin, spans)
    draw_level(ax, "", BLUE, points)
    most = max(1, int(max(points[1])))
    ax.set_ylim(0, most * 1.08)
    label_rows(ax, "calls\nrunning")
    told = f"running: at most {counted(most, 'call')} at once{drawn_as(points)}"
    write_title(ax, told if spans else "no call started")


def _number_rows(axes: list[Axes], panels: list[Panel]) -> None:
    for panel, ax in zip(panels, axes, strict=True):
        ax.set_ylim(max(len(panel.calls), 1) - 0.5, -0.5)
        write_title(ax, panel_title(panel))
    draw_clock(axes[-1], panels[0])
