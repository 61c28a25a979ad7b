"""Failures as text: few groups, one trace each, and inputs of any kind in a few characters."""

from __future__ import annotations

import random
import re
import time
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lithops_mini.failures import Failure, call_ranges, describe, group
from lithops_mini.shorten import short_repr, shorten


def failure(call_id: int, message: str = "division by zero", **changes: Any) -> Failure:
    facts: dict[str, Any] = {
        "type_name": "ZeroDivisionError",
        "user_line": "parse.py:12 in parse",
        "traceback": f"Traceback (most recent call last):\n  File ...\nZeroDivisionError: {message}\n",
        "attempt": 1,
        "worker_id": "w-1",
        "input": f"{call_id}",
    }
    return Failure(call_id=call_id, message=message, **(facts | changes))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 17 has 3 fields", "row 18 has 4 fields"),
        ("took 1.5e-3 s, not -2", "took 7 s, not 1,000.25"),
        ("<parser.Row object at 0x7f33230a1a80>", "<parser.Row object at 0x55aa>"),
        ("no job 0f8fad5b-d9cb-469f-a165-70867728950e", "no job 7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("digest e3b0c44298fc1c149afbf4c8996fb924 differs", "digest aaf4c61ddcc5e8a2dabede0f3b482cd9 differs"),
        ("file12.csv is empty", "file7.csv is empty"),
        ("row 1\n  is  bad", "row 2\nis bad"),
        ("row 7 " + "x" * 10_000, "row 70000 " + "x" * 10_000),
    ],
)
def test_numbers_do_not_tell_messages_apart(one: str, other: str) -> None:
    assert len(group([failure(1, one), failure(2, other)])) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"message": "division by none"},
        {"message": "'a' is missing"},
        {"type_name": "KeyError"},
        {"user_line": "parse.py:13 in parse"},
    ],
)
def test_type_line_and_message_tell_groups_apart(changes: dict[str, str]) -> None:
    assert len(group([failure(1, "'b' is missing"), failure(2, **{"message": "'b' is missing", **changes})])) == 2


def test_quoted_text_of_one_line_tells_few_messages_apart_and_many_not() -> None:
    few = [failure(n, f"no column '{name}'") for n, name in enumerate(["no2", "pm10"])]
    assert [g.message for g in group(few)] == ["no column 'no2'", "no column 'pm10'"]
    many = [failure(n, f"no column '{name}' here") for n, name in enumerate("abcdefghij")]
    assert [g.message for g in group(many)] == ["no column '…' here"]


def test_groups_are_in_order_and_keep_every_failure() -> None:
    failures = [failure(n, "odd" if n % 3 else "even") for n in range(30)]
    random.Random(1).shuffle(failures)
    largest, smallest = group(failures)
    assert (largest.message, smallest.message) == ("odd", "even")
    assert [f.call_id for f in smallest.failures] == list(range(0, 30, 3))
    assert largest.example.call_id == 1


def test_a_message_is_masked_only_where_it_differs() -> None:
    assert [g.message for g in group([failure(1, "row 7"), failure(2, "row 7")])] == ["row 7"]
    assert [g.message for g in group([failure(1, "row 7"), failure(2, "row 8")])] == ["row #"]


def test_a_description_says_how_many_which_and_shows_one_trace_of_each_group() -> None:
    failures = [failure(n) for n in [0, 1, 2, 3, 7, *range(9, 121)]]
    failures.append(failure(5, "'station'", type_name="KeyError", worker_id="", input="", attempt=3))
    text = describe(failures, 500)
    assert text.startswith("118 of 500 calls failed, in 2 groups.\n")
    assert "ZeroDivisionError: division by zero\n  117 times at parse.py:12 in parse, calls 0-3, 7, 9-120\n" in text
    assert "  For example call 0, attempt 1, worker w-1, input 0\n    Traceback" in text
    assert "KeyError: 'station'\n  1 time at parse.py:12 in parse, call 5\n  attempt 3\n" in text
    assert text.count("Traceback (most recent call last)") == 2


def test_describing_nothing_and_one() -> None:
    assert describe([], 10) == ""
    text = describe([failure(0, "", type_name="WorkerDied", user_line="", traceback="")], 1)
    assert text == "1 of 1 call failed.\n\nWorkerDied\n  1 time, call 0\n  attempt 1, worker w-1, input 0"


def test_ten_thousand_failures_are_one_page_in_a_moment() -> None:
    trace = "Traceback (most recent call last):\n" + "  File 'deep.py', line 1, in deep\n    deep()\n" * 500
    failures = [
        failure(n, f"bad row {n}: '{'x' * 5000}{n}'", type_name=f"Error{n % 400}", traceback=trace)
        for n in range(10_000)
    ]
    begin = time.perf_counter()
    text = describe(failures, 10_000)
    assert time.perf_counter() - begin < 10
    assert text.count("Traceback (most recent call last)") == 5
    assert (
        "And 9,875 more failures in 395 groups (Error5, Error6, Error7, Error8, Error9): calls 5-399, 405-799" in text
    )
    assert len(text.splitlines()) < 400
    assert len(text) < 30_000


