"""openwhisk among faults of the local OpenWhisk: each result right, one outcome used for each call, nothing left."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import many_calls
import pytest
from engines import Engine
from many_calls import CALLS, Counted, changes, square
from openwhisk_emulator import Emulated, start_openwhisk, stored

import lithops_mini as lm
from lithops_mini.compute import function
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.job import settle

MESSAGES = CALLS // 4


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    flags = ("--sandbox", "process", "--per-minute", "1000000")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as openwhisk:
        yield openwhisk


@pytest.fixture
def seed() -> int:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    return seed


@pytest.fixture
def faults(openwhisk: Emulated, seed: int) -> Iterator[Callable[..., None]]:
    """What goes wrong from now on, and after the test no more."""
    with changes(openwhisk, seed) as change:
        yield change


@pytest.fixture
def work(openwhisk: Emulated, tmp_path: Path) -> Callable[..., Counted]:
    def work(function: Callable[[int], tuple[int, bytes]], begin: Callable[[], object], **settings: Any) -> Counted:
        here = {} if "storage" in settings else {"storage": "localhost", "storage_path": str(tmp_path)}
        place = {**openwhisk.openwhisk(), **here, "max_workers": 8}
        return many_calls.work(openwhisk, function, begin, **{**place, **settings})

    return work


def test_containers_that_are_killed(work: Callable[..., Counted], faults: Callable[..., None]) -> None:
    """One in ten, half of these with all work done."""
    counted = work(square(), lambda: faults(crash=0.1))
    assert counted.errors > 0
    assert counted.attempts > CALLS
    assert counted.invocations >= MESSAGES + counted.errors


def test_five_activations_at_a_time(work: Callable[..., Counted], faults: Callable[..., None]) -> None:
    """... of a client that would have sixteen, and was told of a hundred."""
    counted = work(square(seconds=0.01), lambda: faults(concurrent=5), max_workers=16)
    assert 0 < counted.throttles < counted.invocations
    assert counted.attempts == CALLS


def test_more_activations_than_a_minute_has(
    openwhisk: Emulated, work: Callable[..., Counted], faults: Callable[..., None]
) -> None:
    with short_minutes(openwhisk, faults, rate=25):
        counted = work(square(), lambda: faults(per_minute=25))
    assert 0 < counted.throttles < counted.invocations
    assert counted.invocations == MESSAGES  # those that were refused are sent as they were
    assert counted.attempts == CALLS


@contextmanager
def short_minutes(openwhisk: Emulated, faults: Callable[..., None], rate: int) -> Iterator[None]:
    """Once an invocation is refused, a second goes by, and so many more may begin, as they may in another minute."""
    over = threading.Event()

    def watch() -> None:
        refused = openwhisk.own("state")["throttles"]
        while not over.wait(0.05):
            state = openwhisk.own("state")
            if state["throttles"] == refused:
                continue
            over.wait(1)
            state = openwhisk.own("state")
            refused = state["throttles"]
            # All that have begun in this minute of the clock are no more than all that ever have.
            faults(per_minute=state["invocations"] + refused + rate)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def test_activations_that_never_run(
    work: Callable[..., Counted], faults: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in twenty is accepted, and missed when its time is over: 2 s, and half a second more."""
    monkeypatch.setattr(function, "LATE", 0.5)
    counted = work(square(), lambda: faults(lose=0.05, wait=0.5), max_time=2)
    assert counted.attempts > CALLS
    assert counted.invocations > MESSAGES


@pytest.mark.timeout(300)
def test_events_among_all_of_it(
    work: Callable[..., Counted], faults: Callable[..., None], moto: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers are killed, some with their reply stored; activations are lost, or refused for either reason."""
    monkeypatch.setattr(function, "LATE", 0.5)
    everything = {"crash": 0.04, "lose": 0.02, "throttle_rate": 0.02, "throttle_concurrency": 0.03}
    given = {**stored(moto), "carrier": "event", "max_time": 3, "max_workers": 4}
    counted = work(square(large=20_000), lambda: faults(**everything), **given)
    assert counted.errors > 0
    assert counted.throttles > 0
    assert counted.attempts > CALLS


def test_a_minute_that_does_not_end(openwhisk: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many messages few are sent in vain; the calls fail in the end, or as soon as nobody wants them."""
    place: dict[str, Any] = {**openwhisk.openwhisk(), "storage": "localhost", "storage_path": str(tmp_path)}
    monkeypatch.setattr(settle, "_POSTPONEMENTS", 2)
    with lm.function_executor(config={}, **place, max_workers=4, progress=False) as ex:
        with openwhisk.changed("faults", throttle_rate=1.0):  # whatever the clock says
            before = openwhisk.own("state")["throttles"]
            future = ex.submit(abs, -1)
            with pytest.raises(InvocationError, match="invocationsPerMinute") as caught:
                future.result(30)
            assert (caught.value.reason, caught.value.retryable) == (Reason.PACED, True)
            assert openwhisk.own("state")["throttles"] - before == 3
            futures = ex.map(abs, range(100), chunksize=1)
            assert isinstance(futures[0].exception(30), InvocationError)
            assert openwhisk.own("state")["throttles"] - before < 20
            began = time.monotonic()
            ex.shutdown(cancel_futures=True)
        assert time.monotonic() - began < 3
    assert all(future.done() for future in futures)
