"""lithops-mini bench: tables and pictures of what workers get."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from lithops_mini.cli.app import app
from lithops_mini.client import Storage


def run(name: str, *args: str) -> tuple[str, list[dict[str, str]]]:
    done = CliRunner().invoke(app, ["bench", name, *args])
    assert done.exit_code == 0, done.output
    assert Path("bench-output", f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with open(Path("bench-output", f"{name}.csv"), newline="", encoding="utf-8") as file:
        return done.output, list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_flops_grow_with_workers() -> None:
    printed, rows = run("flops", "--workers", "1,2", "--size", "64", "--seconds", "0.1")
    assert "by numpy" in printed
    assert [row["workers"] for row in rows] == ["1", "2"]
    assert all(float(row["gflops_per_worker"]) > 0 for row in rows)
    assert float(rows[1]["gflops"]) > float(rows[1]["gflops_per_worker"]) / 2


def test_storage_is_written_and_read_and_left_empty() -> None:
    _, rows = run("storage", "--workers", "1,2", "--size", "3")
    assert [(row["what"], row["workers"]) for row in rows] == [
        ("write", "1"),
        ("read", "1"),
        ("write", "2"),
        ("read", "2"),
    ]
    assert all(float(row["mb_per_second"]) > 0 for row in rows)
    with Storage() as storage:
        assert list(storage.list_keys(None, "lithops_mini/study/")) == []


def test_cold_starts_take_longer_than_warm_ones() -> None:
    printed, rows = run("latency", "--cold", "2", "--warm", "10")
    assert [(row["start"], row["calls"]) for row in rows] == [("cold", "2"), ("warm", "10")]
    assert float(rows[0]["median_seconds"]) > float(rows[1]["median_seconds"])
    assert "No start was cold" not in printed


def test_workers_are_used_again() -> None:
    _, rows = run("reuse", "--workers", "2", "--rounds", "3")
    assert [row["calls"] for row in rows] == ["4"] * 3
    assert float(rows[0]["share_of_calls_on_known_workers"]) == 0
    assert float(rows[2]["share_of_calls_on_known_workers"]) == 1


def test_a_list_of_workers_is_checked() -> None:
    for wrong in ("0", "1,,2", "two", "1.5"):
        done = CliRunner().invoke(app, ["bench", "flops", "--workers", wrong])
        assert done.exit_code == 2
        assert "is not a list of whole numbers over 0" in done.output
    done = CliRunner().invoke(app, ["bench", "flops", "--backend", "inline", "--workers", "1,2"])
    assert done.exit_code == 1
    assert "the backend inline has one worker, not 2" in done.output
