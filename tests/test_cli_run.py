"""lithops-mini hello, test, verify, jobs and clean, as users run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import until
from click.testing import CliRunner, Result
from test_cli import on_terminal

import lithops_mini as lm
from lithops_mini import checks, records
from lithops_mini.cli import jobs as jobs_commands
from lithops_mini.cli.app import app
from lithops_mini.cli.job_text import HEADINGS, _age
from lithops_mini.cli.table import table
from lithops_mini.client import Storage
from lithops_mini.errors import IntegrityError
from lithops_mini.job import keys as job_keys
from lithops_mini.job import manifest
from lithops_mini.job.keys import job_key

FILE = "profiles:\n  here: {storage_bucket: jobs, localhost: {storage_path: store, max_workers: 2}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which a file sends all objects to ./store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lithops_mini.yaml").write_text(FILE)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, prog_name="lithops-mini")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def lines(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, code=code).stdout.splitlines()]


def states() -> dict[str, str]:
    return {row["job"]: row["state"] for row in lines("jobs", "list", "--json")}


def keys(prefix: str = "") -> list[str]:
    with Storage() as storage:
        return list(storage.list_keys(None, prefix))


PROGRAM = """\
import sys
import lithops_mini as lm

def work(x):
    if x == 1:
        raise ValueError("one is \\x1b[31mred")
    return x

with lm.function_executor(progress=False, data_cleaner=False) as executor:
    executor.storage.put_cloudobject(b"from the client")
    executor.get_result(executor.submit(lambda storage: storage.put_cloudobject(b"from a call")))
    executor.get_result(executor.map(work, range(4)), throw_except=False)
    executor.get_result(executor.map(bytes, [2_000_000]))
    executor.map_reduce(abs, range(3), sum)
    executor.get_result()
    print(executor.executor_id)
"""

SLEEPING = """\
import sys, time
import lithops_mini as lm

def sleep(x):
    time.sleep(x)

executor = lm.function_executor(progress=False)
executor.get_result(executor.map(abs, [1]))
futures = executor.map(sleep, [0, 60, 60], chunksize=1)
futures[0].result()
print(executor.executor_id, flush=True)
sys.stdin.read()
executor.shutdown(wait=False)
"""


@pytest.fixture
def ended(here: Path) -> str:
    """The executor of a program that ran five jobs and ended."""
    (here / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def sleeping(here: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A program with an ended and a running job, and its executor."""
    (here / "sleeping.py").write_text(SLEEPING)
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    program = subprocess.Popen([sys.executable, "sleeping.py"], **options)
    assert program.stdout is not None
    executor_id = program.stdout.readline().strip()
    recorded = {f"{executor_id}-M000": "done", f"{executor_id}-M001": "running"}
    until(lambda: states().items() >= recorded.items(), "both jobs recorded")
    yield executor_id, program
    program.kill()
    program.communicate()


# --- hello


def test_hello_greets_and_says_where_it_ran() -> None:
    assert run("hello").stdout.startswith("Hello world!\n")
    greeting, worker, where = run("hello", "Ada").stdout.splitlines()
    assert greeting == "Hello Ada!"
    assert worker == "from worker localhost/0.1 of the backend localhost:"
    pid, python = re.fullmatch(
        rf"process (\d+) on {re.escape(os.uname().nodename)}, Python ([\d.]+), in [\d.]+ m?s", where
    ).groups()
    assert int(pid) != os.getpid()
    assert python == ".".join(map(str, sys.version_info[:3]))
    assert keys() == []


def test_hello_runs_where_it_is_told() -> None:
    assert f"process {os.getpid()} on" in run("hello", "-b", "inline").stdout
    assert run("hello", "-b", "nowhere", code=1).stderr.count("\n") == 1


# --- test


