"""The progress bar: what a terminal, a log and a notebook get to see."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
from terminal import child, frames

from lithops_mini.progress import QUIET, Counters, Progress


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_a_terminal_sees_a_bar_that_ends_at_100_percent(columns: int) -> None:
    drawn = frames(child("wait(1.5, failed=3)", columns=columns))
    assert len(drawn) >= 4
    assert len(drawn) <= 15  # at most ten in a second
    assert all(len(frame) <= columns for frame in drawn)
    assert drawn[-1].startswith("map: 100%|")
    assert "10,000/10,000" in drawn[-1]
    assert "3 failed" in drawn[-1]
    assert sum("100%" in frame for frame in drawn) == 1
    if columns >= 80:
        assert re.search(r"[\d,]+/10,000, 8 running, 0 failed, 0 retried, [\d,]+/s, [\d.]+ m?s left$", drawn[1])


def test_a_terminal_sees_nothing_of_a_short_wait_unless_it_asks() -> None:
    assert child("wait(0.05)", columns=80) == ""
    asked = frames(child("wait(0.05, enabled=True)", columns=80))
    assert asked[-1].startswith("map: 100%")
    assert child("wait(0.7, enabled=False)", columns=80) == ""


def test_bars_one_after_the_other_keep_their_lines() -> None:
    screen = child("for n in range(3): wait(0.02, enabled=True, label=f'job {n}')", columns=80)
    ends = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in screen.rstrip("\r\n").split("\n")]
    assert [end[:11] for end in ends] == ["job 0: 100%", "job 1: 100%", "job 2: 100%"]


def test_nothing_is_imported_and_no_thread_started_for_a_wait_that_draws_nothing() -> None:
    child("wait(0.05); assert 'tqdm' not in sys.modules")
    child("wait(0.7); assert 'tqdm' not in sys.modules")  # lines need none of it
    child("import threading; wait(0.7); assert threading.active_count() == 1", columns=80)


def test_a_log_sees_a_line_for_each_tenth() -> None:
    lines = child("wait(2, failed=3)").splitlines()
    percents = [int(re.match(r"map: (\d+)% \([\d,]+ of 10,000\), ", line)[1]) for line in lines]
    assert percents == sorted(set(percents))
    assert 5 <= len(percents) <= 9  # the first half second draws nothing
    assert percents[-1] == 100
    assert re.search(r"3 failed, 0 retried, [\d,]+/s, took [12][\d.]* s$", lines[-1])
    assert child("wait(0.05)") == ""
    assert child("wait(0.05, enabled=True)").count("100%") == 1


def test_a_log_sees_a_line_every_30_seconds_of_a_slow_job() -> None:
    clock, stream, counters = Clock(), io.StringIO(), Counters(total=1000, running=4)
    progress = Progress(lambda: counters, label="slow", stream=stream, clock=clock)
    for _ in range(1000):  # 100 s
        clock.now += 0.1
        counters.done += clock.now > 1050 and round(clock.now * 10) % 50 == 0
        progress.update()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "slow: 0% (0 of 1,000), 4 running, 0 failed, 0 retried, 0/s, ? left"
    assert lines[2].startswith("slow: 0% (8 of 1,000), 4 running, 0 failed, 0 retried, 5.3/min, 3 h 07 min left")


def test_a_line_comes_at_each_tenth_and_only_once() -> None:
    clock, stream, counters = Clock(), io.StringIO(), Counters(total=100)
    progress = Progress(lambda: counters, label="map", enabled=True, stream=stream, clock=clock)
    for _ in range(100):
        clock.now += 0.2
        counters.done += 1
        progress.update()
    progress.close()
    progress.close()
    percents = [int(percent) for percent in re.findall(r"(\d+)%", stream.getvalue())]
    assert percents == list(range(10, 101, 10))


def test_never_drawn_more_than_ten_times_in_a_second() -> None:
    clock, stream, counters = Clock(), Terminal(), Counters(total=10**6)
    times: list[float] = []

    def read() -> Counters:
        times.append(clock.now)
        return counters

    progress = Progress(read, label="map", enabled=True, stream=stream, clock=clock)
    del times[:]
    for _ in range(10_000):
        clock.now += 0.001
        counters.done += 100
        progress.update()
    progress.close()
    assert 70 <= len(times) <= 100
    assert stream.getvalue().count("\rmap:") == len(times)
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[10:], strict=False))


def test_100_percent_means_every_call() -> None:
    clock, stream, counters = Clock(), Terminal(), Counters(total=10_000, done=9_999)
    progress = Progress(lambda: counters, label="map", enabled=True, stream=stream, clock=clock)
    progress.update()
    assert " 99%" in stream.getvalue()
    assert "100%" not in stream.getvalue()
    counters.done = 10_000
    progress.close()
    assert "100%" in frames(stream.getvalue())[-1]


def test_a_total_that_grows_and_a_wait_that_ends_early() -> None:
    clock, stream, counters = Clock(), Terminal(), Counters(total=10, done=5)
    progress = Progress(lambda: counters, label="map", enabled=True, stream=stream, clock=clock)
    progress.update()
    counters.total = 20
    clock.now += 10
    progress.close()
    first, *_, end = frames(stream.getvalue())
    assert first.startswith("map:  50%|")
    assert end.startswith("map:  25%|")
    assert "5/20" in end  # what was done before the wait says nothing about its rate
    assert "0/s, ? left" in end


def test_a_wait_for_nothing_is_complete() -> None:
    for stream in (Terminal(), io.StringIO()):
        with Progress(Counters, label="map", enabled=True, stream=stream):
            pass
        assert "100%" in stream.getvalue()


BROKEN_PIPE = """
import io, os, threading
from tqdm.std import tqdm

