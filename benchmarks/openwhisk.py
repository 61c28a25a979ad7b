"""Calls in actions of OpenWhisk, on the emulator with sandboxes in processes, beside posting with requests.

Both send messages of one call, which carry the same, to the same action.
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
from measure import Row, main, ratios, seconds, seconds_beside, side_by_side, spread

import lithops_mini as lm

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from openwhisk_emulator import Emulated, start_openwhisk

SLOTS = 8
MOST = 1.3


def nothing(x: int) -> None:
    pass


@contextmanager
def executor(openwhisk: Emulated, storage: str) -> Iterator[lm.FunctionExecutor]:
    """One with all its sandboxes warm."""
    place: dict[str, Any] = {**openwhisk.place, "storage_path": storage}
    with lm.openwhisk_executor("localhost", config={}, **place, max_workers=SLOTS, progress=False) as ex:
        ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))
        yield ex


class Plain:
    """Posts what the executor sends for one call, with a session for each thread and nothing more."""

    def __init__(self, openwhisk: Emulated, ex: lm.FunctionExecutor) -> None:
        action, params = sent(ex)
        self._url = f"{openwhisk.url}/api/v1/namespaces/_/actions/lithops_mini/{action}?blocking=true&result=false"
        self._params = params
        self._key = tuple(openwhisk.place["api_key"].split(":"))
        self._own = threading.local()

    def post(self, _: int = 0) -> None:
        session = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.auth = self._key
        answer = session.post(self._url, json=self._params, timeout=60).json()
        assert "reply" in answer["response"]["result"], answer


def sent(ex: lm.FunctionExecutor) -> tuple[str, Mapping[str, Any]]:
    """The action, and its parameters, that a call goes to."""
    service: Any = ex._compute._service
    found: list[tuple[str, Mapping[str, Any]]] = []
    invoke = service.invoke

    def note(action: str, params: Mapping[str, Any], *more: Any, **options: Any) -> Any:
        found.append((action, params))
        return invoke(action, params, *more, **options)

    service.invoke = note
    ex.get_result(ex.submit(nothing, 1))
    service.invoke = invoke
    (one,) = found
    return one


def warm_calls(ex: lm.FunctionExecutor, plain: Plain, rounds: int) -> Row:
    """One at a time."""
    ours, bare = side_by_side(
        rounds,
        lambda: seconds(lambda: ex.get_result(ex.submit(nothing, 1))),
        lambda: seconds(plain.post),
    )
    longer = statistics.median(ours) / statistics.median(bare)
    return Row(
        "warm call on OpenWhisk; posting to the action with requests",
        spread([1e3 * each for each in ours], "{:.1f}", " ms"),
        spread([1e3 * each for each in bare], "{:.1f}", " ms"),
        f"{longer:.2f} x",
        f"at most {MOST:g} x",
        longer <= MOST,
    )


def many_calls(ex: lm.FunctionExecutor, plain: Plain, calls: int, rounds: int) -> list[Row]:
    with ThreadPoolExecutor(SLOTS) as pool:
        list(pool.map(plain.post, range(10 * SLOTS)))
        each, bare, together = side_by_side(
            rounds,
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(calls), chunksize=1))),
            lambda: seconds(lambda: list(pool.map(plain.post, range(calls)))),
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(calls)))),
        )
    what = f"{calls:,} calls on OpenWhisk, {{}}; posting to the action with requests, {SLOTS} threads"
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


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 3) if quick else (1000, 7)
    with tempfile.TemporaryDirectory() as directory:
        flags = ("--sandbox", "process", "--per-minute", "1000000")
        with start_openwhisk(Path(directory), *flags) as openwhisk, executor(openwhisk, directory) as ex:
            plain = Plain(openwhisk, ex)
            return [warm_calls(ex, plain, 20 if quick else 200), *many_calls(ex, plain, calls, rounds)]


if __name__ == "__main__":
    main(measure)
