"""What a job would cost, from a few of its calls or from what these are said to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import NamedTuple

from lithops_mini import costs
from lithops_mini.costs import Bill, Prices, Stage, dollars
from lithops_mini.durations import format_duration
from lithops_mini.errors import InputError
from lithops_mini.job.dispatch import message_size
from lithops_mini.records import NO_REQUESTS, CallStats, Platform, Requests, Usage

# Student's t for 95 % in the middle, by degrees of freedom from 1; from the last on, that of many.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.0)
# Of one call nothing is known but its own time: others may take half of it, or twice.
_ALONE = 2.0
# Seconds that an invocation takes beside its calls, where that was not measured.
_BESIDE = 0.001
# A client writes the beginning and the end of a job, and what has ended every so many seconds.
_RECORDS, _RECORDED = 2, 2.0


class Round(NamedTuple):
    """Calls that ran at once."""

    stage: Stage
    took: float  # seconds
    client: Requests | None  # that it has sent meanwhile; None if nobody counts them


@dataclass(frozen=True, slots=True)
class Sample:
    """Calls of which something is known."""

    seconds: tuple[float, ...]  # that their functions ran
    beside: float = _BESIDE  # seconds of an invocation besides
    way: float = _BESIDE  # seconds from sending a message to knowing of its end, without its functions
    start: float = 0.0  # seconds that the first one of a worker takes longer
    started: int = 0  # workers that need none
    peak: int = 0  # MiB
    requests: Requests = NO_REQUESTS  # of their workers to storage
    polls: float = 0.0  # times that the client asks in a second whether there are replies
    fetches: float = 0.0  # requests by which it gets the reply to a message
    counted: bool = False  # whether requests are

    @classmethod
    def said(cls, durations: float | Sequence[float]) -> Sample:
        """From seconds that calls are said to take. ``InputError`` for what are none."""
        seconds = (durations,) if isinstance(durations, int | float) else tuple(durations)
        if not seconds or not all(isinstance(each, int | float) and 0 <= each < math.inf for each in seconds):
            raise InputError(f"durations is {durations!r}: give seconds that a call takes, or a list of some")
        return cls(tuple(map(float, seconds)))

    @classmethod
    def ran(cls, rounds: Sequence[Round]) -> Sample:
        """From calls that ran, one in each message: some at once, and then as many or fewer, on the same workers."""
        stages = [each.stage for each in rounds]
        calls = [call for stage in stages for call in stage.calls]
        first, last = _beside(stages[0]), _beside(stages[-1])
        warm = len(rounds) > 1
        requests = NO_REQUESTS
        for stage in stages:
            requests = requests.plus(stage.requests)
        *_, (stage, took, client) = rounds
        sent = client or NO_REQUESTS
        return cls(
            tuple(call.function_time or 0.0 for call in calls),
            last if warm else min(last, _BESIDE),
            fmean(_way(call) for call in stage.calls),
            max(0.0, first - last) if warm else first,
            len({call.worker_id for call in calls}),
            max(stage.peak for stage in stages),
            requests,
            max(0.0, sent.puts - _RECORDS - took // _RECORDED) / took,
            sent.gets / max(1, stage.usage.invocations),
            client is not None,
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What ``calls`` would cost: ``expected``, and the bills between which it is with 95 %.

    The time of a call is the mean of the sample. The range is that of the mean by Student's distribution, for as many
    calls as there are beside the sample; with a sample of one call, half and twice its time. At the low end no worker
    starts cold, at the high end all do.
    """

    calls: int
    sample: int  # calls it is made from
    low: Bill
    expected: Bill
    high: Bill
    seconds: float  # until the last call has ended, as expected

    @property
    def dollars(self) -> float:
        """As expected."""
        return self.expected.dollars

    def __str__(self) -> str:
        low, expected, high = (dollars(each.dollars) for each in (self.low, self.expected, self.high))
        known = "1 call" if self.sample == 1 else f"{self.sample:,} calls"
        told = f"{self.calls:,} calls would cost {expected}, between {low} and {high} by a sample of {known}"
        return f"{told}, and take {format_duration(self.seconds)}.\n{self.expected}"


def estimate(
    sample: Sample,
    calls: int,
    *,
    name: str,
    lanes: int,
    memory: int | None,
    chunksize: int | None,
    platform: Platform,
    prices: Prices,
    backend: str = "",
) -> Estimate:
    """The estimate for so many calls, ``lanes`` messages at once. ``memory``: MiB; ``None``: nobody sets any."""
    mean = fmean(sample.seconds)
    low, high = _range(sample.seconds, calls)
    together = chunksize or message_size(mean, calls, lanes)
    messages = -(-calls // together)
    workers = min(lanes, messages)
    cold = max(0, workers - sample.started)

    def made(seconds: float, starts: int) -> tuple[Bill, float]:
        running = calls * seconds + messages * sample.beside
        took = (calls * seconds + messages * sample.way) / max(1, workers) + (sample.start if starts else 0.0)
        usage = Usage(
            {memory or 0: math.ceil(1000 * (running + starts * sample.start))},
            messages,
            peak=sample.peak,
            requests=_scaled(sample.requests, calls / len(sample.seconds)),
        )
        client = Requests(
            _RECORDS + int(took / _RECORDED) + round(sample.polls * took), round(sample.fetches * messages)
        )
        told = client if sample.counted else None
        bill = costs.bill([Stage(name, (), usage)], platform, prices, backend=backend, client_requests=told)
        return replace(bill, advice=()), took

    expected, took = made(mean, cold)
    return Estimate(calls, len(sample.seconds), made(low, 0)[0], expected, made(high, workers)[0], took)


def _range(seconds: Sequence[float], calls: int) -> tuple[float, float]:
    """Between which seconds the mean of so many calls is."""
    known, mean = len(seconds), fmean(seconds)
    if known >= calls:
        return mean, mean
    if known == 1:
        return mean / _ALONE, mean * _ALONE
    t = _STUDENT[min(known - 1, len(_STUDENT)) - 1]
    half = t * stdev(seconds) / math.sqrt(known) * math.sqrt(1 - known / calls)
    return max(min(seconds), mean - half), mean + half


def _scaled(requests: Requests, factor: float) -> Requests:
    return Requests(*(round(number * factor) for number in requests))


def _way(call: CallStats) -> float:
    return max(0.0, call.settled - (call.dispatched or call.submitted) - (call.function_time or 0.0))


def _beside(stage: Stage) -> float:
    """Seconds of a message that its function did not run."""
    running = math.fsum(call.function_time or 0.0 for call in stage.calls)
    return max(0.0, sum(stage.usage.milliseconds.values()) / 1000 - running) / max(1, stage.usage.invocations)
