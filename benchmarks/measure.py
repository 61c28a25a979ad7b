"""What the benchmarks share: repetitions side by side, rows of figures, and the table they end in."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import lithops_mini as lm
from lithops_mini.study.machine import machine

T = TypeVar("T")

DATA = Path(__file__).parent / "data"
WORKERS = 2
ROUND = 50


@dataclass(frozen=True)
class Row:
    """One line of the table. ``met`` is ``None`` where a figure is for information only."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "PASS", False: "MISS", None: ""}[self.met]


HEADINGS = ("benchmark", "lithops_mini", "beside it", "ratio", "target", "")


def seconds(function: Callable[[], object]) -> float:
    """How long ``function`` takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def side_by_side(rounds: int, *functions: Callable[[], T]) -> list[list[T]]:
    """The figures of each function; in every round each has its turn, so that all of them meet the same machine."""
    figures = list(zip(*([function() for function in functions] for _ in range(rounds)), strict=True))
    return [list(column) for column in figures]


def in_turn(rounds: int, *functions: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Milliseconds of each function, the median and the 95th percentile, of so many rounds of ``ROUND`` calls each."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for figures, function in zip(taken, functions, strict=True):
            figures += [1000 * seconds(function) for _ in range(ROUND)]
    twentieths = [statistics.quantiles(figures, n=20) for figures in taken]
    return [each[9] for each in twentieths], [each[18] for each in twentieths]


def spread(values: Sequence[float], form: str = "{:.3g}", unit: str = "") -> str:
    """The median, and the least and the most."""
    median, least, most = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{median}{unit}" if least == most else f"{median}{unit} ({least} to {most})"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def seconds_beside(what: str, ours: Sequence[float], peer: Sequence[float], most: float) -> Row:
    """The seconds of the same work, round by round; ours should take at most ``most`` times as long."""
    slower = ratios(ours, peer)
    told = (spread(ours, "{:.2f}", " s"), spread(peer, "{:.2f}", " s"), spread(slower, "{:.2f}", " x"))
    return Row(what, *told, f"at most {most:g} x", statistics.median(slower) <= most)


@contextmanager
def executor() -> Iterator[lm.FunctionExecutor]:
    """One on this machine, with the defaults but for its storage, which lies beside the benchmarks."""
    DATA.mkdir(exist_ok=True)
    directory = tempfile.mkdtemp(dir=DATA)
    try:
        with lm.localhost_executor(
            "localhost", config={}, max_workers=WORKERS, storage_path=directory, progress=False
        ) as made:
            yield made
    finally:
        shutil.rmtree(directory)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    return markdown(HEADINGS, [(r.what, r.ours, r.peer, r.ratio, r.target, r.verdict) for r in rows])


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned."""
    cells = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def fill(page: Path, name: str, text: str) -> None:
    """Put a text between the marks of this name in a page, and the machine it is of before it."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        sys.exit(f"{page.name} has no place for {name}: give it the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\nOn {machine()}:\n\n{text}\n\n{end}{after}")


def main(measure: Callable[[bool], Sequence[Row]]) -> None:
    """Run one benchmark as a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    given = parser.parse_args()
    rows = measure(given.quick)
    print(json.dumps([asdict(row) for row in rows]) if given.json else table(rows))
