"""lithops-mini logs: what has been printed, from the records of jobs, and what is printed now, from other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import until
from click.testing import CliRunner, Result
from docker import DockerClient
from hypothesis import given
from hypothesis import strategies as st

from lithops_mini.cli.app import app
from lithops_mini.cli.logs import _after
from lithops_mini.errors import CallTimeout
from lithops_mini.executor import FunctionExecutor, docker_executor, localhost_executor

COMMAND = [sys.executable, "-W", "error", "-m", "lithops_mini"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which a file sends all objects to ./store."""
    monkeypatch.chdir(tmp_path)
    profile = {"docker": {"base": "host"}, "localhost": {"storage_path": "store"}}
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    return tmp_path


@pytest.fixture
def gate(here: Path) -> Iterator[Callable[[], None]]:
    """A named pipe in the bucket ``gates``: functions wait there until the test opens it, by a call of this."""
    (here / "store" / "gates").mkdir(parents=True, mode=0o700)
    (here / "store").chmod(0o700)
    os.mkfifo(here / "store" / "gates" / "gate")
    descriptor = os.open(here / "store" / "gates" / "gate", os.O_RDWR)
    yield lambda: os.write(descriptor, b"." * 100) and None
    os.close(descriptor)


@pytest.fixture
def localhost() -> Iterator[FunctionExecutor]:
    with localhost_executor(max_workers=2, progress=False) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def docker(docker_engine: DockerClient) -> Iterator[FunctionExecutor]:
    with docker_executor(max_workers=2, progress=False) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


