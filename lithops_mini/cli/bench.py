"""lithops-mini bench: what a backend gives its workers, as tables and pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lithops_mini.cli.options import Callback, Selection, config_options
from lithops_mini.cli.study import Numbers, default_workers
from lithops_mini.cli.table import table

if TYPE_CHECKING:
    from lithops_mini.study.bench import Result

_MB = 1_000_000


@click.group()
def bench() -> None:
    """Measure what a backend gives its workers.

    Each prints a table, and writes it as CSV and as a picture.

    \b
    Examples:
      lithops-mini bench flops --workers 1,2,4
      lithops-mini bench storage -p prod --workers 1,8,64
      lithops-mini bench latency -b docker
      lithops-mini bench reuse -b docker
    """


def _dst(function: Callback) -> Callback:
    return click.option(
        "--dst",
        type=click.Path(file_okay=False, path_type=Path),
        default="bench-output",
        show_default=True,
        metavar="DIR",
        help="For table and picture.",
    )(function)


def _workers(function: Callback) -> Callback:
    return click.option(
        "--workers",
        type=Numbers(int),
        metavar="N,N,...",
        help="How many at once. Default: powers of 2 up to twice your processors.",
    )(function)


@bench.command()
@_workers
@click.option("--size", type=click.IntRange(1), default=1024, show_default=True, metavar="N", help="Of the matrices.")
@click.option(
    "--seconds", type=click.FloatRange(0.01), default=2.0, show_default=True, metavar="S", help="Of each call."
)
@_dst
@config_options
def flops(workers: list[int] | None, size: int, seconds: float, dst: Path, selection: Selection) -> None:
    """Floating-point operations a second, against the number of workers.

    \b
    Examples:
      lithops-mini bench flops --workers 1,2,4
      lithops-mini bench flops -p prod --workers 1,16,256 --seconds 10
    """
    from lithops_mini.study.bench import flops

    _show(flops(_settings(selection), workers or default_workers(), size=size, seconds=seconds), dst, "flops")


@bench.command()
@_workers
@click.option("--size", type=click.IntRange(1), default=64, show_default=True, metavar="MB", help="Of each object.")
@_dst
@config_options
def storage(workers: list[int] | None, size: int, dst: Path, selection: Selection) -> None:
    """Megabytes a second that workers write and read, each and together.

    \b
    Examples:
      lithops-mini bench storage --workers 1,2,4
      lithops-mini bench storage -p prod --workers 1,16,256 --size 256
    """
    from lithops_mini.study.bench import storage

    _show(storage(_settings(selection), workers or default_workers(), size=size * _MB), dst, "storage")


@bench.command()
@click.option("--cold", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="First calls.")
@click.option(
    "--warm", type=click.IntRange(0), default=50, show_default=True, metavar="N", help="Calls after the last."
)
@_dst
@config_options
def latency(cold: int, warm: int, dst: Path, selection: Selection) -> None:
    """Seconds from submit to result, of cold and of warm workers.

    \b
    Examples:
      lithops-mini bench latency
      lithops-mini bench latency -b docker --cold 10 --warm 200
    """
    from lithops_mini.study.bench import latency

    _show(latency(_settings(selection), cold=cold, warm=warm), dst, "latency")


@bench.command()
@click.option("--workers", type=click.IntRange(1), metavar="N", help="At most. Default: twice your processors.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="Of calls.")
@click.option("--calls", type=click.IntRange(1), metavar="N", help="Of each round. Default: two for each worker.")
@_dst
@config_options
def reuse(workers: int | None, rounds: int, calls: int | None, dst: Path, selection: Selection) -> None:
    """How many calls run on workers that ran others before.

    \b
    Examples:
      lithops-mini bench reuse
      lithops-mini bench reuse -p prod --workers 32 --rounds 10
    """
    from lithops_mini.study.bench import reuse

    most = workers or max(default_workers())
    _show(reuse(_settings(selection), workers=most, rounds=rounds, calls=calls or 2 * most), dst, "reuse")


def _settings(selection: Selection) -> dict[str, Any]:
    return {**selection.arguments(), "progress": False}


def _show(result: Result, dst: Path, name: str) -> None:
    dst.mkdir(parents=True, exist_ok=True)
    rows, picture = dst / f"{name}.csv", dst / f"{name}.png"
    with open(rows, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([result.headings, *result.rows])
    result.draw().savefig(picture)
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in result.rows]
    for line in table([heading.replace("_", " ") for heading in result.headings], cells):
        click.echo(line)
    if result.note:
        click.echo(f"{result.note}.")
    click.echo(f"{rows}, {picture}")


COMMANDS = [bench]
