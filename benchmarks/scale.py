"""A hundred thousand calls: whether time and memory grow with their number and no faster. This is the client."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from measure import Row, executor, main, ratios, seconds, side_by_side, spread


def nothing(x: int) -> None:
    pass


def peak_memory() -> float:
    """Of this process so far, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(quick: bool) -> Sequence[Row]:
    few, many = (2_000, 20_000) if quick else (10_000, 100_000)
    with executor() as ex:
        ex.get_result(ex.map(nothing, range(1000)))
        short, long = side_by_side(
            3,
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(few)))),
            lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(many)))),
        )
    growth = ratios(long, short)
    peak = peak_memory()
    took = f"{spread(long, '{:.2f}', ' s')}, and {few:,} {spread(short, '{:.3f}', ' s')}"
    return [
        Row(
            f"{many:,} calls against {few:,}",
            took,
            "",
            spread(growth, "{:.1f}", " x"),
            "10 x, at most 12 x",
            statistics.median(growth) <= 12,
        ),
        Row(f"{many:,} calls, the client's peak memory", f"{peak:.0f} MB", "", "", "under 400 MB", peak < 400),
    ]


if __name__ == "__main__":
    main(measure)
