"""aws_lambda among faults of the local AWS: each result right, one outcome used for each call, none billed after it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from engines import Engine
from lambda_account import BUCKET, Account, start_account
from proxy import INTERNAL_ERROR, LOST_ANSWER, LOST_REQUEST, SLOW_DOWN, TRUNCATED, Fault, Proxy, Request

import lithops_mini as lm
from lithops_mini import executor as executor_module
from lithops_mini import records, wire
from lithops_mini.compute import aws_lambda
from lithops_mini.job.manifest import read_outcomes
from lithops_mini.worker import dependencies, serialize

CALLS = 500
LARGE = 20_000  # bytes
UNAVAILABLE = Fault(status=(503, "ServiceUnavailable"))
either_carrier = pytest.mark.parametrize("carrier", ["reply", "event"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.fixture
def seed() -> int:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    return seed


@pytest.fixture
def faults(account: Account, seed: int) -> Iterator[Callable[..., None]]:
    """What goes wrong from now on, and after the test no more."""
    before = account.aws.own("faults"), account.aws.own("limits")

    def change(**given: float) -> None:
        limits = {name: given.pop(name) for name in before[1] if name in given}
        account.aws.own("faults", "PUT", seed=seed, **given)
        account.aws.own("limits", "PUT", **limits)

    yield change
    account.aws.own("faults", "PUT", **before[0])
    account.aws.own("limits", "PUT", **before[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of which no word comes is missed after three seconds, with a timeout of one."""
    for name, value in (("EVENT_AGE", 0.5), ("_STARTS", 1.0), ("_LATE", 0.5)):
        monkeypatch.setattr(aws_lambda, name, value)


@dataclass(frozen=True)
class Counted:
    """What the local AWS counted of a job."""

    invocations: int
    errors: int
    throttles: int
    attempts: int  # of all calls together, up to the one whose outcome was used


def square(large: int = 0, seconds: float = 0.0) -> Callable[[int], tuple[int, bytes]]:
    """A function whose every run returns bytes that no other run does, ``large`` ones for each tenth input."""

    def run(x: int) -> tuple[int, bytes]:
        time.sleep(seconds)
        return x * x, os.urandom(16 if x % 10 else max(16, large))

    return run


def work(
    account: Account, function: Callable[[int], tuple[int, bytes]], begin: Callable[[], object], **settings: Any
) -> Counted:
    """Have all calls made, ``begin`` being called just before, and see that they are as promised."""
    given = account.executor(**{"max_workers": 8, "retries": 12, "data_cleaner": False, **settings})
    with lm.function_executor(**given) as executor:
        before = quiet(account)
        begin()
        futures = executor.map(function, range(CALLS), chunksize=4)
        values = executor.get_result(futures)
    state = quiet(account)
    assert [value for value, _ in values] == [x * x for x in range(CALLS)]
    assert recorded(executor, futures) == values
    executor.clean()
    assert list(executor.storage.list_keys(None, records.executor_prefix(executor.executor_id))) == []
    after = account.aws.own("state")
    assert {**after, "sandboxes": 0} == {**state, "sandboxes": 0}
    counted = {name: after[name] - before[name] for name in ("invocations", "errors", "throttles")}
    return Counted(**counted, attempts=sum(future.stats.attempt for future in futures if future.stats))


def quiet(account: Account) -> dict[str, int]:
    """What the local AWS has counted when nothing runs or waits there any more, which must be soon."""
    ends = time.monotonic() + 10
    while True:
        state: dict[str, int] = account.aws.own("state")
        if not state["running"] and not state["events"]:
            return state
        assert time.monotonic() < ends, state
        threading.Event().wait(0.02)


