"""Stopping: cancelled calls, Ctrl-C, clients that are killed or just end. Nothing goes on running or stays behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pty
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attempts
import pytest
from attempts import Plan, alive, until

import lithops_mini as lm
from lithops_mini.errors import WorkerDied
from lithops_mini.executor import FunctionExecutor
from lithops_mini.job.job import Job
from lithops_mini.job.settle import Settle
from lithops_mini.worker.process import RunnerProcess

LIMIT = 30


@pytest.fixture
def executor(workers: FunctionExecutor) -> Iterator[FunctionExecutor]:
    """After each test both of its workers are free again, and promptly."""
    yield workers
    began = time.monotonic()
    assert workers.get_result(workers.map(abs, range(20), chunksize=1), timeout=LIMIT) == list(range(20))
    assert time.monotonic() - began < 20  # what was stopped would sleep for a minute


def write_pid_and_sleep(directory: Path, number: int = 0) -> None:
    path = directory / f"pid-{number}"
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(60)


def running_pid(directory: Path, number: int = 0) -> int:
    path = directory / f"pid-{number}"
    until(path.exists, f"running call {number}")
    return int(path.read_text())


# -- cancel


def test_a_running_call_is_stopped(executor: FunctionExecutor, tmp_path: Path) -> None:
    future = executor.submit(write_pid_and_sleep, tmp_path)
    pid = running_pid(tmp_path)
    assert future.running()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert until(lambda: not alive(pid), "stopped", 5) < 2
    assert future.cancel()  # again is fine
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=LIMIT)
    with pytest.raises(concurrent.futures.CancelledError):
        executor.get_result(future)
    assert future.stats is not None
    assert future.stats.status == "cancelled"


def test_what_waits_never_starts(executor: FunctionExecutor, tmp_path: Path) -> None:
    busy = [executor.submit(write_pid_and_sleep, tmp_path, number) for number in range(2)]
    pids = [running_pid(tmp_path, number) for number in range(2)]
    plan = Plan(tmp_path / "plan", {})
    waiting = executor.map(plan, range(5))
    assert waiting[1].cancel()
    assert waiting[3].cancel()
    assert all(map(alive, pids))
    for future in busy:
        future.cancel()
    done, not_done = executor.wait(waiting, timeout=LIMIT)
    assert (len(done), not_done) == (5, [])
    assert plan.attempts(5) == [1, 0, 1, 0, 1]
    found = executor.get_result(waiting, throw_except=False)
    assert found[0::2] == [0, 20, 40]
    assert all(isinstance(found[number], concurrent.futures.CancelledError) for number in (1, 3))
    job = waiting[0].job
    assert job is not None
    assert (job.counters.done, job.counters.running, job.counters.failed) == (5, 0, 0)


def test_one_of_a_message_is_stopped_and_its_neighbours_are_not(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {})

    def call(number: int) -> int:
        plan(number)
        if number == 3:
            write_pid_and_sleep(tmp_path, number)
        return number

    executor.submit(call, 0).result(timeout=LIMIT)  # loading a function must not seem a slow call
    futures = executor.map(call, range(8), chunksize=8)
    running_pid(tmp_path, 3)
    assert futures[6].cancel()  # behind it in the same message
    assert futures[3].cancel()
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert [value for value in found if isinstance(value, int)] == [0, 1, 2, 4, 5, 7]
    assert plan.attempts(8) == [2, 1, 1, 1, 1, 1, 0, 1]


def test_a_cancel_at_any_moment_frees_the_worker(executor: FunctionExecutor, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    began = time.monotonic()
    for _ in range(100):
        future = executor.submit(attempts.sleep_long)
        threading.Event().wait(chance.uniform(0, 0.004))
        assert future.cancel()
    assert executor.get_result(executor.map(abs, range(4), chunksize=1), timeout=LIMIT) == [0, 1, 2, 3]
    assert time.monotonic() - began < LIMIT


def test_a_call_given_back_can_be_cancelled_where_it_runs_next(
    executor: FunctionExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Settle._count

    def slow_count(self: Settle, job: Job, record: bytes, **numbers: int) -> None:
        until(lambda: (tmp_path / "pid-1").exists() or job.ended, "the call that was given back runs again")
        count(self, job, record, **numbers)

    def call(number: int) -> None:
        if number:
            write_pid_and_sleep(tmp_path, number)
        attempts.leave()

    executor.submit(abs, 0).result(timeout=LIMIT)
    monkeypatch.setattr(Settle, "_count", slow_count)
    futures = executor.map(call, range(2), chunksize=2, retries=0)
    pid = running_pid(tmp_path, 1)
    monkeypatch.undo()
    assert isinstance(futures[0].exception(timeout=LIMIT), WorkerDied)
    until(lambda: futures[0].job is not None and futures[0].job.counters.done == 1, "the reply was taken in")
    futures[1].cancel()
    until(lambda: not alive(pid), "the running call is stopped")


def test_a_call_that_ends_as_it_is_stopped_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = RunnerProcess.kill

    def late_kill(self: RunnerProcess) -> None:
        patch.undo()
        select.select([self._outcomes], [], [], LIMIT)
        kill(self)

    def large_and_slow() -> None:
        globals()["_held"] = b"x" * (300 << 20)  # a process that takes long to end
        time.sleep(0.3)

    with lm.localhost_executor(max_workers=1, progress=False, retries=0) as executor, monkeypatch.context() as patch:
        patch.setattr(RunnerProcess, "kill", late_kill)
        late = executor.submit(large_and_slow)
        following = executor.submit(abs, -1)
        until(late.running, "the call runs")
        threading.Event().wait(0.1)
        late.cancel()
        assert following.result(timeout=LIMIT) == 1


def test_what_has_ended_cannot_be_cancelled(executor: FunctionExecutor) -> None:
    future = executor.submit(abs, -1)
    assert future.result(timeout=LIMIT) == 1
    assert not future.cancel()
    assert not future.cancelled()
    assert future.result() == 1
    failed = executor.submit(attempts.fail)
    assert isinstance(failed.exception(timeout=LIMIT), ValueError)
    assert not failed.cancel()


def test_cancelling_in_a_batch_of_short_calls(executor: FunctionExecutor) -> None:
    futures = executor.map(abs, range(5000))
    cancelled = {number for number in range(0, 5000, 7) if futures[number].cancel()}
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    for number, value in enumerate(found):
        if number in cancelled:
            assert isinstance(value, concurrent.futures.CancelledError)
        else:
            assert value == number
    job = futures[0].job
    assert job is not None
    assert job.ended
    until(lambda: job.counters.running == 0, "no call counted as running")
    assert [each.status for each in job.stats()].count("cancelled") == len(cancelled)


def test_a_callback_may_cancel(executor: FunctionExecutor, tmp_path: Path) -> None:
    added = tmp_path / "callback-added"

    def call(number: int) -> int:
        if number:
            attempts.sleep_long()
        until(added.exists, "callback added")
        return number

    futures = executor.map(call, range(40), chunksize=1)

    def cancel_all(_: object) -> None:
        for future in futures:
            future.cancel()

    futures[0].add_done_callback(cancel_all)
    added.touch()
    executor.wait(futures, timeout=LIMIT)
    assert futures[0].result() == 0
    assert all(future.cancelled() for future in futures[1:])


def test_everybody_sees_that_a_call_is_cancelled(executor: FunctionExecutor, tmp_path: Path) -> None:
    futures = [executor.submit(write_pid_and_sleep, tmp_path, number) for number in range(2)]
    for number in range(2):
        running_pid(tmp_path, number)

    async def wait_for_it() -> None:
        wrapped = asyncio.wrap_future(futures[0])
        asyncio.get_running_loop().call_later(0.05, futures[0].cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(wrapped, LIMIT)

    asyncio.run(wait_for_it())

    async def cancel_from_there() -> None:
        wrapped = asyncio.wrap_future(futures[1])
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        while not futures[1].cancelled():
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(cancel_from_there(), LIMIT))
    assert concurrent.futures.wait(futures, timeout=LIMIT).done == set(futures)
    assert set(concurrent.futures.as_completed(futures, timeout=LIMIT)) == set(futures)
    assert set(lm.as_completed(futures, timeout=LIMIT)) == set(futures)


def test_a_reducer_of_cancelled_calls_is_cancelled(executor: FunctionExecutor, tmp_path: Path) -> None:
    def call(number: int) -> None:
        write_pid_and_sleep(tmp_path, number)

    reducers = executor.map_reduce(call, [0, 1], list)
    running_pid(tmp_path, 0)
    reducers.map_futures[0].cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        reducers[0].result(timeout=LIMIT)
    reducers.map_futures[1].cancel()


def test_shutdown_cancels_when_asked(tmp_path: Path) -> None:
    executor = lm.localhost_executor(max_workers=1, progress=False)
    futures = [executor.submit(write_pid_and_sleep, tmp_path, number) for number in range(3)]
    pid = running_pid(tmp_path)
    began = time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 20
    assert all(future.cancelled() for future in futures)
    assert not alive(pid)


# -- clients that are interrupted, killed or that just end

PROGRAM = """
import os, sys, time
from pathlib import Path
import lithops_mini as lm

