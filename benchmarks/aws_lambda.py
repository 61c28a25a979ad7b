"""Calls in functions of AWS Lambda, on the emulator with sandboxes in processes, beside the SDK and Lithops."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lithops_peer
from lambda_bill import MEMORY, counted
from measure import Row, main, ratios, seconds, side_by_side, spread

import lithops_mini as lm

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from aws_emulator import Functions
from lambda_account import Account, start_account

HERE = Path(__file__).parent
SLOTS = 16
ECHO = "def handler(event, context):\n    return event\n"
LITHOPS = f"Lithops {lithops_peer.VERSION}"


def nothing(x: int) -> None:
    pass


@contextmanager
def executor(account: Account, carrier: str) -> Iterator[lm.FunctionExecutor]:
    """One with all its sandboxes warm."""
    settings = account.executor(max_workers=SLOTS, carrier=carrier)
    with lm.function_executor(config={}, **settings) as ex:
        ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))
        yield ex


def one_call(ex: lm.FunctionExecutor) -> float:
    return seconds(lambda: ex.get_result(ex.submit(nothing, 1)))


def cold(account: Account) -> None:
    """Have the emulator remove all sandboxes."""
    account.aws.own("limits", "PUT", idle=0.0)
    while account.aws.own("state")["sandboxes"]:
        threading.Event().wait(0.05)
    account.aws.own("limits", "PUT", idle=300.0)


def first_call(account: Account, ex: lm.FunctionExecutor) -> float:
    cold(account)
    return one_call(ex)


# -- ours


def warm_calls(ex: lm.FunctionExecutor, functions: Functions, rounds: int) -> Row:
    """One call at a time, beside an invocation of a function that returns its event."""
    invoke = partial(functions.invoke, functions.make(ECHO, MemorySize=MEMORY), {"payload": "x" * 1000})
    invoke()
    ours, bare = side_by_side(rounds, partial(one_call, ex), lambda: seconds(invoke))
    more = statistics.median(ours) - statistics.median(bare)
    return Row(
        "warm call on AWS Lambda; bare invocation with the SDK",
        spread([1e3 * each for each in ours], "{:.1f}", " ms"),
        spread([1e3 * each for each in bare], "{:.1f}", " ms"),
        f"{1e3 * more:+.1f} ms",
        "at most 5 ms more",
        more <= 5e-3,
    )


def many_calls(account: Account, ex: lm.FunctionExecutor, carrier: str, calls: int, chunksize: int | None) -> list[Row]:
    """A map, until the last call is on its way and until the last result is there; and what it costs."""
    with counted(account.aws) as bill:
        began, clock = time.perf_counter(), time.time()
        futures = ex.map(nothing, range(calls), chunksize=chunksize)
        ex.get_result(futures)
        took = time.perf_counter() - began
    stats = [future.stats for future in futures if future.stats]
    dispatched = max(each.dispatched for each in stats if each.dispatched) - clock
    theirs = sum(each.storage_puts + each.storage_gets for each in stats)
    how = "a message each" if chunksize else "as they come"
    what = f"{calls:,} calls on AWS Lambda, {how}, carrier {carrier}"
    # The record of a job is written by the client, now and then; it is of the calls together.
    records = 10
    most = records if carrier == "reply" else bill.invocations + records
    return [
        Row(
            f"{what}, {SLOTS} sandboxes",
            f"{took:.2f} s, {calls / took:,.0f}/s; last sent after {dispatched:.2f} s",
        ),
        Row(
            f"{what}: requests",
            bill.requests,
            "",
            f"{theirs} by calls",
            "none by calls" if carrier == "reply" else "a PUT per activation, a GET per outcome",
            theirs == 0 and bill.puts <= most and bill.gets <= most,
        ),
        Row(f"{what}: dollars for 1,000", bill.dollars(calls)),
    ]


# -- beside Lithops


def beside_lithops(account: Account, functions: Functions, ours: lm.FunctionExecutor, quick: bool) -> Iterator[Row]:
    bucket = "lithops"
    account.aws.client("s3").create_bucket(Bucket=bucket)
    start = partial(lithops_peer.start_on_lambda, account.aws.account, functions.role, MEMORY, bucket, SLOTS)
    if not quick:
        with start(0.1) as lithops:
            yield warm_beside(ours, lithops, f"{LITHOPS} that looks for results every 0.1 s", 11)
    with start(2) as lithops:
        yield warm_beside(ours, lithops, LITHOPS, 2 if quick else 11)
        taken, theirs = [], []
        for _ in range(1 if quick else 3):
            taken.append(first_call(account, ours))
            cold(account)
            theirs.append(_took(lithops, 1))
        yield compared(f"cold sandbox to first result on AWS Lambda; {LITHOPS}", taken, theirs)
        yield from many_beside_lithops(account, ours, lithops, SLOTS if quick else 1000)


def warm_beside(ours: lm.FunctionExecutor, lithops: lithops_peer.Lithops, name: str, rounds: int) -> Row:
    lithops.ask(1)
    taken, theirs = side_by_side(rounds, partial(one_call, ours), partial(_took, lithops, 1))
    return compared(f"warm call on AWS Lambda; {name}", taken, theirs)


def many_beside_lithops(
    account: Account, ex: lm.FunctionExecutor, lithops: lithops_peer.Lithops, calls: int
) -> Iterator[Row]:
    """The same map, a message each on our side too, once the sandboxes of each are warm."""
    what = f"{calls:,} calls on AWS Lambda, {SLOTS} sandboxes"
    cold(account)
    ex.get_result(ex.map(time.sleep, [0.5] * SLOTS, chunksize=1))
    with counted(account.aws) as mine:
        began, clock = time.perf_counter(), time.time()
        futures = ex.map(nothing, range(calls), chunksize=1)
        ex.get_result(futures)
        took = time.perf_counter() - began
    sent = max(future.stats.dispatched for future in futures) - clock
    lithops.ask(SLOTS)
    with counted(account.aws) as other:
        their_sent, theirs = json.loads(lithops.ask(calls))
    yield compared(f"{what}; {LITHOPS}", [took], [theirs])
    yield compared(f"{what}, to the last one sent; {LITHOPS}", [sent], [their_sent])
    yield Row(f"{what}: requests; {LITHOPS}", mine.requests, other.requests)
    yield Row(f"{what}: dollars for 1,000; {LITHOPS}", mine.dollars(calls), other.dollars(calls))


def _took(lithops: lithops_peer.Lithops, calls: int) -> float:
    return float(json.loads(lithops.ask(calls))[1])


def compared(what: str, ours: list[float], theirs: list[float]) -> Row:
    mine = spread([1000 * taken for taken in ours], "{:,.1f}", " ms")
    other = spread([1000 * taken for taken in theirs], "{:,.0f}", " ms")
    return Row(what, mine, other, spread(ratios(theirs, ours), "{:,.1f}", " x faster"))


# -- many calls under way


def under_way(carrier: str, calls: int) -> list[Row]:
    """So many calls at once, of a client alone in its process."""
    with (
        tempfile.TemporaryDirectory() as directory,
        start_account(Path(directory), "--concurrency", str(calls)) as account,
        sleeping(account, calls) as url,
    ):
        settings = {**account.executor(max_workers=calls, carrier=carrier), "endpoint_url": url}
        command = [sys.executable, str(HERE / "lambda_client.py"), json.dumps(settings), str(calls)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900).stdout
    told: dict[str, Any] = json.loads(said)
    what = f"{calls:,} calls under way on AWS Lambda, carrier {carrier}"
    return [
        Row(
            f"{what}: the client's peak memory; without calls",
            f"{told['peak']:.0f} MB",
            f"{told['idle']:.0f} MB",
            f"{1e3 * (told['peak'] - told['idle']) / calls:.0f} kB each",
            "under 500 MB",
            told["peak"] < 500,
        ),
        Row(
            f"{what}: the client's CPU time",
            f"{told['cpu']:.1f} s, {1e3 * told['cpu'] / calls:.2f} ms each; last sent after {told['dispatched']:.1f} s",
            "",
            f"{told['again']} sent again",
        ),
    ]


@contextmanager
def sleeping(account: Account, calls: int) -> Iterator[str]:
    """The URL of a service whose sandboxes sleep until so many are there."""
    keys = {f"AWS_{name.upper()}": account.aws.account[name] for name in ("access_key_id", "secret_access_key")}
    command = [sys.executable, str(HERE / "sleeping_functions.py"), account.aws.url, str(calls)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | keys) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 20) if quick else (1000, 100)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory, start_account(Path(directory)) as account:
        functions = Functions(account.aws)
        with executor(account, "reply") as ex:
            rows.append(warm_calls(ex, functions, rounds))
            rows += many_calls(account, ex, "reply", calls, 1)
            rows += many_calls(account, ex, "reply", calls, None)
            rows += beside_lithops(account, functions, ex, quick)
        with executor(account, "event") as ex:
            rows += many_calls(account, ex, "event", calls, 1)
    # The emulator's storage is what replies to events wait for: 10,000 of them would take it ten minutes.
    for carrier, most in (("reply", 10_000), ("event", 2_000)):
        rows += under_way(carrier, 200 if quick else most)
    return rows


if __name__ == "__main__":
    main(measure)
