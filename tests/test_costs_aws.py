"""On the local AWS: bill and estimate against what the emulator has counted, of time, invocations and requests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from lambda_account import LOG_GROUP, Account, start_account

import lithops_mini as lm
from lithops_mini import costs
from lithops_mini.records import NO_REQUESTS, Platform, Requests, Usage

MEMORY = 4096  # MB: nothing limits the processes that are the sandboxes
CLOSE = 0.02
LANES = 8
SECONDS = [0.6 + 0.2 * (n % 5) for n in range(40)]  # of calls: a sample of five has each


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account")) as account:
        yield account


class Counted(NamedTuple):
    """What the emulator has counted."""

    milliseconds: int
    invocations: int
    requests: Requests

    def since(self, earlier: Counted) -> Counted:
        times = self.milliseconds - earlier.milliseconds, self.invocations - earlier.invocations
        return Counted(*times, self.requests.since(earlier.requests))

    @property
    def dollars(self) -> float:
        used = Usage({MEMORY: self.milliseconds}, self.invocations)
        return costs.cost("", used, self.requests, Platform("aws_lambda"), costs.read_prices()).dollars


def counted(account: Account, executor: lm.FunctionExecutor) -> Counted:
    """At rest: records are written some time after the calls."""
    executor._recorder.flush()
    account.aws.settle()
    state, seen = account.aws.own("state"), account.aws.own("requests")
    puts = sum(seen.get(f"s3:{name}", 0) for name in ("PutObject", "ListBucket", "CreateBucket"))
    return Counted(state["billed_ms"], state["invocations"], Requests(puts, seen.get("s3:GetObject", 0)))


def billed(executor: lm.FunctionExecutor) -> Counted:
    total = executor.bill().total
    return Counted(round(total.seconds * 1000), int(total.invocations), total.requests._replace(deletes=0))


@pytest.mark.parametrize("carrier", ["reply", "event"])
def test_estimate_and_bill_are_what_the_emulator_counted(account: Account, carrier: str) -> None:
    settings = account.executor(carrier=carrier, max_workers=LANES, memory=MEMORY, max_time=60, tags={"test": carrier})
    with lm.function_executor(config={}, **settings) as executor:
        began = counted(account, executor)
        # Workers that start together on two processors take longer than the few of a sample: see that they are there.
        executor.get_result(executor.map(time.sleep, [0.5] * LANES, chunksize=1))
        for _ in range(2):  # a machine that other tests make busy is slower now than it was: no estimate knows when
            estimate = executor.estimate_cost(time.sleep, SECONDS, sample=5, chunksize=1)
            sampled, bill_of_sample = counted(account, executor), billed(executor)
            executor.get_result(executor.map(time.sleep, SECONDS, chunksize=1))
            ended, bill = counted(account, executor), billed(executor)
            job, told = ended.since(sampled), bill.since(bill_of_sample)
            assert (told.invocations, told.requests) == (job.invocations, job.requests)
            assert estimate.low.dollars <= job.dollars <= estimate.high.dollars
            if estimate.dollars == pytest.approx(job.dollars, rel=CLOSE):
                break
        assert told.milliseconds == pytest.approx(job.milliseconds, rel=CLOSE)
        assert told.dollars == pytest.approx(job.dollars, rel=CLOSE)
        assert estimate.dollars == pytest.approx(job.dollars, rel=CLOSE)
        whole = ended.since(began)  # with the cold starts
        assert bill.milliseconds == pytest.approx(whole.milliseconds, rel=0.05)
        if carrier == "reply":
            assert bill.milliseconds == whole.milliseconds
            assert reported(account) == ended.milliseconds


def reported(account: Account) -> int:
    """Milliseconds by the lines of the log."""
    group = LOG_GROUP.rpartition(":")[2]
    events = account.aws.client("logs").filter_log_events(logGroupName=group, limit=10_000)["events"]
    found = (re.search(r"^REPORT .*\tBilled Duration: (\d+) ms", event["message"]) for event in events)
    return sum(int(match[1]) for match in found if match)


def test_attempts_that_are_lost_are_paid_for_too(account: Account) -> None:
    def die_once(number: int) -> int:
        import os
        import tempfile
        import time

        time.sleep(0.2)
        mark = os.path.join(os.path.dirname(tempfile.gettempdir()), f"died-{number}")
        if not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getppid(), 9)  # its sandbox
        return number

    settings = account.executor(max_workers=2, memory=MEMORY, max_time=60, tags={"test": "lost"})
    with lm.function_executor(config={}, **settings) as executor:
        before = counted(account, executor)
        futures = executor.map(die_once, range(4), chunksize=1)
        assert executor.get_result(futures) == list(range(4))
        assert {future.stats.attempt for future in futures if future.stats} == {2}
        seen, bill = counted(account, executor).since(before), executor.bill()
        assert (bill.total.invocations, bill.total.seconds * 1000) == (8, seen.milliseconds) == (8, seen[0])
        assert "Requests to storage by workers that were lost are not known." in bill.notes


def test_a_budget_holds_where_calls_cannot_be_stopped(account: Account) -> None:
    settings = account.executor(max_workers=4, memory=MEMORY, max_time=60, tags={"test": "reply"})
    limit = 8 * 4 * 0.0000166667  # dollars of 8 seconds
    with lm.function_executor(config={}, **settings) as executor:
        before = counted(account, executor)
        futures = executor.map(time.sleep, [0.2] * 60, chunksize=1, budget=limit, timeout=1)
        errors = [future.exception(60) for future in futures]
        spent = counted(account, executor).since(before)
        assert 5 <= errors.count(None) < 60
        assert spent.dollars <= limit
        assert executor.storage.backend.requests() != NO_REQUESTS
