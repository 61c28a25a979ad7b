"""The pictures: what is drawn, where it is written, and that it can be read at every size."""

from __future__ import annotations

import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_stats import job, stage
from terminal import child

from lithops_mini.errors import InputError
from lithops_mini.plots import histogram, plot, timeline
from lithops_mini.records import CallStats

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


@pytest.mark.parametrize("calls", [1, 10, 200, 10_000])
def test_no_text_lies_upon_another_or_outside(calls: int) -> None:
    stages = [*job(calls, 1 + calls // 20), ("a function with a very long name", stage(3, 3))]
    for figure in (timeline(stages), histogram(stages)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = [*figure.texts, figure.axes[-1].xaxis.label]
        for ax in figure.axes:
            low, high = sorted(ax.get_ylim())
            texts += [label for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
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
    monkeypatch.setattr("lithops_mini.plots.MOST_ROWS", 100)
    stats = [call(n, status="error" if n in (33, 501) else "ok") for n in range(1000)]
    figure = timeline([("map", stats)])
    assert [row for row, *_ in spans(figure, "function")] == sorted({*range(0, 1000, 10), 33, 501})
    assert marks(figure, "failed") == {33, 501}
    assert titles(figure) == ["map: 1,000 calls, 1 in 10 drawn"]


def test_ten_thousand_calls_take_seconds(tmp_path: Path) -> None:
    stages = job(10_000, 500)
    begin = time.perf_counter()
    paths = plot(stages, tmp_path / "job.svg")
    plot(stages, tmp_path)
    assert time.perf_counter() - begin < 30
    assert all(Path(path).stat().st_size < 2_000_000 for path in paths)


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
    assert written(None) == ["j1_timeline.png", "j1_histogram.png"]
    assert written("job") == ["job_timeline.png", "job_histogram.png"]
    assert written("new/") == ["new/j1_timeline.png", "new/j1_histogram.png"]
    assert written(tmp_path / "new") == ["new/j1_timeline.png", "new/j1_histogram.png"]
    assert written("a/b/job.PNG") == ["a/b/job_timeline.png", "a/b/job_histogram.png"]
    assert written("run.v2") == ["run.v2_timeline.png", "run.v2_histogram.png"]
    assert written("job.svg") == ["job_timeline.svg", "job_histogram.svg"]
    assert Path("job_timeline.svg").read_text().startswith("<?xml")
    width, height = png_size("job_timeline.png")
    assert width == 1650
    assert 300 < height < 1500


def test_a_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        plot([("map", CALLS)], tmp_path / "file" / "job")


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
        paths = plot([(name, calls)], tmp_path / "picture")
        assert png_size(paths[0])[0] == 1650
    assert titles(histogram([("never", [CALLS[4]])]))[0] == "no call started"


def test_pictures_can_be_made_in_several_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda n: plot(job(50, 5), tmp_path / f"job{n}"), range(8)))
    pictures = {Path(timeline_path).read_bytes() for timeline_path, _ in paths}
    assert len(pictures) == 1


def test_nothing_is_imported_before_a_picture_is_made_and_never_pyplot(tmp_path: Path) -> None:
    code = f"""
import lithops_mini.plots
assert not {{"matplotlib", "numpy"}} & set(sys.modules)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_stats import job
lithops_mini.plots.plot(job(5, 2), {str(tmp_path / "job")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    assert child(code) == ""


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = f"""
sys.modules["matplotlib"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_stats import job
from lithops_mini.errors import ConfigError
from lithops_mini.plots import plot
try:
    plot(job(5, 2), {str(tmp_path / "job")!r})
except ConfigError as error:
    assert "pip install 'lithops_mini[plot]'" in str(error), error
else:
    raise SystemExit("no error")
"""
    assert child(code) == ""
    assert not list(tmp_path.iterdir())
