"""Submitting and reading: what an item is to a function, what get_result gives back, what stays in storage."""

# ruff: noqa: A002 - id is a name that executors fill in
from __future__ import annotations

import functools
import os
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lithops_mini as lm
from lithops_mini import records
from lithops_mini.errors import InputError, LithopsMiniError, NoSuchObject, SerializationError, WaitTimeout
from lithops_mini.job.future import ResponseFuture

LARGE = 400 << 10  # bytes: more than travels in a message


@pytest.fixture(scope="module")
def executor(workers: lm.FunctionExecutor) -> lm.FunctionExecutor:
    return workers


@pytest.fixture
def run(executor: lm.FunctionExecutor) -> Callable[..., Any]:
    return lambda function, items, **options: executor.get_result(executor.map(function, items, **options))


@dataclass
class Point:
    x: int
    y: int = 0


Pair = namedtuple("Pair", "left right")


class Scaler:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return x * self.factor

    def times(self, x: int) -> int:
        return x * self.factor

    @classmethod
    def name(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @staticmethod
    def double(x: int) -> int:
        return 2 * x


def everything(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def echo(x: Any) -> Any:
    return x


# -- items


def test_an_item_is_positional_keyword_or_one_argument(run: Callable[..., Any]) -> None:
    items: list[Any] = [(1, 2), {"a": 1}, [1, 2], "text", b"bytes", None, (), {}, ((1, 2),), {1, 2}, frozenset((3,))]
    assert run(everything, items) == [
        ((1, 2), {}),
        ((), {"a": 1}),
        (([1, 2],), {}),
        (("text",), {}),
        ((b"bytes",), {}),
        ((None,), {}),
        ((), {}),
        ((), {}),
        (((1, 2),), {}),
        (({1, 2},), {}),
        ((frozenset((3,)),), {}),
    ]


def test_named_tuples_and_data_classes_are_one_argument(run: Callable[..., Any]) -> None:
    assert run(echo, [Pair(1, 2), Point(3, 4), range(3)]) == [Pair(1, 2), Point(3, 4), range(3)]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((n * n for n in range(5)), [0, 1, 4, 9, 16]),
        (range(3), [0, 1, 2]),
        (iter([1, 2]), [1, 2]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        (np.arange(3), [0, 1, 2]),
        ([], []),
        ((), []),
        (iter(()), []),
    ],
    ids=["generator", "range", "iterator", "dict", "array", "list", "tuple", "nothing"],
)
def test_any_iterable(run: Callable[..., Any], items: Any, expected: list[Any]) -> None:
    assert run(echo, items) == expected


def test_a_set_runs_each_member_once(run: Callable[..., Any]) -> None:
    assert sorted(run(echo, {3, 1, 2})) == [1, 2, 3]


def test_the_rows_of_an_array_are_items(run: Callable[..., Any]) -> None:
    rows = run(echo, np.arange(6).reshape(3, 2))
    assert [row.tolist() for row in rows] == [[0, 1], [2, 3], [4, 5]]


def test_a_generator_is_read_once_and_before_anything_runs(executor: lm.FunctionExecutor) -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(3):
            taken.append(n)
            yield n

    futures = executor.map(echo, items())
    assert taken == [0, 1, 2]
    assert executor.get_result(futures) == [0, 1, 2]


def test_a_generator_that_raises_runs_nothing(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    jobs = len(executor.stats())
    with pytest.raises(KeyError, match="broken") as caught:
        executor.map(lambda x: (tmp_path / "ran").touch(), items())
    assert "after 1 items" in caught.value.__notes__[0]
    assert len(executor.stats()) == jobs


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ((8, 9), [((1, 8, 9), {}), ((1, 2, 8, 9), {}), ((8, 9), {"a": 1})]),
        ([8], [((1, 8), {}), ((1, 2, 8), {}), ((8,), {"a": 1})]),
        ({"z": 9}, [((1,), {"z": 9}), ((1, 2), {"z": 9}), ((), {"a": 1, "z": 9})]),
        ((), [((1,), {}), ((1, 2), {}), ((), {"a": 1})]),
        (None, [((1,), {}), ((1, 2), {}), ((), {"a": 1})]),
    ],
)
def test_extra_args(run: Callable[..., Any], extra: Any, expected: Any) -> None:
    assert run(everything, [1, (1, 2), {"a": 1}], extra_args=extra) == expected


