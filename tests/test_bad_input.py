"""What cannot be run is one clear error before anything runs: nothing is dispatched, nothing is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attempts import Plan

import lithops_mini as lm
from lithops_mini.errors import (
    ConfigError,
    InputError,
    LithopsMiniError,
    NoSuchBucket,
    NoSuchObject,
    SerializationError,
)
from lithops_mini.executor import FunctionExecutor


@pytest.fixture(scope="module")
def shared() -> Iterator[FunctionExecutor]:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.storage.create_bucket("data")
        executor.storage.put_object("data", "lines", b"one\ntwo\n")
        yield executor


@pytest.fixture
def executor(shared: FunctionExecutor) -> Iterator[FunctionExecutor]:
    """An executor that, after each test, has made no job of what it refused, and works."""
    before = len(shared.stats())
    yield shared
    assert len(shared.stats()) == before
    assert shared.submit(abs, -1).result(timeout=20) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "lokalhost"}, "no compute backend named 'lokalhost'.*Did you mean 'localhost'.*Known: localhost"),
        ({"storage": "s4"}, "no storage backend named 's4'.*Known: localhost"),
        ({"profile": "prod"}, "prod"),
        ({"retrys": 3}, "retrys.*retries"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": "many"}, "max_workers"),
        ({"timeout": -1}, "timeout"),
        ({"runtime_memory": 1}, "runtime_memory"),
        ({"storage_bucket": "../elsewhere"}, "elsewhere"),
        ({"config_file": "/nonexistent/file.yaml"}, "/nonexistent/file.yaml"),
        ({"config": {"backend": "localhost", "colour": "red"}}, "colour"),
        ({"python": "/nonexistent/python"}, "/nonexistent/python"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_setting_says_what_would_be_right(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LithopsMiniError, match=message) as raised:
        lm.function_executor(**settings)
    if "storage_bucket" not in settings and "python" not in settings:
        assert isinstance(raised.value, ConfigError)
        assert isinstance(raised.value, ValueError)


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__ |= attributes

    def method(self, _: Any) -> None:
        pass


def closure_over(value: Any) -> Callable[[Any], Any]:
    def function(_: Any) -> Any:
        return value

    return function


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("function", "path"),
    [
        (closure_over({"a": [0, LOCK]}), r"closure variable 'value'\['a'\]\[1\] \(a _thread.lock\)"),
        (closure_over(Holder(inner=Holder(lock=LOCK))), r"closure variable 'value'\.inner\.lock \(a _thread.lock\)"),
        (Holder(lock=LOCK).method, r"self\.lock \(a _thread.lock\)"),
        (partial(closure_over(1), lock=LOCK), r"keywords\['lock'\] \(a _thread.lock\)"),
    ],
    ids=["item", "attribute", "bound method", "partial"],
)
def test_a_function_that_cannot_be_pickled_is_named(
    executor: FunctionExecutor, function: Callable[..., Any], path: str
) -> None:
    with pytest.raises(SerializationError, match=path) as raised:
        executor.map(function, [1])
    assert isinstance(raised.value, TypeError)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("item", "path"),
    [
        (LOCK, "the input of call 2, a _thread.lock,"),
        ((1, LOCK), r"the input of call 2\[1\] \(a _thread.lock\)"),
        ({"lock": LOCK}, r"the input of call 2\['lock'\] \(a _thread.lock\)"),
        ([{"deep": Holder(lock=LOCK)}], r"the input of call 2\[0\]\['deep'\]\.lock \(a _thread.lock\)"),
        (nested(100_000), "the input of call 2, a list, is nested too deeply"),
        ((n for n in range(3)), "the input of call 2, a generator,"),
    ],
    ids=["bare", "positional", "keyword", "deep", "nested", "generator"],
)
def test_an_input_that_cannot_be_pickled_is_named(
    executor: FunctionExecutor, tmp_path: Path, item: Any, path: str
) -> None:
    plan = Plan(tmp_path / "plan", {})
    with pytest.raises(SerializationError, match=path):
        executor.map(lambda *args, **kwargs: plan(0), [1, 2, item, 4])
    assert plan.attempts(1) == [0]


def test_nothing_to_do_is_no_error() -> None:
    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        for empty in ([], (), iter(()), {}, range(0)):
            assert executor.get_result(executor.map(abs, empty), timeout=20) == []
            executor.map(abs, empty)
            assert executor.get_result(timeout=20) == []
        assert executor.get_result(executor.map_reduce(abs, [], sum), timeout=20) == 0
        executor.map_reduce(abs, [], list)
        assert executor.get_result(timeout=20) == []
        assert executor.wait([], timeout=1) == ([], [])
        assert executor.get_result([], timeout=1) == []
        assert list(lm.as_completed([])) == []


def two(first: int, second: int) -> int:
    return first + second


def reads(obj: Any) -> int:
    return len(obj.data_stream.read())


def reads_url(url: Any) -> int:
    return len(url.data_stream.read())


def raising() -> Iterator[int]:
    yield 1
    yield 2
    raise KeyError("in the generator")


WRONG = {
    "text": (abs, "12", {}, InputError, "iterdata is the text '12'"),
    "bytes": (abs, b"12", {}, InputError, "iterdata is the text.*b'12'"),
    "number": (abs, 12, {}, InputError, "iterdata is 12.*can be iterated"),
    "nothing": (abs, None, {}, InputError, "iterdata is None"),
    "no function": ("abs", [1], {}, InputError, "'abs', which cannot be called"),
    "too few": (two, [1], {}, InputError, r"two\(first: 'int', second: 'int'\).*missing.*'second'"),
    "too many": (two, [(1, 2), (1, 2, 3)], {}, InputError, r"input 1 does not fit two\(first.*too many"),
    "wrong name": (two, [{"first": 1, "secnd": 2}], {}, InputError, r"does not fit two\(first.*secnd|'second'"),
    "extra name": (two, [1], {"extra_args": {"third": 3}}, InputError, "does not fit two"),
    "extra text": (two, [1], {"extra_args": "2"}, InputError, "extra_args is '2'"),
    "timeout": (abs, [1], {"timeout": -1}, InputError, "timeout is -1.*seconds over 0"),
    "no timeout": (abs, [1], {"timeout": 0}, InputError, "timeout is 0"),
    "text timeout": (abs, [1], {"timeout": "5"}, InputError, "timeout is '5'"),
    "nan timeout": (abs, [1], {"timeout": float("nan")}, InputError, "timeout is nan"),
    "true timeout": (abs, [1], {"timeout": True}, InputError, "timeout is True"),
    "infinite timeout": (abs, [1], {"timeout": float("inf")}, InputError, "timeout is inf"),
    "chunksize": (abs, [1], {"chunksize": 0}, InputError, "chunksize is 0.*at least 1"),
    "retries": (abs, [1], {"retries": -1}, InputError, "retries is -1.*at least 0"),
    "text retries": (abs, [1], {"retries": "2"}, InputError, "retries is '2'"),
    "retry_exceptions": (abs, [1], {"retry_exceptions": ["ValueError"]}, InputError, "retry_exceptions"),
    "retry text": (abs, [1], {"retry_exceptions": "ValueError"}, InputError, "retry_exceptions"),
    "retry class": (abs, [1], {"retry_exceptions": int}, InputError, "retry_exceptions"),
    "memory": (abs, [1], {"runtime_memory": 0}, InputError, "runtime_memory is 0"),
    "modules": (abs, [1], {"include_modules": "mod"}, InputError, "not one text"),
    "no module": (abs, [1], {"include_modules": ["not_there"]}, InputError, "no local module named 'not_there'"),
    "environment": (abs, [1], {"extra_env": ["A=b"]}, InputError, "extra_env"),
    "environment name": (abs, [1], {"extra_env": {"A=b": "c"}}, InputError, "A=b"),
    "environment nul": (abs, [1], {"extra_env": {"A": "b\0c"}}, InputError, "extra_env"),
    "obj_ without obj": (abs, [1], {"obj_chunk_size": 10}, InputError, "obj_.*abs has no parameter named obj"),
    "no bucket": (reads, "nowhere/key", {}, NoSuchBucket, "nowhere"),
    "no key": (reads, "data/none", {}, NoSuchObject, "none"),
    "no match": (reads, "data/none*", {}, NoSuchObject, "none"),
    "one of two": (reads, ["data/lines", "data/none"], {}, NoSuchObject, "none"),
    "no scheme": (reads, "gopher://data/lines", {}, InputError, "gopher"),
    "mixed kinds": (reads, ["data/lines", "/etc/hostname"], {}, InputError, "."),
    "number as data": (reads, [5], {}, InputError, "5"),
    "url": (reads_url, ["data/lines"], {}, InputError, "parameter url takes"),
    "chunk size": (reads, "data/lines", {"obj_chunk_size": 0}, InputError, "obj_chunk_size"),
    "chunk text": (reads, "data/lines", {"obj_chunk_size": "many"}, InputError, "obj_chunk_size|many"),
    "chunk number": (reads, "data/lines", {"obj_chunk_number": 0}, InputError, "obj_chunk_number"),
    "both chunks": (
        reads, "data/lines", {"obj_chunk_number": 2, "obj_chunk_size": 2}, InputError, "obj_chunk_number",
    ),
    "newline": (reads, "data/lines", {"obj_newline": ""}, InputError, "obj_newline"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_before_anything_runs(executor: FunctionExecutor, name: str) -> None:
    function, iterdata, arguments, kind, message = WRONG[name]
    with pytest.raises(kind, match=f"(?s){message}"):
        executor.map(function, iterdata, **arguments)  # type: ignore[arg-type]
    if "chunksize" not in arguments:
        with pytest.raises(kind, match=f"(?s){message}"):
            executor.map_reduce(function, iterdata, sum, **arguments)  # type: ignore[arg-type]


def test_a_generator_that_raises_runs_nothing(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {})
    with pytest.raises(KeyError, match="in the generator") as raised:
        executor.map(plan, raising())
    assert any("after 2 items; no call has been made" in note for note in raised.value.__notes__)
    assert plan.attempts(3) == [0, 0, 0]


def test_a_reducer_that_does_not_fit_runs_nothing(executor: FunctionExecutor, tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan", {})
    with pytest.raises(InputError, match="does not fit two"):
        executor.map_reduce(plan, [1, 2], two)
    with pytest.raises(InputError, match="spawn_reducer is 101"):
        executor.map_reduce(plan, [1, 2], sum, spawn_reducer=101)
    with pytest.raises(InputError, match="obj_reduce_by_key"):
        executor.map_reduce(plan, [1, 2], sum, obj_reduce_by_key=True)
    with pytest.raises(SerializationError, match="lock"):
        executor.map_reduce(plan, [1, 2], closure_over(LOCK))
    with pytest.raises(SerializationError, match=r"the reducer's input.*lock"):
        executor.map_reduce(plan, [1, 2], two, extra_args_reduce=(LOCK,))
    with pytest.raises(InputError, match="runtime_memory is 0"):
        executor.map_reduce(plan, [1, 2], sum, reduce_runtime_memory=0)
    assert plan.attempts(3) == [0, 0, 0]


def test_one_call_is_checked_like_many(executor: FunctionExecutor) -> None:
    with pytest.raises(InputError, match="does not fit two"):
        executor.submit(two, 1)
    with pytest.raises(InputError, match="does not fit two"):
        executor.call_async(two, (1, 2, 3))
    with pytest.raises(SerializationError, match="lock"):
        executor.submit(two, 1, LOCK)
    with pytest.raises(InputError, match="timeout is -1"):
        executor.call_async(abs, 1, timeout=-1)
    with pytest.raises(NoSuchObject):
        executor.call_async(reads, "data/none")


def test_a_closed_executor_says_so() -> None:
    executor = lm.localhost_executor(max_workers=1, progress=False)
    future = executor.submit(abs, -1)
    executor.shutdown()
    executor.shutdown()
    assert future.result(timeout=20) == 1
    assert executor.get_result(future) == 1
    for use in (
        lambda: executor.submit(abs, 1),
        lambda: executor.map(abs, [1]),
        lambda: executor.map(abs, []),
        lambda: executor.map_reduce(abs, [1], sum),
        lambda: executor.call_async(abs, 1),
    ):
        with pytest.raises(LithopsMiniError, match="has been shut down: make a new one"):
            use()
    with pytest.raises(LithopsMiniError, match="has been shut down"), executor:
        executor.submit(abs, 1)


@pytest.mark.parametrize("wrong", [0, -1, 101, "SOME", None, True])
def test_return_when_is_checked(executor: FunctionExecutor, wrong: Any) -> None:
    with pytest.raises(InputError, match="return_when is"):
        lm.wait([], wrong)


def test_a_list_that_contains_itself_is_an_input(executor: FunctionExecutor) -> None:
    itself: list[Any] = []
    itself.append(itself)
    with lm.localhost_executor(max_workers=1, progress=False) as own:
        (found,) = own.get_result(own.map(lambda value: [value[0] is value, value], [itself]), timeout=20)
    assert found[0] is True
    assert found[1][0] is found[1]
