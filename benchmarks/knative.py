"""Calls in services of Knative, on the emulator with pods in processes, beside posting with requests.

Both send messages of one call, which carry the same, to the same service.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from measure import Row, main, ratios, seconds, seconds_beside, side_by_side, spread

import lithops_mini as lm

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from knative_emulator import Emulated, start_knative, wait_until

SLOTS = 8
MOST = 1.3


def nothing(x: int) -> None:
    pass


@contextmanager
def executor(knative: Emulated, storage: str) -> Iterator[lm.FunctionExecutor]:
    """One with all its pods warm."""
    place: dict[str, Any] = yaml.safe_load(knative.profile.read_text())["profiles"]["emulator"]["knative"]
    place |= {"storage_path": storage, "max_workers": SLOTS, "max_scale": SLOTS, "progress": False}
    with lm.knative_executor("localhost", config={}, **place) as ex:
        warm(ex)
        yield ex


def warm(ex: lm.FunctionExecutor) -> None:
    ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))


class Plain:
    """Posts what the executor sends for one call, with a session for each thread and nothing more."""

    def __init__(self, ex: lm.FunctionExecutor) -> None:
        self._url, self._headers, self._payload = sent(ex)
        self._own = threading.local()

    def post(self, _: int = 0) -> None:
        session = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
        answer = session.post(self._url, data=self._payload, headers=self._headers, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.content


def sent(ex: lm.FunctionExecutor) -> tuple[str, Mapping[str, str], bytes]:
    """The URL, the headers and the bytes of a call's message."""
    posts: Any = ex._compute._posts
    found: list[tuple[str, Mapping[str, str], bytes]] = []
    send = posts.send

    def note(post: Any, url: str, headers: Mapping[str, str], data: bytes, timeout: Any) -> Any:
        found.append((url, headers, data))
        return send(post, url, headers, data, timeout)

    posts.send = note
    ex.get_result(ex.submit(nothing, 1))
    posts.send = send
    (one,) = found
    return one


def one_call(what: str, ours: Sequence[float], bare: Sequence[float], most: float | None = None) -> Row:
    longer = statistics.median(ours) / statistics.median(bare)
    row = (
        what,
        spread([1e3 * each for each in ours], "{:.1f}", " ms"),
        spread([1e3 * each for each in bare], "{:.1f}", " ms"),
        f"{longer:.2f} x",
    )
    return Row(*row) if most is None else Row(*row, f"at most {most:g} x", longer <= most)


def warm_calls(ex: lm.FunctionExecutor, plain: Plain, rounds: int) -> Row:
    """One at a time."""
    ours, bare = side_by_side(
        rounds,
        lambda: seconds(lambda: ex.get_result(ex.submit(nothing, 1))),
        lambda: seconds(plain.post),
    )
    return one_call("warm call on Knative; posting to the service with requests", ours, bare, MOST)


def many_calls(ex: lm.FunctionExecutor, plain: Plain, calls: int, rounds: int) -> list[Row]:
    warm(ex)
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(plain.post, range(10 * SLOTS)))
        each, bare, together = side_by_side(
            rounds,
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(calls), chunksize=1))),
            lambda: seconds(lambda: list(pool.map(plain.post, range(calls)))),
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(calls)))),
        )
    what = f"{calls:,} calls on Knative, {{}}; posting to the service with requests, {SLOTS} threads"
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


def cold_starts(knative: Emulated, ex: lm.FunctionExecutor, plain: Plain, rounds: int) -> Row:
    """From no pod to the first result, or to the answer."""

    def from_zero(call: Any) -> float:
        with knative.limits(idle=0.1):
            wait_until(lambda: knative.own("state")["pods"] == 0)
        return seconds(call)

    ours, bare = side_by_side(
        rounds,
        lambda: from_zero(lambda: ex.get_result(ex.submit(nothing, 1))),
        lambda: from_zero(plain.post),
    )
    return one_call("from no pod on Knative to the first result; posting to the service with requests", ours, bare)


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 3) if quick else (1000, 7)
    with tempfile.TemporaryDirectory() as directory:
        start = start_knative(Path(directory), "--sandbox", "process")
        with start as knative, executor(knative, directory) as ex:
            plain = Plain(ex)
            return [
                warm_calls(ex, plain, 20 if quick else 200),
                *many_calls(ex, plain, calls, rounds),
                cold_starts(knative, ex, plain, rounds),
            ]


if __name__ == "__main__":
    main(measure)