def recorded(executor: lm.FunctionExecutor, futures: list[Any]) -> list[Any]:
    """The results in the record of a job, which has one outcome for each of its calls."""
    job, storage = futures[0].job, executor.storage.backend
    outcomes = {}
    for _, outcome in read_outcomes(storage, BUCKET, job.id, job.key):
        assert outcome.call not in outcomes
        stats = futures[outcome.call].stats
        assert (wire.Status(outcome.status).name, outcome.attempt) == ("OK", stats.attempt)
        if outcome.place == wire.STORED:
            at = wire.Stored.decode(outcome.data)
            assert at.key == records.outcome_key(job.id, outcome.call, outcome.attempt)
            outcomes[outcome.call] = dependencies.load_stored(storage, BUCKET, at, job.key)
        else:
            outcomes[outcome.call] = serialize.loads(outcome.data)
    return [outcomes[call] for call in range(len(futures))]


# ---------------------------------------------------------------- Lambda


@either_carrier
def test_sandboxes_that_are_killed(account: Account, faults: Callable[..., None], carrier: str) -> None:
    """One in ten, half of these with all work done."""
    counted = work(account, square(), lambda: faults(crash=0.1), carrier=carrier)
    assert counted.errors > 0
    assert counted.attempts > CALLS
    # An event whose sandbox is killed when all is done has its reply in storage by then.
    assert counted.invocations >= CALLS // 4 + (counted.errors if carrier == "reply" else 0)


@either_carrier
def test_five_invocations_at_a_time(account: Account, faults: Callable[..., None], carrier: str) -> None:
    """... of a client that would have sixteen."""
    begin = lambda: faults(concurrency=5)  # noqa: E731
    counted = work(account, square(seconds=0.01), begin, carrier=carrier, max_workers=16)
    assert 0 < counted.throttles < counted.invocations
    assert counted.attempts == CALLS


def test_events_that_come_twice(account: Account, faults: Callable[..., None]) -> None:
    counted = work(account, square(), lambda: faults(duplicate=1.0), carrier="event", max_workers=4)
    assert counted.invocations >= 2 * CALLS // 4
    assert counted.attempts == CALLS


@pytest.mark.usefixtures("impatient")
def test_events_that_never_come(account: Account, faults: Callable[..., None]) -> None:
    """One in twenty."""
    counted = work(account, square(), lambda: faults(lose=0.05), carrier="event", timeout=1.0)
    assert counted.attempts > CALLS


# ---------------------------------------------------------------- storage


class Bad:
    """A script for a proxy: which requests to S3 go wrong, of the workers as of the client.

    The first of each kind does, and then one in fifteen. One only is told to slow down: its SDK obeys for seconds.
    """

    def __init__(self, seed: int) -> None:
        self.met: set[tuple[str, str]] = set()
        self._dice = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        if request.bucket != BUCKET:
            return None
        who = "worker" if "x-amz-security-token" in request.headers else "client"  # a role has one
        with self._lock:
            if (who, request.kind) in self.met:
                bodies = (TRUNCATED,) if request.kind in ("get", "list") else ()
                fault = self._dice.choice((UNAVAILABLE, INTERNAL_ERROR, LOST_REQUEST, LOST_ANSWER, *bodies))
                return fault if self._dice.random() < 1 / 15 else None
            self.met.add((who, request.kind))
            return SLOW_DOWN if (who, request.kind) == ("worker", "put") else UNAVAILABLE


@pytest.fixture
def bad_storage(account: Account, seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Bad between workers and S3, and between the client and S3; results that are not small go through it."""
    monkeypatch.setattr(executor_module, "_INLINE", LARGE // 2)
    bad = Bad(seed)
    with Proxy(Engine(account.aws.url), script=bad) as proxy:
        yield proxy
    assert proxy.errors == []
    assert {("worker", "put"), ("client", "put"), ("client", "get")} <= bad.met


@either_carrier
def test_storage_that_fails(account: Account, carrier: str, bad_storage: Proxy) -> None:
    work(account, square(LARGE), lambda: None, carrier=carrier, endpoint_url=bad_storage.engine.url)
