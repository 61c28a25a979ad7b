"""What calls do to the process that runs them: each ends as that call's failure, or as none, and as nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attempts
import pytest
from attempts import Plan, alive, until

import lithops_mini as lm
from lithops_mini.compute import localhost
from lithops_mini.errors import CallTimeout, OutOfMemory, RemoteError, SerializationError, WorkerDied
from lithops_mini.executor import FunctionExecutor

LIMIT = 30  # seconds after which a result that should be there "promptly" is taken for one that never comes


@pytest.fixture
def executor(workers: FunctionExecutor) -> Iterator[FunctionExecutor]:
    """One executor for all tests here: after each it must work as before, on both of its workers."""
    yield workers
    assert workers.get_result(workers.map(abs, range(-20, 0), chunksize=1), timeout=LIMIT) == list(range(20, 0, -1))


# -- death, and how often

DEATHS = [
    (attempts.leave, "exit code 7"),
    (attempts.kill_itself, "signal 9 .SIGKILL"),
    (attempts.segfault, "signal 11 .SIGSEGV"),
    (os.abort, "signal 6 .SIGABRT"),
    (attempts.close_everything, "the worker process ended"),
]


@pytest.mark.parametrize(("end", "how"), DEATHS, ids=[end.__name__ for end, _ in DEATHS])
def test_a_death_is_one_calls_failure(executor: FunctionExecutor, tmp_path: Path, end: Any, how: str) -> None:
    plan = Plan(tmp_path / "plan", {3: end})
    futures = executor.map(plan, range(8), chunksize=8, retries=1)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert isinstance(found[3], WorkerDied)
    assert found[:3] + found[4:] == [0, 10, 20, 40, 50, 60, 70]
    with pytest.raises(WorkerDied, match=how):
        futures[3].result()
    # Neighbours in the same message are run once, whether they were before or behind it.
    assert plan.attempts(8) == [1, 1, 1, 2, 1, 1, 1, 1]
    assert [future.stats.attempt for future in futures if future.stats] == [1, 1, 1, 2, 1, 1, 1, 1]
    assert futures[3].stats is not None
    assert futures[3].stats.status == "died"


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
def test_a_lost_call_has_exactly_its_attempts(executor: FunctionExecutor, tmp_path: Path, retries: int) -> None:
    plan = Plan(tmp_path / "plan", {1: attempts.leave})
    futures = executor.map(plan, range(3), retries=retries)
    assert isinstance(executor.get_result(futures, throw_except=False, timeout=LIMIT)[1], WorkerDied)
    assert plan.attempts(3) == [1, 1 + retries, 1]


def test_a_call_that_dies_twice_returns_the_third_time(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {2: [attempts.kill_itself, attempts.segfault], 4: [attempts.leave]})
    futures = executor.map(plan, range(6))
    assert executor.get_result(futures, timeout=LIMIT) == [0, 10, 20, 30, 40, 50]
    assert plan.attempts(6) == [1, 1, 3, 1, 2, 1]
    assert [future.stats.attempt for future in futures if future.stats] == [1, 1, 3, 1, 2, 1]
    assert futures[0].job is not None
    assert futures[0].job.counters.retried == 3
    assert futures[0].job.counters.running == 0


def test_every_call_dies_and_each_for_itself(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {call: [attempts.leave] for call in range(20)})
    assert executor.get_result(executor.map(plan, range(20), chunksize=5), timeout=LIMIT) == list(range(0, 200, 10))
    assert plan.attempts(20) == [2] * 20


class Odd(ValueError):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("wanted", "count"),
    [(False, 1), (True, 3), (ValueError, 3), ((KeyError, ValueError), 3), (Exception, 3), (KeyError, 1)],
    ids=str,
)
def test_exceptions_are_retried_only_when_asked(
    executor: FunctionExecutor, tmp_path: Path, wanted: Any, count: int
) -> None:
    plan = Plan(tmp_path / "plan", {1: attempts.fail})
    futures = executor.map(plan, range(3), retries=2, retry_exceptions=wanted)
    assert repr(executor.get_result(futures, throw_except=False, timeout=LIMIT)) == "[0, ValueError('as planned'), 20]"
    assert plan.attempts(3) == [1, count, 1]


def test_an_exception_without_a_text_is_retried_like_any(executor: FunctionExecutor, tmp_path: Path) -> None:
    def fail() -> None:
        raise Odd

    plan = Plan(tmp_path / "plan", {0: [fail, fail]})
    assert executor.get_result(executor.map(plan, range(2), retry_exceptions=True), timeout=LIMIT) == [0, 10]
    assert plan.attempts(2) == [3, 1]


@pytest.mark.parametrize("end", [attempts.exit_politely, attempts.interrupt])
def test_leaving_python_politely_is_a_failure_like_any(executor: FunctionExecutor, tmp_path: Path, end: Any) -> None:
    plan = Plan(tmp_path / "plan", {1: end})
    futures = executor.map(plan, range(4), chunksize=4)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert isinstance(found[1], RemoteError)
    assert found[1].type_name in ("SystemExit", "KeyboardInterrupt")
    assert "as planned" in str(found[1])
    assert plan.attempts(4) == [1, 1, 1, 1]
    workers = {future.stats.worker_id for future in futures if future.stats}
    assert len(workers) == 1  # nobody died


def test_waiting_for_another_attempt_holds_nobody_up(executor: FunctionExecutor, tmp_path: Path) -> None:
    doomed = Plan(tmp_path / "doomed", {0: attempts.leave})
    lost = executor.map(doomed, [0], retries=4)  # the backoff alone is at least 0.75 s
    until(lambda: doomed.attempts(1) > [1], "a second attempt")
    for number in range(5):
        assert executor.submit(abs, number).result(timeout=LIMIT) == number
    assert not lost[0].done()
    assert isinstance(lost[0].exception(timeout=LIMIT), WorkerDied)
    assert doomed.attempts(1) == [5]


# -- memory


def fill(megabytes: int) -> int:
    held = [bytearray(b"x") * (10 << 20) for _ in range(megabytes // 10)]
    return len(held)


def fill_in_child(megabytes: int) -> int:
    return subprocess.run([sys.executable, "-c", f"held = bytearray(b'x') * ({megabytes} << 20); input()"]).returncode


def fill_in_child_of_thread(megabytes: int) -> None:
    thread = threading.Thread(target=fill_in_child, args=(megabytes,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("how", [fill, fill_in_child, fill_in_child_of_thread])
def test_memory_over_the_limit_is_noticed_at_once(
    executor: FunctionExecutor, tmp_path: Path, how: Callable[[int], Any]
) -> None:
    def call(number: int) -> int:
        plan.note(number)
        if number == 2:
            # A child that has all it wants waits for input that never comes.
            os.dup2(reading, 0)
            how(3000)
        return number

    plan = Plan(tmp_path / "plan", {})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = 0

    def with_input(number: int) -> int:
        nonlocal reading
        reading = os.open(fifo, os.O_RDWR)
        try:
            return call(number)
        finally:
            os.close(reading)

    began = time.monotonic()
    found = executor.get_result(
        executor.map(with_input, range(4), chunksize=4, runtime_memory=300), throw_except=False, timeout=LIMIT
    )
    assert time.monotonic() - began < 15
    assert isinstance(found[2], OutOfMemory)
    assert isinstance(found[2], MemoryError)
    assert "its limit of 300 MiB" in str(found[2])
    assert found[:2] + found[3:] == [0, 1, 3]
    assert plan.attempts(4) == [1, 1, 1, 1]  # more of the same would not help


@pytest.mark.parametrize(("retries", "limit"), [(2, None), (1, "its limit of 240 MiB")])
def test_a_call_out_of_memory_gets_twice_as_much_if_that_is_wanted(
    tmp_path: Path, retries: int, limit: str | None
) -> None:
    def call(number: int) -> int:
        plan.note(number)
        if number == 1:
            held = bytearray(b"x") * (300 << 20)
            time.sleep(0.5)  # long enough to be looked at
            return len(held) >> 20
        return number

    plan = Plan(tmp_path / "plan", {})
    with lm.localhost_executor(max_workers=2, progress=False, on_oom="double", retries=retries) as executor:
        futures = executor.map(call, range(2), runtime_memory=120)
        found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert found[0] == 0
    assert plan.attempts(2) == [1, retries + 1]
    if limit is None:
        assert found[1] == 300
    else:
        assert limit in str(found[1])
        assert isinstance(found[1], OutOfMemory)


def test_memory_shared_with_children_counts_once(executor: FunctionExecutor, tmp_path: Path) -> None:
    def fork_with_much_memory(_: int) -> int:
        held = bytearray(b"x") * (200 << 20)
        children = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                time.sleep(0.3)
                os._exit(held[0])
            children.append(pid)
        return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == ord("x") for pid in children)

    assert executor.get_result(executor.map(fork_with_much_memory, [0], runtime_memory=300), timeout=LIMIT) == [3]


def test_a_mapped_file_is_not_memory_held(executor: FunctionExecutor, tmp_path: Path) -> None:
    def read_mapped(path: Path) -> int:
        import mmap

        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            total = sum(view[start] for start in range(0, len(view), 4096))
            time.sleep(0.1)
        return total

    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(400 << 20)
    assert executor.get_result(executor.map(read_mapped, [path], runtime_memory=300), timeout=LIMIT) == [0]


# -- exceptions and results that do not travel


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class TwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class EndsItsReader(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class ReadOnlyOnce(Exception):
    """Can be rebuilt in the worker and not in the client."""

    def __reduce__(self) -> Any:
        return _rebuild_here_only, (os.getpid(),)


def _rebuild_here_only(pid: int) -> ReadOnlyOnce:
    if pid != os.getpid():
        raise OSError("not here")
    return ReadOnlyOnce()


def raise_it(make: Callable[..., BaseException], *args: Any) -> None:
    raise make(*args)


@pytest.mark.parametrize(
    ("make", "args"), [(Locked, ()), (TwoArguments, (1, 2)), (EndsItsReader, ()), (ReadOnlyOnce, ())], ids=str
)
def test_an_exception_that_cannot_be_rebuilt_is_told(
    executor: FunctionExecutor, make: type[Exception], args: tuple[int, ...]
) -> None:
    futures = executor.map(lambda number: raise_it(make, *args) if number == 1 else number, range(3), chunksize=3)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert type(found[1]) is RemoteError
    assert found[1].type_name.endswith(make.__qualname__)
    assert "in raise_it" in found[1].remote_traceback
    assert [found[0], found[2]] == [0, 2]
    assert futures[1].stats is not None
    assert futures[1].stats.attempt == 1


def test_exceptions_come_back_as_the_very_class(executor: FunctionExecutor) -> None:
    class Local(Exception):
        pass

    for make in (Local, Odd, ValueError, UnicodeDecodeError, subprocess.CalledProcessError):
        args = {UnicodeDecodeError: ("ascii", b"\xff", 0, 1, "why"), subprocess.CalledProcessError: (1, "x")}
        future = executor.submit(raise_it, make, *args.get(make, ()))
        error = future.exception(timeout=LIMIT)
        assert type(error) is make
        with pytest.raises(make):
            future.result()


IN_MAIN = """
import sys
import lithops_mini as lm