def test_every_step_has_its_time_and_what_was_used() -> None:
    text = run("test").stdout
    rows = {line[:20].strip(): line[21:] for line in text.splitlines()}
    steps = (
        "configuration",
        "storage ready",
        "storage put, get",
        "backend ready",
        "first call, cold",
        "warm call",
        "4 MiB there and back",
    )
    for step in steps:
        assert re.match(r"[\d.]+ m?s", rows[step]), (step, text)
    assert rows["from"].startswith("profile here of ")
    assert "lithops_mini.yaml" in rows["from"]
    assert (rows["backend"], rows["storage"]) == ("localhost", "localhost, bucket jobs")
    assert lm.__version__ in rows["versions"]
    assert rows["worker"].startswith("localhost/0.1, Python ")
    assert text.endswith("Everything works.\n")
    assert keys() == []


def test_the_step_that_fails_is_named(here: Path) -> None:
    cases = {
        "configuration": "profiles: {a: {retries: -1}}\n",
        "storage ready": "profiles: {a: {localhost: {storage_path: taken}}}\n",
        "backend ready": "profiles: {a: {localhost: {storage_path: store, python: /no/such/python}}}\n",
    }
    (here / "taken").write_text("a file where a directory should be")
    for step, text in cases.items():
        (here / "bad.yaml").write_text(text)
        result = run("test", "-c", "bad.yaml", code=1)
        assert result.stderr.startswith(f"Error: {step}: "), result.output
        assert "Everything works" not in result.stdout
        assert result.stderr.count("Traceback") == 0
        assert "Traceback" in run("test", "-c", "bad.yaml", "--debug", code=1).stderr


def test_a_worker_that_cannot_run_calls_is_named(here: Path) -> None:
    (here / "python").write_text("#!/bin/sh\necho no python here >&2\nexit 3\n")
    (here / "python").chmod(0o755)
    (here / "bad.yaml").write_text(
        f"profiles: {{a: {{retries: 0, localhost: {{storage_path: store, python: {here}/python}}}}}}\n"
    )
    result = run("test", "-c", "bad.yaml", code=1)
    assert result.stderr.startswith("Error: first call: ")
    assert "no python here" in result.stderr


# --- verify


def test_verify_prints_a_line_for_each_check_and_a_summary() -> None:
    *rows, summary = run(
        "verify", "-t", "map*", "-t", "stats", "-t", "worker_death", "-b", "inline"
    ).stdout.splitlines()
    assert [row.split()[:2] for row in rows] == [
        ["ok", "map_order"],
        ["ok", "map_arguments"],
        ["ok", "map_reduce"],
        ["skipped", "worker_death"],
        ["ok", "stats"],
    ]
    assert "inline" in rows[3]
    assert re.fullmatch(r"5 checks: 4 ok, 0 failed, 1 skipped, in [\d.]+ m?s", summary)
    assert keys() == []


def test_verify_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(bench: Any) -> None:
        raise OSError("the network is \x1b[31mgone")

    monkeypatch.setitem(checks.CHECKS, "stats", checks.Check("stats", bad))
    result = run("verify", "-t", "stats", "-t", "call_async", code=1)
    assert re.search(
        r"^FAILED +stats +[\d.]+ [mµ]?s +OSError: the network is \\x1b\[31mgone$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^ok +call_async", result.stdout, re.MULTILINE)
    assert "2 checks: 1 ok, 1 failed, 0 skipped" in result.stdout
    assert "Traceback" not in result.output
    assert "Traceback" in run("verify", "-t", "stats", "--debug", code=1).stderr
    (row,) = lines("verify", "-t", "stats", "--json", code=1)
    assert (row["name"], row["outcome"]) == ("stats", "failed")


