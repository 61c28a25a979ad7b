"""Planning without an executor: which arguments a call gets for any function and any item."""

# ruff: noqa: A002 - id is a name that executors fill in
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from lithops_mini.errors import InputError
from lithops_mini.job.plan import Cut, PlannedCall, Surroundings, arguments, items, plan

HERE = Surroundings(
    MemoryStorage(bucket={"a": b"1\n2\n", "b": b"3\n"}), "localhost", readable=("object", "path", "url")
)


def planned(
    function: Callable[..., Any], iterdata: Any, extra: Any = None, cut: Cut = Cut()
) -> tuple[list[PlannedCall], tuple[str, ...]]:
    return plan(function, items(function, iterdata, extra), cut, HERE)


def called(function: Callable[..., Any], iterdata: Any, extra: Any = None) -> list[Any]:
    """What the calls return when their filled parameters get a value, as the worker does it."""
    found, filled = planned(function, iterdata, extra)
    results = []
    for number, call in enumerate(found):
        kwargs = dict(call.kwargs)
        for name in filled:
            kwargs.setdefault(name, number if name == "id" else f"<{name}>")
        results.append(function(*call.args, **kwargs))
    return results


class NamedPair(tuple[int, int]):
    pass


class Record(dict[str, int]):
    pass


@pytest.mark.parametrize(
    ("item", "extra", "expected"),
    [
        (1, None, ((1,), {})),
        ((1, 2), None, ((1, 2), {})),
        ({"a": 1}, None, ((), {"a": 1})),
        ([1, 2], None, (([1, 2],), {})),
        (NamedPair((1, 2)), None, (((1, 2),), {})),
        (Record(a=1), None, (({"a": 1},), {})),
        (1, (2, 3), ((1, 2, 3), {})),
        ((1,), [2], ((1, 2), {})),
        ({"a": 1}, {"b": 2}, ((), {"a": 1, "b": 2})),
        ({"a": 1}, {"a": 2}, ((), {"a": 2})),
        ((1,), {"b": 2}, ((1,), {"b": 2})),
    ],
)
def test_arguments(item: Any, extra: Any, expected: Any) -> None:
    assert arguments(item, extra) == expected


# A function of random parameters, its item a random number of its own arguments: whatever stands between them that is
# filled in, each argument reaches the parameter it was meant for.
own = ["a", "b", "c"]
special = ["id", "storage"]


@st.composite
def functions(draw: st.DrawFn) -> tuple[Callable[..., Any], list[str]]:
    """A function that returns its arguments by name, and the names of those that take an item's values, in order."""
    names = draw(st.permutations([*own, *draw(st.sampled_from([[], ["id"], ["storage"], special]))]))
    positional_only = draw(st.integers(0, next((i for i, n in enumerate(names) if n in special), len(names))))
    keyword_only = draw(st.integers(0, len(names) - positional_only))
    defaults = draw(st.integers(0, len(names)))
    parts = [f"{name}='default'" if i >= len(names) - defaults else name for i, name in enumerate(names)]
    if positional_only:
        parts.insert(positional_only, "/")
    if keyword_only:
        parts.insert(len(parts) - keyword_only, "*")
    namespace: dict[str, Any] = {}
    exec(f"def function({', '.join(parts)}):\n    return dict(locals())", namespace)
    by_position = names[: len(names) - keyword_only]
    return namespace["function"], [name for name in by_position if name not in special]


@given(functions(), st.data())
def test_arguments_reach_the_parameters_they_are_meant_for(
    made: tuple[Callable[..., Any], list[str]], data: st.DataObject
) -> None:
    function, by_position = made
    count = data.draw(st.integers(0, len(by_position)))
    given_values = tuple(f"value {n}" for n in range(count))
    named = {name: f"named {name}" for name in own if name not in by_position[:count]}
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.POSITIONAL_ONLY
    ]
    if any(name in named for name in required):
        return  # no way to name it
    [result] = called(function, [given_values], named)
    expected = dict(zip(by_position, given_values, strict=False)) | named
    expected |= {name: 0 if name == "id" else "<storage>" for name in result if name in special}
    assert result == expected


@given(functions())
def test_too_many_arguments_do_not_fit(made: tuple[Callable[..., Any], list[str]]) -> None:
    function, by_position = made
    filled = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name in special and parameter.kind is not parameter.KEYWORD_ONLY
    ]
    with pytest.raises(InputError, match="does not fit"):
        planned(function, [tuple(range(len(by_position) + len(filled) + 1))])


def test_given_values_for_filled_parameters_are_kept() -> None:
    def function(x: int, id: int, storage: str = "") -> Any:
        return x, id, storage

    assert called(function, [1, (1, 5), (1, 5, "mine"), {"x": 1, "storage": "mine"}]) == [
        (1, 0, "<storage>"),
        (1, 5, "<storage>"),
        (1, 5, "mine"),
        (1, 3, "mine"),
    ]


def test_shapes_may_differ_from_item_to_item() -> None:
    def function(a: Any = None, b: Any = None, *rest: Any, **named: Any) -> Any:
        return a, b, rest, named

    assert called(function, [(), 1, (1, 2, 3), {"b": 2, "z": 3}, {"z": 1}]) == [
        (None, None, (), {}),
        (1, None, (), {}),
        (1, 2, (3,), {}),
        (None, 2, (), {"z": 3}),
        (None, None, (), {"z": 1}),
    ]


def test_decorators_may_add_arguments() -> None:
    def connected(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function("connection", *args, **kwargs)

        return wrapper

    @connected
    def function(connection: str, x: int) -> Any:
        return connection, x

    assert called(function, [5, {"x": 6}]) == [("connection", 5), ("connection", 6)]

    def strict(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(x: int) -> Any:
            return function("connection", x)

        return wrapper

    with pytest.raises(InputError, match="does not fit"):
        planned(strict(lambda connection, x: 0), [(1, 2, 3)])


def test_functions_that_do_not_tell_their_parameters() -> None:
    with pytest.raises(ValueError):
        inspect.signature(max)
    assert planned(max, [(1, 2), [3]]) == ([PlannedCall((1, 2), {}), PlannedCall(([3],), {})], ())


def test_ibm_cos_is_for_that_storage() -> None:
    def function(x: int, ibm_cos: Any) -> None: ...

    with pytest.raises(InputError, match=r"ibm_cos.*'localhost'.*name it storage"):
        planned(function, [1])


def test_an_error_of_the_iterable_is_its_own_and_says_where() -> None:
    def broken() -> Iterator[int]:
        yield from (1, 2)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone") as caught:
        planned(abs, broken())
    assert caught.value.__notes__ == ["raised by iterdata itself, after 2 items; no call has been made"]


def test_partitions_take_the_place_of_the_data() -> None:
    def function(x: int, obj: Any) -> None: ...

    found, filled = planned(function, [(1, "bucket/a"), (2, "bucket")], cut=Cut(obj_chunk_number=2))
    assert filled == ("obj",)
    assert [(call.args, call.kwargs["obj"].key, call.kwargs["obj"].part, call.source) for call in found] == [
        ((1,), "a", 0, 0),
        ((1,), "a", 1, 0),
        ((2,), "a", 0, 1),
        ((2,), "a", 1, 1),
        ((2,), "b", 0, 2),
        ((2,), "b", 1, 2),
    ]
    packed, _ = planned(function, [(1, "bucket")], cut=Cut(obj_pack_size=100))
    assert [[piece.key for piece in call.kwargs["obj"]] for call in packed] == [["a", "b"]]
