"""Numbers that tell how a job went, from the stats of its calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import median

from lithops_mini.records import CallStats

STRAGGLER = 2.0  # times the median of its stage
STRAGGLER_LEAST = 0.1  # seconds over the median: what is less nobody waits for
STRAGGLER_CALLS = 4  # fewer calls have no median to speak of


def function_times(calls: Iterable[CallStats]) -> list[float]:
    """Seconds that functions ran, in order; of the calls whose function was entered and left."""
    return sorted(time for call in calls if (time := call.function_time) is not None)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values, of which there must be some, that at least this share does not pass."""
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def straggler_limit(calls: Iterable[CallStats]) -> float | None:
    """Seconds above which a call of this stage is a straggler: twice the median of the function times, and at least
    0.1 s over it. ``None`` for a stage of fewer than four calls.
    """
    times = function_times(calls)
    if len(times) < STRAGGLER_CALLS:
        return None
    middle = median(times)
    return max(STRAGGLER * middle, middle + STRAGGLER_LEAST)


def stragglers(calls: Sequence[CallStats]) -> list[CallStats]:
    """The calls of a stage that ran for longer than its ``straggler_limit``, the longest first."""
    limit = straggler_limit(calls)
    if limit is None:
        return []
    found = [call for call in calls if (call.function_time or 0.0) > limit]
    return sorted(found, key=lambda call: -(call.function_time or 0.0))


def most_at_once(calls: Iterable[CallStats]) -> int:
    """How many calls ran at the same moment, at most."""
    spans = [(call.started, call.settled if call.ended is None else call.ended) for call in calls]
    known = [(begin, end) for begin, end in spans if begin is not None]
    changes = sorted(change for begin, end in known for change in ((begin, 1), (max(begin, end), -1)))
    return max(accumulate(change for _, change in changes), default=0)


def time_to_distribute(calls: Sequence[CallStats]) -> float | None:
    """Seconds from the first submit until as many workers had begun a call as calls ever ran at once; ``None`` if no
    call was begun. Workers that only replaced others do not count in it.
    """
    begun: dict[str, float] = {}
    for call in calls:
        if call.started is not None and call.started < begun.get(call.worker_id, call.started + 1):
            begun[call.worker_id] = call.started
    if not begun:
        return None
    needed = max(1, min(most_at_once(calls), len(begun)))
    return sorted(begun.values())[needed - 1] - min(call.submitted for call in calls)
