"""One call as its holder sees it: a future of the standard library that knows its call."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import copy
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lithops_mini as lm
from lithops_mini.records import CallStats

LARGE = 400 << 10  # bytes: more than travels in a message


@pytest.fixture(scope="module")
def executor(workers: lm.FunctionExecutor) -> lm.FunctionExecutor:
    return workers


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Calls that wait for this file end when it is there."""
    path = tmp_path / "open"
    yield path
    path.touch()


def passing(gate: str) -> str:
    while not os.path.exists(gate):
        time.sleep(0.01)  # the gate is a file: nobody can tell this process of it
    return "passed"


def echo(x: Any) -> Any:
    return x


def fail(x: Any) -> None:
    raise ValueError(x)


# -- the standard library's functions


def test_they_are_futures_of_the_standard_library(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(echo, range(5))
    assert all(isinstance(future, cf.Future) for future in futures)
    assert cf.wait(futures, timeout=30).done == set(futures)
    assert {future.result() for future in cf.as_completed(futures, timeout=30)} == set(range(5))
    assert {future.result() for future in lm.as_completed(futures, timeout=30)} == set(range(5))
    assert [future.exception() for future in futures] == [None] * 5


def test_waiting_often_leaves_nothing_on_a_future(executor: lm.FunctionExecutor, gate: Path) -> None:
    futures = [executor.submit(passing, str(gate)), executor.submit(echo, 1)]
    futures[1].result(timeout=30)
    for _ in range(3):
        assert lm.wait(futures, "ANY_COMPLETED", timeout=30) == ([futures[1]], [futures[0]])
    assert futures[0]._done_callbacks == []


def test_as_completed_yields_what_ends_first_first(executor: lm.FunctionExecutor, gate: Path) -> None:
    slow = executor.call_async(passing, str(gate))
    fast = executor.call_async(echo, 1)
    ended = lm.as_completed([slow, fast], timeout=30)
    assert next(ended) is fast
    gate.touch()
    assert next(ended) is slow
    with pytest.raises(StopIteration):
        next(ended)


def test_first_completed_and_first_exception(executor: lm.FunctionExecutor, gate: Path) -> None:
    slow = executor.call_async(passing, str(gate))
    fast = executor.call_async(echo, 1)
    assert cf.wait([slow, fast], timeout=30, return_when=cf.FIRST_COMPLETED).done == {fast}
    failed = executor.call_async(fail, 1)
    assert failed in cf.wait([slow, failed], timeout=30, return_when=cf.FIRST_EXCEPTION).done
    assert cf.wait([slow], timeout=0.05).not_done == {slow}


def test_callbacks_run_once_when_the_call_has_ended(executor: lm.FunctionExecutor, gate: Path) -> None:
    called: list[Any] = []
    event = threading.Event()
    future = executor.call_async(passing, str(gate))
    future.add_done_callback(lambda f: (called.append(f.result()), event.set()))
    assert called == []
    gate.touch()
    assert event.wait(30)
    future.add_done_callback(lambda f: called.append(f))
    assert called == ["passed", future]


def test_asyncio_awaits_them(executor: lm.FunctionExecutor) -> None:
    async def gather() -> list[Any]:
        futures = [*executor.map(echo, [1, b"x" * LARGE]), executor.call_async(fail, "late")]
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

    one, large, error = asyncio.run(gather())
    assert one == 1
    assert large == b"x" * LARGE
    assert isinstance(error, ValueError)
    assert error.args == ("late",)


def test_states(executor: lm.FunctionExecutor, gate: Path) -> None:
    future = executor.call_async(passing, str(gate))
    assert not future.done()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.05)
    assert future.running()
    assert future.stats is None
    gate.touch()
    assert future.result(timeout=30) == "passed"
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()


# -- what they know


def test_they_know_their_call(executor: lm.FunctionExecutor) -> None:
    first, second = executor.map(echo, [1, 2])
    assert (first.call_id, second.call_id) == (0, 1)
    assert first.job_id == second.job_id
    assert first.job_id.startswith(executor.executor_id + "-M")
    assert first.executor_id == executor.executor_id
    assert executor.call_async(echo, 1).job_id != first.job_id


