"""A budget: jobs are stopped before they cost more than they may."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from lithops_mini import costs
from lithops_mini.costs import Prices, dollars
from lithops_mini.errors import BudgetExceeded
from lithops_mini.job.job import Call, Job
from lithops_mini.records import NO_REQUESTS, Invocation, Platform, Requests, Usage
from lithops_mini.wire import Outcome

# Milliseconds that a message may take besides the time of the call that runs when its time is over.
_BESIDE = 1000
# The same for a cold start, before one has been seen.
_START = 2000
# Seconds that it takes to stop calls.
_STOPPING = 0.1
# MiB that workers hold beside their calls.
_WORKER = 64


class _Message(NamedTuple):
    """One that is under way."""

    job: Job
    calls: Mapping[int, Call]  # those of it that have not ended
    began: float  # monotonic
    memory: int  # MiB; 0: nobody has set it


class Budget:
    """Dollars that jobs may cost together. May be used from several threads.

    A message is sent if what was spent, what those under way may still cost, and what this one may cost are together
    no more than the budget. A message counts with its timeout, a second, and the longest cold start until now. Without
    a timeout it counts with the longest message until now, and the first is sent alone; then ``stop`` is called, if
    it is given, when those under way have taken so long that they would pass the budget.
    """

    def __init__(
        self,
        limit: float,
        platform: Platform,
        prices: Prices,
        client_requests: Callable[[], Requests | None],
        stop: Callable[[Budget], None] | None = None,
    ) -> None:
        """``client_requests`` tells those that the client has sent to storage so far."""
        self.limit = limit
        self._platform = platform
        self._prices = prices
        self._client_requests = client_requests
        self._before = client_requests() or NO_REQUESTS
        self._stop = stop
        self._condition = threading.Condition()
        self._usage = Usage()
        self._requests = NO_REQUESTS  # of workers
        self._peak = 0  # MiB
        self._longest = 0  # milliseconds of a message
        self._start = 0  # the same of a cold start
        self._under_way: dict[int, _Message] = {}
        self._wakes = math.inf  # monotonic: when the watch looks next
        self._watching = False
        self._refused: tuple[float, float | None] = 0.0, None  # dollars a message may have cost, and its timeout
        self._error: BudgetExceeded | None = None

    # -- for the dispatcher

    def admits(self, job: Job, memory: int | None) -> bool | None:
        """Whether a message of the job may be sent now, to a worker with so many bytes; ``None``: not now, but perhaps
        when one of those under way is over.
        """
        with self._condition:
            if self._error is not None:
                return False
            known = job.timeout is not None or self._longest or not self._under_way
            next_one = self._may_take(job, _mib(memory))
            if known and self._spent(self._reserved(), next_one) <= self.limit:
                return True
            if not self._under_way:
                self._refused = self._spent(next_one), job.timeout
                return False
            return None

    def begin(self, job: Job, calls: Mapping[int, Call], memory: int | None) -> None:
        """A message is sent."""
        with self._condition:
            self._under_way[id(calls)] = _Message(job, calls, time.monotonic(), _mib(memory))
            if job.timeout is None and self._stop is not None:
                self._watch()

    def end(self, calls: Mapping[int, Call]) -> None:
        """It is over: ``use`` has been told what it has cost."""
        with self._condition:
            self._under_way.pop(id(calls), None)
            if not self._under_way:
                self._condition.notify()

    def use(self, invocation: Invocation) -> None:
        with self._condition:
            self._usage = self._usage.plus(Usage.of(invocation))
            self._longest = max(self._longest, invocation.milliseconds - invocation.start)
            self._start = max(self._start, invocation.start)

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Take note of what calls have sent to storage, and held."""
        for outcome in outcomes:
            with self._condition:
                self._requests = self._requests.plus(outcome.requests)
                self._peak = max(self._peak, -(-outcome.peak_memory >> 20))

    def exceeded(self) -> BudgetExceeded:
        """No more is sent: why, in figures."""
        with self._condition:
            if self._error is None:
                spent = self._spent()
                text = f"{self._why(spent)} (prices of {self._prices.date})"
                self._error = BudgetExceeded(text, limit=self.limit, spent=spent)
            return self._error

    def _why(self, spent: float) -> str:
        sent, stopped = self._usage.invocations, len(self._under_way)
        if not sent and not stopped:
            return f"the budget of {dollars(self.limit)} is less than one message may cost, {self._first()}"
        cost = f"{_counted(sent)} cost {dollars(spent)}" if sent else "no message has ended"
        if not stopped:
            rest = "another one could cost more than is left"
        else:
            rest = f"{stopped:,} more {'was' if stopped == 1 else 'were'} stopped before passing it"
        return f"the budget of {dollars(self.limit)} is used up: {cost}, and {rest}"

    def _first(self) -> str:
        """What the first message may cost, and how there can be one."""
        cost, timeout = self._refused
        if timeout is None:
            return f"{dollars(cost)}: give a larger budget"
        return f"{dollars(cost)} with a timeout of {timeout:g} s: give a larger budget or a shorter timeout"

    def stopped(self) -> list[tuple[Job, list[Call]]]:
        """What is under way."""
        with self._condition:
            return [(message.job, list(message.calls.values())) for message in self._under_way.values()]

    # -- what it costs

    def _spent(self, *more: Usage) -> float:
        usage = costs.sum_up((self._usage, *more))
        client = (self._client_requests() or NO_REQUESTS).since(self._before)
        memory = max(costs.LEAST_MEMORY, self._peak + _WORKER)
        requests = self._requests.plus(usage.requests).plus(client)
        return costs.cost("", usage, requests, self._platform, self._prices, memory=memory).dollars

    def _reserved(self) -> Usage:
        """What the messages under way may cost."""
        now = time.monotonic()
        return costs.sum_up(
            self._may_take(message.job, message.memory, now - message.began) for message in self._under_way.values()
        )

    def _may_take(self, job: Job, memory: int, elapsed: float = 0.0) -> Usage:
        if job.timeout is None:
            limit = self._longest
        else:
            limit = math.ceil(1000 * job.timeout) + _BESIDE
        start = self._start or (_START if self._platform.service else 0)
        return Usage.of(Invocation(max(limit + start, math.ceil(1000 * elapsed)), memory))

    # -- calls without a timeout

    def _watch(self) -> None:
        """See that somebody looks in time."""
        wakes = time.monotonic() + self._left()
        if not self._watching:
            self._watching, self._wakes = True, wakes
            threading.Thread(target=self._look, name="lithops_mini-budget", daemon=True).start()
        elif wakes < self._wakes:
            self._condition.notify()

    def _left(self) -> float:
        """Seconds for which what is under way can go on; endless if nothing is."""
        now = time.monotonic()
        messages = [message for message in self._under_way.values() if message.job.timeout is None]
        if not messages:
            return math.inf
        until_now = [Usage.of(Invocation(math.ceil(1000 * (now - m.began)), m.memory)) for m in messages]
        seconds = [Usage({m.memory: 1000}) for m in messages]
        spent = self._spent(*until_now)
        each = self._spent(*until_now, *seconds) - spent
        return max(0.0, (self.limit - spent) / each - _STOPPING) if each else math.inf

    def _look(self) -> None:
        with self._condition:
            while (left := self._left()) > 0.0:
                if left == math.inf:
                    self._watching = False
                    return
                self._wakes = time.monotonic() + left
                self._condition.wait(min(left, threading.TIMEOUT_MAX))
            self._watching = False
        assert self._stop is not None
        self.exceeded()
        self._stop(self)


def _mib(memory: int | None) -> int:
    return -(-(memory or 0) >> 20)


def _counted(messages: int) -> str:
    return "1 message has" if messages == 1 else f"{messages:,} messages have"