def test_extra_env_reaches_the_call_and_leaves_no_trace(run: Callable[..., Any]) -> None:
    def read(name: str) -> str | None:
        return os.environ.get(name)

    assert run(read, ["COLOUR", "SIZE"], extra_env={"COLOUR": "red", "SIZE": 5}) == ["red", "5"]
    assert run(read, ["COLOUR"]) == [None]
    assert "COLOUR" not in os.environ


# -- parameters that are filled in


def test_id_is_the_number_of_the_call_wherever_it_stands(run: Callable[..., Any]) -> None:
    def first(id: int, x: str, y: int = 5) -> Any:
        return id, x, y

    def middle(x: str, id: int, y: int = 5) -> Any:
        return id, x, y

    def last(x: str, y: int = 5, id: int = -1) -> Any:
        return id, x, y

    def named(x: str, *, id: int, y: int = 5) -> Any:
        return id, x, y

    def after_a_positional_one(x: str, /, id: int, y: int = 5) -> Any:
        return id, x, y

    for function in (first, middle, last, after_a_positional_one):
        assert run(function, ["a", ("b", 7), ("c",)]) == [(0, "a", 5), (1, "b", 7), (2, "c", 5)]
    assert run(named, ["a", ("b",)]) == [(0, "a", 5), (1, "b", 5)]
    assert run(first, [{"x": "a"}, {"y": 1, "x": "b"}]) == [(0, "a", 5), (1, "b", 1)]
    assert run(first, ["a"], extra_args=(8,)) == [(0, "a", 8)]
    assert run(first, ["a"], extra_args={"y": 9}) == [(0, "a", 9)]


def test_a_value_given_for_id_is_kept(run: Callable[..., Any]) -> None:
    def function(x: str, id: int) -> Any:
        return x, id

    assert run(function, [("a", 70), {"x": "b", "id": 71}, "c"]) == [("a", 70), ("b", 71), ("c", 2)]


def test_id_after_variable_arguments(run: Callable[..., Any]) -> None:
    def function(*args: int, id: int) -> Any:
        return args, id

    assert run(function, [(5, 6), 7]) == [((5, 6), 0), ((7,), 1)]


def test_a_filled_parameter_before_variable_arguments_is_refused(executor: lm.FunctionExecutor) -> None:
    def function(id: int, *args: int) -> Any:
        return args, id

    with pytest.raises(InputError, match=r"id .*\*args"):
        executor.map(function, [(5, 6)])


def test_a_positional_only_id_is_an_argument_like_any_other(run: Callable[..., Any]) -> None:
    def function(id: int, /, x: int) -> Any:
        return id, x

    assert run(function, [(5, 6)]) == [(5, 6)]


def test_storage_in_any_position(executor: lm.FunctionExecutor) -> None:
    def put(storage: lm.Storage, x: int, id: int) -> Any:
        return storage.put_cloudobject(f"{id}:{x}")

    def get(cloudobject: Any, storage: Any) -> bytes:
        return storage.get_cloudobject(cloudobject)

    objects = executor.get_result(executor.map(put, [4, 5]))
    assert len({each.key for each in objects}) == 2
    assert executor.get_result(executor.map(get, objects)) == [b"0:4", b"1:5"]
    assert executor.storage.get_cloudobject(objects[1]) == b"1:5"


# -- callables


@functools.lru_cache
def cached(x: int) -> int:
    return x + 1


def announced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return "called", function(*args, **kwargs)

    return wrapper


@announced
def decorated(x: int, id: int) -> Any:
    return x, id


@pytest.mark.parametrize(
    ("function", "items", "expected"),
    [
        (lambda x: -x, [1, 2], [-1, -2]),
        (Scaler(3), [1, 2], [3, 6]),
        (Scaler(3).times, [1, 2], [3, 6]),
        (Scaler.name, [1], ["Scaler1"]),
        (Scaler.double, [4], [8]),
        (Point, [1, (2, 3)], [Point(1), Point(2, 3)]),
        (int, ["7", ("ff", 16)], [7, 255]),
        (len, ["abc", [1]], [3, 1]),
        (max, [(1, 5, 2), [3, 4]], [5, 4]),
        (functools.partial(pow, 2), [3, 4], [8, 16]),
        (functools.partial(everything, 1, z=2), [5], [((1, 5), {"z": 2})]),
        (functools.partial(Scaler(2).times), [5], [10]),
        ("-".join, [["a", "b"]], ["a-b"]),
        (cached, [1, 2], [2, 3]),
        (decorated, [5, 6], [("called", (5, 0)), ("called", (6, 1))]),
    ],
    ids=lambda value: getattr(value, "__qualname__", None) or type(value).__name__ if callable(value) else "",
)
def test_callables(run: Callable[..., Any], function: Any, items: list[Any], expected: list[Any]) -> None:
    assert run(function, items) == expected