def burn(seconds: float) -> bytes:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
    print("burnt")
    print("warm", file=sys.stderr)
    return bytearray(50 << 20)[:1000]


def test_stats() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        before = time.time()
        cold = executor.call_async(burn, 0.2)
        cold.result()
        warm = executor.call_async(burn, 0.02)
        warm.result()
        after = time.time()
    stats = cold.stats
    assert isinstance(stats, CallStats)
    assert stats.dispatched is not None
    assert stats.started is not None
    assert stats.ended is not None
    assert before <= stats.submitted <= stats.dispatched <= stats.started <= stats.ended <= stats.settled <= after
    assert stats.function_time is not None
    assert stats.function_time >= 0.2
    assert 0.15 < stats.cpu_user + stats.cpu_system < stats.function_time + 0.5
    assert 50 << 20 < stats.peak_memory < 500 << 20
    assert 0 < stats.bytes_in < 1000
    assert 1000 < stats.bytes_out < 2000
    assert (stats.call_id, stats.attempt, stats.status, stats.cold) == (0, 1, "ok", True)
    assert re.fullmatch(r"localhost/0\.1", stats.worker_id)
    assert warm.stats is not None
    assert not warm.stats.cold
    assert warm.stats.worker_id == stats.worker_id
    assert stats.as_dict()["function_time"] == stats.function_time


def test_bytes_of_large_arguments_and_results_count(executor: lm.FunctionExecutor) -> None:
    future = executor.call_async(echo, b"x" * LARGE)
    future.result()
    assert future.stats is not None
    assert LARGE < future.stats.bytes_in < LARGE + 1000
    assert LARGE < future.stats.bytes_out < LARGE + 1000


def test_stats_of_a_failure(executor: lm.FunctionExecutor) -> None:
    future = executor.call_async(fail, 5)
    assert future.exception() is not None
    assert future.stats is not None
    assert future.stats.status == "error"
    assert future.stats.function_time is not None
    assert future.failure is not None
    assert (future.failure.type_name, future.failure.message, future.failure.input) == ("ValueError", "5", "5")
    assert executor.call_async(echo, 5).failure is None


def test_logs_are_what_the_call_wrote(executor: lm.FunctionExecutor) -> None:
    def say(x: int) -> None:
        print("out", x)
        print("err", x, file=sys.stderr, flush=True)
        os.write(1, b"raw\n")
        if x == 2:
            raise ValueError(x)

    futures = executor.map(say, [1, 2, 3])
    lm.wait(futures)
    for future, x in zip(futures, (1, 2, 3), strict=True):
        assert sorted(future.logs.splitlines()) == sorted([f"out {x}", f"err {x}", "raw"])
    assert executor.call_async(echo, 1).logs == ""


def test_long_logs_keep_their_ends(executor: lm.FunctionExecutor) -> None:
    def talk(lines: int) -> None:
        for n in range(lines):
            print("line", n)

    future = executor.call_async(talk, 50_000)
    future.result()
    assert future.logs.startswith("line 0\nline 1\n")
    assert future.logs.endswith("line 49998\nline 49999\n")
    assert "bytes of output left out" in future.logs
    assert len(future.logs) < 70_000


# -- values


def test_everybody_holds_the_same_value(executor: lm.FunctionExecutor) -> None:
    for size in (10, LARGE):
        future = executor.call_async(bytearray, size)
        results: list[bytearray] = []
        threads = [threading.Thread(target=lambda f=future, r=results: r.append(f.result())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(result) for result in results}) == 1
        assert future.result() is results[0]


def test_a_large_result_is_loaded_when_it_is_asked_for(executor: lm.FunctionExecutor) -> None:
    future = executor.call_async(bytes, LARGE)
    lm.wait(future)
    assert future.holds_unread
    assert future.result() == bytes(LARGE)
    assert not future.holds_unread


def test_a_value_of_its_own_class_is_of_the_same_class_here(executor: lm.FunctionExecutor) -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

    value = executor.call_async(lambda x: Local(x), 5).result()
    assert type(value) is Local
    assert value.x == 5