def work(number):
    path = Path({directory!r}, f"worker-{{os.getpid()}}")
    path.touch()
    time.sleep(60)

def work_hard(number):
    # Minutes in C code that gives no other thread a chance and no signal handler a turn.
    Path({directory!r}, f"worker-{{os.getpid()}}").touch()
    7 ** 10**8

def announce():
    Path({directory!r}, "client-ready").touch()

if __name__ == "__main__":
    executor = lm.localhost_executor(max_workers=2, progress=False)
    {body}
"""

BODIES = {
    "get_result": "futures = executor.map(work, range(4)); announce(); executor.get_result(futures)",
    "many": "futures = executor.map(work, range(10_000)); announce(); executor.get_result(futures)",
    "hard": "futures = executor.map(work_hard, range(4)); announce(); executor.get_result(futures)",
    "wait": "futures = executor.map(work, range(4)); announce(); executor.wait(futures, 50)",
    "result": "futures = executor.map(work, range(4)); announce(); futures[0].result()",
    "block": """
    with executor:
        futures = executor.map(work, range(4))
        announce()
        time.sleep(60)
""",
    "leaving the block": """
    with executor:
        futures = executor.map(work, range(4))
        announce()
""",
    "submitting": """
    def endless():
        announce()
        while True:
            yield 1
    executor.submit(work, 0)
    executor.map(work, endless())
