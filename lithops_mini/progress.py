"""A progress bar for a wait: tqdm on terminals and in notebooks, plain lines everywhere else.

What is shown comes from counters that the settling code changes and nobody locks: a drawing may be one call behind,
never wrong for long. Nothing of tqdm is imported before something is drawn.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from lithops_mini.durations import format_duration

QUIET = 0.5  # seconds: a wait shorter than this draws nothing, unless it was asked to
DRAW_EVERY = 0.125  # seconds between drawings; with the last one that is never more than ten in a second
LINE_EVERY_PERCENT = 10
LINE_EVERY_SECONDS = 30.0


@dataclass(slots=True)
class Counters:
    """The calls of one wait. ``done`` counts every settled call, the failed ones among them."""

    total: int = 0  # may grow while the wait goes on
    done: int = 0
    running: int = 0  # at this moment: one in each message under way, the others there wait their turn
    failed: int = 0
    retried: int = 0  # attempts after the first, of all calls
    cancelled: int = 0


class Progress:
    """The drawing of one wait; used by the one thread that waits.

    ``read`` returns the counters as they are now; ``label`` is put in front. ``enabled``: True draws from the start,
    False never, None keeps silent when the wait is over within half a second: a bar that flashes is noise, and so are
    hundreds of lines about nothing in a log. ``stream`` is where to draw, default ``sys.stderr``: a bar if it is a
    terminal or a notebook, otherwise a line for every 10 % or 30 s, whichever comes first. ``clock`` gives seconds.

    A stream that cannot be written to any more ends the drawing, not the wait.
    """

    def __init__(
        self,
        read: Callable[[], Counters],
        *,
        label: str,
        enabled: bool | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._label = label
        self._clock = clock
        self._started = clock()
        self._done_before = read().done
        self._next = self._started + (0.0 if enabled else QUIET)
        self._notebook = stream is None and in_notebook()
        self._stream = sys.stderr if stream is None else stream
        self._surface: _Surface | None = None
        self._closed = enabled is False or self._stream is None

    def update(self) -> None:
        """Draw if it is time to; cheap otherwise."""
        now = self._clock()
        if not self._closed and now >= self._next:
            self._next = now + DRAW_EVERY
            self._draw(now, last=False)

    def close(self) -> None:
        """Draw how the wait ended, which is 100 % when every call is settled, and leave it there. May be repeated."""
        now = self._clock()
        if not self._closed and (self._surface is not None or now >= self._next):
            self._draw(now, last=True)
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, now: float, *, last: bool) -> None:
        snapshot = _Snapshot(copy.copy(self._read()), now - self._started, self._done_before)
        try:
            if self._surface is None:
                self._surface = self._open(snapshot)
            self._surface.draw(snapshot, last=last)
        except (OSError, ValueError):  # a closed or broken stream: the place to complain is the one that is gone
            self._closed = True

    def _open(self, snapshot: _Snapshot) -> _Surface:
        if self._notebook or self._stream.isatty():
            return _Bar(snapshot, self._label, self._stream, notebook=self._notebook)
        return _Lines(self._label, self._stream)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Counters at one moment, in words."""

    counters: Counters
    elapsed: float  # seconds since the wait began
    done_before: int  # calls already settled when it began: they say nothing of the rate

    @property
    def complete(self) -> bool:
        return self.counters.done >= self.counters.total

    @property
    def percent(self) -> int:
        """Rounded down: 100 means every call."""
        return 100 if self.complete else 100 * self.counters.done // self.counters.total

    def details(self) -> str:
        """Running, failed, retried, rate, and the time left or taken."""
        counters = self.counters
        rate = (counters.done - self.done_before) / self.elapsed if self.elapsed > 0 else 0.0
        parts = [] if self.complete else [f"{counters.running:,} running"]
        parts += [f"{counters.failed:,} failed", f"{counters.retried:,} retried", _rate(rate)]
        if self.complete:
            parts.append(f"took {format_duration(self.elapsed, 2)}")
        else:
            parts.append(f"{format_duration((counters.total - counters.done) / rate, 2) if rate else '?'} left")
        return ", ".join(parts)


class _Surface(Protocol):
    """What can be drawn on."""

    def draw(self, snapshot: _Snapshot, *, last: bool) -> None: ...


class _Lines:
    """Whole lines for logs and pipes: one for each tenth reached or half minute passed, and the end."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = label
        self._stream = stream
        self._tenth = 0
        self._written_at = 0.0
        self._written: tuple[int, int] | None = None

    def draw(self, snapshot: _Snapshot, *, last: bool) -> None:
        counters = snapshot.counters
        tenth = snapshot.percent // LINE_EVERY_PERCENT
        state = counters.done, counters.total
        due = tenth > self._tenth or snapshot.elapsed - self._written_at >= LINE_EVERY_SECONDS
        if not (due or last) or (last and state == self._written):
            return
        self._tenth, self._written_at, self._written = tenth, snapshot.elapsed, state
        progress = f"{snapshot.percent}% ({counters.done:,} of {counters.total:,})"
        self._stream.write(f"{self._label}: {progress}, {snapshot.details()}\n")
        self._stream.flush()


class _Bar:
    """A tqdm bar whose numbers are ours; tqdm knows widths, cursors, other bars and notebook widgets."""

    def __init__(self, snapshot: _Snapshot, label: str, stream: TextIO, *, notebook: bool) -> None:
        self._bar = _bar_class(notebook=notebook)(
            total=snapshot.counters.total,
            initial=snapshot.counters.done,
            desc=label,
            file=stream,
            dynamic_ncols=True,
            delay=1e-9,  # not drawn here: tqdm keeps its lock for ever when that drawing fails
        )

    def draw(self, snapshot: _Snapshot, *, last: bool) -> None:
        bar, counters = self._bar, snapshot.counters
        bar.n = counters.done
        if bar.total != counters.total:
            bar.total = counters.total
            if container := getattr(bar, "container", None):  # a notebook's widget keeps the total for itself
                container.children[1].max = bar.total
        count = f"{counters.done:,}/{counters.total:,}"
        bar.bar_format = f"{{desc}}: {snapshot.percent:3}%|{{bar}}| {count}, {snapshot.details()}"
        bar.last_print_t = bar.start_t + 1  # tqdm's sign of a bar that has been drawn, which close() leaves there
        try:
            if last:
                bar.close()
            else:
                with bar.get_lock():  # bar.refresh() has the same trouble with its lock
                    bar.display()
        except BaseException:
            bar.disable = True  # or tqdm draws it again when it is collected
            raise


def _bar_class(*, notebook: bool) -> Any:
    base: Any = None
    if notebook:
        from tqdm import notebook as widgets

        if getattr(widgets, "IProgress", None) is not None:  # None without ipywidgets; tqdm.auto would warn
            base = widgets.tqdm_notebook
    if base is None:
        from tqdm.std import tqdm as base
    return type("ProgressBar", (base,), {"monitor_interval": 0})  # no thread: we draw often enough ourselves


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (and not IPython in a terminal)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _rate(per_second: float) -> str:
    if per_second >= 1 or per_second == 0:
        rate, unit = per_second, "s"
    elif per_second >= 1 / 60:
        rate, unit = per_second * 60, "min"
    else:
        rate, unit = per_second * 3600, "h"
    return f"{rate:,.0f}/{unit}" if rate >= 10 or rate == 0 else f"{rate:.1f}/{unit}"
