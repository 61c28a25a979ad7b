"""The pictures: what is drawn, where it is written, and that it can be read at every size."""

from __future__ import annotations

import importlib
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fake_stats import job, stage
from terminal import child

from lithops_mini.errors import InputError, LithopsMiniError
from lithops_mini.plots.calls import histogram, timeline
from lithops_mini.plots.files import KINDS, plot
from lithops_mini.plots.levels import means
from lithops_mini.plots.progress import stage_progress
from lithops_mini.plots.style import ORANGE, Stages
from lithops_mini.plots.usage import utilisation
from lithops_mini.plots.workers import row_names, worker_lifetimes
from lithops_mini.records import Attempt, CallStats

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

Spans = list[tuple[float, float, float]]


def spans(figure: Figure, label: str, panel: int = 0) -> Spans:
    """The lines of this label as (row, begin, end)."""
    return [
        (segment[0][1], segment[0][0], segment[1][0])
        for collection in figure.axes[panel].collections
        if isinstance(collection, LineCollection) and collection.get_label() == label
        for segment in collection.get_segments()
    ]


def marks(figure: Figure, label: str, panel: int = 0) -> set[int]:
    """The rows that have this mark."""
    return {int(row) for line in figure.axes[panel].lines if line.get_label() == label for row in line.get_ydata()}


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def call(number: int, **changes: object) -> CallStats:
    plain = stage(1, 1)[0]
    times = {"submitted": 100.0, "dispatched": 101.0, "started": 103.0, "ended": 106.0, "settled": 107.0}
    facts = {"call_id": number, "attempt": 1, "cold": False, "status": "ok", "worker_id": "w"}
    return replace(plain, **(times | facts | changes))


CALLS = [
    call(0, cold=True),
    call(1, attempt=2),
    call(2, status="error"),
    call(3, status="died", ended=None, started=None),
    call(4, status="cancelled", dispatched=None, started=None, ended=None),
]


LOST = [
    Attempt(0, 2, 104.0, 105.0, None, 106.0, "b", "died", "exit code 1"),
    Attempt(0, 1, 101.0, 102.0, 102.5, 103.0, "a", "died", "exit code 1"),
    Attempt(1, 1, 102.0, None, None, 104.0, "", "unavailable", "no answer"),
    Attempt(2, 1, None, None, None, 103.0, "", "unavailable", "never sent"),
]


def test_the_timeline_shows_every_moment_of_every_call() -> None:
    figure = timeline([("map", CALLS)])
    assert spans(figure, "queued") == [(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 7)]
    assert sorted(spans(figure, "to a worker")) == [(1, 1, 3), (2, 1, 3), (3, 1, 7)]
    assert spans(figure, "to a cold worker") == [(0, 1, 3)]
    assert spans(figure, "function") == [(0, 3, 6), (1, 3, 6), (2, 3, 6)]
    assert spans(figure, "result on its way") == [(0, 6, 7), (1, 6, 7), (2, 6, 7)]
    assert marks(figure, "retried") == {1}
    assert marks(figure, "failed") == {2, 3}
    assert marks(figure, "cancelled") == {4}
    assert labels(figure) == [
        *("queued", "to a worker", "to a cold worker", "function", "result on its way"),
        *("retried", "cancelled", "failed"),
    ]


def test_the_legend_names_only_what_there_is() -> None:
    assert labels(timeline([("map", [call(0)])])) == ["queued", "to a worker", "function", "result on its way"]
    assert labels(histogram([("map", [call(0)])])) == ["warm worker"]


def test_the_histogram_orders_calls_by_start_and_marks_cold_ones() -> None:
    late = call(5, started=104.0)
    figure = histogram([("map", [late, *CALLS])])
    assert spans(figure, "cold start", 1) == [(0, 3, 6)]
    assert spans(figure, "warm worker", 1) == [(1, 3, 6), (2, 3, 6), (3, 4, 6)]
    assert marks(figure, "failed", 1) == {2}
    assert titles(figure) == ["running: at most 4 calls at once", "map: 6 calls, 2 of them never started"]