def logs(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["logs", *arguments], prog_name="lithops-mini")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def following(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "logs", "--follow", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def speak(x: int) -> None:
    if x != 1:
        print(f"out {x}\nerr {x}", file=sys.stderr)


def wait_at(gate: str) -> Any:
    """A function that says where it is, waits at the gate, and says one thing more."""

    def work(x: int) -> int:
        print(f"{x} in {os.uname().nodename}")
        with open(gate, "rb", buffering=0) as opened:
            opened.read(1)
        print(f"{x} goes on", end="")
        return x

    return work


# -- from records


def test_every_line_says_whose_it_is(localhost: FunctionExecutor) -> None:
    localhost.get_result(localhost.map(speak, range(3)))
    localhost.shutdown()
    found = logs()
    assert found.stdout.splitlines() == ["call 0: out 0", "call 0: err 0", "call 2: out 2", "call 2: err 2"]
    assert found.stderr == f"{localhost.executor_id}-M000, speak:\n"


def test_one_call_is_shown_as_it_printed(localhost: FunctionExecutor) -> None:
    future = localhost.submit(lambda: print("no line\n\n  ends here", end=""))
    localhost.get_result(future)
    localhost.shutdown()
    found = logs(future.job_id, "--call", "0")
    assert (found.stdout, found.stderr) == ("no line\n\n  ends here\n", "")
    assert logs(future.job_id[:6], "--call", "0").stdout == found.stdout


def test_json_has_an_object_for_each_line(localhost: FunctionExecutor) -> None:
    futures = localhost.map(speak, range(3))
    localhost.get_result(futures)
    localhost.shutdown()
    lines = [json.loads(line) for line in logs("--json", "--call", "2").stdout.splitlines()]
    assert lines == [{"job": futures[0].job_id, "call": 2, "line": f"{what} 2"} for what in ("out", "err")]


def test_a_call_that_failed_has_said_something_before(localhost: FunctionExecutor) -> None:
    def fail() -> None:
        print("so far")
        while True:
            pass

    future = localhost.call_async(fail, (), timeout=0.3)
    with pytest.raises(CallTimeout):
        future.result()
    localhost.shutdown()
    assert logs().stdout == "call 0: so far\n"


def test_without_a_job_it_is_the_last_one(localhost: FunctionExecutor) -> None:
    for word in ("first", "second"):
        localhost.get_result(localhost.submit(print, word))
    localhost.shutdown()
    assert logs().stdout == "call 0: second\n"
    assert logs("--follow").stdout == "call 0: second\n"  # it has ended, so there is nothing to wait for


def test_what_there_is_not(localhost: FunctionExecutor) -> None:
    assert "there are no jobs in the bucket 'lithops-mini' yet" in logs(code=1).stderr
    localhost.get_result(localhost.map(speak, range(3)))
    localhost.shutdown()
    assert "3 calls, counted from 0: there is no call 3" in logs("--call", "3", code=1).stderr
    assert "no job whose id begins with 'abc-'" in logs("abc-", code=1).stderr


def test_records_that_somebody_changed_are_not_shown(here: Path, localhost: FunctionExecutor) -> None:
    localhost.get_result(localhost.map(speak, range(3)))
    localhost.shutdown()
    (progress,) = [path for path in here.rglob("*") if path.is_file() and "progress" in path.parts]
    progress.write_bytes(progress.read_bytes().replace(b"out 0", b"\x1b]0;0"))
    assert "signature" in logs(code=1).stderr


def test_calls_that_have_not_ended_are_told_of(
    here: Path, gate: Callable[[], None], localhost: FunctionExecutor
) -> None:
    future = localhost.submit(wait_at(f"{here}/store/gates/gate"), 0)
    localhost._recorder.flush()
    found = logs(future.job_id)
    assert found.stdout == ""
    text = f"Not ended: 1 call of {future.job_id}; the job is running, and --follow shows what is printed.\n"
    assert found.stderr == text
    error = logs(future.job_id, "--follow", code=1).stderr
    assert "LocalhostCompute shows what calls print, while they run, only in the program that runs the job" in error
    gate()
    assert future.result(10) == 0


# -- as it is printed


@pytest.mark.timeout(120)
def test_another_process_sees_lines_as_they_are_printed(
    here: Path, gate: Callable[[], None], docker: FunctionExecutor
) -> None:
    other = docker.submit(print, "another job's")
    futures = docker.map(wait_at(f"{here}/store/gates/gate"), range(2))
    other.result(60)
    with following(futures[0].job_id) as follower:
        first = {follower.stdout.readline() for _ in range(2)}
        assert {line.partition(" in ")[0] for line in first} == {"call 0: 0", "call 1: 1"}
        assert not any(future.done() for future in futures)
        gate()
        assert docker.get_result(futures) == [0, 1]
        # It ends by itself, when the job is over, whether the executor goes on or not.
        assert sorted(follower.stdout) == ["call 0: 0 goes on\n", "call 1: 1 goes on\n"]
        assert (follower.wait(), follower.stderr.read()) == (0, "")


@pytest.mark.timeout(120)
def test_containers_that_start_later_are_followed_too(
    here: Path, gate: Callable[[], None], docker: FunctionExecutor, docker_engine: DockerClient
) -> None:
    future = docker.submit(wait_at(f"{here}/store/gates/gate"), 5)
    with following(future.job_id, "--call", "0", "--json") as follower:
        first = json.loads(follower.stdout.readline())["line"]
        docker_engine.containers.get(first.removeprefix("5 in ")).kill()
        second = json.loads(follower.stdout.readline())["line"]
        assert second.startswith("5 in ")
        assert second != first
        gate()
        assert future.result(60) == 5
        assert [json.loads(line)["line"] for line in follower.stdout] == ["5 goes on"]
        assert follower.wait() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_who_follows_may_leave(
    number: signal.Signals,
    code: int,
    here: Path,
    gate: Callable[[], None],
    docker: FunctionExecutor,
    docker_engine: DockerClient,
) -> None:
    future = docker.submit(wait_at(f"{here}/store/gates/gate"), 5)
    with following(future.job_id) as follower:
        name = follower.stdout.readline().split()[-1]
        container = docker_engine.containers.get(name)
        follower.send_signal(number)
        assert follower.wait() == code
    until(lambda: not any("--tail" in " ".join(row) for row in container.top()["Processes"]), "nothing of it is left")
    gate()
    assert future.result(60) == 5


@given(st.lists(st.sampled_from("abc")), st.data())
def test_lines_seen_as_they_were_printed_are_not_shown_again(lines: list[str], data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, len(lines)))
    if seen:
        assert _after(lines, seen, lines[seen - 1]) == lines[seen:]


@pytest.mark.parametrize(
    ("lines", "seen", "last", "rest"),
    [
        ("abcd", 2, "c", "d"),  # the first was not seen: more had been printed than workers remember
        ("abcd", 7, "b", "cd"),  # five are of an earlier attempt
        ("abcd", 7, "x", "abcd"),  # all are
        ("abcd", 7, "d", ""),
        ("", 7, "d", ""),
    ],
)
def test_lines_of_which_some_were_not_seen(lines: str, seen: int, last: str, rest: str) -> None:
    assert _after(list(lines), seen, last) == list(rest)
