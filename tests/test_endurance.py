"""Many jobs in one executor, one after the other and from many threads: nothing grows, nothing is mixed up."""

from __future__ import annotations

import gc
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attempts
import pytest
from attempts import Plan, until

import lithops_mini as lm
from lithops_mini.executor import FunctionExecutor

LIMIT = 60


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def worker_state(_: int) -> tuple[int, int, int]:
    """Process, open descriptors and threads of the worker."""
    return os.getpid(), descriptors(), threading.active_count()


def run_jobs(executor: FunctionExecutor, count: int, seed: int) -> None:
    for number in range(seed, seed + count):
        large = bytes(300_000) if number % 10 == 0 else b""
        futures = executor.map(lambda item, number=number, large=large: (number, item, large[:1]), range(5))
        assert executor.get_result(futures, timeout=LIMIT) == [(number, item, large[:1]) for item in range(5)]
        if number % 50 == 0:
            reducers = executor.map_reduce(lambda item: bytes(item), [400_000, 5], lambda parts: sum(map(len, parts)))
            assert executor.get_result(reducers, timeout=LIMIT) == 400_005


def test_hundreds_of_jobs_one_after_the_other() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        run_jobs(executor, 50, 0)
        memory, files, threads = resident(), descriptors(), threading.active_count()
        worker = executor.submit(worker_state, 0).result(timeout=LIMIT)
        run_jobs(executor, 300, 1000)
        assert executor.submit(worker_state, 0).result(timeout=LIMIT) == worker
        assert threading.active_count() == threads
        until(lambda: descriptors() <= files, "all files closed")  # but those of a record being written
        assert resident() - memory < 20 << 20
        assert len(executor.stats()) == 50 + 2 + 300 + 12 + 2


def test_failed_jobs_leave_nothing_behind(tmp_path: Path) -> None:
    """Each kills its worker: processes, pipes and logs are replaced fifty times."""
    plan = Plan(tmp_path / "plan", {number: [attempts.leave] for number in range(50)})
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        assert executor.get_result(executor.map(abs, range(4), chunksize=1), timeout=LIMIT) == [0, 1, 2, 3]
        files, threads = descriptors(), threading.active_count()
        assert executor.get_result(executor.map(plan, range(50)), timeout=LIMIT) == list(range(0, 500, 10))
        assert executor.get_result(executor.map(abs, range(4), chunksize=1), timeout=LIMIT) == [0, 1, 2, 3]
        assert plan.attempts(50) == [2] * 50
        assert threading.active_count() == threads
        until(lambda: descriptors() <= files, "all files closed")  # but those of a record being written


def test_executors_leave_nothing_behind() -> None:
    def use_one() -> None:
        with lm.localhost_executor(max_workers=2, progress=False) as executor:
            assert executor.get_result(executor.map(abs, range(4)), timeout=LIMIT) == [0, 1, 2, 3]

    use_one()
    files, threads, others = descriptors(), threading.active_count(), children()
    for _ in range(10):
        use_one()
    assert (descriptors(), threading.active_count(), children()) == (files, threads, others)


def children() -> list[str]:
    return [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


@pytest.mark.parametrize("shared", [True, False], ids=["one executor", "one each"])
def test_executors_in_several_threads(shared: bool) -> None:
    def work(executor: FunctionExecutor, name: int) -> None:
        for number in range(20):
            futures = executor.map(lambda item, number=number: (name, number, item), range(4))
            assert executor.get_result(futures, timeout=LIMIT) == [(name, number, item) for item in range(4)]
            future = executor.submit(lambda number=number: number)
            assert future.result(timeout=LIMIT) == number

    def with_own(name: int) -> None:
        with lm.localhost_executor(max_workers=1, progress=False) as executor:
            work(executor, name)

    with ThreadPoolExecutor(8) as threads:
        if not shared:
            for ended in [threads.submit(with_own, name) for name in range(8)]:
                ended.result(timeout=LIMIT)
            return
        with lm.localhost_executor(max_workers=2, progress=False) as executor:
            for ended in [threads.submit(work, executor, name) for name in range(8)]:
                ended.result(timeout=LIMIT)
            assert len(executor.stats()) == 8 * 20 * 2


def test_two_executors_do_not_know_each_other(tmp_path: Path) -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as one:
        with lm.localhost_executor(max_workers=1, progress=False) as two:
            both = [executor.map(lambda item: (os.getpid(), item), range(3)) for executor in (one, two)]
            found = [executor.get_result(timeout=LIMIT) for executor in (one, two)]
            assert [[item for _, item in values] for values in found] == [[0, 1, 2], [0, 1, 2]]
            assert found[0][0][0] != found[1][0][0]
            # Futures of both, in one wait and as inputs of either.
            assert len(lm.get_result([*both[0], *both[1]], timeout=LIMIT)) == 6
            mixed = two.map(lambda a, b: a[1] + b[1], [(both[0][1], both[1][2])])
            assert two.get_result(mixed, timeout=LIMIT) == [3]
            future = one.submit(attempts.sleep_long)
            until(future.running, "running")
        assert one.executor_id != two.executor_id
        assert not future.done()
        future.cancel()
        assert one.submit(abs, -1).result(timeout=LIMIT) == 1


def test_shutdown_while_others_submit() -> None:
    """Whoever comes too late is told; whatever was accepted ends."""
    executor = lm.localhost_executor(max_workers=2, progress=False)
    accepted: list[lm.ResponseFuture[int]] = []

    def submit() -> None:
        with pytest.raises(lm.errors.LithopsMiniError, match="has been shut down"):
            accepted.extend(executor.submit(abs, -1) for _ in itertools.count())

    with ThreadPoolExecutor(4) as threads:
        submitters = [threads.submit(submit) for _ in range(4)]
        until(lambda: len(accepted) > 50, "calls accepted")
        executor.shutdown()
        for ended in submitters:
            ended.result(timeout=LIMIT)
    for future in accepted:
        until(future.done, "ended")
        assert future.cancelled() or future.exception() is not None or future.result() == 1
    assert sum(not future.cancelled() and future.exception() is None for future in accepted) > 50


def test_shutdown_from_several_threads() -> None:
    executor = lm.localhost_executor(max_workers=1, progress=False)
    future = executor.submit(abs, -1)
    with ThreadPoolExecutor(4) as threads:
        ends: list[Callable[[], None]] = [executor.shutdown] * 4
        for ended in [threads.submit(end) for end in ends]:
            ended.result(timeout=LIMIT)
    assert future.result(timeout=LIMIT) == 1


def test_shutdown_while_a_job_is_being_made() -> None:
    """Its inputs are on their way to storage: it must not be forgotten, nor leave them there."""
    executor = lm.localhost_executor(max_workers=1, progress=False)
    original = executor.storage.backend.put
    storing, go_on = threading.Event(), threading.Event()

    def put(bucket: str, key: str, *args: Any, **options: Any) -> None:
        if key.endswith("/inputs"):
            storing.set()
            assert go_on.wait(LIMIT)
        original(bucket, key, *args, **options)

    executor.storage.backend.put = put  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as threads:
        submitted = threads.submit(executor.submit, len, bytes(2 << 20))
        assert storing.wait(LIMIT)
        ended = threads.submit(executor.shutdown)
        until(lambda: "closed" in repr(executor), "closed")
        go_on.set()
        ended.result(timeout=LIMIT)
        with pytest.raises(lm.errors.LithopsMiniError, match="has been shut down"):
            submitted.result(timeout=LIMIT)
    left = executor.storage.backend.list(executor.storage.bucket, f"lithops_mini/jobs/{executor.executor_id}")
    assert list(left) == []
