"""Where each call was at which time, and how many ran at each moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lithops_mini.plots.style import (
    BLUE,
    GREEN,
    GREY,
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
    new_figure,
    panel_title,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import CallStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def timeline(stages: Stages) -> Figure:
    """Draw a row for each call, from submit to settled: queued, on its way, in its function, on its way back.

    ``stages`` are names with the stats of settled calls, in the order they ran; each has a panel. Seconds count from
    the first submit. ``InputError`` when there is no call at all, ``ConfigError`` when matplotlib is not installed.
    """
    panels = panels_of(stages)
    figure, axes = new_figure(panels, "Timeline", [panel.height for panel in panels])
    for panel, ax in zip(panels, axes, strict=True):
        _draw_phases(ax, panel)
    plain_axes(axes)
    _number_rows(axes, panels)
    draw_legend(figure)
    return figure


def histogram(stages: Stages) -> Figure:
    """Draw how many calls run at each moment, above a line for each call from its function's start to its end.

    The lines of a stage are in the order of their starts, cold starts and failures marked; calls that never started
    have none. Arguments, time and errors as in ``timeline``.
    """
    panels = panels_of(stages)
    figure, (running, *axes) = new_figure(panels, "Calls running", [1.6, *(panel.height for panel in panels)])
    _draw_running(running, panels)
    started = [panel.started() for panel in panels]
    for panel, ax in zip(started, axes, strict=True):
        _draw_functions(ax, panel)
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

    phase("queued", PALE, thin, "submitted", "dispatched", rows)
    phase("queued", PALE, thin, "submitted", "settled", selected(lambda call: call.dispatched is None))
    phase("to a worker", SKY, thin, "dispatched", "started", selected(lambda call: not call.cold))
    phase("to a cold worker", ORANGE, thin, "dispatched", "started", selected(lambda call: call.cold))
    lost = selected(lambda call: call.dispatched is not None and call.started is None)
    phase("to a worker", SKY, thin, "dispatched", "settled", lost)
    phase("result on its way", GREEN, thin, "ended", "settled", rows)
    phase("function", BLUE, thick, "started", "ended", rows)  # last: where rows are thinner than lines, it is seen
    if panel.row_height >= TALL_ROW:
        for moment, colour in (("submitted", GREY), ("dispatched", SKY), ("settled", GREEN)):
            points = [(row, time) for row, call in rows if (time := getattr(call, moment)) is not None]
            draw_dots(ax, panel, "", "o", colour, colour, points)
    _draw_marks(ax, panel)


def _draw_functions(ax: Axes, panel: Panel) -> None:
    width = panel.line_width(0.72, 14)
    for label, colour, cold in (("warm worker", BLUE, False), ("cold start", ORANGE, True)):
        spans = [
            (row, call.started, call.settled if call.ended is None else call.ended)
            for row, call in panel.rows
            if call.started is not None and call.cold is cold
        ]
        draw_lines(ax, panel, label, colour, width, spans)
    _draw_marks(ax, panel)


def _draw_marks(ax: Axes, panel: Panel) -> None:
    """Retries and failures, above everything else: a mark is there to be found among thousands of rows."""
    rows = panel.rows
    retried = [(row, first_known(call.started, call.settled)) for row, call in rows if call.attempt > 1]
    draw_dots(ax, panel, "retried", "o", "white", INK, retried)
    cancelled = [(row, first_known(call.ended, call.settled)) for row, call in rows if call.status == "cancelled"]
    draw_dots(ax, panel, "cancelled", "s", INK, "white", cancelled)
    failed = [
        (row, first_known(call.ended, call.settled)) for row, call in rows if call.status not in ("ok", "cancelled")
    ]
    draw_dots(ax, panel, "failed", "X", VERMILLION, "white", failed)


def _draw_running(ax: Axes, panels: list[Panel]) -> None:
    calls = [call for panel in panels for call in panel.calls]
    spans = [(call.started, first_known(call.ended, call.settled)) for call in calls if call.started is not None]
    points = counts(panels[0].origin, spans)
    draw_level(ax, "", BLUE, points)
    most = int(max(points[1]))
    ax.set_ylim(0, max(1, most) * 1.08)
    write_title(ax, f"running: at most {counted(most, 'call')} at once" if spans else "no call started")


def _number_rows(axes: list[Axes], panels: list[Panel]) -> None:
    for panel, ax in zip(panels, axes, strict=True):
        ax.set_ylim(max(len(panel.calls), 1) - 0.5, -0.5)
        write_title(ax, panel_title(panel))
    draw_clock(axes[-1], panels[0])