""",
}


class Client:
    """A program of its own in a process group of its own, with a terminal or without."""

    def __init__(self, directory: Path, body: str, *, terminal: bool = False) -> None:
        self.directory = directory
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        script = directory / "program.py"
        script.write_text(PROGRAM.format(directory=str(directory), body=body))
        environment = os.environ | {"TMPDIR": str(self.temporary), "HOME": str(directory)}
        self.screen, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env=environment,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=(lambda: take_terminal(theirs)) if terminal else None,
        )
        os.close(theirs)
        self.said = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.screen, 65536):
                self.said += data
        except OSError:  # Linux: the other side of a terminal is closed
            return

    def workers(self) -> list[int]:
        return [int(path.name.partition("-")[2]) for path in self.directory.glob("worker-*")]

    def ready(self, workers: int = 2) -> list[int]:
        """Wait until it is where it should be interrupted; return its workers."""
        until((self.directory / "client-ready").exists, "ready")
        until(lambda: len(self.workers()) == workers, "workers at work")
        assert all(map(alive, self.workers()))
        return self.workers()

    def end(self, seconds: float) -> float:
        """Wait for its end and that of its workers; return the seconds that took."""
        took = until(lambda: self.process.poll() is not None, "ended", seconds)
        took += until(lambda: not any(map(alive, self.workers())), "all workers gone", 2)
        self.reader.join(5)
        os.close(self.screen)
        return took

    def left_behind(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]


def take_terminal(descriptor: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("where", BODIES)
def test_ctrl_c_gives_the_prompt_back(tmp_path: Path, where: str) -> None:
    client = Client(tmp_path, BODIES[where])
    client.ready(1 if where == "submitting" else 2)
    os.killpg(client.process.pid, signal.SIGINT)
    took = client.end(10)
    print(f"{where}: {took:.2f} s")
    assert took < 3
    assert client.process.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 1)
    assert b"KeyboardInterrupt" in client.said
    assert client.said.count(b"Traceback") == 1
    assert client.left_behind() == []


def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    client = Client(tmp_path, BODIES["get_result"], terminal=True)
    client.ready()
    os.write(client.screen, b"\x03")
    took = client.end(10)
    print(f"terminal: {took:.2f} s")
    assert took < 3
    assert b"KeyboardInterrupt" in client.said
    assert client.said.count(b"Traceback") == 1
    assert client.left_behind() == []


def test_a_second_ctrl_c_does_no_harm(tmp_path: Path) -> None:
    client = Client(tmp_path, BODIES["many"])
    client.ready()
    for _ in range(3):
        os.killpg(client.process.pid, signal.SIGINT)
        threading.Event().wait(0.02)
    assert client.end(10) < 3


@pytest.mark.parametrize("where", ["get_result", "hard"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_workers_end_with_a_killed_client(tmp_path: Path, number: signal.Signals, where: str) -> None:
    # Whoever started the tests may have SIGHUP ignored (nohup does), and what is ignored stays so in child processes.
    before = signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    try:
        client = Client(tmp_path, BODIES[where])
    finally:
        if before is not None:
            signal.signal(number, before)
    client.ready()
    client.process.send_signal(number)
    assert client.end(10) < 2
    assert client.process.returncode == -number


@pytest.mark.parametrize(
    ("end", "code", "tidy"),
    [
        ("sys.exit(3)", 3, True),
        ("raise ValueError", 1, True),
        ("del executor; sys.exit(3)", 3, True),
        ("os._exit(3)", 3, False),
        ("os.kill(os.getpid(), 9)", -9, False),
    ],
)
def test_a_client_that_ends_without_shutdown(tmp_path: Path, end: str, code: int, tidy: bool) -> None:
    body = f"""
    futures = executor.map(work, range(4))
    while len(list(Path({str(tmp_path)!r}).glob("worker-*"))) < 2:
        time.sleep(0.005)
    announce()
    {end}
