"""Stats of jobs that never ran, for pictures and tables: cold starts, stragglers, failures, retries and all."""

from __future__ import annotations

import heapq
import random

from lithops_mini.records import CallStats

EPOCH = 1_700_000_000.0


def stage(
    calls: int, workers: int, *, begin: float = 0.0, seconds: float = 2.0, warm: int = 0, seed: int = 1
) -> list[CallStats]:
    """Simulate a stage: ``workers`` take the calls in order, each the next one when it has ended its last.

    The first ``warm`` workers are there already, the others start cold.
    """
    rng = random.Random(seed)
    free = [(begin + (0.01 if n < warm else 0.02 * n + rng.uniform(0.3, 0.9)), n) for n in range(workers)]
    heapq.heapify(free)
    used = set(range(warm))
    stats = []
    for call in range(calls):
        submitted = begin + call * 1e-5
        if rng.random() < 0.004 or (calls > 50 and call == calls - 3):  # cancelled, or no worker ever took it
            status, settled = rng.choice(["cancelled", "died"]), submitted + rng.uniform(0.5, 1.5) * seconds
            stats.append(_call(call, submitted, None, None, None, settled, 3, "", False, status))
            continue
        ready, worker = heapq.heappop(free)
        retried = rng.random() < 0.01
        dispatched = max(submitted, ready - rng.uniform(0.05, 0.3)) + (seconds * 0.7 if retried else 0)
        started = max(ready, dispatched + 0.004)
        duration = seconds * rng.lognormvariate(0, 0.25) * (4 if rng.random() < 0.003 else 1)
        ended = started + duration
        status = rng.choices(["ok", "error", "timeout"], [0.985, 0.01, 0.005])[0]
        settled = ended + rng.uniform(0.01, 0.05) * seconds
        cold = worker not in used
        used.add(worker)
        stats.append(
            _call(call, submitted, dispatched, started, ended, settled, 1 + retried, f"w{worker}", cold, status)
        )
        heapq.heappush(free, (ended + 0.01, worker))
    return stats


def job(calls: int, workers: int, seconds: float = 2.0) -> list[tuple[str, list[CallStats]]]:
    """A map and the reduce after it."""
    mapped = stage(calls, workers, seconds=seconds)
    after = max(call.settled for call in mapped) - EPOCH
    reduced = stage(max(1, calls // 100), workers, begin=after, seconds=seconds * 2, warm=workers, seed=2)
    return [("map", mapped), ("reduce", reduced)]


def _call(
    number: int,
    submitted: float,
    dispatched: float | None,
    started: float | None,
    ended: float | None,
    settled: float,
    attempt: int,
    worker: str,
    cold: bool,
    status: str,
) -> CallStats:
    seconds = 0.0 if started is None or ended is None else ended - started
    return CallStats(
        call_id=number,
        submitted=EPOCH + submitted,
        dispatched=None if dispatched is None else EPOCH + dispatched,
        started=None if started is None else EPOCH + started,
        ended=None if ended is None else EPOCH + ended,
        settled=EPOCH + settled,
        cpu_user=seconds * 0.8,
        cpu_system=seconds * 0.1,
        peak_memory=0 if started is None else 150_000_000 + number,
        bytes_in=2_000,
        data_read=1_000_000 if seconds else 0,
        bytes_out=700 if status == "ok" else 0,
        attempt=attempt,
        worker_id=worker,
        cold=cold,
        status=status,
    )