class Mine(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

def work(number):
    if number:
        raise Mine(number)
    return Mine(7)

if __name__ == "__main__":
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        value, error = executor.get_result(executor.map(work, range(2)), throw_except=False)
        print(type(value) is Mine, value.code, type(error) is Mine, error.code, type(error) is type(value))
"""


def test_classes_of_a_script_come_back_as_themselves(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(IN_MAIN)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True 7 True 1 True\n", "")


class TakesNoNotes(Exception):
    __notes__ = None  # type: ignore[assignment]


class RefusesNotes(Exception):
    def add_note(self, note: str) -> None:
        raise TypeError("no notes")


@pytest.mark.parametrize("make", [TakesNoNotes, RefusesNotes])
def test_an_exception_that_takes_no_notes_is_told_without(executor: FunctionExecutor, make: type[Exception]) -> None:
    futures = executor.map(lambda n: raise_it(make) if n else n, range(3), chunksize=3)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert [found[0], type(found[1]), type(found[2])] == [0, make, make]
    with pytest.raises(make):
        executor.get_result(futures)


def test_an_exception_that_quotes_its_data_is_told_shortly(executor: FunctionExecutor) -> None:
    began = time.monotonic()
    future = executor.submit(raise_it, ValueError, "begin" + "x" * (20 << 20) + "end")
    error = future.exception(timeout=LIMIT)
    assert type(error) is ValueError
    assert len(str(error)) == (20 << 20) + 8
    assert future.failure is not None
    assert len(future.failure.message) < 100_000
    assert len(future.failure.traceback) < 100_000
    assert future.failure.message.startswith("begin")
    assert future.failure.message.endswith("end")
    assert time.monotonic() - began < 10


class FailsToLoad:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


class EndsWhoLoadsIt:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class EndsWhoPicklesIt:
    def __reduce__(self) -> Any:
        sys.exit(3)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("size", [0, 5 << 20], ids=["in the reply", "in storage"])
@pytest.mark.parametrize("make", [FailsToLoad, EndsWhoLoadsIt])
def test_a_result_that_cannot_be_loaded_here(executor: FunctionExecutor, make: Any, size: int) -> None:
    futures = executor.map(lambda n: (make(), b"x" * size) if n == 1 else n, range(3), chunksize=3)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert [found[0], found[2]] == [0, 2]
    assert isinstance(found[1], SerializationError)
    assert "call 1" in str(found[1])
    assert "cannot be unpickled here" in str(found[1])


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: {"a": [1, threading.Lock()]}, r"the result\['a'\]\[1\] \(a _thread.lock\)"),
        (lambda: Locked(), r"the result\.lock \(a _thread.lock\)"),
        (lambda: (lambda n: n for n in range(3)), "the result, a generator,"),
        (lambda: nested(100_000), "the result, a list, is nested too deeply"),
        (lambda: [EndsWhoPicklesIt()], r"the result\[0\] \(a .*EndsWhoPicklesIt\)"),
    ],
    ids=["lock", "attribute", "generator", "nested", "exits"],
)
def test_a_result_that_cannot_be_pickled_is_named(
    executor: FunctionExecutor, make: Callable[[], Any], path: str
) -> None:
    futures = executor.map(lambda n: make() if n == 1 else n, range(3), chunksize=3)
    with pytest.raises(SerializationError, match=path):
        futures[1].result(timeout=LIMIT)
    assert [futures[0].result(timeout=LIMIT), futures[2].result(timeout=LIMIT)] == [0, 2]
    assert [future.stats.attempt for future in futures if future.stats] == [1, 1, 1]  # nobody died


def test_recursion_without_end_is_a_recursion_error(executor: FunctionExecutor) -> None:
    def again(number: int) -> int:
        return again(number + 1) if number else 0

    futures = executor.map(again, range(3), chunksize=3)
    assert [future.exception(timeout=LIMIT) is None for future in futures] == [True, False, False]
    assert type(futures[1].exception()) is RecursionError


# -- what a call leaves behind


def test_a_forked_child_that_returns_is_not_the_worker(executor: FunctionExecutor, tmp_path: Path) -> None:
    def fork(number: int, end: bool = False) -> str:
        pid = os.fork()
        if not pid:
            print("child of", number)
            if end:
                raise ValueError("in the child")
            return "child"
        return f"parent of {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

    futures = executor.map(fork, range(4), chunksize=4)
    assert executor.get_result(futures, timeout=LIMIT) == ["parent of 0"] * 4
    assert [future.logs for future in futures] == [f"child of {number}\n" for number in range(4)]
    assert executor.submit(fork, 0, end=True).result(timeout=LIMIT) == "parent of 1"
    assert executor.get_result(executor.map(abs, range(50)), timeout=LIMIT) == list(range(50))


def test_what_a_call_does_to_its_output_ends_with_it(executor: FunctionExecutor, tmp_path: Path) -> None:
    precious = tmp_path / "precious"

    def nothing() -> None:
        pass

    def close_descriptor() -> None:
        os.close(1)
        # The file gets the number of standard output, and must not be taken for it.
        file = os.open(precious, os.O_CREAT | os.O_WRONLY)
        os.write(file, b"precious")
        assert file == 1

    def point_elsewhere() -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)

    def replace() -> None:
        import io

        sys.stdout = io.StringIO()
        sys.stderr = None  # type: ignore[assignment]

    def close() -> None:
        sys.stdout.close()
        sys.stderr.close()

    def read() -> None:
        assert sys.stdin.read() == ""

    def before_and_print(what: Callable[[], None]) -> None:
        print("before")
        what()

    def say(text: str) -> None:
        print(text)
        print("error", file=sys.stderr)
        subprocess.run(["echo", "child"], check=True)

    does = [nothing, close_descriptor, point_elsewhere, replace, close, read]
    for what in does:
        spoiled = executor.map(before_and_print, [what, nothing], chunksize=2)
        executor.get_result(spoiled, timeout=LIMIT)
        assert [future.logs for future in spoiled] == ["before\n", "before\n"], what
        assert spoiled[0].stats is not None
        after = executor.submit(say, "after")
        after.result(timeout=LIMIT)
        assert sorted(after.logs.split()) == ["after", "child", "error"], what
        assert after.stats is not None
        assert after.stats.attempt == 1
    assert precious.read_text() == "precious"


def test_a_process_without_pipes_is_given_up(executor: FunctionExecutor) -> None:
    def stay() -> None:
        attempts.close_everything()
        attempts.sleep_long()

    began = time.monotonic()
    with pytest.raises(WorkerDied, match="closed the worker's own file descriptors"):
        executor.map(lambda _: stay(), [0], retries=0)[0].result(timeout=LIMIT)
    assert time.monotonic() - began < 10


def gush(how: str) -> int:
    """Write a gigabyte; return the largest size of the log file seen on the way."""
    block = b"x" * 65535 + b"\n"
    largest = 0
    os.write(1, b"the first line\n")
    if how == "child":
        subprocess.run(["head", "-c", str(1 << 30), "/dev/zero"], check=True)
    else:
        text = block.decode()
        for number in range((1 << 30) // len(block)):
            if how == "print":
                sys.stdout.write(text)
            else:
                os.write(1, block)
            if number % 100 == 0:
                largest = max(largest, os.fstat(1).st_size)
    os.write(1, b"the last line\n")
    return largest


@pytest.mark.parametrize("how", ["print", "descriptor", "child"])
def test_a_gigabyte_of_output_is_shortened(executor: FunctionExecutor, how: str) -> None:
    future = executor.submit(gush, how)
    assert future.result(timeout=LIMIT) < 512 << 20
    assert future.logs.startswith("the first line\n")
    assert future.logs.endswith("\nthe last line\n") or how == "child"
    assert "bytes of output left out" in future.logs
    assert len(future.logs) < 70_000
    left_out = int(future.logs.partition("\n... ")[2].partition(" bytes of output left out")[0])
    assert 1 << 29 < left_out < 1 << 30  # what is written in the moment the file is cut is not counted


def test_threads_and_children_left_running_end_with_the_worker(tmp_path: Path) -> None:
    def leave_running(number: int) -> list[int]:
        for daemon in (True, False):
            threading.Thread(target=attempts.sleep_long, daemon=daemon).start()
        children = [subprocess.Popen(["sleep", "60"]).pid, os.fork()]
        if not children[1]:
            attempts.sleep_long()
        return [os.getpid(), *children]

    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        found = executor.get_result(executor.map(leave_running, range(4), chunksize=1), timeout=LIMIT)
        processes = [pid for pids in found for pid in pids]
        assert all(map(alive, processes))
        assert executor.submit(abs, -1).result(timeout=LIMIT) == 1
        began = time.monotonic()
    assert time.monotonic() - began < 20
    until(lambda: not any(map(alive, processes)), "all processes gone", LIMIT)


def test_workers_that_do_not_end_by_themselves_end_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localhost, "_GRACE", 1.0)

    def leave_running(_: int) -> int:
        threading.Thread(target=attempts.sleep_long).start()
        plan(0)
        until(lambda: plan.attempts(1) == [10], "all workers at work")
        return os.getpid()

    plan = Plan(tmp_path / "plan", {})
    with lm.localhost_executor(max_workers=10, progress=False) as executor:
        processes = executor.get_result(executor.map(leave_running, range(10), chunksize=1), timeout=LIMIT)
        assert len(set(processes)) == 10
        began = time.monotonic()
    assert time.monotonic() - began < 8  # one after the other is 10 s
    assert not any(map(alive, processes))


def test_a_call_may_spoil_its_process_for_later_ones_but_not_for_us(tmp_path: Path) -> None:
    def spoil(number: int) -> int:
        import shutil
        import tempfile

        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGIO, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(name, signal.SIG_IGN)
        os.chdir(tempfile.mkdtemp(dir=tmp_path))
        os.rmdir(os.getcwd())
        os.environ.clear()
        os.umask(0)
        sys.setrecursionlimit(150)
        for path in sys.path:
            if "lithops_mini-" in path:  # where the modules that travelled are
                shutil.rmtree(path, ignore_errors=True)
        return number

    with lm.localhost_executor(max_workers=1, progress=False) as own:
        assert own.get_result(own.map(spoil, range(3), chunksize=3), timeout=LIMIT) == [0, 1, 2]
        assert own.submit(Plan(tmp_path / "plan", {}), 3).result(timeout=LIMIT) == 30
        assert own.submit(lambda: b"x" * (5 << 20)).result(timeout=LIMIT) == b"x" * (5 << 20)
        began = time.monotonic()
    assert time.monotonic() - began < 20


# -- time


def test_a_timeout_ends_one_call_and_says_so(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {5: attempts.sleep_long})
    began = time.monotonic()
    futures = executor.map(plan, range(20), chunksize=20, timeout=0.5)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert time.monotonic() - began < 10
    assert isinstance(found[5], CallTimeout)
    assert isinstance(found[5], TimeoutError)
    assert "longer than its timeout of 0.5 s" in str(found[5])
    assert found[:5] + found[6:] == [10 * n for n in range(20) if n != 5]
    assert plan.attempts(20) == [1] * 20
    assert futures[5].stats is not None
    assert futures[5].stats.function_time is not None
    assert 0.4 < futures[5].stats.function_time < 5


def test_calls_behind_slow_ones_are_given_back(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {})

    def call(number: int) -> int:
        if number >= 1500:
            time.sleep(0.3)
            return plan(number)
        return number

    # Fifteen hundred short ones, so that messages are large when the long ones come.
    futures = executor.map(call, range(1508))
    assert executor.get_result(futures, timeout=LIMIT)[1500:] == [10 * number for number in range(1500, 1508)]
    assert plan.attempts(1508)[1500:] == [1] * 8
    assert len({future.stats.worker_id for future in futures[1500:] if future.stats}) == 2


def test_calls_that_are_given_back_keep_their_order(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def call(number: int) -> None:
        with order.open("a") as file:
            file.write(f"{number} ")
        if number in (0, 4):
            time.sleep(0.3)

    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.get_result(executor.map(call, range(8), chunksize=8), timeout=LIMIT)
    assert order.read_text().split() == list("01234567")