def test_a_closure_travels_with_what_it_closes_over_now(run: Callable[..., Any]) -> None:
    factor = 2

    def scaled(x: int) -> int:
        return factor * x

    assert run(scaled, [5]) == [10]
    factor = 3
    assert run(scaled, [5]) == [15]


def test_an_async_function_is_refused_before_it_runs(executor: lm.FunctionExecutor) -> None:
    async def later(x: int) -> int:
        return x

    for function in (later, functools.partial(later)):
        with pytest.raises(InputError, match=r"later.* is an async function.*asyncio\.run"):
            executor.map(function, [1])


def test_a_generator_as_a_result_says_what_it_is(executor: lm.FunctionExecutor) -> None:
    def lazily(x: int) -> Iterator[int]:
        yield x

    with pytest.raises(SerializationError, match="result, a generator"):
        executor.get_result(executor.map(lazily, [1]))


# -- what cannot be run


@pytest.mark.parametrize(
    ("submit", "text"),
    [
        (lambda ex: ex.map(5, [1]), "5, which cannot be called"),
        (lambda ex: ex.map(echo, None), "iterdata is None"),
        (lambda ex: ex.map(echo, 5), "iterdata is 5"),
        (lambda ex: ex.map(echo, "text"), "parameter named obj"),
        (lambda ex: ex.map(echo, [1, (1, 2)]), "input 1 does not fit .*echo.*too many positional"),
        (lambda ex: ex.map(echo, [{"y": 1}]), r"does not fit .*echo.*missing a required argument: 'x'"),
        (lambda ex: ex.map(echo, [1], extra_args="ab"), "extra_args is 'ab'"),
        (lambda ex: ex.map(echo, [1], extra_args=5), "extra_args is 5"),
        (lambda ex: ex.map(echo, [1], chunksize=0), "chunksize is 0"),
        (lambda ex: ex.map(echo, [1], timeout=0), "timeout is 0"),
        (lambda ex: ex.map(echo, [1], timeout="5"), "timeout is '5'"),
        (lambda ex: ex.map(echo, [1], runtime_memory=1.5), "runtime_memory is 1.5"),
        (lambda ex: ex.map(echo, [1], retries=-1), "retries is -1"),
        (lambda ex: ex.map(echo, [1], retries=True), "retries is True"),
        (lambda ex: ex.map(echo, [1], include_modules="json"), "lists of module names"),
        (lambda ex: ex.map(echo, [1], obj_chunk_size=5), "no parameter named obj"),
        (lambda ex: ex.submit(echo), "missing a required argument: 'x'"),
        (lambda ex: ex.submit(echo, 1, y=2), "unexpected keyword argument 'y'"),
        (lambda ex: ex.call_async(echo, (1, 2)), "too many positional"),
        (lambda ex: ex.map_reduce(echo, [1], lambda: 0), "does not fit .*too many positional"),
        (lambda ex: ex.map_reduce(echo, [1], 5), "5, which cannot be called"),
        (lambda ex: ex.map_reduce(echo, [1], echo, extra_args_reduce="ab"), "extra_args_reduce is 'ab'"),
        (lambda ex: ex.map_reduce(echo, [1], echo, spawn_reducer=101), "spawn_reducer is 101"),
        (lambda ex: ex.map_reduce(echo, [1], echo, spawn_reducer="all"), "spawn_reducer is 'all'"),
        (lambda ex: ex.map_reduce(echo, [1], echo, obj_reduce_by_key=True), "parameter named obj"),
    ],
)
def test_wrong_arguments_are_told_before_anything_runs(
    executor: lm.FunctionExecutor, submit: Callable[[Any], Any], text: str
) -> None:
    jobs = len(executor.stats())
    with pytest.raises(InputError, match=text):
        submit(executor)
    assert len(executor.stats()) == jobs


