"""The job summary: every number of it, and that it stays a small table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fake_stats import EPOCH, job, stage
from hypothesis import given
from hypothesis import strategies as st

from lithops_mini.durations import format_duration
from lithops_mini.measures import most_at_once, time_to_distribute
from lithops_mini.records import Attempt, CallStats
from lithops_mini.report import summary

WHERE = {"backend": "localhost", "storage": "files"}


def call(number: int, **changes: object) -> CallStats:
    plain = CallStats(
        call_id=number,
        submitted=EPOCH,
        dispatched=EPOCH + 0.5,
        started=EPOCH + 1,
        ended=EPOCH + 1 + number,
        settled=EPOCH + 2 + number,
        cpu_user=0.25,
        cpu_system=0.125,
        peak_memory=2**20 * number,
        bytes_in=1024,
        bytes_out=10,
        attempt=1,
        worker_id=f"w{number % 2}",
        cold=number < 2,
        status="ok",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def table(text: str) -> dict[str, list[str]]:
    """The rows of the summary by their first cell; the row of names under ``""``."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.split("\n\n", 1)[1].splitlines()]
    return {"": rows[0]} | {row[0]: row[1:] for row in rows[1:]}


def test_every_number() -> None:
    calls = [
        *(call(n) for n in range(1, 8)),
        call(8, status="error", attempt=2),
        call(9, status="out_of_memory", attempt=3, cold=True),
        call(
            10,
            status="cancelled",
            dispatched=None,
            started=None,
            ended=None,
            settled=EPOCH + 1,
            attempt=0,
            worker_id="",
        ),
    ]
    text = summary([("map", calls)], **WHERE, executor_id="3f9c")
    assert text.startswith("Job summary: backend localhost, storage files, executor 3f9c\n\n")
    assert table(text) == {
        "": ["map"],
        "calls": ["10"],
        "ok": ["7"],
        "failed": ["2"],
        "cancelled": ["1"],
        "retries": ["3"],
        "workers": ["2"],
        "cold starts": ["2"],
        "wall time": ["11 s"],
        "calls at once, mean": ["4.1"],  # 45 s of functions in 11 s
        "start delay, median": ["1 s"],
        "time to distribute": ["1 s"],
        "function time, sum": ["45 s"],
        "median": ["5 s"],
        "95th percentile": ["9 s"],
        "longest": ["9 s"],
        "CPU time, user": ["2.5 s"],
        "system": ["1.25 s"],
        "memory, peak": ["10 MiB"],
        "bytes in": ["10 KiB"],
        "data read": ["0 B"],
        "bytes out": ["100 B"],
    }


def test_a_column_for_each_stage_and_one_for_all() -> None:
    later = [replace(call(n), settled=EPOCH + 100) for n in range(3)]
    rows = table(summary([("map", [call(n) for n in range(5)]), ("empty", []), ("reduce", later)], **WHERE))
    assert rows[""] == ["map", "reduce", "total"]
    assert rows["calls"] == ["5", "3", "8"]
    assert rows["workers"] == ["2", "2", "2"]  # the same two
    assert rows["wall time"] == ["6 s", "1 min 40 s", "1 min 40 s"]
    assert rows["function time, sum"] == ["10 s", "3 s", "13 s"]


def test_workers_of_attempts_that_were_followed_by_another_one_count() -> None:
    lost = [
        Attempt(1, n, EPOCH, EPOCH, None, EPOCH + 1, worker, "died", "") for n, worker in enumerate(["w1", "x", ""])
    ]
    told = summary([("map", [call(1), call(2)]), ("reduce", [call(3)])], **WHERE, attempts={"map": lost})
    assert table(told)["workers"] == ["3", "1", "3"]


def test_many_stages_are_added_up_but_for_the_last() -> None:
    stages = [(f"a function with a very long name {n}", [call(k) for k in range(n)]) for n in range(1, 101)]
    text = summary(stages, **WHERE)
    rows = table(text)
    assert rows["calls"] == ["4,753", "98", "99", "100", "5,050"]
    assert rows[""][0] == "97 earlier"
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("calls", [1, 10, 10_000])
def test_it_is_a_small_aligned_table(calls: int) -> None:
    text = summary(job(calls, 8), **WHERE)
    lines = text.splitlines()
    assert len(lines) <= 30
    assert len({len(line) for line in lines[2:]}) == 1
    rows = table(text)
    whole = [
        [int(rows[name][column].replace(",", "")) for name in ("calls", "ok", "failed", "cancelled")]
        for column in range(3)
    ]
    assert [total for total, *_ in whole] == [sum(parts) for _, *parts in whole]


def test_nothing_settled_and_nothing_started() -> None:
    assert "No call has been settled" in summary([("map", [])], **WHERE)
    never = [call(0, dispatched=None, started=None, ended=None, settled=EPOCH, status="cancelled")]
    rows = table(summary([("map", never)], **WHERE))
    assert rows["median"] == rows["start delay, median"] == rows["calls at once, mean"] == ["-"]
    assert rows["wall time"] == ["0 s"]


def test_quantiles_are_function_times_that_were() -> None:
    stats = stage(199, 7)
    times = {format_duration(c.function_time) for c in stats if c.function_time is not None}
    rows = table(summary([("map", stats)], **WHERE))
    assert {rows[name][0] for name in ("median", "95th percentile", "longest")} <= times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00042, "0.42 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1 s"),
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(1e-3, 59))
def test_a_duration_says_the_time_to_three_figures(seconds: float) -> None:
    number, unit = format_duration(seconds).split(" ")
    assert float(number) * {"s": 1, "ms": 1e-3}[unit] == pytest.approx(seconds, rel=0.006)


def test_the_time_to_distribute_leaves_out_workers_that_replaced_others() -> None:
    def ran(worker: str, begin: float, end: float) -> CallStats:
        return call(0, worker_id=worker, submitted=EPOCH, started=EPOCH + begin, ended=EPOCH + end)

    first = [ran("a", 1, 3), ran("b", 2, 9), ran("a", 3, 9)]
    assert most_at_once(first) == 2
    assert time_to_distribute(first) == 2
    assert time_to_distribute([*first, ran("c", 9.5, 12)]) == 2
    assert time_to_distribute([*first, ran("c", 8, 12)]) == 8
    assert time_to_distribute([ran("a", 1, 3), ran("a", 1, 3)]) == 1  # two at once in one worker
    assert time_to_distribute([call(0, started=None, ended=None)]) is None
