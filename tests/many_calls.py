"""Five hundred calls on an emulator of a cloud: each result right, one outcome used for each, nothing left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import lithops_mini as lm
from lithops_mini import records, wire
from lithops_mini.job.manifest import read_outcomes
from lithops_mini.worker import dependencies, serialize

CALLS = 500


class Emulator(Protocol):
    """One that runs."""

    def own(self, name: str, method: str = "GET", **values: Any) -> Any: ...


@dataclass(frozen=True)
class Counted:
    """What an emulator counted of a job."""

    invocations: int
    errors: int
    throttles: int
    attempts: int  # of all calls together, up to the one whose outcome was used


@contextmanager
def changes(emulator: Emulator, seed: int) -> Iterator[Callable[..., None]]:
    """A function that changes faults and limits of the emulator, which the ``with`` block puts back."""
    before = emulator.own("faults"), emulator.own("limits")

    def change(**given: float) -> None:
        limits = {name: given.pop(name) for name in before[1] if name in given}
        for name, values in (("faults", {"seed": seed, **given}), ("limits", limits)):
            changed = emulator.own(name, "PUT", **values)
            assert "error" not in changed, changed

    yield change
    emulator.own("faults", "PUT", **before[0])
    emulator.own("limits", "PUT", **before[1])


def square(large: int = 0, seconds: float = 0.0) -> Callable[[int], tuple[int, bytes]]:
    """A function whose every run returns bytes that no other run does, ``large`` ones for each tenth input."""

    def run(x: int) -> tuple[int, bytes]:
        time.sleep(seconds)
        return x * x, os.urandom(16 if x % 10 else max(16, large))

    return run


def work(
    emulator: Emulator, function: Callable[[int], tuple[int, bytes]], begin: Callable[[], object], **settings: Any
) -> Counted:
    """Have all calls made, ``begin`` being called just before, and see that they are as promised."""
    with lm.function_executor(**{"retries": 12, "data_cleaner": False, "progress": False, **settings}) as executor:
        before = quiet(emulator)
        begin()
        futures = executor.map(function, range(CALLS), chunksize=4)
        values = executor.get_result(futures)
    state = quiet(emulator)
    assert [value for value, _ in values] == [x * x for x in range(CALLS)]
    assert recorded(executor, futures) == values
    executor.clean()
    assert list(executor.storage.list_keys(None, records.executor_prefix(executor.executor_id))) == []
    after = emulator.own("state")
    assert {**after, "sandboxes": 0} == {**state, "sandboxes": 0}
    counted = {name: after[name] - before[name] for name in ("invocations", "errors", "throttles")}
    return Counted(**counted, attempts=sum(future.stats.attempt for future in futures if future.stats))


def quiet(emulator: Emulator) -> dict[str, int]:
    """What the emulator has counted when nothing runs or waits there any more, which must be soon."""
    ends = time.monotonic() + 10
    while True:
        state: dict[str, int] = emulator.own("state")
        if not state["running"] and not state.get("events"):
            return state
        assert time.monotonic() < ends, state
        threading.Event().wait(0.02)


def recorded(executor: lm.FunctionExecutor, futures: list[Any]) -> list[Any]:
    """The results in the record of a job, which has one outcome for each of its calls."""
    job, storage, bucket = futures[0].job, executor.storage.backend, executor.config.job.storage_bucket
    outcomes = {}
    for _, outcome in read_outcomes(storage, bucket, job.id, job.key):
        assert outcome.call not in outcomes
        stats = futures[outcome.call].stats
        assert (wire.Status(outcome.status).name, outcome.attempt) == ("OK", stats.attempt)
        if outcome.place == wire.STORED:
            at = wire.Stored.decode(outcome.data)
            assert at.key == records.outcome_key(job.id, outcome.call, outcome.attempt)
            outcomes[outcome.call] = dependencies.load_stored(storage, bucket, at, job.key)
        else:
            outcomes[outcome.call] = serialize.loads(outcome.data)
    return [outcomes[call] for call in range(len(futures))]
