"""A future gets its condition when somebody first waits for it, at whatever moment that is."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, InvalidStateError

import pytest

from lithops_mini.job.future import ResponseFuture

Ours = ResponseFuture[int]

MANY = 2000
SOON = 30.0  # seconds in which everything here is over, on the slowest machine


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def some(count: int = MANY) -> list[Ours]:
    return [ResponseFuture("e-M000", number) for number in range(count)]


def beside(*functions: Callable[[], object]) -> None:
    """Run the functions at once, each in its thread; raise what any of them raises."""
    begin = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        begin.wait(SOON)
        function()

    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        for done in [pool.submit(run, function) for function in functions]:
            done.result(SOON)


def settle(futures: list[Ours]) -> None:
    for future in futures:
        assert future.claim()
        future.set_result(future.call_id)


def read_each(futures: list[Ours]) -> None:
    assert [future.result(SOON) for future in futures] == list(range(len(futures)))


def wait_for_all(futures: list[Ours]) -> None:
    done, rest = concurrent.futures.wait(futures, SOON)
    assert not rest
    assert all(future.done() for future in done)


def take_as_completed(futures: list[Ours]) -> None:
    seen = [future.call_id for future in concurrent.futures.as_completed(futures, SOON)]
    assert sorted(seen) == list(range(len(futures)))


@pytest.mark.parametrize("wait", [read_each, wait_for_all, take_as_completed])
def test_nobody_misses_the_end(wait: Callable[[list[Ours]], None]) -> None:
    for _ in range(5):
        futures = some()
        beside(lambda f=futures: settle(f), lambda f=futures: wait(f), lambda f=futures: wait(f))


def test_callbacks_run_once() -> None:
    futures = some()
    called: list[int] = []

    def ask() -> None:
        for future in futures:
            future.add_done_callback(lambda future: called.append(future.call_id))

    beside(lambda: settle(futures), ask, ask)
    assert sorted(called) == sorted([*range(MANY), *range(MANY)])


def test_a_future_ends_once() -> None:
    futures = some()
    won: list[str] = []

    def result() -> None:
        for future in futures:
            try:
                future.set_result(1)
                won.append("result")
            except InvalidStateError:
                assert future.done()

    def error() -> None:
        for future in futures:
            try:
                future.set_exception(ValueError("two"))
                won.append("error")
            except InvalidStateError:
                assert future.done()

    def cancel() -> None:
        for future in futures:
            if future.cancel():
                won.append("cancelled")

    def watch() -> None:
        for future in futures:
            future.rest(SOON)

    beside(result, error, cancel, watch)
    assert len(won) == MANY

    def what_came(future: Ours) -> str:
        try:
            future.result(0)
        except CancelledError:
            return "cancelled"
        except ValueError:
            return "error"
        return "result"

    assert sorted(map(what_came, futures)) == sorted(won)


def test_a_cancelled_future_is_not_claimed() -> None:
    futures = some()
    claimed: list[int] = []
    cancelled: list[int] = []

    def claim() -> None:
        claimed.extend(future.call_id for future in futures if future.claim())

    def cancel() -> None:
        cancelled.extend(future.call_id for future in futures if future.cancel())

    beside(claim, cancel)
    assert cancelled == list(range(MANY))
    assert all(future.cancelled() for future in futures)
    assert not any(future.claim() for future in futures)
    assert len(claimed) <= MANY


def test_a_future_nobody_waited_for_has_no_condition() -> None:
    futures = some(10)
    settle(futures)
    read_each(futures)
    assert all(future.done() and not future.running() and not future.cancelled() for future in futures)
    assert not any("_condition" in vars(future) for future in futures)


@pytest.mark.parametrize("watched", [False, True])
def test_a_second_end_is_an_error(watched: bool) -> None:
    (future,) = some(1)
    if watched:
        future.add_done_callback(lambda _: None)
    future.set_result(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1