def test_a_result_that_cannot_be_unpickled_here_is_an_error(executor: lm.FunctionExecutor) -> None:
    def make(x: int) -> Any:
        class Awkward:
            def __reduce__(self) -> Any:
                return int, ("not a number",)

        return Awkward()

    future = executor.call_async(make, 1)
    with pytest.raises(lm.LithopsMiniError, match=r"result of call 0 cannot be unpickled here.*not a number"):
        future.result()


# -- travelling


def test_a_future_travels_as_what_came_of_it(executor: lm.FunctionExecutor, gate: Path) -> None:
    future = executor.call_async(passing, str(gate))
    pickled: list[bytes] = []
    thread = threading.Thread(target=lambda: pickled.append(pickle.dumps(future)))
    thread.start()
    thread.join(0.1)
    assert pickled == []  # there is nothing to travel before the call has ended
    gate.touch()
    thread.join()
    restored = pickle.loads(pickled[0])
    assert isinstance(restored, lm.ResponseFuture)
    assert (restored.job_id, restored.call_id, restored.result()) == (future.job_id, 0, "passed")
    assert lm.get_result([restored, future]) == ["passed", "passed"]
    assert lm.wait(restored) == ([restored], [])


def test_failed_and_large_futures_travel(executor: lm.FunctionExecutor) -> None:
    failed = pickle.loads(pickle.dumps(executor.call_async(fail, "far")))
    with pytest.raises(ValueError, match="far"):
        failed.result()
    large = copy.copy(executor.call_async(bytes, LARGE))
    assert large.result() == bytes(LARGE)
    values = lm.get_result([failed, large], throw_except=False)
    assert isinstance(values[0], ValueError)


# -- failures