@pytest.mark.parametrize(
    ("submit", "text"),
    [
        (lambda ex: ex.map(echo, [1, threading.Lock()]), "input of call 1, a _thread.lock"),
        (lambda ex: ex.map(echo, [{"x": {"deep": [0, threading.Lock()]}}]), r"\['deep'\]\[1\] \(a _thread.lock\)"),
        (lambda ex: ex.map(echo, [(n for n in range(2))]), "input of call 0, a generator"),
        (lambda ex, lock=threading.Lock(): ex.map(lambda x: lock, [1]), "closure variable 'lock'"),
        (lambda ex: ex.map(functools.partial(everything, threading.Lock()), [1]), "args"),
        (lambda ex: ex.map(lambda x: ex, [1]), "closure variable 'ex'"),
    ],
)
def test_what_cannot_be_pickled_is_named_by_its_path(
    executor: lm.FunctionExecutor, submit: Callable[[Any], Any], text: str
) -> None:
    jobs = len(executor.stats())
    with pytest.raises(SerializationError, match=text):
        submit(executor)
    assert len(executor.stats()) == jobs


# -- reading results


def test_get_result_without_futures_has_the_shape_of_what_was_submitted() -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        assert executor.get_result() == []
        executor.call_async(echo, 5)
        assert executor.get_result() == 5
        assert executor.get_result() == []
        executor.submit(echo, 6)
        assert executor.get_result() == 6
        executor.map(echo, [7])
        assert executor.get_result() == [7]
        executor.map(echo, [])
        assert executor.get_result() == []
        executor.map_reduce(echo, [1, 2, 3], sum)
        assert executor.get_result() == 6
        executor.call_async(echo, 1)
        executor.map(echo, [2, 3])
        executor.map_reduce(echo, [4, 5], sum)
        assert executor.get_result() == [1, 2, 3, 9]
        executor.call_async(echo, None)
        assert executor.get_result() is None


def test_get_result_of_given_futures(executor: lm.FunctionExecutor) -> None:
    first, second = executor.map(echo, [1, 2])
    assert executor.get_result([second, first]) == [2, 1]
    assert executor.get_result(first) == 1
    assert executor.get_result(f for f in (first, second)) == [1, 2]
    assert executor.get_result([]) == []
    assert lm.get_result([first]) == [1]
    assert executor.get_result(executor.map_reduce(echo, [1, 2], sum)) == 3


def test_what_was_asked_for_by_name_is_not_given_again() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        futures = executor.map(echo, [1, 2])
        other = executor.call_async(echo, 3)
        executor.get_result(futures)
        assert executor.get_result() == 3
        assert executor.get_result(other) == 3
        assert executor.get_result() == []


@pytest.mark.parametrize("wrong", [5, [1, 2], [[5]], "abc", None])
def test_what_is_no_future_is_refused(executor: lm.FunctionExecutor, wrong: Any) -> None:
    for read in (lm.wait, lm.get_result, *(() if wrong is None else (executor.wait, executor.get_result))):
        with pytest.raises(InputError, match="future"):
            read(wrong)


def test_a_timeout_of_the_function_is_not_one_of_the_wait() -> None:
    def give_up(x: int) -> None:
        raise TimeoutError("its own")

    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.call_async(give_up, 1)
        with pytest.raises(TimeoutError, match="its own"):
            executor.get_result()
        assert executor.get_result() == []


def test_none_keeps_its_place(run: Callable[..., Any]) -> None:
    assert run(lambda x: None if x % 2 else x, range(4)) == [0, None, 2, None]


def fail_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd: {x}")
    return x


def test_throw_except_false_puts_the_exception_in_its_place(executor: lm.FunctionExecutor) -> None:
    values = executor.get_result(executor.map(fail_odd, range(4)), throw_except=False)
    assert [values[0], values[2]] == [0, 2]
    assert [type(values[1]), values[1].args, values[3].args] == [ValueError, ("odd: 1",), ("odd: 3",)]
    error = executor.get_result(executor.call_async(fail_odd, 1), throw_except=False)
    assert isinstance(error, ValueError)


def test_the_first_error_is_raised_after_all_have_ended(executor: lm.FunctionExecutor) -> None:
    def slow_but_fine(x: int) -> int:
        if x == 0:
            time.sleep(0.4)  # the others fail long before
            return x
        raise ValueError(x)

    futures = executor.map(slow_but_fine, range(3), chunksize=1)
    with pytest.raises(ValueError) as caught:
        executor.get_result(futures)
    assert caught.value.args == (1,)
    assert all(future.done() for future in futures)
    assert "2 of 3 calls failed" in "\n".join(caught.value.__notes__)
    assert futures[0].result() == 0
    with pytest.raises(ValueError) as again:
        executor.get_result(futures)
    assert again.value is caught.value
    assert sum("2 of 3 calls failed" in note for note in again.value.__notes__) == 1


