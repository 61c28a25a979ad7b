"""One call: how long it takes when everything is warm, and when nothing is."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from measure import DATA, ROUND, WORKERS, Row, executor, in_turn, main, side_by_side, spread

# A program from its first line to its first result. It is told when it was started, by a clock all processes share.
FIRST_RESULT = {
    "ours": f"""
import sys, time
import lithops_mini as lm

def double(x):
    return 2 * x

if __name__ == "__main__":
    with lm.localhost_executor("localhost", config={{}}, max_workers={WORKERS}, storage_path=sys.argv[2]) as executor:
        assert executor.submit(double, 21).result() == 42
        print(time.monotonic() - float(sys.argv[1]))
""",
    "peer": f"""
import sys, time
from concurrent.futures import ProcessPoolExecutor

def double(x):
    return 2 * x

if __name__ == "__main__":
    with ProcessPoolExecutor({WORKERS}) as executor:
        assert executor.submit(double, 21).result() == 42
        print(time.monotonic() - float(sys.argv[1]))
""",
}
IMPORT = """
import time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""
# What a worker may import besides its own package: one library, in Python.
ALLOWED = {"lithops_mini", "cloudpickle"}
HEAVY_STDLIB = {"asyncio", "email", "http", "multiprocessing", "ssl", "unittest", "urllib.request"}
LOADED = """
import sys
before = set(sys.modules)
import lithops_mini.worker.runner
print(*set(sys.modules) - before)
"""


def nothing(x: int) -> None:
    pass


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def warm(quick: bool) -> list[Row]:
    rounds = 5 if quick else 20
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(time.sleep, [0.1] * WORKERS))
        with executor() as ex:
            median, slow = in_turn(
                rounds, lambda: ex.submit(nothing, 1).result(), lambda: pool.submit(nothing, 1).result()
            )
    what = f"one warm call, submit to result, of {rounds * ROUND:,}"
    return [
        Row(
            f"{what}: median; ProcessPoolExecutor",
            f"{median[0]:.2f} ms",
            f"{median[1]:.2f} ms",
            f"{median[0] / median[1]:.1f} x",
            "under 2 ms",
            median[0] < 2,
        ),
        Row(f"{what}: 95th percentile", f"{slow[0]:.2f} ms", f"{slow[1]:.2f} ms", f"{slow[0] / slow[1]:.1f} x"),
    ]


def start(quick: bool) -> Row:
    DATA.mkdir(exist_ok=True)

    def first_result(whose: str) -> float:
        return float(run(FIRST_RESULT[whose], str(time.monotonic()), str(DATA / "start")))

    first_result("ours")  # the compiled files are written
    ours, peer = side_by_side(3 if quick else 11, lambda: first_result("ours"), lambda: first_result("peer"))
    return Row(
        "process start to first result; ProcessPoolExecutor",
        spread(ours, "{:.3f}", " s"),
        spread(peer, "{:.3f}", " s"),
        f"{statistics.median(ours) / statistics.median(peer):.1f} x",
        "under 0.35 s",
        statistics.median(ours) < 0.35,
    )


def imports(quick: bool) -> list[Row]:
    modules = ("lithops_mini", "lithops_mini.executor", "lithops_mini.worker.runner")
    columns = side_by_side(
        3 if quick else 11,
        *(lambda module=module: 1000 * float(run(IMPORT.format(module=module))) for module in modules),
    )
    rows = []
    for module, taken in zip(modules, columns, strict=True):
        targets = (
            {} if module == "lithops_mini.executor" else {"target": "under 60 ms", "met": statistics.median(taken) < 60}
        )
        rows.append(Row(f"import {module}", spread(taken, "{:.1f}", " ms"), **targets))
    loaded = set(run(LOADED).split())
    top = {name.partition(".")[0] for name in loaded}
    foreign = sorted(top - ALLOWED - set(sys.stdlib_module_names)) + sorted(loaded & HEAVY_STDLIB)
    rows.append(Row("heavy modules a worker imports", ", ".join(foreign) or "none", "", "", "none", not foreign))
    return rows


def measure(quick: bool) -> Sequence[Row]:
    return [*warm(quick), start(quick), *imports(quick)]


if __name__ == "__main__":
    main(measure)