def test_neighbours_of_a_failure_are_readable(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(lambda x: 1 / x, [1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        executor.get_result(futures)
    assert [futures[0].result(), futures[2].result()] == [1.0, 0.5]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            futures[1].result()


def test_raising_again_and_again_does_not_grow_the_traceback(executor: lm.FunctionExecutor) -> None:
    future = executor.call_async(fail, 1)

    def depth() -> int:
        with pytest.raises(ValueError) as caught:
            future.result()
        return len(caught.traceback)

    assert depth() == depth() == depth()
    assert future.exception() is future.exception()


def test_exceptions_with_attributes_and_causes_come_back(executor: lm.FunctionExecutor) -> None:
    class Rejected(Exception):
        def __init__(self, code: int, reason: str) -> None:
            super().__init__(code, reason)
            self.code = code

        def __str__(self) -> str:
            return f"rejected with {self.code}"

    def reject(x: int) -> None:
        error = Rejected(x, "because")
        error.add_note("from the function")
        raise error from KeyError("cause")

    with pytest.raises(Rejected, match="rejected with 7") as caught:
        executor.call_async(reject, 7).result()
    assert caught.value.code == 7
    assert caught.value.__notes__[0] == "from the function"
    assert "KeyError: 'cause'" in str(caught.value.__cause__)


def test_exception_groups_come_back(executor: lm.FunctionExecutor) -> None:
    def several(x: int) -> None:
        raise ExceptionGroup("several", [ValueError(x), KeyError(x)])

    with pytest.raises(ExceptionGroup, match="several") as caught:
        executor.call_async(several, 7).result()
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]


@pytest.mark.parametrize("backend", ["localhost", "inline"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_program_ends_just_the_call(backend: str, error: BaseException) -> None:
    def end(_: int) -> None:
        raise error

    with lm.function_executor(backend, progress=False) as executor:
        with pytest.raises(lm.RemoteError, match=type(error).__name__) as caught:
            executor.get_result(executor.map(end, [1]))
        assert caught.value.type_name == type(error).__name__
        assert type(error).__name__ in caught.value.remote_traceback
        assert executor.call_async(echo, 1).result() == 1


# -- stats of what a function starts

HOLD = """
import sys, time
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
print("full", flush=True)
time.sleep(float(sys.argv[2]))
"""
BURN = """
import time
while time.process_time() < 0.6:
    pass
"""
MANY = 300  # MiB


def python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


def in_child() -> None:
    subprocess.run(python(HOLD, MANY, 0.3), check=True)


def in_grandchild() -> None:
    child = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
    subprocess.run(python(child, *python(HOLD, MANY, 0.3)), check=True)


def in_child_of_thread() -> None:
    thread = threading.Thread(target=in_child)
    thread.start()
    thread.join()


def in_two_children() -> None:
    children = [subprocess.Popen(python(HOLD, MANY // 2, 0.8)) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]


def in_fork() -> None:
    child = os.fork()
    if not child:
        held = bytearray(b"x") * (MANY << 20)
        time.sleep(0.3)
        os._exit(held[0] != ord("x"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def in_child_for_a_moment() -> None:
    subprocess.run(python(HOLD, MANY, 0), check=True)


def mebibytes(future: lm.ResponseFuture[Any]) -> float:
    future.result(60)
    assert future.stats is not None
    return future.stats.peak_memory / (1 << 20)


WAYS = [in_child, in_grandchild, in_child_of_thread, in_two_children, in_fork, in_child_for_a_moment]


@pytest.mark.parametrize(("way", "limit"), [*((way, 1024) for way in WAYS), (in_two_children, None)])
def test_memory_of_processes_that_a_call_starts(way: Callable[[], None], limit: int | None) -> None:
    with lm.localhost_executor(max_workers=1, progress=False, runtime_memory=limit) as executor:
        alone = mebibytes(executor.call_async(time.sleep, 0.15))
        assert alone < 100
        assert MANY <= mebibytes(executor.call_async(way, ())) < MANY + 200
        after = executor.call_async(in_child_of_its_own, ())
        assert mebibytes(after) < 100  # what is over does not stick to the process
        assert after.stats is not None
        assert not after.stats.cold
        if limit is not None:
            advice = executor.bill().advice[1]
            assert MANY * 1.25 < advice.enough < limit


def in_child_of_its_own() -> None:
    subprocess.run(python("pass"), check=True)


def test_the_memory_that_would_have_been_enough_is_enough() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.get_result(executor.map(in_child, [()], runtime_memory=1024))
        advised = executor.bill().advice[0].enough
        assert executor.get_result(executor.map(in_child, [()], runtime_memory=advised)) == [None]


def test_a_child_that_outlives_its_call() -> None:
    def start() -> int:
        child = subprocess.Popen(python(HOLD, MANY, 60), stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"full\n"
        time.sleep(0.3)
        child.stdout.close()
        child.returncode = 0  # so that the object does not complain when it goes
        return child.pid

    def end(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    with lm.localhost_executor(max_workers=1, progress=False, runtime_memory=1024) as executor:
        started = executor.call_async(start, ())
        assert mebibytes(started) >= MANY
        assert mebibytes(executor.call_async(time.sleep, 0.2)) >= MANY  # its worker held that
        executor.call_async(end, started.result()).result(60)
        assert mebibytes(executor.call_async(time.sleep, 0.2)) < 100


def test_memory_of_a_call_that_held_too_much() -> None:
    with lm.localhost_executor(max_workers=1, progress=False, runtime_memory=200) as executor:
        future = executor.call_async(in_child, ())
        assert future.exception(60) is not None
        assert future.stats is not None
        assert future.stats.status == "out_of_memory"
        assert future.stats.peak_memory > 200 << 20
        assert executor.bill().advice[0].enough > 200


def burn_in_child() -> None:
    subprocess.run(python(BURN), check=True)


def burn_in_grandchild() -> None:
    subprocess.run(
        python("import subprocess, sys; subprocess.run(sys.argv[1:], check=True)", *python(BURN)), check=True
    )


@pytest.mark.parametrize("way", [burn_in_child, burn_in_grandchild])
def test_processor_time_of_processes_that_a_call_starts(way: Callable[[], None]) -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        burnt, quiet = executor.map(lambda call: call(), [way, os.getpid])
        executor.get_result([burnt, quiet])
    assert burnt.stats is not None
    assert quiet.stats is not None
    assert 0.6 <= burnt.stats.cpu_user + burnt.stats.cpu_system < 5
    assert quiet.stats.cpu_user + quiet.stats.cpu_system < 0.3
