"""Durations as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lithops_mini.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "figures", "text"),
    [
        (5e-6, 2, "5 µs"),
        (1.234e-5, 2, "12 µs"),
        (9.94e-5, 2, "99 µs"),
        (1e-4, 2, "0.1 ms"),
        (0.00042, 3, "0.42 ms"),
        (4.2e-8, 3, "0.042 µs"),
        (0.0, 2, "0 s"),
    ],
)
def test_short_durations(seconds: float, figures: int, text: str) -> None:
    assert format_duration(seconds, figures) == text


@given(st.floats(1e-6, 59), st.integers(2, 4))
def test_a_duration_says_the_time_to_so_many_figures(seconds: float, figures: int) -> None:
    number, unit = format_duration(seconds, figures).split(" ")
    assert float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit] == pytest.approx(
        seconds, rel=0.51 * 10 ** (1 - figures)
    )
