"""Calls beside posting what they send with requests, to the same place: for services that are asked by HTTP."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from measure import Row, ratios, seconds, seconds_beside, side_by_side, spread

import lithops_mini as lm

NOTHING = abs
"""What calls run: nothing that would have to travel, and takes no time."""
SLOTS = 8
"""Messages at once, of the executor as of the threads that post."""
MOST = 1.3
"""So many times as long as posting may a call take."""


def warm(ex: lm.FunctionExecutor) -> None:
    """Have all its workers started."""
    ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))


def one_call(ex: lm.FunctionExecutor) -> None:
    ex.get_result(ex.submit(NOTHING, 1))


def sent(ex: lm.FunctionExecutor, sender: Any, method: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that the method of a sender gets for one call."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    send = getattr(sender, method)

    def note(*args: Any, **options: Any) -> Any:
        found.append((args, options))
        return send(*args, **options)

    setattr(sender, method, note)
    one_call(ex)
    setattr(sender, method, send)
    (one,) = found
    return one


class Plain:
    """Posts with a session for each thread, and nothing more."""

    def __init__(self, check: Callable[[requests.Response], bool], url: str, **request: Any) -> None:
        """``check(answer)`` says whether it has what was wanted; ``request``: what is given to ``Session.post``."""
        self._check = check
        self._url = url
        self._request = request
        self._own = threading.local()

    def post(self, _: int = 0) -> None:
        session = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
        answer = session.post(self._url, timeout=60, **self._request)
        assert self._check(answer), answer.text


def beside(what: str, ours: Sequence[float], bare: Sequence[float], most: float | None = None) -> Row:
    """The row of seconds that single calls, and posts, have taken."""
    longer = statistics.median(ours) / statistics.median(bare)
    row = (
        what,
        spread([1e3 * each for each in ours], "{:.1f}", " ms"),
        spread([1e3 * each for each in bare], "{:.1f}", " ms"),
        f"{longer:.2f} x",
    )
    return Row(*row) if most is None else Row(*row, f"at most {most:g} x", longer <= most)


def warm_calls(place: str, ex: lm.FunctionExecutor, plain: Plain, rounds: int) -> Row:
    """One at a time."""
    ours, bare = side_by_side(rounds, lambda: seconds(lambda: one_call(ex)), lambda: seconds(plain.post))
    return beside(f"warm call on {place}; posting with requests", ours, bare, MOST)


def many_calls(place: str, ex: lm.FunctionExecutor, plain: Plain, calls: int, rounds: int) -> list[Row]:
    """As many at once as there are workers."""
    warm(ex)
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(plain.post, range(10 * SLOTS)))
        each, bare, together = side_by_side(
            rounds,
            lambda: seconds(lambda: ex.get_result(ex.map(NOTHING, range(calls), chunksize=1))),
            lambda: seconds(lambda: list(pool.map(plain.post, range(calls)))),
            lambda: seconds(lambda: ex.get_result(ex.map(NOTHING, range(calls)))),
        )
    what = f"{calls:,} calls on {place}, {{}}; posting with requests, {SLOTS} threads"
    faster = ratios(bare, together)
    return [
        seconds_beside(what.format("a message each"), each, bare, MOST),
        Row(
            what.format("as they come"),
            spread(together, "{:.2f}", " s"),
            spread(bare, "{:.2f}", " s"),
            spread(faster, "{:,.1f}", " x faster"),
        ),
    ]
