"""Functions that start executors of their own, and futures that travel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import lithops_mini as lm
from lithops_mini.executor import FunctionExecutor


@pytest.fixture(scope="module", params=["localhost", "inline"])
def executor(request: pytest.FixtureRequest) -> Iterator[FunctionExecutor]:
    with lm.function_executor(request.param, progress=False) as executor:
        yield executor


def double(x: int) -> int:
    return 2 * x


def returned(kind: str) -> Any:
    with lm.function_executor() as inner:
        if kind == "future":
            return inner.call_async(double, 5)
        if kind == "map":
            return inner.map(double, range(3))
        if kind == "map_reduce":
            return inner.map_reduce(double, range(3), sum)
        return inner.call_async(returned, "map_reduce")


@pytest.mark.parametrize(
    ("kind", "value"), [("future", 10), ("map", [0, 2, 4]), ("map_reduce", 6), ("future of a future", 6)]
)
def test_what_a_call_returns_of_futures_is_replaced_by_their_values(
    executor: FunctionExecutor, kind: str, value: object
) -> None:
    assert executor.get_result(executor.call_async(returned, kind)) == value
    assert executor.get_result(executor.map(returned, [kind])) == [value]


def seen(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def test_the_futures_of_a_map_are_a_list_of_values_in_the_worker() -> None:
    with lm.function_executor(progress=False, max_workers=1) as executor:
        futures = executor.map(double, range(3))
        reduced = executor.map_reduce(double, range(3), sum)
        assert executor.get_result(executor.map(seen, [futures, reduced])) == [("list", [0, 2, 4]), ("int", 6)]
