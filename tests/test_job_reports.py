"""What jobs that ran here are told to have done: by their executor, by the command line from their records, live."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attempts import until
from click.testing import CliRunner, Result

import lithops_mini as lm
from lithops_mini import wire
from lithops_mini.cli.app import app
from lithops_mini.errors import InputError
from lithops_mini.export import COLUMNS, write_file
from lithops_mini.failures import Failure
from lithops_mini.plots.calls import histogram, timeline
from lithops_mini.records import CallStats

pandas = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")


def unlucky(x: int) -> int:
    if x == 1:
        raise ValueError("not <one>")
    if x == 2:
        os._exit(3)
    return x


def held(x: int, until: str) -> int:
    while x > 1 and not os.path.exists(until):
        time.sleep(0.02)
    return x


@dataclass
class Ran:
    """A map with two failures, and a map_reduce, as their executor and the command line tell of them."""

    executor: lm.FunctionExecutor
    futures: Any
    reduced: Any
    config: Path

    @property
    def stats(self) -> list[tuple[str, list[CallStats]]]:
        return [(name, sorted(calls, key=lambda call: call.call_id)) for name, calls in self.executor.stats()]

    def command(self, *arguments: str, code: int = 0) -> Result:
        given = [*arguments, "--config", str(self.config)]
        result = CliRunner().invoke(app, given, prog_name="lithops-mini")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    directory = tmp_path_factory.mktemp("reports")
    config = directory / "lithops_mini.yaml"
    store = directory / "store"
    config.write_text(f"profiles:\n  here: {{localhost: {{storage_path: {store}, max_workers: 2}}}}\n")
    with lm.function_executor(config_file=config, retries=1, progress=False) as executor:
        futures = executor.map(unlucky, range(30))
        executor.get_result(futures, throw_except=False)
        reduced = executor.map_reduce(abs, range(5), lambda results: sum(results))
        assert executor.get_result(reduced) == 10
    return Ran(executor, futures, reduced, config)


def rows_of(html: str) -> list[list[Any]]:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    rows: list[list[Any]] = json.loads(data)["rows"]
    return rows


def test_the_report_of_the_executor_and_that_of_its_records_agree(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lithops_mini.html.page.KINDS", {"timeline": timeline})
    path = Path(ran.executor.report(tmp_path / "own"))
    assert path == tmp_path / "own.html"
    own = path.read_text(encoding="utf-8")
    printed = ran.command("jobs", "report", ran.executor.executor_id, "-o", f"{tmp_path}/").stdout
    recorded = (tmp_path / f"{ran.executor.executor_id}.html").read_text(encoding="utf-8")
    assert printed == f"{tmp_path}/{ran.executor.executor_id}.html\n"
    for html in (own, recorded):
        assert html.count('src="data:image/svg+xml') == 1
        assert "ValueError</b> &times; 1" in html
        assert "not &lt;one&gt;" in html
        assert "in unlucky" in html
        assert "WorkerDied</b> &times; 1" in html
        assert "<h2>Cost</h2>" in html
        assert len(rows_of(html)) == 36
    assert "the worker process ended: exit code 3</td></tr>" in own  # of the attempt before
    timed = [index for index, cell in enumerate(rows_of(own)[5]) if isinstance(cell, float)]
    for one, other in zip(sorted(rows_of(own)), sorted(rows_of(recorded)), strict=True):
        for index, (cell, same) in enumerate(zip(one, other, strict=True)):
            assert cell == (pytest.approx(same, abs=0.02) if index in timed else same)


def test_the_report_of_one_job(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.html.page.KINDS", {})
    job_id = ran.futures[0].job_id
    ran.command("jobs", "report", job_id, "-o", str(tmp_path / "one.html"))
    assert len(rows_of((tmp_path / "one.html").read_text(encoding="utf-8"))) == 30
    assert "no job" in ran.command("jobs", "report", "nothing", code=1).stderr


def test_what_some_futures_are_of_is_told_alone(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.html.page.KINDS", {"timeline": timeline})
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": timeline})
    executor, chosen = ran.executor, ran.futures[3]
    panels = [ax.get_title(loc="left") for ax in executor.plot(tmp_path, fs=chosen).figures["timeline"].axes]
    assert panels == ["unlucky (M000): 30 calls"]
    assert (tmp_path / f"{chosen.job_id}_timeline.png").exists()
    with open(executor.export(tmp_path / "mapped.csv", ran.futures), encoding="utf-8", newline="") as stream:
        assert {row["stage"] for row in csv.DictReader(stream)} == {"unlucky (M000)"}
    reduced = ran.reduced[0]
    html = Path(executor.report(tmp_path / "reduced.html", [reduced])).read_text(encoding="utf-8")
    assert {row[0][-6:] for row in rows_of(html)} == {"(M001)", "(R002)"}  # the map too, for which it waits
    assert f"<h1>{reduced.job_id}</h1>" in html
    assert "unlucky" not in html
    for tell in (executor.plot, executor.report, executor.export):
        with pytest.raises(InputError, match="fs is empty"):
            tell(tmp_path / "none.csv", [])
        with lm.function_executor("inline", progress=False) as other:
            foreign = other.submit(abs, -1)
        with pytest.raises(InputError, match=f"is not of executor {executor.executor_id}"):
            tell(tmp_path / "none.csv", [ran.futures[0], foreign])


def test_a_record_of_another_version_is_refused_in_words(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithops_mini.wire.VERSION", wire.VERSION + 1)
    for command in (["jobs", "export"], ["jobs", "report"], ["jobs", "show"], ["logs"]):
        told = ran.command(*command, ran.futures[0].job_id, code=1).stderr
        assert f"was recorded by lithops_mini {lm.__version__}, record version {wire.VERSION - 1}" in told


def test_stats_as_csv_jsonl_and_data_frame(ran: Ran, tmp_path: Path) -> None:
    expected = [{"stage": name, **call.as_dict()} for name, calls in ran.stats for call in calls]

    def ordered(rows: Any) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: (row["stage"][-4:], int(row["call_id"])))

    with open(ran.executor.export(tmp_path / "new" / "calls.jsonl"), encoding="utf-8") as stream:
        assert ordered(map(json.loads, stream)) == ordered(expected)
    with open(ran.executor.export(str(tmp_path / "calls.csv")), encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == COLUMNS
    assert ordered(table) == [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in ordered(expected)
    ]
    frame = ran.executor.dataframe()
    assert tuple(frame.columns) == COLUMNS
    assert frame["function_time"].sum() == pytest.approx(sum(row["function_time"] or 0 for row in expected))
    assert frame["status"].value_counts().to_dict() == {"ok": 34, "error": 1, "died": 1}
    assert (frame["settled"] > frame["submitted"]).all()
    with pytest.raises(InputError, match=r"end it in \.csv or \.jsonl"):
        ran.executor.export("calls.xlsx")


def test_the_command_line_exports_records(ran: Ran, tmp_path: Path) -> None:
    job_id = ran.futures[0].job_id
    calls = dict(ran.stats)["unlucky (M000)"]
    told = [json.loads(line) for line in ran.command("jobs", "export", job_id, "--format", "jsonl").stdout.splitlines()]
    assert len(told) == 30
    for row, call in zip(told, calls, strict=True):
        for key, value in call.as_dict().items():
            assert row[key] == (pytest.approx(value, abs=0.02) if isinstance(value, float) else value), key
    assert ran.command("jobs", "export", job_id).stdout.splitlines()[0] == ",".join(COLUMNS)
    ran.command("jobs", "export", ran.executor.executor_id, "-o", str(tmp_path / "all.csv"))
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 36
    assert (
        "does not end in .csv"
        in ran.command("jobs", "export", job_id, "--format", "csv", "-o", "calls.jsonl", code=2).stderr
    )


def test_text_is_no_formula_of_a_spreadsheet(ran: Ran, tmp_path: Path) -> None:
    calls = dict(ran.stats)["unlucky (M000)"]
    path = Path(write_file([("=cmd|' /C calc'!A0", calls[:1])], tmp_path / "calls.csv"))
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("'=cmd")


def test_notebooks_show_executors_and_futures(ran: Ran) -> None:
    shown = ran.futures._repr_html_()
    assert "30 of 30 done, 2 failed" in shown
    assert "ValueError: not &lt;one&gt;" in shown
    assert "<b>unlucky, call 0</b>" in ran.futures[0]._repr_html_()
    assert "1 of 1 done</div>" in ran.futures[0]._repr_html_()
    shown = ran.futures[1]._repr_html_()
    assert "1 of 1 done, 1 failed" in shown
    assert "ValueError: not &lt;one&gt;" in shown
    shown = ran.executor._repr_html_()
    assert ran.executor.executor_id in shown
    assert "unlucky (M000)</th><td>30</td><td>30</td><td>0</td><td>2</td>" in shown


def test_notebooks_show_pictures_and_write_none(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lithops_mini.plots.files.in_notebook", lambda: True)
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": timeline, "histogram": histogram})
    pictures = ran.executor.plot()
    assert pictures == []
    assert list(pictures.figures) == ["timeline", "histogram"]
    assert pictures._repr_html_().count('<img src="data:image/png;base64,') == 2
    assert not list(tmp_path.iterdir())


def test_failures_and_earlier_attempts_are_kept_when_the_job_has_ended(ran: Ran) -> None:
    job = ran.futures[0].job
    assert job.calls == []
    told: list[Failure] = job.failures()
    assert {(failure.call_id, failure.type_name) for failure in told} == {(1, "ValueError"), (2, "WorkerDied")}
    (attempt,) = job.attempts
    assert (attempt.call_id, attempt.attempt, attempt.status) == (2, 1, "died")
    assert attempt.why == "the worker process ended: exit code 3"
    assert attempt.dispatched <= attempt.started <= attempt.given_up


def test_pictures_and_summaries_get_the_earlier_attempts(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def draw(stages: Any, attempts: Any) -> Any:
        told.append(attempts)
        return timeline(stages, attempts)

    monkeypatch.setattr("lithops_mini.html.page.KINDS", {"timeline": draw})
    monkeypatch.setattr("lithops_mini.plots.files.KINDS", {"timeline": draw})
    ran.executor.plot(tmp_path, ran.futures)
    ran.executor.report(tmp_path, ran.futures)
    assert told == [{"unlucky (M000)": ran.futures[0].job.attempts}] * 2
    workers = {call.worker_id for call in ran.stats[0][1]} | {each.worker_id for each in told[0]["unlucky (M000)"]}
    (row,) = [line.split() for line in ran.executor.job_summary().splitlines() if line.startswith("workers")]
    assert int(row[1]) == len(workers)


def test_a_running_job_is_watched_from_elsewhere_until_it_ends(ran: Ran, tmp_path: Path) -> None:
    watcher = [sys.executable, "-m", "lithops_mini", "jobs", "watch", "--config", str(ran.config)]
    go = tmp_path / "go"

    with lm.function_executor(config_file=ran.config, progress=False) as executor:
        futures = executor.map_reduce(held, range(4), sum, extra_args=(str(go),))
        until(lambda: "running" in ran.command("jobs", "list").stdout, 20)
        with subprocess.Popen(watcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            go.touch()
            assert executor.get_result(futures) == 6
            told, rest = process.communicate(timeout=60)
    assert re.match(r"held, sum: \d+% \(\d of 5\)", first), first
    assert "100% (5 of 5)" in rest
    name = executor.executor_id
    assert told.splitlines() == [f"{name}-M000, held: done", f"{name}-R001, sum: done"]
    assert process.returncode == 0


def test_what_has_ended_is_told_at_once(ran: Ran) -> None:
    job_id = ran.futures[0].job_id
    assert ran.command("jobs", "watch", job_id, code=1).stdout == f"{job_id}, unlucky: failed\n"
    assert "is running: name one" in ran.command("jobs", "watch", code=1).stderr
