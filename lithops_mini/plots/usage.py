"""What the calls used, and when: processors, memory, network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import ceil, log2
from typing import TYPE_CHECKING

from lithops_mini.plots.levels import BINS, counts, draw_level, drawn_as, heights, is_dense
from lithops_mini.plots.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SKY,
    Points,
    draw_clock,
    draw_legend,
    label_rows,
    new_figure,
    panels_of,
    plain_axes,
    write_title,
)
from lithops_mini.records import NO_ATTEMPTS, Attempts, CallStats, Stages
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 1.5  # inches
_FINEST = 1e-3  # seconds: in less the use of a processor and the moment of a call do not belong together


def utilisation(stages: Stages, attempts: Attempts = NO_ATTEMPTS) -> Figure:
    """Draw processors, memory and network that all calls together used, over time.

    Processors: the CPU time of each call, spread as ``_computing`` says, beside how many calls ran. Memory: the peak of
    each worker whose function runs; where a call has none, that of its worker's other calls. Network: arguments on
    their way to workers and the data that functions read as their ``obj``; results on their way back. What else they
    read and write is not known. Arguments, time and errors as in ``timeline``.
    """
    panels = panels_of(stages, attempts)
    calls = [call for panel in panels for call in panel.calls]
    origin, end = panels[0].origin, panels[0].end
    figure, axes = new_figure(panels, "Utilisation", [_PANEL] * 3)
    processors, memory, network = axes
    ran = [(call, call.started, call.ended) for call in calls if call.started is not None and call.ended is not None]

    cpu = level_over_time(origin, end, _computing(calls))
    draw_level(processors, "processors in use", BLUE, cpu)
    running = counts(origin, [span for panel in panels for call in panel.calls for span in panel.functions(call)])
    draw_level(processors, "calls running", ORANGE, running, fill=False)
    mean = sum(call.cpu_user + call.cpu_system for call in calls) / max(end - origin, 1e-9)
    told = f"processors in use: at most {max(cpu[1]):,.3g}, {mean:,.3g} in the mean"
    write_title(processors, told + (f"; calls running{drawn_as(running)}" if is_dense(running) else ""))

    peaks: dict[str, int] = defaultdict(int)
    for call in calls:
        peaks[call.worker_id] = max(peaks[call.worker_id], call.peak_memory)
    held = heights(origin, [(start, stop, call.peak_memory or peaks[call.worker_id]) for call, start, stop in ran])
    draw_level(memory, "memory", GREEN, held)
    write_title(memory, f"memory of running calls: at most {format_size(round(max(held[1])))}{drawn_as(held)}")

    data = [(start, stop, float(call.data_read)) for call, start, stop in ran]
    sent = level_over_time(origin, end, [*filter(None, map(_sent, calls)), *data])
    received = level_over_time(origin, end, [(stop, call.settled, float(call.bytes_out)) for call, _, stop in ran])
    draw_level(network, "in", SKY, sent)
    draw_level(network, "out", INK, received, fill=False)
    total_in = format_size(sum(call.bytes_in + call.data_read for call in calls))
    total_out = format_size(sum(call.bytes_out for call in calls))
    told = f"network per second: arguments and data in, {total_in} in all; results out, {total_out} in all"
    write_title(network, told)

    plain_axes(axes)
    for ax, label in zip(axes, ("processors,\ncalls", "memory", "bytes in\na second"), strict=True):
        ax.set_ylim(bottom=0)
        label_rows(ax, label)
    for ax in (memory, network):
        count_bytes(ax)
    draw_clock(axes[-1], panels[0])
    draw_legend(figure)
    return figure


def _computing(calls: Iterable[CallStats]) -> Iterable[tuple[float, float, float]]:
    """The CPU time of each call, and the span in which it was used: its function's time.

    A call's CPU time is all of what its worker used since the call before, unpickling its arguments too. Where that is
    more than one thread can use in the function's time, the span begins earlier by what is missing, but not before the
    worker had the call and had ended the one before it.
    """
    free: dict[str, float] = {}
    for call in sorted(calls, key=lambda call: call.started or 0.0):
        if call.started is None or call.ended is None:
            continue
        cpu = call.cpu_user + call.cpu_system
        earliest = max(call.submitted if call.dispatched is None else call.dispatched, free.get(call.worker_id, 0.0))
        yield min(call.started, max(call.ended - cpu, earliest)), call.ended, cpu
        free[call.worker_id] = call.ended


def _sent(call: CallStats) -> tuple[float, float, float] | None:
    if call.started is None:
        return None
    return call.submitted if call.dispatched is None else call.dispatched, call.started, float(call.bytes_in)


def level_over_time(origin: float, end: float, amounts: Iterable[tuple[float, float, float]]) -> Points:
    """The mean level, in each piece of the time, of amounts that are spread over their spans (begin, end, amount)."""
    bins = max(1, min(BINS, int((end - origin) / _FINEST)))
    width = (end - origin) / bins or 1.0
    within = [0.0] * (bins + 1)
    change = [0.0] * (bins + 2)
    for begin, stop, amount in amounts:
        first, last = (min(max((time - origin) / width, 0.0), float(bins)) for time in (begin, stop))
        low, high = int(first), int(last)
        if high <= low:
            within[low] += amount
            continue
        level = amount / (last - first)
        within[low] += level * (low + 1 - first)
        within[high] += level * (last - high)
        change[low + 1] += level
        change[high] -= level
    levels, whole = [], 0.0
    for part, step in zip(within, change, strict=False):
        whole += step
        levels.append(max(0.0, whole + part) / width)
    at_the_very_end = levels.pop()
    levels[-1] += at_the_very_end
    return [n * width for n in range(bins + 1)], [*levels, 0.0]


def count_bytes(ax: Axes) -> None:
    """Ticks at multiples of a power of two, which are round in KiB, MiB and so on."""
    from matplotlib.ticker import MultipleLocator

    ax.yaxis.set_major_locator(MultipleLocator(2.0 ** max(ceil(log2(max(ax.get_ylim()[1], 1.0) / 4)), 0)))
    ax.yaxis.set_major_formatter(lambda value, _: format_size(round(value)))