@pytest.mark.parametrize("calls", [1, 10, 500])
def test_the_calls_running_at_each_moment_are_counted(calls: int) -> None:
    stages = job(calls, 7)
    (line,) = histogram(stages).axes[0].lines
    origin = min(c.submitted for _, stats in stages for c in stats)
    ran = [(c.started - origin, c.ended - origin) for _, stats in stages for c in stats if c.started and c.ended]
    times, counts = line.get_xdata(), line.get_ydata()
    steps = [(now, after, count) for now, after, count in zip(times, times[1:], counts, strict=False) if after > now]
    for now, after, count in steps[:: max(1, len(steps) // 50)]:
        moment = (now + after) / 2
        assert count == sum(begin <= moment < end for begin, end in ran)
    assert counts[-1] == 0


def test_stages_have_panels_on_one_clock() -> None:
    stages = job(10_000, 500)
    for figure, first in ((timeline(stages), 0), (histogram(stages), 1)):
        panels = figure.axes[first:]
        assert [title.split(",")[0] for title in titles(figure)[first:]] == ["map: 10", "reduce: 100 calls"]
        assert panels[0].get_xlim() == panels[1].get_xlim()
        end = max(c.settled for _, stats in stages for c in stats) - min(c.submitted for c in stages[0][1])
        assert panels[0].get_xlim()[1] == pytest.approx(end, rel=0.02)
        FigureCanvasAgg(figure).draw()
        heights = [ax.get_position().height * figure.get_figheight() for ax in panels]
        assert min(heights) > 0.6


def test_more_stages_than_panels_share_one() -> None:
    stages = [(f"stage {n}", [call(k, submitted=100.0 + n) for k in range(3)]) for n in range(20)]
    assert titles(timeline(stages)) == ["20 stages: 60 calls"]
    assert [begin for _, begin, _ in spans(timeline(stages), "function")] == [3.0] * 60
    assert len(spans(histogram(stages), "warm worker", 1)) == 60


def slow_calls() -> Stages:
    """Calls whose numbers are as long as any: hours, thousands of stragglers."""
    ends = [10_000 + n if n < 6_000 else 40_000 + n for n in range(10_000)]
    stats = [
        call(n, ended=end, settled=end + 1, cold=n < 9, attempt=1 + n % 2) for n, end in enumerate(map(float, ends))
    ]
    return [("a function with a very long name", [*stats, *CALLS])]


@pytest.mark.parametrize("stages", [job(15, 2), job(10_000, 500), slow_calls()], ids=["15", "10,000", "slow"])
def test_no_text_lies_upon_another_or_outside(stages: list[tuple[str, list[CallStats]]]) -> None:
    stages = [*stages, ("a function with a very long name", stage(3, 3))]
    lost = [attempt._replace(call_id=5) for attempt in LOST]
    attempts = {name: lost for name, _ in stages}
    for draw in KINDS.values():
        figure = draw(stages, attempts)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = [figure._suptitle, *(axis.label for ax in figure.axes for axis in (ax.xaxis, ax.yaxis))]
        for ax in figure.axes:
            for at, limits, ticks in (
                (1, ax.get_ylim(), ax.get_yticklabels()),
                (0, ax.get_xlim(), ax.get_xticklabels()),
            ):
                low, high = sorted(limits)
                texts += [label for label in ticks if low <= label.get_position()[at] <= high]
            texts.append(ax._left_title)
        texts += figure.legends[0].get_texts()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
        assert len(boxes) > 10
        for n, (text, box) in enumerate(boxes):
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text
            assert not [other for other, against in boxes[:n] if box.overlaps(against)], text


def test_of_very_many_calls_some_are_drawn_and_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.plots.style.MOST_ROWS", 100)
    stats = [call(n, status="error" if n in (33, 501) else "ok") for n in range(1000)]
    figure = timeline([("map", stats)])
    assert [row for row, *_ in spans(figure, "function")] == sorted({*range(0, 1000, 10), 33, 501})
    assert marks(figure, "failed") == {33, 501}
    assert titles(figure) == ["map: 1,000 calls, 1 in 10 drawn"]


def test_ten_thousand_calls_take_seconds(tmp_path: Path) -> None:
    stages = job(10_000, 500)
    begin = time.perf_counter()
    paths = plot(stages, tmp_path / "job.svg")
    assert time.perf_counter() - begin < 30
    assert all(Path(path).stat().st_size < 2_000_000 for path in paths)


def curve(figure: Figure, panel: int, label: str) -> list[tuple[float, float]]:
    """The points of the line of this label; of the only one without, if it has none."""
    (line,) = [
        line
        for line in figure.axes[panel].lines
        if line.get_label() == label or (not label and line.get_label().startswith("_"))
    ]
    return list(zip(*line.get_data(), strict=True))


@pytest.mark.parametrize("calls", [1, 60])
def test_the_utilisation_adds_up_to_what_the_calls_used(calls: int) -> None:
    stages = job(calls, 7)
    stats = [call for _, each in stages for call in each if call.started is not None]
    figure = utilisation(stages)

    def area(panel: int, label: str) -> float:
        points = curve(figure, panel, label)
        return sum(level * (after - now) for (now, level), (after, _) in pairwise(points))

    assert area(0, "processors in use") == pytest.approx(
        sum(call.cpu_user + call.cpu_system for call in stats), rel=1e-6
    )
    assert area(0, "calls running") == pytest.approx(sum(call.function_time or 0 for call in stats), rel=1e-6)
    assert area(1, "memory") == pytest.approx(
        sum(call.peak_memory * (call.function_time or 0) for call in stats), rel=1e-6
    )
    assert area(2, "in") == pytest.approx(sum(call.bytes_in + call.data_read for call in stats), rel=1e-6)
    assert area(2, "out") == pytest.approx(sum(call.bytes_out for call in stats), rel=1e-6)


def test_the_utilisation_is_that_of_each_moment() -> None:
    busy = {"cpu_user": 5.0, "cpu_system": 1.0, "peak_memory": 3 << 20, "dispatched": 103.0}
    second = call(1, **busy | {"dispatched": 104.5}, started=104.5, worker_id="v")
    figure = utilisation([("map", [call(0, **busy), second])])  # 2 cores for 3 s, 4 for 1.5 s

    def level(panel: int, label: str, at: float) -> float:
        return [level for time, level in curve(figure, panel, label) if time <= at][-1]

    assert [level(0, "processors in use", at) for at in (1.0, 4.0, 5.0, 6.5)] == pytest.approx([0, 2, 6, 0])
    assert [level(1, "memory", at) for at in (1.0, 4.0, 5.0, 6.5)] == pytest.approx([0, 3 << 20, 6 << 20, 0])
    assert titles(figure)[1] == "memory of running calls: at most 6 MiB"


def short_calls(number: int, workers: int = 2) -> list[CallStats]:
    """Calls of 1 us, one every 20 us of each worker, in which it uses its processor all the time."""
    stats = []
    for n in range(number):
        began = 101 + n // workers * 20e-6
        times = {"dispatched": 101.0, "started": began + 18e-6, "ended": began + 19e-6, "settled": began + 20e-6}
        use = {"cpu_user": 19e-6, "cpu_system": 1e-6, "peak_memory": 18 << 20 if n % 3 else 0}
        stats.append(call(n, **times, **use, submitted=100.9, worker_id=f"w{n % workers}", cold=n < workers))
    return stats


def test_short_calls_use_no_more_processors_than_there_are_and_all_their_memory() -> None:
    use, memory, _ = titles(utilisation([("map", short_calls(20_000))]))
    assert use.startswith("processors in use: at most 2, ")
    assert memory.startswith("memory of running calls: at most 36 MiB")


@pytest.mark.parametrize(
    ("draw", "panel", "label"),
    [
        (histogram, 0, ""),
        (utilisation, 0, "calls running"),
        (utilisation, 1, "memory"),
        (worker_lifetimes, 0, "worker busy"),
    ],
)
def test_what_changes_too_often_to_be_seen_is_drawn_as_means(
    draw: Callable[..., Figure], panel: int, label: str
) -> None:
    few, many = draw([("map", short_calls(200))]), draw([("map", short_calls(8_000))])
    assert "means" not in titles(few)[panel]
    assert "means" in titles(many)[panel]
    assert len(curve(many, panel, label)) <= 301
    levels = [level for _, level in curve(many, panel, label) if level]
    assert max(levels) < max(level for _, level in curve(few, panel, label)) / 4


def test_means_and_the_most_of_each_piece_of_the_time() -> None:
    times = [0.0, *(n / 1000 + 5 for n in range(3001))]
    levels = [0.0, *(float(n % 3) for n in range(3000)), 0.0]
    mean, most = means((times, levels))
    area = sum(level * (after - now) for (now, level), (after, _) in pairwise(zip(*mean, strict=True)))
    assert area == pytest.approx(3.0)
    assert [dict(zip(*most, strict=True))[at] for at in mean[0][:10]] == [0.0] * 10
    assert most[1][-10:-1] == [2.0] * 9
    assert all(low <= high for low, high in zip(mean[1], most[1], strict=True))


@pytest.mark.parametrize(("draw", "panel"), [(timeline, 0), (histogram, 1)])
def test_cold_starts_are_seen_among_thousands_of_calls(draw: Callable[..., Figure], panel: int) -> None:
    def orange(figure: Figure) -> list[float]:
        lines = [line for line in figure.axes[panel].lines if line.get_markerfacecolor() == ORANGE]
        assert all(line.get_markersize() > 5 for line in lines)
        return [row for line in lines for row in line.get_ydata()]

    assert orange(draw([("map", short_calls(10_000, 3))])) == [0, 1, 2]
    assert orange(draw([("map", short_calls(10))])) == []  # their lines are thick


RETRIED = [
    call(0, attempt=3, dispatched=107.0, started=108.0, ended=109.0, settled=110.0, worker_id="c"),
    call(1, attempt=2, dispatched=None, started=None, ended=None, settled=110.0, worker_id="", status="cancelled"),
    call(2, attempt=2, dispatched=107.0, started=None, ended=None, settled=110.0, worker_id="", status="died"),
]


def test_lost_attempts_are_told_from_waiting() -> None:
    stages = [("other", [call(0)]), ("map", RETRIED)]
    figure = timeline(stages, {"map": LOST})
    assert spans(figure, "lost attempt", 1) == [(0, 1, 3), (0, 4, 6), (1, 2, 4)]
    assert spans(figure, "queued", 1) == [(0, 0, 1), (0, 3, 4), (0, 6, 7), (1, 0, 2), (1, 4, 10), (2, 0, 7)]
    assert spans(figure, "function", 1) == [(0, 8, 9)]
    assert not spans(figure, "lost attempt", 0)
    assert "lost attempt" in labels(figure)
    assert "lost attempt" not in labels(timeline(stages))
    shared = timeline(
        [("map", RETRIED), *((f"stage {n}", [call(0, submitted=110.0)]) for n in range(9))], {"map": LOST}
    )
    assert spans(shared, "lost attempt") == [(0, 1, 3), (0, 4, 6), (1, 2, 4)]


def test_lost_attempts_ran_too() -> None:
    figure = histogram([("map", RETRIED)], {"map": LOST})
    assert curve(figure, 0, "") == [(0, 0), (2, 1), (2.5, 0), (5, 1), (6, 0), (8, 1), (9, 0)]
    assert spans(figure, "lost attempt", 1) == [(0, 2, 2.5), (0, 5, 6)]
    assert titles(figure)[1] == "map: 3 calls, 2 of them never started"
    only_lost = histogram([("map", [replace(RETRIED[1], call_id=0)])], {"map": LOST})
    assert spans(only_lost, "lost attempt", 1) == [(0, 2, 2.5), (0, 5, 6)]
    assert titles(only_lost) == ["running: at most 1 call at once", "map: 1 call"]
    running = curve(utilisation([("map", RETRIED)], {"map": LOST}), 0, "calls running")
    assert running == curve(figure, 0, "")
    progress = stage_progress([("map", RETRIED)], {"map": LOST})
    assert curve(progress, 0, "sent") == [(1, 0), (1, 1), (2, 2), (7, 3), (10, 3)]
    assert curve(progress, 0, "started") == [(2, 0), (2, 1), (10, 1)]


def test_workers_that_only_lost_calls_were_there() -> None:
    never = Attempt(2, 1, 103.0, None, None, 105.0, "d", "died", "exit code 1")
    figure = worker_lifetimes([("map", RETRIED)], {"map": [*LOST[:3], never]})
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["a", "d", "b", "c"]
    assert spans(figure, "lost attempt", 1) == [(0, 2, 2.5), (1, 3, 5), (2, 5, 6)]
    assert spans(figure, "function", 1) == [(3, 8, 9)]
    assert curve(figure, 0, "worker busy") == [(0, 0), (2, 1), (2.5, 0), (5, 1), (6, 0), (8, 1), (9, 0)]
    assert "4 workers" in figure._suptitle.get_text()


def test_a_worker_that_dies_with_calls_it_had_not_begun_is_there_until_then() -> None:
    waiting = [Attempt(n, 1, 101.0, None, None, 109.0, "w", "died", "exit code 1") for n in (1, 2)]
    figure = worker_lifetimes([("map", [call(0), RETRIED[1], RETRIED[2]])], {"map": waiting})
    assert spans(figure, "function", 1) == [(0, 3, 6)]
    assert spans(figure, "lost attempt", 1) == [(0, 6, 9)]
    assert curve(figure, 0, "worker busy") == [(0, 0), (3, 1), (6, 0)]


@pytest.mark.parametrize(
    ("names", "common", "rows"),
    [
        (["w10", "w11"], "", ["w10", "w11"]),
        (["localhost/0.1", "localhost/0.2"], "localhost/0.", ["1", "2"]),
        (["localhost/0.1", "localhost/1.1"], "localhost/", ["0.1", "1.1"]),
        (["knative/lithops-mini-7a-x1-ab.0.1"], "", ["knative/lit….0.1"]),
        (["aws/2026-a.1", "aws/2026-a.1/b"], "aws/2026-a.", ["1", "1/b"]),
        (["a/", "a/b"], "", ["a/", "a/b"]),
        ([f"{'x' * 15}{n}{'y' * 15}" for n in "pq"], "", [f"{'x' * 15}{n}y…{'y' * 6}" for n in "pq"]),
        ([f"{'x' * 40}{n}{'y' * 40}" for n in "pq"], "", [f"{n}: {'x' * 26}…{'y' * 9}" for n in (1, 2)]),
        ([], "", []),
    ],
)
def test_rows_of_workers_have_names_that_differ(names: list[str], common: str, rows: list[str]) -> None:
    assert row_names(names) == (common, rows)


@pytest.mark.parametrize("stages", [job(15, 2), job(200, 50)], ids=["15", "200"])
def test_every_axis_says_what_its_numbers_are(stages: Stages) -> None:
    for draw in KINDS.values():
        for ax in draw(stages).axes:
            names = {label.get_text() for label in ax.get_yticklabels()}
            assert ax.get_ylabel() or names == {"w0", "w1"}


def test_workers_live_from_their_first_call_to_their_last() -> None:
    calls = [
        call(0, worker_id="b", cold=True),
        call(1, worker_id="b", started=108.0, ended=110.0, status="error"),
        call(2, worker_id="a", started=104.0),
        CALLS[3],
    ]
    figure = worker_lifetimes([("map", calls)])
    assert spans(figure, "cold start", 1) == [(0, 1, 3)]
    assert spans(figure, "idle", 1) == [(0, 3, 10), (1, 4, 6)]
    assert sorted(spans(figure, "function", 1)) == [(0, 3, 6), (0, 8, 10), (1, 4, 6)]
    assert marks(figure, "failed", 1) == {0}
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["b", "a"]
    assert curve(figure, 0, "worker there") == [(0, 0), (1, 1), (4, 2), (6, 1), (10, 0)]
    assert titles(figure) == ["workers: at most 2 at once, busy 64% of their time", "2 workers"]


def test_stages_show_how_far_they_were_and_how_long_functions_took() -> None:
    slow = call(9, ended=160.0, settled=161.0)
    figure = stage_progress(
        [("map", [*(call(n, started=102.0 + n) for n in range(4)), slow, CALLS[3]]), ("two", CALLS)]
    )
    assert curve(figure, 0, "started")[:5] == [(2, 0), (2, 1), (3, 2), (3, 3), (4, 4)]
    assert curve(figure, 0, "ended")[-1] == (61, 5)
    assert curve(figure, 0, "result here")[-1] == (61, 6)
    assert curve(figure, 1, "straggler") == [(57, 0.02)]
    assert titles(figure) == [
        *("map: 6 calls, 1 failed", "functions: median 3 s,\n1 straggler"),
        *("two: 5 calls, 2 failed", "functions: median 3 s"),
    ]


@pytest.mark.parametrize("spread", [0.0, 0.0005, 0.1, 5.0, 900.0, 20_000.0])
def test_ticks_of_function_times_differ(spread: float) -> None:
    figure = stage_progress([("map", [call(n, ended=103.8 + n * spread / 9, settled=1e6) for n in range(10)])])
    FigureCanvasAgg(figure).draw()
    ax = figure.axes[1]
    low, high = ax.get_xlim()
    shown = [label.get_text() for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert len({*shown}) == len(shown) > 0


def png_size(path: str) -> tuple[int, int]:
    head = Path(path).read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_where_the_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [("map", CALLS)]

    def written(dst: str | Path | None) -> list[str]:
        paths = plot(stages, dst, name="j1")
        assert all(Path(path).is_file() for path in paths)
        return [str(Path(path).absolute().relative_to(tmp_path)) for path in paths]

    monkeypatch.chdir(tmp_path)
    kinds = ["timeline", "histogram", "stages", "utilisation", "workers"]
    assert written(None) == [f"j1_{kind}.png" for kind in kinds]
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": timeline})
    assert written("job") == ["job_timeline.png"]
    assert written("new/") == ["new/j1_timeline.png"]
    assert written(tmp_path / "new") == ["new/j1_timeline.png"]
    assert written("a/b/job.PNG") == ["a/b/job_timeline.png"]
    assert written("run.v2") == ["run.v2_timeline.png"]
    assert written("job.svg") == ["job_timeline.svg"]
    assert Path("job_timeline.svg").read_text().startswith("<?xml")
    width, height = png_size("job_timeline.png")
    assert width == 1650
    assert 300 < height < 1500


@pytest.mark.parametrize("suffix", ["gif", "jpg", "JPEG", "webp", "eps", "html", "csv"])
def test_other_formats_are_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end '.*' in \.png, \.svg or \.pdf"):
        plot([("map", CALLS)], tmp_path / f"new/p.{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_directory_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": timeline})
    (tmp_path / "p.gif").mkdir()
    assert plot([("map", CALLS)], tmp_path / "p.gif", name="j") == [str(tmp_path / "p.gif" / "j_timeline.png")]


@pytest.mark.parametrize("dst", ["file/job", "file/", "/dev/null/", "job", "x" * 250])
def test_what_cannot_be_written_is_told_before_anything_is_drawn(
    dst: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(KINDS, "timeline", lambda *_: pytest.fail("drawn"))
    Path("file").write_text("kept")
    Path("job_workers.png").mkdir()
    with pytest.raises(LithopsMiniError, match=r"cannot write .*; name another place for the pictures"):
        plot([("map", CALLS)], dst)
    assert sorted(os.listdir()) == ["file", "job_workers.png"]
    assert Path("file").read_text() == "kept"


@pytest.mark.parametrize("stages", [[], [("map", [])]])
def test_nothing_to_plot_is_an_error(stages: list[tuple[str, list[CallStats]]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        plot(stages, tmp_path)
    assert not list(tmp_path.iterdir())


def test_calls_without_start_or_length_and_clocks_that_disagree(tmp_path: Path) -> None:
    moment = {"submitted": 5.0, "dispatched": 5.0, "started": 5.0, "ended": 5.0, "settled": 5.0}
    for name, calls in {
        "never": [CALLS[4]] * 3,
        "instant": [call(0, **moment)],
        "skewed": [call(0, started=50.0, ended=53.0), call(1, started=500.0, ended=503.0)],
        "$x_1^$": [call(0)],
    }.items():
        for draw in KINDS.values():
            FigureCanvasAgg(draw([(name, calls)])).draw()
    assert titles(histogram([("never", [CALLS[4]])]))[0] == "no call started"


def test_pictures_can_be_made_in_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": timeline, "utilisation": utilisation})
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda n: plot(job(9, 3), tmp_path / f"job{n}"), range(3)))
    for same in zip(*paths, strict=True):
        assert len({Path(path).read_bytes() for path in same}) == 1


def test_nothing_is_imported_before_a_picture_is_made_and_never_pyplot(tmp_path: Path) -> None:
    code = f"""
import lithops_mini.plots.files
assert not {{"matplotlib", "numpy"}} & set(sys.modules)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_stats import job
lithops_mini.plots.files.plot(job(5, 2), {str(tmp_path / "job")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    importlib.import_module("matplotlib.font_manager")  # the first in a home says so if it takes long to list the fonts
    assert child(code) == ""


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = f"""
sys.modules["matplotlib"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_stats import job
from lithops_mini.errors import ConfigError
from lithops_mini.plots.files import plot
try:
    plot(job(5, 2), {str(tmp_path / "job")!r})
except ConfigError as error:
    assert "pip install 'lithops_mini[plot]'" in str(error), error
else:
    raise SystemExit("no error")
"""
    assert child(code) == ""
    assert not list(tmp_path.iterdir())