"""
    client = Client(tmp_path, body)
    until((tmp_path / "client-ready").exists, "ready")
    assert client.end(10) < 3
    assert client.process.returncode == code
    if tidy:
        assert client.left_behind() == []
        return
    # Nobody could tidy up: the next one does, and leaves alone those of the living.
    assert client.left_behind() != []
    clean = f"""
    import subprocess
    assert len(os.listdir({str(client.temporary)!r})) == 1
    program = "import lithops_mini as lm; e = lm.localhost_executor(); print(e.submit(abs, -1).result()); e.shutdown()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert len(os.listdir({str(client.temporary)!r})) == 1
    print(executor.submit(abs, -1).result())
"""
    script = tmp_path / "next.py"
    script.write_text(PROGRAM.format(directory=str(tmp_path), body=clean))
    environment = os.environ | {"TMPDIR": str(client.temporary), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n1\n", "")
    assert client.left_behind() == []


def test_a_forked_child_of_the_client_leaves_its_workers_alone(tmp_path: Path) -> None:
    body = """
    def short(number):
        time.sleep(0.3)
        return number
    futures = executor.map(short, range(4))
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point here
    pid = os.fork()
    if not pid:
        try:
            executor.submit(abs, 1)
        except lm.errors.LithopsMiniError as error:
            assert "another process" in str(error), error
            executor.shutdown(cancel_futures=True)  # as leaving its with block by an exception does
            sys.exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert executor.get_result(futures) == [0, 1, 2, 3]
    assert [future.stats.attempt for future in futures] == [1, 1, 1, 1]
    executor.shutdown()
"""
    client = Client(tmp_path, body)
    assert client.end(20) < 20
    assert (client.process.returncode, client.said) == (0, b"")
    assert client.left_behind() == []


def test_a_function_that_asks_at_the_terminal_is_not_stopped_for_ever(tmp_path: Path) -> None:
    body = """
    def ask(_):
        import getpass
        return getpass.getpass()
    try:
        executor.get_result(executor.map(ask, [1]), timeout=20)
    except EOFError:
        print("nobody to ask")
    executor.shutdown()
"""
    client = Client(tmp_path, body, terminal=True)
    client.end(30)
    assert b"nobody to ask" in client.said