def test_submissions_after_a_failure_are_read_as_usual() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.map(fail_odd, range(2))
        with pytest.raises(ValueError):
            executor.get_result()
        executor.call_async(echo, 1)
        assert executor.get_result() == 1


# -- waiting


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Calls that wait for this file end when it is there."""
    path = tmp_path / "open"
    yield path
    path.touch()


def passing(x: Any, gate: str) -> Any:
    while x == "wait" and not os.path.exists(gate):
        time.sleep(0.01)  # the gate is a file: nobody can tell this process of it
    return x


def test_wait_for_all(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(echo, range(5))
    done, not_done = executor.wait(futures)
    assert (done, not_done) == (futures, [])
    assert lm.wait(futures, return_when=lm.ALL_COMPLETED) == (futures, [])


def test_wait_for_any_always_and_a_percentage(executor: lm.FunctionExecutor, gate: Path) -> None:
    futures = executor.map(passing, ["wait", 1, 2, 3], extra_args=(str(gate),), chunksize=1)
    done, not_done = executor.wait(futures, return_when=lm.ANY_COMPLETED)
    assert done
    assert futures[0] in not_done
    done, not_done = executor.wait(futures, return_when=75)
    assert (done, not_done) == (futures[1:], futures[:1])
    assert executor.wait(futures, return_when=50.5) == (futures[1:], futures[:1])
    started = time.monotonic()
    assert executor.wait(futures, return_when=lm.ALWAYS) == (futures[1:], futures[:1])
    assert time.monotonic() - started < 0.1
    gate.touch()
    assert executor.wait(futures, return_when=100) == (futures, [])


@pytest.mark.parametrize("wrong", [0, 101, -1, "SOME", None, True, "50"])
def test_wait_for_nonsense(executor: lm.FunctionExecutor, wrong: Any) -> None:
    futures = executor.map(echo, [1])
    with pytest.raises(InputError, match="return_when is"):
        executor.wait(futures, return_when=wrong)


def test_waiting_for_nothing() -> None:
    assert lm.wait([]) == ([], [])
    assert lm.wait([], return_when=lm.ANY_COMPLETED, timeout=0) == ([], [])
    assert lm.wait([], return_when=50) == ([], [])


def test_a_wait_that_runs_out_of_time_can_be_repeated(gate: Path) -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        futures = executor.map(passing, ["wait", 1], extra_args=(str(gate),), chunksize=1)
        executor.wait(futures, return_when=50)
        for read in (executor.wait, executor.get_result):
            with pytest.raises(WaitTimeout, match=r"after 0\.2 s 1 of 2 calls have not ended; they go on") as caught:
                read(futures, timeout=0.2)
            assert isinstance(caught.value, TimeoutError)
        with pytest.raises(WaitTimeout):
            executor.wait(futures, timeout=0)
        with pytest.raises(WaitTimeout):
            executor.get_result(timeout=0.1)
        gate.touch()
        assert executor.get_result(timeout=30) == ["wait", 1]
        assert executor.wait(timeout=30) == ([], [])


def test_wait_without_futures_is_for_everything_unread(executor: lm.FunctionExecutor) -> None:
    executor.get_result(throw_except=False)
    first = executor.map(echo, [1, 2])
    second = executor.call_async(echo, 3)
    assert executor.wait() == ([*first, second], [])
    assert executor.get_result() == [1, 2, 3]


def test_several_threads_share_an_executor(executor: lm.FunctionExecutor) -> None:
    results: dict[int, list[Any]] = {number: [] for number in range(6)}

    def work(number: int) -> None:
        for start in range(0, 60, 20):
            results[number] += executor.get_result(executor.map(echo, [[number, n] for n in range(start, start + 20)]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [[number, n] for n in range(60)] for number in range(6)}


# -- afterwards


def stored_keys(executor: lm.FunctionExecutor) -> list[str]:
    """What is in storage of this executor, without its own prefix."""
    prefix = records.executor_prefix(executor.executor_id)
    bucket = executor.config.job.storage_bucket
    return [key.removeprefix(prefix) for key in executor.storage.list_keys(bucket, prefix)]


def big(x: int) -> bytes:
    return bytes([x]) * LARGE


def test_after_shutdown_records_stay_and_bulk_data_goes() -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        futures = executor.map(lambda x: x, [b"a" * LARGE, b"b" * LARGE])
        assert [len(value) for value in executor.get_result(futures)] == [LARGE, LARGE]
        assert {"M000/inputs", "M000/outcomes/00000000.1", "M000/outcomes/00000001.1"} <= set(stored_keys(executor))
    assert stored_keys(executor) == ["M000/manifest", "M000/progress/00000000"]
    assert futures[0].result() == b"a" * LARGE  # read before


def test_large_results_that_nobody_has_read_stay_readable() -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        read, unread = executor.map(big, [1, 2])
        lm.wait([read, unread])
        read.result()
    assert "M000/outcomes/00000001.1" in stored_keys(executor)
    assert "M000/outcomes/00000000.1" not in stored_keys(executor)
    assert unread.result() == b"\x02" * LARGE
    executor.clean()
    assert stored_keys(executor) == []


def test_data_cleaner_false_leaves_everything() -> None:
    with lm.localhost_executor(max_workers=1, progress=False, data_cleaner=False) as executor:
        executor.get_result(executor.map(big, [1]))
    assert "M000/outcomes/00000000.1" in stored_keys(executor)


def test_failed_jobs_keep_their_data() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        lm.wait(executor.map(fail_odd, [1]))
        executor.get_result(executor.map(big, [1]))
    assert "M001/outcomes/00000000.1" in stored_keys(executor)


def test_clean_removes_what_is_stored_and_the_executor_goes_on() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        code = b"x" * (100 << 10)
        function = lambda x: (x, len(code))  # noqa: E731 - too large to travel in messages
        futures = executor.map(function, [1])
        assert executor.get_result(futures) == [(1, len(code))]
        large = executor.map(big, [1])
        lm.wait(large)
        cloudobject = executor.storage.put_cloudobject(b"mine")
        assert stored_keys(executor)
        executor.clean()
        assert stored_keys(executor) == []
        with pytest.raises(NoSuchObject):
            executor.storage.get_cloudobject(cloudobject)
        with pytest.raises(NoSuchObject):
            large[0].result()
        assert executor.get_result(executor.map(function, [2])) == [(2, len(code))]


def test_a_closed_executor_says_so(tmp_path: Path) -> None:
    executor = lm.localhost_executor(max_workers=1, progress=False)
    future = executor.call_async(echo, 1)
    executor.shutdown()
    executor.shutdown()
    assert future.result() == 1
    assert "closed" in repr(executor)
    with pytest.raises(LithopsMiniError, match="has been shut down"):
        executor.map(echo, [1])
    assert executor.get_result(future) == 1


def test_leaving_by_an_exception_cancels_what_waits(gate: Path) -> None:
    executor = lm.localhost_executor(max_workers=1, progress=False)
    futures = executor.map(passing, ["wait"] * 50, extra_args=(str(gate),), chunksize=1)
    with pytest.raises(RuntimeError, match="mine"), executor:
        raise RuntimeError("mine")
    assert all(future.cancelled() for future in futures)


def test_summary_stats_and_pictures(tmp_path: Path) -> None:
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        executor.map_reduce(echo, range(8), sum)
        assert executor.get_result() == 28
        names = [name for name, _ in executor.stats()]
        assert names == ["echo (M000)", "sum (R001)"]
        assert [len(stats) for _, stats in executor.stats()] == [8, 1]
        summary = executor.job_summary()
        assert "localhost" in summary
        assert executor.executor_id in summary
        paths = executor.plot(tmp_path / "picture")
    assert len(paths) == 5
    for path in paths:
        assert Path(path).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert Path(path).is_relative_to(tmp_path)


def test_hundreds_of_jobs_in_one_executor(executor: lm.FunctionExecutor) -> None:
    for number in range(200):
        assert executor.call_async(echo, number).result() == number
    threads = threading.active_count()
    for number in range(100):
        executor.map(echo, [number, number])
    assert len(executor.get_result()) >= 200
    assert threading.active_count() <= threads + 2


def test_executors_in_several_threads() -> None:
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        with lm.localhost_executor(max_workers=1, progress=False) as executor:
            results[number] = executor.get_result(executor.map(echo, [number] * 5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number] * 5 for number in range(4)}


def test_what_is_exported() -> None:
    for name in lm.__all__:
        assert getattr(lm, name) is not None
    assert set(lm.__all__) <= set(dir(lm))
    assert lm.ResponseFuture is ResponseFuture
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lm.nothing
