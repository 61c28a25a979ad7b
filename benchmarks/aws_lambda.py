"""Calls in functions of AWS Lambda, on the emulator with sandboxes in processes: what client and worker add."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measure import Row, main, seconds, side_by_side, spread

import lithops_mini as lm
from lithops_mini.records import NO_REQUESTS, Requests

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from aws_emulator import Functions
from lambda_account import Account, start_account

SLOTS = 16
ECHO = "def handler(event, context):\n    return event\n"


def nothing(x: int) -> None:
    pass


def warm_calls(ex: lm.FunctionExecutor, invoke: Callable[[], Any], rounds: int) -> Sequence[Row]:
    """One call at a time, beside an invocation of a function that returns its event."""
    invoke()
    ours, bare = side_by_side(
        rounds, lambda: seconds(lambda: ex.get_result(ex.submit(nothing, 1))), lambda: seconds(invoke)
    )
    more = statistics.median(ours) - statistics.median(bare)
    return [
        Row(
            "warm call on AWS Lambda; bare invocation with the SDK",
            spread([1e3 * each for each in ours], "{:.1f}", " ms"),
            spread([1e3 * each for each in bare], "{:.1f}", " ms"),
            f"{1e3 * more:+.1f} ms",
            "at most 5 ms more",
            more <= 5e-3,
        )
    ]


def many_calls(ex: lm.FunctionExecutor, calls: int, chunksize: int | None) -> Row:
    """A map, until the last call is on its way and until the last result is there."""
    storage = ex.storage.backend
    before = storage.requests() or NO_REQUESTS
    began, clock = time.perf_counter(), time.time()
    futures = ex.map(nothing, range(calls), chunksize=chunksize)
    ex.get_result(futures)
    took = time.perf_counter() - began
    stats = [future.stats for future in futures if future.stats]
    dispatched = max(each.dispatched for each in stats if each.dispatched) - clock
    theirs = sum(each.storage_puts + each.storage_gets for each in stats)
    client: Requests = (storage.requests() or NO_REQUESTS).since(before)
    how = "a message each" if chunksize else "as they come"
    return Row(
        f"{calls:,} calls on AWS Lambda, {how}, {SLOTS} sandboxes",
        f"{took:.2f} s, {calls / took:,.0f}/s",
        f"last sent after {dispatched:.2f} s",
        f"{theirs} requests to storage by workers, {client.puts + client.gets} by the client",
        "none by workers",
        theirs == 0,
    )


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 20) if quick else (1000, 100)
    with tempfile.TemporaryDirectory() as directory, start_account(Path(directory)) as account:
        functions = Functions(account.aws)
        echo = partial(functions.invoke, functions.make(ECHO, MemorySize=1769), {"payload": "x" * 1000})
        with executor(account) as ex:
            ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))  # all sandboxes are warm
            return [
                *warm_calls(ex, echo, rounds),
                many_calls(ex, calls, 1),
                many_calls(ex, calls, None),
            ]


def executor(account: Account) -> lm.FunctionExecutor:
    return lm.function_executor(config={}, **account.executor(max_workers=SLOTS))


if __name__ == "__main__":
    main(measure)
