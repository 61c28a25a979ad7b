"""aws_lambda among faults of the local AWS: each result right, one outcome used for each call, none billed after it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import many_calls
import pytest
from engines import Engine
from lambda_account import BUCKET, Account, start_account
from many_calls import CALLS, Counted, changes, square
from proxy import INTERNAL_ERROR, LOST_ANSWER, LOST_REQUEST, SLOW_DOWN, TRUNCATED, Fault, Proxy, Request

from lithops_mini import executor as executor_module
from lithops_mini.compute import aws_lambda, function

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
    with changes(account.aws, seed) as change:
        yield change


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of which no word comes is missed after three seconds, with a timeout of one."""
    for module, name, value in ((aws_lambda, "EVENT_AGE", 0.5), (function, "STARTS", 1.0), (function, "LATE", 0.5)):
        monkeypatch.setattr(module, name, value)


def work(
    account: Account, called: Callable[[int], tuple[int, bytes]], begin: Callable[[], object], **settings: Any
) -> Counted:
    return many_calls.work(account.aws, called, begin, **account.executor(**{"max_workers": 8, **settings}))


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
