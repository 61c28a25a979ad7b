"""Calls that depend on calls: futures as inputs, map and reduce, functions that start executors of their own."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attempts import until
from counting_storage import counted  # noqa: F401 - a fixture

import lithops_mini as lm
from lithops_mini.executor import FunctionExecutor

LARGE = 400 << 10  # bytes: more than travels in a message


def double(x: int) -> int:
    return 2 * x


def echo(x: Any) -> Any:
    return x


def seen(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def fail_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd: {x}")
    return x


# -- futures as inputs


def test_futures_are_replaced_by_their_values_wherever_they_are(executor: FunctionExecutor) -> None:
    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    one, two = executor.map(echo, [1, 2])

    def unpack(x: Any, y: Any = None) -> Any:
        return x.content if type(x).__name__ == "Box" else x, y

    items: list[Any] = [one, (one, two), {"x": one, "y": [two, {"deep": (one,)}]}, [one, one], Box([two])]
    expected = [(1, None), (1, 2), (1, [2, {"deep": (1,)}]), ([1, 1], None), ([2], None)]
    assert executor.get_result(executor.map(unpack, items)) == expected
    assert executor.submit(unpack, one, y=two).result() == (1, 2)
    assert executor.get_result(executor.map(unpack, [5], extra_args=(two,))) == [(5, 2)]
    assert executor.get_result(executor.map(unpack, [5], extra_args={"y": two})) == [(5, 2)]


def test_a_map_over_the_futures_of_a_map(executor: FunctionExecutor) -> None:
    futures = executor.map(double, range(5))
    for _ in range(3):
        futures = executor.map(double, futures)
    assert executor.get_result(futures) == [16 * x for x in range(5)]


def test_the_futures_of_a_map_are_a_list_of_values_in_the_worker() -> None:
    with lm.function_executor(progress=False, max_workers=1) as executor:
        futures = executor.map(double, range(3))
        reduced = executor.map_reduce(double, range(3), sum)
        assert executor.get_result(executor.map(seen, [futures, reduced])) == [("list", [0, 2, 4]), ("int", 6)]


def test_none_as_the_value_of_a_future(executor: FunctionExecutor) -> None:
    assert executor.get_result(executor.map(seen, [executor.call_async(echo, None)])) == [("NoneType", None)]


def test_the_order_of_submission_and_not_of_ending(workers: FunctionExecutor) -> None:
    def late(x: int) -> int:
        time.sleep(0.2 if x == 0 else 0)  # the first one ends last
        return x

    total = workers.call_async(echo, [workers.map(late, range(4), chunksize=1)])
    assert workers.get_result(total) == [[0, 1, 2, 3]]


def test_large_values_and_small_ones_are_not_shared_between_calls(executor: FunctionExecutor) -> None:
    def spoil(array: Any) -> float:
        array += 1
        return float(array.sum())

    for size in (100, 10_000, 200_000):
        future = executor.call_async(np.zeros, size)
        assert executor.get_result(executor.map(spoil, [future] * 3)) == [float(size)] * 3
        assert future.result().sum() == 0


def test_a_failed_future_fails_what_depends_on_it_with_its_exception(executor: FunctionExecutor) -> None:
    failed = executor.call_async(fail_odd, 7)
    after = executor.map(double, [failed, executor.call_async(echo, 4), 5])
    last = executor.call_async(echo, [{"deep": after}])
    values = executor.get_result(after, throw_except=False)
    assert values[0] is failed.exception()
    assert values[1:] == [8, 10]
    assert last.exception() is failed.exception()
    stats = after[0].stats
    assert stats is not None
    assert (stats.status, stats.started) == ("error", None)


def test_a_long_chain_behind_a_failure_ends(executor: FunctionExecutor, tmp_path: Path) -> None:
    def fail_late(gate: str) -> None:
        while not os.path.exists(gate):
            time.sleep(0.01)  # the file is made by another thread or process
        raise ValueError("late")

    gate = tmp_path / "open"
    last = first = executor.call_async(fail_late, str(gate))
    for _ in range(400):
        last = executor.call_async(echo, last)
    gate.touch()
    with pytest.raises(ValueError, match="late"):
        last.result(timeout=60)
    assert last.exception() is first.exception()


def test_a_future_that_had_failed_long_ago(executor: FunctionExecutor) -> None:
    failed = executor.call_async(fail_odd, 7)
    lm.wait(failed)
    with pytest.raises(ValueError, match="odd: 7"):
        executor.get_result(executor.map(double, [failed, 1]))


def test_a_cancelled_future_fails_what_depends_on_it(workers: FunctionExecutor, tmp_path: Path) -> None:
    def wait_for(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)  # the file is made by another process

    gate = tmp_path / "open"
    running = workers.call_async(wait_for, str(gate))
    after = workers.call_async(echo, [running])
    running.cancel()
    with pytest.raises(CancelledError):
        after.result(timeout=30)


def test_cancelling_what_waits_leaves_what_it_waits_for(workers: FunctionExecutor, tmp_path: Path) -> None:
    def wait_for(path: str) -> str:
        while not os.path.exists(path):
            time.sleep(0.01)  # the file is made by another process
        return "passed"

    gate = tmp_path / "open"
    running = workers.call_async(wait_for, str(gate))
    after = workers.call_async(echo, running)
    assert after.cancel()
    gate.touch()
    assert running.result(timeout=30) == "passed"
    assert after.cancelled()


def test_futures_of_another_executor(workers: FunctionExecutor, tmp_path: Path) -> None:
    elsewhere = {"localhost": {"storage_path": str(tmp_path)}}
    with (
        lm.localhost_executor(max_workers=1, progress=False) as same_storage,
        lm.function_executor(
            config={"backend": "localhost", "storage": "localhost", **elsewhere}, progress=False
        ) as other_storage,
    ):
        for other in (same_storage, other_storage):
            futures = other.map(bytes, [10, LARGE])
            assert workers.get_result(workers.map(len, futures)) == [10, LARGE]
            assert workers.get_result(workers.map_reduce(len, futures, sum)) == LARGE + 10
            failed = other.call_async(fail_odd, 1)
            with pytest.raises(ValueError, match="odd: 1"):
                workers.get_result(workers.map(echo, [failed]))
    assert workers.get_result(workers.map(len, futures[:1])) == [10]  # of an executor that is closed


def test_a_future_that_travelled_is_an_input_too(executor: FunctionExecutor) -> None:
    future = pickle.loads(pickle.dumps(executor.call_async(double, 4)))
    assert executor.get_result(executor.map(double, [future])) == [16]


def test_thousands_of_inputs_of_one_call(workers: FunctionExecutor) -> None:
    futures = workers.map(echo, [f"{n:0100}" for n in range(3000)])
    values = workers.get_result(workers.call_async(echo, [futures]))
    assert values == [[f"{n:0100}" for n in range(3000)]]


# -- map and reduce


def test_the_reducer_gets_a_lazy_sequence(executor: FunctionExecutor) -> None:
    def look(results: Sequence[int]) -> dict[str, Any]:
        return {
            "length": len(results),
            "all": list(results),
            "again": list(results),
            "first": results[0],
            "last": results[-1],
            "slice": list(results[1:3]),
            "step": list(results[::-2]),
            "length of a slice": len(results[2:]),
            "reversed": list(reversed(results)),
            "in": 4 in results,
            "sequence": isinstance(results, Sequence),
            "index": results.index(6),
            "iterators": [a + b for a, b in zip(results, results, strict=True)],
        }

    def beyond(results: Sequence[int]) -> str:
        try:
            return str(results[5])
        except IndexError:
            return "IndexError"

    assert executor.get_result(executor.map_reduce(double, range(5), look)) == {
        "length": 5,
        "all": [0, 2, 4, 6, 8],
        "again": [0, 2, 4, 6, 8],
        "first": 0,
        "last": 8,
        "slice": [2, 4],
        "step": [8, 4, 0],
        "length of a slice": 3,
        "reversed": [8, 6, 4, 2, 0],
        "in": True,
        "sequence": True,
        "index": 3,
        "iterators": [0, 4, 8, 12, 16],
    }
    assert executor.get_result(executor.map_reduce(double, range(5), beyond)) == "IndexError"


def test_a_reducer_that_returns_what_it_was_given(executor: FunctionExecutor) -> None:
    def pick(results: Sequence[Any]) -> Any:
        return results, {"some": results[1:]}

    assert executor.get_result(executor.map_reduce(double, range(3), echo)) == [0, 2, 4]
    assert executor.get_result(executor.map_reduce(double, range(3), pick)) == ([0, 2, 4], {"some": [2, 4]})


def test_a_reducer_over_nothing(executor: FunctionExecutor) -> None:
    assert executor.get_result(executor.map_reduce(double, [], len)) == 0
    assert executor.get_result(executor.map_reduce(double, [], list, spawn_reducer=0)) == []


def test_extra_arguments_of_the_reducer(executor: FunctionExecutor) -> None:
    def reduce(storage: Any, results: Sequence[int], power: int, id: int = -1) -> Any:  # noqa: A002
        return type(storage).__name__, sum(results) ** power, id

    for extra in ((2,), [2], {"power": 2}):
        futures = executor.map_reduce(double, range(3), reduce, extra_args_reduce=extra)
        assert executor.get_result(futures) == ("Storage", 36, 0)
    other = executor.call_async(echo, 3)
    assert executor.get_result(executor.map_reduce(double, [1], pow_sum, extra_args_reduce=(other,))) == 8


def pow_sum(results: Sequence[int], power: int) -> int:
    return int(sum(results) ** power)


def test_map_futures_are_at_hand(executor: FunctionExecutor) -> None:
    futures = executor.map_reduce(double, range(3), sum)
    assert len(futures) == 1
    assert executor.get_result(futures) == 6
    assert [future.result() for future in futures.map_futures] == [0, 2, 4]


def test_a_failed_map_call_fails_the_reducer(executor: FunctionExecutor) -> None:
    def never(results: Sequence[int]) -> None:
        raise AssertionError("it ran")

    futures = executor.map_reduce(fail_odd, range(4), never)
    with pytest.raises(ValueError, match=r"odd: [13]"):
        executor.get_result(futures)
    assert [future.exception() is None for future in futures.map_futures] == [True, False, True, False]


def test_a_reducer_that_fails(executor: FunctionExecutor) -> None:
    def fail(results: Sequence[int]) -> None:
        raise KeyError(len(results))

    futures = executor.map_reduce(double, range(4), fail)
    with pytest.raises(KeyError) as caught:
        executor.get_result(futures)
    assert caught.value.args == (4,)
    assert "its output is in future.logs" in caught.value.__notes__[0]


@pytest.mark.parametrize("spawn", [0, 20, 50, 100, 33.3])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_reducer_may_start_early(spawn: float, lanes: int, tmp_path: Path) -> None:
    def some_time(x: int, marks: str) -> int:
        time.sleep(0.01)  # as work does
        if x in (3, 7):
            try:
                os.mkdir(f"{marks}/{x}")
            except FileExistsError:
                return x
            os._exit(9)  # its first attempt takes the worker with it
        if x == 5:
            try:
                os.mkdir(f"{marks}/{x}")
            except FileExistsError:
                return x
            raise OSError("once")
        return x

    with lm.localhost_executor(max_workers=lanes, progress=False) as executor:
        futures = executor.map_reduce(
            some_time,
            range(12),
            sum,
            extra_args=(str(tmp_path),),
            spawn_reducer=spawn,
            retry_exceptions=OSError,
            chunksize=2,
        )
        assert executor.get_result(futures, timeout=60) == 66


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_an_early_reducer_whose_map_fails_ends(lanes: int) -> None:
    def late(x: int) -> int:
        time.sleep(0.02)  # as work does
        return fail_odd(x)

    with lm.localhost_executor(max_workers=lanes, progress=False) as executor:
        futures = executor.map_reduce(late, [0, 2, 4, 6, 1], list, spawn_reducer=0, chunksize=1)
        with pytest.raises(ValueError, match="odd: 1"):
            executor.get_result(futures, timeout=60)
        assert executor.get_result(executor.map(echo, range(4)), timeout=60) == [0, 1, 2, 3]


def test_an_early_reducer_that_was_lost_runs_once_all_is_there(workers: FunctionExecutor, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"

    def part(number: int) -> int:
        while number and not gate.exists():
            time.sleep(0.01)
        return number

    def dies_at_first(results: Sequence[int]) -> int:
        if not started.exists():
            started.touch()
            os._exit(1)
        return sum(results)

    reducers = workers.map_reduce(part, [0, 5], dies_at_first, spawn_reducer=50, chunksize=1)
    until(started.exists, "an attempt of the reducer")
    # They keep the other worker busy, so that the reducer, its delay over, waits for one.
    short = workers.map(lambda _: time.sleep(0.05), range(40), chunksize=1)
    short[20].result(timeout=30)
    gate.touch()
    assert workers.get_result(reducers, timeout=30) == 5


def test_several_early_reducers_do_not_block_each_other() -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        futures = [executor.map_reduce(double, range(n), sum, spawn_reducer=0)[0] for n in range(1, 9)]
        assert executor.get_result(futures, timeout=60) == [n * (n - 1) for n in range(1, 9)]


def test_the_reducer_holds_one_result_at_a_time() -> None:
    def make(x: int) -> Any:
        return np.full(2 << 20, x, dtype=np.float64)

    def reduce(results: Sequence[Any]) -> tuple[float, int]:
        total = sum(float(result[-1]) for result in results)
        with open("/proc/self/status") as status:
            return total, next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        total, peak = executor.get_result(executor.map_reduce(make, range(20), reduce))
    assert total == sum(range(20))
    assert peak < 120 << 20, "20 results of 16 MB were in memory at once"


def test_large_results_do_not_pass_through_the_client(counted: list[tuple[str, str]]) -> None:  # noqa: F811
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        futures = executor.map_reduce(bytes, [LARGE] * 5, lambda results: sum(map(len, results)))
        assert executor.get_result(futures) == 5 * LARGE
        large = executor.map(bytes, [LARGE] * 3)
        assert executor.get_result(executor.map(len, large)) == [LARGE] * 3
        assert [name for name, _ in counted if name in ("get", "open")] == []
        assert large[0].result() == bytes(LARGE)
        assert [name for name, _ in counted if name in ("get", "open")] == ["open"]


# -- executors in functions


def returned(kind: str) -> Any:
    with lm.function_executor() as inner:
        if kind == "future":
            return inner.call_async(double, 5)
        if kind == "map":
            return inner.map(double, range(3))
        if kind == "map_reduce":
            return inner.map_reduce(double, range(3), sum)
        if kind == "tuple":
            return tuple(inner.map(double, range(3)))
        if kind == "large":
            return inner.call_async(bytes, LARGE)
        return inner.call_async(returned, "map_reduce")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("future", 10),
        ("map", [0, 2, 4]),
        ("map_reduce", 6),
        ("tuple", (0, 2, 4)),
        ("large", bytes(LARGE)),
        ("future of a future", 6),
    ],
)
def test_what_a_call_returns_of_futures_is_replaced_by_their_values(
    executor: FunctionExecutor, kind: str, value: object
) -> None:
    assert executor.get_result(executor.call_async(returned, kind)) == value
    assert executor.get_result(executor.map(returned, [kind])) == [value]


def test_a_future_returned_for_a_failed_call_raises_its_exception(executor: FunctionExecutor) -> None:
    def start(x: int) -> Any:
        with lm.function_executor(progress=False) as inner:
            return inner.map(fail_odd, [0, x])

    futures = executor.map(start, [2, 3])
    with pytest.raises(ValueError, match="odd: 3"):
        executor.get_result(futures)
    values = executor.get_result(futures, throw_except=False)
    assert values[0] == [0, 2]
    assert isinstance(values[1], ValueError)


def test_an_executor_in_a_call_has_the_settings_of_the_one_outside(tmp_path: Path) -> None:
    def settings(_: int) -> Any:
        with lm.function_executor() as inner:
            job = inner.config.job
            return inner.config.backend, job.storage_bucket, job.retries, inner.storage.bucket

    with lm.localhost_executor(
        max_workers=1, progress=False, storage_bucket="mine", retries=1, storage_path=str(tmp_path)
    ) as executor:
        assert executor.get_result(executor.call_async(settings, 0)) == ("localhost", "mine", 1, "mine")


def test_two_levels_of_executors(executor: FunctionExecutor) -> None:
    def count_down(level: int) -> int:
        if level == 0:
            return 1
        with lm.function_executor(progress=False) as inner:
            return 1 + sum(inner.get_result(inner.map(count_down, [level - 1] * 2)))

    assert executor.get_result(executor.call_async(count_down, 2)) == 7


def test_results_that_have_been_read_outlive_their_executor_and_its_data() -> None:
    with lm.function_executor(progress=False) as first:
        read, unread = first.map(bytes, [1 << 20, 1 << 20])
        assert read.result() == bytes(1 << 20)
    with lm.function_executor(progress=False, retries=0) as second:
        cleaned = second.call_async(bytes, 1 << 20)
        assert cleaned.result() == bytes(1 << 20)
        second.clean()
        assert second.get_result(second.map(len, [read, unread, cleaned])) == [1 << 20] * 3
