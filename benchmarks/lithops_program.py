"""Calls with Lithops in containers, by the interpreter that Lithops is installed for: `lithops_peer` starts it.

Each line it reads is a number of calls; it answers with the seconds they took, and ends with its input.
"""

from __future__ import annotations

import os
import sys
import time

import lithops


def nothing(x: int) -> None:
    pass


def take(executor: lithops.FunctionExecutor, calls: int, version: int) -> float:
    """The seconds from the calls to their results."""
    started = time.perf_counter()
    futures = [executor.call_async(nothing, 1)] if calls == 1 else executor.map(nothing, range(calls))
    if version == 1:
        executor.get_result(futures)
    else:
        # get_result() begins to remove the container, and does not wait: the next call finds its name still taken.
        for future in futures:
            future.result()
    return time.perf_counter() - started


def main(image: str, version: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Lithops prints too
    config = {
        "lithops": {"backend": "localhost", "storage": "localhost", "log_level": "ERROR"},
        "localhost": {"runtime": image, "version": version, "worker_processes": int(os.environ["WORKERS"])},
    }
    with lithops.FunctionExecutor(config=config) as executor:
        for line in sys.stdin:
            print(take(executor, int(line), version), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