def test_messages_that_share_nothing_are_counted() -> None:
    failures = [failure(n, chr(0x4E00 + n)) for n in range(1000)]
    text = describe(failures, 1000)
    assert "1,000 of 1,000 calls failed, in 1,000 groups." in text
    assert text.endswith("And 995 more failures in 995 groups (ZeroDivisionError): calls 5-999")


def test_a_monstrous_message_stays_a_line() -> None:
    message = "x" * 10**7 + "\n" + "y" * 10**7
    text = describe([failure(1, message, traceback="Traceback:\n" + message)], 1)
    assert len(text) < 5000


def parse_ranges(text: str) -> list[int]:
    numbers: list[int] = []
    for part in filter(None, text.split(", ")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@given(st.lists(st.integers(0, 60) | st.integers(0, 10**9)))
def test_ranges_say_exactly_the_numbers(ids: list[int]) -> None:
    assert parse_ranges(call_ranges(ids, limit=None)) == sorted(set(ids))
    spans = [part.split("-") for part in filter(None, call_ranges(ids, limit=None).split(", "))]
    assert all(int(a[-1]) + 1 < int(b[0]) for a, b in pairwise(spans)), "neighbours are one range"


@given(st.lists(st.integers(0, 200)), st.integers(1, 6))
def test_shortened_ranges_count_what_they_leave_out(ids: list[int], limit: int) -> None:
    text = call_ranges(ids, limit)
    shown, _, rest = text.partition(", and ")
    left = int(re.fullmatch(r"([\d,]+) more", rest)[1].replace(",", "")) if rest else 0
    assert len(parse_ranges(shown)) + left == len(set(ids))
    assert len(shown.split(", ")) <= limit


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Wrong:
    def __repr__(self) -> str:
        return 7  # type: ignore[return-value]


class Lines:
    def __repr__(self) -> str:
        return "first\n   second"


@dataclass
class Row:
    station: str
    values: list[int]
    password: str = field(default="s3cret", repr=False)


@dataclass
class Masked:
    token: str

    def __repr__(self) -> str:
        return "Masked()"


Point = namedtuple("Point", "x y")
LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("a\nb", r"'a\nb'"),
        ((), "()"),
        ((1,), "(1,)"),
        (set(), "set()"),
        ({1}, "{1}"),
        (frozenset([1]), "frozenset({1})"),
        ({"a": [1, {"b": 2}]}, "{'a': [1, {'b': 2}]}"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (Counter("aab"), "Counter({'a': 2, 'b': 1})"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (Row("JFK", [1]), "Row(station='JFK', values=[1])"),
        (Masked("t0ken"), "Masked()"),
        (Lines(), "first second"),
        (object(), "<object object>"),
        (range(10**9), "range(0, 1000000000)"),
        (np.arange(3), "array([0, 1, 2])"),
        (np.zeros((1000, 2)), "<ndarray of shape (1000, 2), float64>"),
        (pd.DataFrame({"a": [1, 2]}), "<DataFrame of shape (2, 1)>"),
        (pd.Series([1, 2]), "<Series of shape (2,), int64>"),
        (Raises(), "<Raises, its repr raises RuntimeError>"),
        ([Wrong(), 1], "[<Wrong, its repr raises TypeError>, 1]"),
        (LOOP, "[[[[…]]]]"),
        (1 << 2000, "<int of 2,001 bits>"),
        (deque(range(10**6)), "<deque of 1,000,000 items>"),
        ([0] * 10**6, "[0, 0, 0, 0, 0, 0, … (1,000,000 in all)]"),
    ],
)
def test_a_short_repr(value: object, text: str) -> None:
    assert short_repr(value) == text


HUGE: dict[str, Callable[[], object]] = {
    "str": lambda: "x" * 10**8,
    "bytes": lambda: b"x" * 10**8,
    "int": lambda: 1 << 10**7,
    "list": lambda: list(range(10**6)),
    "dict": lambda: {n: n for n in range(10**6)},
    "set": lambda: set(range(10**6)),
    "dataclass": lambda: Row("x" * 10**7, list(range(10**6))),
    "nested": lambda: [[["x" * 10**6] * 1000] * 1000] * 1000,
    "array": lambda: np.zeros(10**7),
    "objects": lambda: np.array(["x" * 10**7] * 2, dtype=object),
    "table": lambda: pd.DataFrame({str(n): np.zeros(1000) for n in range(100)}),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_value_costs_nothing(kind: str) -> None:
    value = HUGE[kind]()
    short_repr([0])  # so that no regular expression is compiled in what is measured
    begin = time.perf_counter()
    text = short_repr(value)
    assert time.perf_counter() - begin < 0.05
    assert len(text) <= 120
    assert "\n" not in text


anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Raises) | st.builds(Lines),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(anything, st.integers(20, 200))
def test_a_short_repr_is_one_short_line_of_anything(value: object, limit: int) -> None:
    text = short_repr(value, limit)
    assert 0 < len(text) <= limit
    assert "\n" not in text


@given(st.text(), st.integers(4, 40))
def test_shortening_keeps_both_ends(text: str, limit: int) -> None:
    short = shorten(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        tail = limit // 4
        assert short == text[: limit - 1 - tail] + "…" + text[-tail:]
        assert len(short) == limit
