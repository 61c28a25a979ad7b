"""How high something was at each moment, as a curve that can be read however often it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from lithops_mini.durations import format_duration
from lithops_mini.plots.style import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CHANGES = 2000  # up to which each is drawn: more are a solid block
BINS = 300  # of the time: more are narrower than a point of the picture


def counts(origin: float, spans: Iterable[tuple[float, float]]) -> Points:
    """How many of the spans hold at each moment, as times since the origin and the count from there on."""
    return heights(origin, ((begin, end, 1) for begin, end in spans))


def heights(origin: float, spans: Iterable[tuple[float, float, float]]) -> Points:
    """The sum of the heights of the spans (begin, end, height) that hold at each moment, likewise."""
    changes: dict[float, float] = defaultdict(float, {0.0: 0.0})
    for begin, end, height in spans:
        if end > begin:
            changes[begin - origin] += height
            changes[end - origin] -= height
    times = sorted(changes)
    return times, list(accumulate(changes[time] for time in times))


def draw_level(ax: Axes, label: str, colour: str, points: Points, *, fill: bool = True) -> None:
    """Draw what holds from each time to the next; of what changes too often, ``means``, and in pale the most of each
    piece of the time.
    """
    if is_dense(points):
        points, most = means(points)
        ax.fill_between(*most, step="post", color=colour, alpha=0.2, linewidth=0)
    if fill:
        ax.fill_between(*points, step="post", color=colour, alpha=0.3, linewidth=0)
    ax.step(*points, where="post", color=colour, linewidth=1, label=label)


def is_dense(points: Points) -> bool:
    """Whether it changes too often for each change to be seen."""
    return len(points[0]) > MOST_CHANGES


def drawn_as(points: Points) -> str:
    """For the title: that not every change is drawn, if that is so."""
    times = points[0]
    width = format_duration((times[-1] - times[0]) / BINS, 2)
    return f" (line: means of {width}, pale: the most in each)" if is_dense(points) else ""


def means(points: Points) -> tuple[Points, Points]:
    """The mean of each of ``BINS`` pieces of the time, and the most in each, both as points."""
    times, levels = points
    first, width = times[0], (times[-1] - times[0]) / BINS
    edges = [first + n * width for n in range(BINS)] + [times[-1]]
    mean, most = [0.0] * (BINS + 1), [0.0] * (BINS + 1)
    for level, (begin, end) in zip(levels, pairwise(times), strict=False):
        for n in range(max(int((begin - first) / width) - 1, 0), BINS):
            if edges[n] >= end:
                break
            held = min(end, edges[n + 1]) - max(begin, edges[n])
            if held > 0:
                mean[n] += level * held / width
                most[n] = max(most[n], level)
    return (edges, mean), (edges, most)
