"""What a job would cost, from a few of its calls or from what these are said to take."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev, variance
from typing import NamedTuple

from lithops_mini import costs
from lithops_mini.compute import inbox
from lithops_mini.compute.inbox import Looks
from lithops_mini.costs import Bill, Prices, Stage, dollars, sum_up
from lithops_mini.durations import format_duration
from lithops_mini.errors import InputError
from lithops_mini.job.dispatch import message_size
from lithops_mini.records import NO_REQUESTS, CallStats, Invocation, Platform, Requests, Usage

# Student's t for 95 % in the middle, by degrees of freedom from 1; from the last on, that of many.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.0)
# Of one call nothing is known but its own time: others may take half of it, or twice. So may a look into the inbox.
_ALONE = 2.0
# Seconds that an invocation takes beside its calls, where that was not measured.
_BESIDE = 0.001
# Standard deviation, in seconds, of what is rounded up to a millisecond.
_ROUNDED = 0.001 / math.sqrt(12)
# A client writes the beginning and the end of a job, and between them every so many seconds what has changed.
_RECORDS, _RECORDED = 2, 2.0
# The arrival of so many replies, and of so many for each that is under way, tells how that of more is.
_REPLIES, _REPLIES_EACH = 1000, 10


class Round(NamedTuple):
    """Calls that ran at once, one in each message."""

    stage: Stage
    invocations: Sequence[Invocation]
    took: float  # seconds
    client: Requests | None = None  # that it has sent meanwhile; None if nobody counts them
    looks: Looks = Looks()  # into the inbox, meanwhile


@dataclass(frozen=True, slots=True)
class Sample:
    """Calls of which something is known."""

    seconds: tuple[float, ...]  # that their functions ran
    beside: float = _BESIDE  # seconds of an invocation besides
    spread: float = 0.0  # standard deviation of these
    warm: int = 1  # invocations that they are the mean of
    way: float = _BESIDE  # seconds from sending a message to its answer, or its stored reply, without its functions
    start: float = 0.0  # seconds that the first one of a worker takes longer
    slowest: float = 0.0  # seconds that the longest of these starts took beyond that
    started: int = 0  # workers that need none
    peak: int = 0  # MiB
    requests: Requests = NO_REQUESTS  # to storage, of these calls
    stored: float = 0.0  # puts to storage of a message besides
    look: float = 0.0  # seconds of a look into the inbox
    lists: float = 0.0  # requests of a look; 0: replies come as answers
    puts: int = 0  # that the client sends for a job besides
    fetches: float = 0.0  # requests by which it gets the reply to a message
    counted: bool = False  # whether requests are

    @classmethod
    def said(cls, durations: float | Sequence[float]) -> Sample:
        """From seconds that calls are said to take. ``InputError`` for what are none."""
        seconds = (durations,) if isinstance(durations, int | float) else tuple(durations)
        if not seconds or not all(map(_is_duration, seconds)):
            raise InputError(f"durations is {durations!r}: give seconds that a call takes, or a list of some")
        return cls(tuple(map(float, seconds)))

    @classmethod
    def ran(cls, rounds: Sequence[Round]) -> Sample:
        """From calls that ran: some, and then as many or fewer on the same workers."""
        stages = [each.stage for each in rounds]
        calls = [call for stage in stages for call in stage.calls]
        seconds = tuple(call.function_time or 0.0 for call in calls)
        first, last = _beside(stages[0]), _beside(stages[-1])
        start = max(0.0, first - last) if len(rounds) > 1 else first
        cold = [_seconds(one) for one in rounds[0].invocations]
        used = sum_up(stage.usage for stage in stages)
        stage, _, took, client, looks = rounds[-1]
        sent = client or NO_REQUESTS
        asks = looks.requests > 0 and sent.gets > 0
        return cls(
            seconds,
            last if len(rounds) > 1 else min(last, _BESIDE),
            _spread(rounds, start, seconds),
            max(1, len(stages[-1].calls)),
            fmean(_until_stored(call, last) if asks else _way(call) for call in stage.calls),
            start,
            max(cold) - fmean(cold) if cold else 0.0,
            len({call.worker_id for call in calls}),
            max(stage.peak for stage in stages),
            Stage("", calls, Usage()).requests,
            used.requests.puts / max(1, used.invocations),
            looks.seconds / looks.number if asks else 0.0,
            looks.requests / looks.number if asks else 0.0,
            max(0, sent.puts - looks.requests - _records(took, len(stage.calls))),
            sent.gets / max(1, stage.usage.invocations),
            client is not None,
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What ``calls`` would cost: ``expected``, and the bills between which it is with 95 %.

    The time of a message is that of the sample. The range is by Student's distribution, from the spread of the calls'
    times and of what messages took besides, for as many as there are; with a sample of one call, half and twice its
    time. At the low end no worker starts cold, and looking for replies takes twice as long as it did; at the high end
    all start as cold as the coldest, and it takes half as long.
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
        if not self.calls:
            return f"0 calls would cost nothing.\n{self.expected}"
        calls, known = _calls(self.calls), _calls(self.sample)
        told = f"{calls} would cost {expected}, between {low} and {high} by a sample of {known}"
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
    mean = fmean(sample.seconds or (0.0,))
    together = chunksize or message_size(mean, calls, lanes)
    messages = -(-calls // together)
    workers = min(lanes, messages)
    usual = calls * mean + messages * sample.beside
    low, high = _range(sample, calls, messages, usual)

    def made(running: float, starting: float, look: float) -> tuple[Bill, float]:
        """What it costs if its messages run for so many seconds, and the starts of workers take so many more."""
        scale = running / usual if usual else 1.0
        began = starting / max(1, workers)
        if sample.lists:
            times = [scale * (together * each + sample.way) + look / 2 for each in sample.seconds]
            took, looks = _look(times, messages, workers, look)
        else:
            took, looks = scale * (calls * mean + messages * sample.way) / max(1, workers), 0
        usage = Usage(
            {memory or 0: math.ceil(1000 * (running + starting))},
            messages,
            peak=sample.peak,
            requests=_scaled(sample.requests, calls / max(1, len(sample.seconds))).plus(
                Requests(puts=round(sample.stored * messages))
            ),
        )
        puts = _records(took, messages) + sample.puts + round(sample.lists * looks)
        client = Requests(puts, round(sample.fetches * messages)) if sample.counted else None
        bill = costs.bill([Stage(name, (), usage)], platform, prices, backend=backend, client_requests=client)
        return replace(bill, advice=()), took + began

    cold = max(0, workers - sample.started)
    expected, took = made(usual, cold * sample.start, sample.look)
    least, _ = made(low, 0.0, sample.look * _ALONE)
    most, _ = made(high, workers * (sample.start + sample.slowest), sample.look / _ALONE)
    return Estimate(calls, len(sample.seconds), least, expected, most, took)


def _range(sample: Sample, calls: int, messages: int, usual: float) -> tuple[float, float]:
    """Between which seconds all messages run together; ``usual``: those that are expected."""
    known = len(sample.seconds)
    if known == 1 and calls > 1:
        return usual / _ALONE, usual * _ALONE
    functions = calls * stdev(sample.seconds) * math.sqrt(1 / known - 1 / calls) if 1 < known < calls else 0.0
    besides = messages * sample.spread * math.sqrt(1 / sample.warm + 1 / max(1, messages))
    half = _student(known) * math.hypot(functions, besides)
    return max(0.0, usual - half), usual + half


def _look(times: Sequence[float], messages: int, lanes: int, look: float) -> tuple[float, int]:
    """Seconds until the client has seen all replies, and how often it looks for them, with ``lanes`` messages at once.

    ``times``: of a message until its reply is stored, each for as many messages.
    """
    few = min(messages, max(_REPLIES, _REPLIES_EACH * lanes))
    waiting = itertools.islice(itertools.cycle(times), few)
    stored = sorted(itertools.islice(waiting, lanes))
    now = since = 0.0
    looks = 0
    while stored:
        now += inbox.pause(now - since) + look
        looks += 1
        while stored and stored[0] <= now:
            heapq.heappop(stored)
            since = now
            for time in itertools.islice(waiting, 1):
                heapq.heappush(stored, now + time)
    return (now * messages / few, round(looks * messages / few)) if few else (0.0, 0)


def _records(took: float, replies: int) -> int:
    """How often the client writes what has become of a job that takes so many seconds."""
    return _RECORDS + min(int(took / _RECORDED), replies)


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number:,} calls"


def _scaled(requests: Requests, factor: float) -> Requests:
    return Requests(*(round(number * factor) for number in requests))


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _way(call: CallStats) -> float:
    return max(0.0, call.settled - (call.dispatched or call.submitted) - (call.function_time or 0.0))


def _until_stored(call: CallStats, beside: float) -> float:
    """Seconds from sending a message to its reply in storage, without its function."""
    sent = call.dispatched or call.submitted
    return max(0.0, (call.started or sent) - sent) + beside


def _beside(stage: Stage) -> float:
    """Seconds of a message that its function did not run."""
    running = math.fsum(call.function_time or 0.0 for call in stage.calls)
    return max(0.0, sum(stage.usage.milliseconds.values()) / 1000 - running) / max(1, stage.usage.invocations)


def _seconds(invocation: Invocation) -> float:
    return invocation.milliseconds / 1000


def _spread(rounds: Sequence[Round], start: float, seconds: Sequence[float]) -> float:
    """The standard deviation of what a message takes beside its function: what that of the functions leaves of its own.

    ``start``: seconds by which those of the first round took longer. Starts differ too, and the last round has no more
    than a few messages: of what both tell, with the certainty that there is for so many, it is the less.
    """
    if len(seconds) < 2:
        return 0.0
    cold = rounds[0].invocations
    rest = start - fmean(one.start / 1000 for one in cold) if cold else 0.0  # of what nobody has told
    warm = [_seconds(one) - one.start / 1000 - rest for one in cold]
    warm += [_seconds(one) for each in rounds[1:] for one in each.invocations]
    found = _left(warm, seconds)
    if len(rounds) > 1 and len(last := rounds[-1].stage.calls) > 1:
        alone = _left([_seconds(one) for one in rounds[-1].invocations], [call.function_time or 0.0 for call in last])
        found = min(found, alone * _student(len(last)) / _student(len(seconds)))
    return found


def _left(messages: Sequence[float], functions: Sequence[float]) -> float:
    own = variance(messages) - variance(functions) if len(messages) > 1 else 0.0
    return math.sqrt(max(own, _ROUNDED**2))


def _student(known: int) -> float:
    return _STUDENT[min(max(1, known - 1), len(_STUDENT)) - 1]