reader, writer = os.pipe()
os.close(reader)

class Terminal(io.TextIOBase):
    def isatty(self): return True
    def write(self, text): return os.write(writer, text.encode())

def take_and_release():
    with tqdm.get_lock(): pass

stream = Terminal()
for last_drawing in (False, True):
    progress = Progress(lambda: Counters(total=2, done=1), label="map", enabled=True, stream=stream)
    progress.close() if last_drawing else progress.update()
    other = threading.Thread(target=take_and_release, daemon=True)
    other.start()
    other.join(10)
    assert not other.is_alive(), "tqdm's lock is still held"
"""


def test_a_broken_stream_ends_the_drawing_and_not_the_wait() -> None:
    class Full(Terminal):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    closed = Terminal()
    closed.close()
    for stream in (Full(), closed):
        with Progress(Counters, label="map", enabled=True, stream=stream) as progress:
            progress.update()
            progress.update()
    assert child(BROKEN_PIPE) == ""


def test_no_stderr_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(Counters, label="map", enabled=True) as progress:
        progress.update()


NOTEBOOK = """
import io
from traitlets.config import Config
from IPython.core.interactiveshell import InteractiveShell
from lithops_mini.progress import in_notebook
assert not in_notebook()  # IPython is imported, but this is no shell
shell = InteractiveShell.instance()
assert not in_notebook()  # IPython in a terminal
shell.config["IPKernelApp"] = Config()
assert in_notebook()
"""


def test_notebooks_are_told_from_terminals() -> None:
    pytest.importorskip("IPython")
    assert child(NOTEBOOK) == ""


def test_a_notebook_without_widgets_gets_a_bar_of_text_and_no_warning() -> None:
    pytest.importorskip("IPython")
    code = NOTEBOOK + "sys.modules['ipywidgets'] = None\nwait(0.02, enabled=True)"
    drawn = frames(child(code))
    assert drawn[-1].startswith("map: 100%|")


def test_update_costs_nothing_between_drawings() -> None:
    progress = Progress(Counters, label="map", enabled=None, stream=io.StringIO())
    begin = time.perf_counter()
    for _ in range(10_000):
        progress.update()
    assert time.perf_counter() - begin < QUIET / 2
