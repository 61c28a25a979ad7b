"""A program with calls on AWS Lambda and nothing else, for what it costs: `aws_lambda` starts it.

Its argument is the settings of the executor in JSON, and how many calls, all of which are to be under way at once.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from scale import peak_memory

import lithops_mini as lm


def nothing(x: int) -> None:
    pass


def main(settings: dict[str, Any], calls: int) -> None:
    with lm.function_executor(config={}, **settings) as executor:
        idle, cpu = peak_memory(), time.process_time()
        began, clock = time.perf_counter(), time.time()
        futures = executor.map(nothing, range(calls), chunksize=1)
        executor.get_result(futures)
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        stats = [future.stats for future in futures]
    told = {
        "seconds": took,
        "dispatched": max(each.dispatched for each in stats) - clock,
        "cpu": cpu,
        "idle": idle,
        "peak": peak_memory(),
        "again": sum(each.attempt > 1 for each in stats),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