def test_verify_lists_and_completes_its_checks() -> None:
    rows = run("verify", "--list").stdout.splitlines()
    assert [row.split()[0] for row in rows] == list(checks.CHECKS)
    assert all(len(row.split()) > 4 for row in rows)
    assert [row["name"] for row in lines("verify", "--list", "--json", "-t", "c*")] == [
        name for name in checks.CHECKS if name.startswith("c")
    ]
    assert "map_order" in run("verify", "-t", "nothing*", code=2).stderr
    environment = os.environ | {
        "_LITHOPS_MINI_COMPLETE": "bash_complete",
        "COMP_WORDS": "lithops-mini verify -t cl",
        "COMP_CWORD": "3",
    }
    command = [sys.executable, "-c", "import lithops_mini.cli as cli; cli.main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "cloud_objects" in done.stdout or "cloud_objects" in done.stderr


# --- jobs list


def test_no_jobs_is_one_friendly_line() -> None:
    assert run("jobs", "list").stdout == "There are no jobs in the bucket 'jobs' yet.\n"
    assert run("jobs", "list", "--json").stdout == ""
    assert "nothing to remove" in run("jobs", "clean", "--all", "-y").stdout
    assert "nothing to remove" in run("clean", "-y").stdout


def test_jobs_are_listed_the_last_one_first(ended: str) -> None:
    told = lines("jobs", "list", "--json")
    assert [row["job"] for row in told] == [f"{ended}-{stage}" for stage in ("R004", "M003", "M002", "M001", "C000")]
    assert [row["kind"] for row in told] == ["reduce", "map", "map", "map", "call"]
    assert [(row["calls"], row["done"], row["failed"]) for row in told] == [
        (1, 1, 0),
        (3, 3, 0),
        (1, 1, 0),
        (4, 4, 1),
        (1, 1, 0),
    ]
    assert [row["state"] for row in told] == ["done", "done", "done", "failed", "done"]
    assert all(abs(row["created"] - time.time()) < 60 for row in told)
    heading, *rows = run("jobs", "list").stdout.splitlines()
    assert tuple(heading.split()) == HEADINGS
    assert [row.split()[0] for row in rows] == [row["job"] for row in told]
    assert rows[3].split()[1:7] == ["work", "map", "4", "4", "1", "failed"]


def test_the_list_is_cut_and_says_so(ended: str) -> None:
    result = run("jobs", "list", "-n", "2")
    assert [row.split()[0][-4:] for row in result.stdout.splitlines()[1:]] == ["R004", "M003"]
    assert "the last 2; -n 0 lists all" in result.stderr
    assert len(lines("jobs", "list", "--json", "-n", "0")) == 5
    assert run("jobs", "list", "-n", "1").stderr == "This is the last one; -n 0 lists all.\n"
    assert run("jobs", "list", "-n", "5").stderr == run("jobs", "list", "-n", "1", "--json").stderr == ""
    run("jobs", "list", "-n", "-1", code=2)


def test_a_running_job_is_lost_when_its_program_is(sleeping: tuple[str, subprocess.Popen[str]]) -> None:
    executor_id, program = sleeping
    assert states() == {f"{executor_id}-M000": "done", f"{executor_id}-M001": "running"}
    assert "is running" in run("jobs", "clean", f"{executor_id}-M001", "-y", code=1).stderr
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert states() == {f"{executor_id}-M000": "done", f"{executor_id}-M001": "lost"}
    assert "unsettled" in run("jobs", "show", f"{executor_id}-M001").stdout
    run("jobs", "clean", f"{executor_id}-M001", "-y")
    assert [row["job"] for row in lines("jobs", "list", "--json")] == [f"{executor_id}-M000"]


def test_a_process_of_the_same_number_is_not_the_client() -> None:
    me = f"me@{os.uname().nodename}:"
    header = {"client": f"{me}{os.getpid()}", "created": time.time()}
    assert manifest.JobRecord("a-M000", header, {}).state == "running"
    assert manifest.JobRecord("a-M000", {**header, "created": time.time() - 1e6}, {}).state == "lost"
    assert manifest.JobRecord("a-M000", {**header, "client": f"{me}{2**22 + 1}"}, {}).state == "lost"
    assert manifest.JobRecord("a-M000", {**header, "client": f"{me}{10**30}"}, {}).state == "lost"
    assert manifest.JobRecord("a-M000", {**header, "client": "me@elsewhere:1"}, {}).state == "unfinished"
    assert manifest.JobRecord("a-M000", {**header, "client": "nonsense"}, {}).state == "unfinished"
    assert (
        manifest.JobRecord("a-M000", {**header, "client": me + "1", "created": time.time() - 1e9}, {}).state == "lost"
    )


def test_a_record_that_is_none_does_not_hide_the_others(ended: str) -> None:
    with Storage() as storage:
        storage.put_object(None, records.manifest_key("feed-M000"), b"\xff" * 100)
        storage.put_object(None, records.manifest_key("feed-M001"), b"\x02\0\0\0[]")
        storage.put_object(None, records.manifest_key("feed-M002"), b'\x0e\0\0\0{"calls": "x"}')
        storage.put_object(None, f"{records.JOBS_PREFIX}stray", b"")
    told = {row["job"]: row["state"] for row in lines("jobs", "list", "--json")}
    assert [told.pop(f"feed-M00{n}") for n in range(3)] == ["unreadable"] * 3
    assert len(told) == 5
    assert run("jobs", "list").stdout.count("unreadable") == 3
    run("jobs", "clean", "feed-M000", "feed-M001", "-y", code=1)  # what cannot be read is removed with --all only
    run("jobs", "clean", "--all", "-y")
    assert lines("jobs", "list", "--json") == []


# --- jobs show


def test_show_tells_what_ran_and_what_became_of_it(ended: str) -> None:
    text = run("jobs", "show", f"{ended}-M001").stdout
    for part in (f"{ended}-M001", "work", "failed", "localhost", "bucket jobs", "retries 2", "SHA-256"):
        assert part in text
    assert re.search(r"^ok +3 ", text, re.MULTILINE)
    assert re.search(r"^error +1 .*ValueError: one is \\x1b\[31mred$", text, re.MULTILINE)
    assert "\x1b" not in text
    assert re.search(rf"^needs +{ended}-M003$", run("jobs", "show", f"{ended}-R").stdout, re.MULTILINE)


def test_show_every_call(ended: str) -> None:
    rows = run("jobs", "show", f"{ended}-M001", "--calls").stdout.split("\n\n")[2].splitlines()
    assert rows[0].split() == ["CALL", "STATUS", "ATTEMPT", "WORKER", "TIME", "CPU", "MEMORY", "IN", "OUT", "ERROR"]
    assert [row.split()[:3] for row in rows[1:]] == [
        ["0", "ok", "1"],
        ["1", "error", "1"],
        ["2", "ok", "1"],
        ["3", "ok", "1"],
    ]
    (told,) = lines("jobs", "show", f"{ended}-M001", "--calls", "--json")
    assert told["by_status"] == {"ok": 3, "error": 1}
    assert [row["error"] for row in told["outcomes"]] == [None, "ValueError: one is \x1b[31mred", None, None]
    assert all(row["worker"].startswith("localhost/") and row["bytes_in"] > 0 for row in told["outcomes"])
    assert "outcomes" not in lines("jobs", "show", f"{ended}-M001", "--json")[0]


def test_a_job_is_named_by_the_beginning_of_its_id(ended: str) -> None:
    for beginning in (f"{ended}-M001", f"{ended}-R", f"{ended}-C0"):
        assert lines("jobs", "show", beginning, "--json")[0]["job"].startswith(beginning)
    error = run("jobs", "show", ended[:5], code=1).stderr
    assert error.startswith("Error: 5 jobs have ids that begin with")
    assert f"{ended}-M001" in error
    assert "no job whose id begins with 'ffffffffffffff'" in run("jobs", "show", "ffffffffffffff", code=1).stderr


@pytest.mark.parametrize("part", ["manifest", "progress/00000000"])
def test_a_tampered_record_is_an_error(ended: str, part: str) -> None:
    key = records.job_prefix(f"{ended}-M001") + part
    with Storage() as storage:
        data = bytearray(storage.get_object(None, key))
        storage.put_object(None, key, bytes(data[:-40]) + bytes([data[-40] ^ 1]) + bytes(data[-39:]))
    error = run("jobs", "show", f"{ended}-M001", code=1).stderr
    assert error.startswith("Error: the signature of ")
    assert key in error
    run("jobs", "show", f"{ended}-M003")


def test_a_record_of_another_job_is_an_error(ended: str) -> None:
    with Storage() as storage:
        other = storage.get_object(None, records.progress_key(f"{ended}-M003", 0))
        storage.put_object(None, records.progress_key(f"{ended}-M001", 0), other)
    assert "signature" in run("jobs", "show", f"{ended}-M001", code=1).stderr
    with Storage() as storage:
        found = manifest.read_outcomes(storage.backend, "jobs", f"{ended}-M001", job_key(f"{ended}-M001"))
        with pytest.raises(IntegrityError):
            next(found)


# --- jobs clean, clean


def test_cleaning_one_job_leaves_the_others(ended: str) -> None:
    before = keys(records.CLOUDOBJECTS_PREFIX)
    assert len(before) == 2
    there = len(keys())
    text = run("jobs", "clean", f"{ended}-C000", "-y").stdout
    assert text == f"Removed 1 job, {there - len(keys())} objects.\n"  # manifest, progress, the call's cloud object
    assert [row["job"][-4:] for row in lines("jobs", "list", "--json")] == ["R004", "M003", "M002", "M001"]
    assert len(keys(records.CLOUDOBJECTS_PREFIX)) == 1
    run("jobs", "clean", f"{ended}-M", "-y", code=1)
    run("jobs", "clean", f"{ended}-M001", f"{ended}-M002", f"{ended}-M003", f"{ended}-R004", "-y")
    assert keys() == []  # with the last job goes what belongs to none


def test_cleaning_by_age(ended: str) -> None:
    assert "nothing to remove" in run("jobs", "clean", "--older-than", "1h", "-y").stdout
    assert len(lines("jobs", "list", "--json")) == 5
    assert "Removed 5 jobs" in run("jobs", "clean", "--older-than", "0s", "-y").stdout
    assert keys() == []
    for wrong in ("7", "d", "-1d", "7 years", ""):
        run("jobs", "clean", "--older-than", wrong, "-y", code=2)


def test_clean_wants_to_know_what() -> None:
    for arguments in ([], ["abc", "--all"], ["--all", "--older-than", "7d"]):
        assert "give job ids" in run("jobs", "clean", *arguments, "-y", code=2).stderr


def test_what_live_programs_use_is_left(ended: str, sleeping: tuple[str, subprocess.Popen[str]]) -> None:
    live, program = sleeping
    with Storage() as storage:
        storage.put_object(None, "mine/data.csv", b"not a job's")
    result = run("jobs", "clean", "--all", "-y")
    assert "Removed 5 jobs" in result.stdout
    assert "Left: 2 jobs of programs that still run." in result.stderr
    assert {row["job"] for row in lines("jobs", "list", "--json")} == {f"{live}-M000", f"{live}-M001"}
    result = run("clean", "-y")
    assert "Left: 2 jobs" in result.stderr
    assert len(lines("jobs", "list", "--json")) == 2
    program.communicate("")
    result = run("clean", "-y")
    assert re.match(r"Removed 2 jobs, \d+ objects, ", result.stdout)
    assert keys() == ["mine/data.csv"]


def test_cleaning_asks_first(ended: str) -> None:
    for command in (["jobs", "clean", "--all"], ["clean"]):
        assert "add --yes" in run(*command, code=2).stderr
        shown, code = on_terminal(*command, answer=b"n\n")
        assert "5 jobs" in shown
        assert "Nothing was removed." in shown
        assert code == 1
    assert len(lines("jobs", "list", "--json")) == 5
    shown, code = on_terminal("clean", answer=b"y\n")
    assert code == 0
    assert "Removed 5 jobs" in shown
    assert keys() == []


# --- what they are made of


def test_ages_and_tables() -> None:
    now = time.time()
    ages = {0: "0 s", 119: "119 s", 120: "2 min", 7199: "119 min", 7200: "2 h", 172_799: "47 h", 200_000: "2 d"}
    assert {seconds: _age(now - seconds) for seconds in ages} == ages
    assert _age(now + 100) == "0 s"
    assert list(table(("A", "N"), [["x\x1b", 1200], ["yy", None]])) == ["A          N", "x\\x1b  1,200", "yy         -"]
    assert list(table(("A",), [])) == ["A"]
    assert jobs_commands._seconds("1.5h") == 5400


def test_nobody_is_accused_where_no_secret_is_kept(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nobody")
    job_keys._secret.cache_clear()
    try:
        error = run("jobs", "show", f"{ended}-M001", code=1).stderr
    finally:
        job_keys._secret.cache_clear()
    assert error.startswith(f"Error: the signatures of {ended}-M001 cannot be checked: the secret")
