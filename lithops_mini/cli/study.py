"""lithops-mini study: published evaluations, made again on any backend."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lithops_mini.cli.options import Selection, config_options
from lithops_mini.errors import ConfigError
from lithops_mini.study.machine import processors

if TYPE_CHECKING:
    from lithops_mini.study.grid import Place

_ENGINES = ("python", "pandas")
_REPEAT = 3


class Numbers(click.ParamType[Any]):
    """Numbers over 0, with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int] | list[float]:
        if isinstance(value, list):
            return value
        try:
            numbers = [self._kind(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < number < 1e9 for number in numbers):
            what = "whole numbers" if self._kind is int else "numbers"
            self.fail(f"{value!r} is not a list of {what} over 0, such as 1,2,4", param, ctx)
        return sorted(set(numbers))


def default_workers() -> list[int]:
    """1, 2, 4 and so on, up to twice the processors of this machine."""
    return [1 << power for power in range(processors().bit_length() + 1)]


def default_gigabytes() -> list[float]:
    """As much as two processors read in ten minutes with all repeats; more for more of them, up to eight."""
    return [min(processors(), 8) * share for share in (0.125, 0.25, 0.5)]


@click.group()
def study() -> None:
    """Make a published evaluation again, on any backend.

    \b
    Examples:
      lithops-mini study openaq
    """


@study.command()
@click.option(
    "--workers",
    type=Numbers(int),
    metavar="N,N,...",
    help="How many workers. Default: powers of 2 up to twice your processors.",
)
@click.option(
    "--data", "gigabytes", type=Numbers(float), metavar="GB,GB,...", help="How much data. Default: by your processors."
)
@click.option(
    "--dst",
    type=click.Path(file_okay=False, path_type=Path),
    default="study-output",
    show_default=True,
    metavar="DIR",
    help="For measurements, tables, pictures and report.html.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(_ENGINES),
    multiple=True,
    default=["python"],
    show_default=True,
    help="What the workers add up with. May be repeated.",
)
@click.option(
    "--repeat", type=click.IntRange(1), default=_REPEAT, show_default=True, metavar="N", help="Runs of each kind."
)
@click.option("--again", is_flag=True, help="Measure also what was measured before.")
@click.option("--no-check", is_flag=True, help="Do not compare the results with those of a single process.")
@click.option("--report-only", is_flag=True, help="Draw what was measured, and measure nothing.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="Of the data.")
@click.option(
    "--stations",
    type=click.IntRange(1),
    default=8000,
    show_default=True,
    metavar="N",
    help="That measure. A file has 3.3 kB for each, and so 27 MB.",
)
@click.option(
    "--far-profile",
    metavar="NAME",
    help="A profile whose storage is in another region, to compare with. On the emulator none is needed.",
)
@click.option(
    "--far-latency",
    type=click.FloatRange(0),
    default=0.08,
    show_default=True,
    metavar="S",
    help="Seconds to the other region, on the emulator.",
)
@click.option(
    "--far-bandwidth",
    type=click.FloatRange(1e3),
    default=2e7,
    show_default=True,
    metavar="N",
    help="Bytes a second of each request there, on the emulator.",
)
@config_options
def openaq(
    workers: list[int] | None,
    gigabytes: list[float] | None,
    dst: Path,
    engines: tuple[str, ...],
    repeat: int,
    again: bool,
    no_check: bool,
    report_only: bool,
    seed: int,
    stations: int,
    far_profile: str | None,
    far_latency: float,
    far_bandwidth: float,
    selection: Selection,
) -> None:
    """The day averages of every pollutant at every station of the world, by map_reduce.

    Makes measurements in the shape of OpenAQ's, has them added up by different numbers of workers, checks the results,
    and draws how that went: a table and a picture for each metric, and one page with all. What was measured is kept in
    the directory: a run that was interrupted goes on where it stood.

    \b
    Examples:
      lithops-mini study openaq
      lithops-mini study openaq --workers 1,2 --data 0.1,0.2 --repeat 1
      lithops-mini study openaq -p prod --workers 8,16,32,64 --data 2.5,5,10
      lithops-mini study openaq -b docker --engine python --engine pandas
    """
    from lithops_mini.study.grid import OTHER, SAME, Grid, Place, Study
    from lithops_mini.study.page import write

    places = {SAME: Place(selection.arguments())}
    if (other := _other(selection, far_profile, far_latency, far_bandwidth)) is not None:
        places[OTHER] = other
    made = Study(dst, places, seed=seed, stations=stations, check=not no_check)
    if not report_only:
        grid = Grid(
            workers or default_workers(), gigabytes or default_gigabytes(), list(dict.fromkeys(engines)), repeat
        )
        try:
            made.run(grid, again=again, tell=click.echo)
        except KeyboardInterrupt:
            click.echo("What was measured is kept: the same command goes on from there.", err=True)
            raise
    runs = made.runs()
    if not runs:
        raise ConfigError(f"nothing was measured in {dst} until now")
    page, *others = write(dst, runs)
    click.echo(f"{page}, with {len(others)} pictures and tables beside it")


def _other(selection: Selection, profile: str | None, latency: float, bandwidth: float) -> Place | None:
    """Where the storage of another region is; ``None`` if there is no such."""
    from lithops_mini.study.distance import far_away, is_emulator
    from lithops_mini.study.grid import Place

    if profile is not None:
        return Place({**selection.arguments(), "profile": profile})
    url = getattr(selection.load().storage_options, "endpoint_url", None)
    if url is None or not is_emulator(url):
        return None
    return Place(selection.arguments(), partial(far_away, url, latency, bandwidth))


COMMANDS = [study]
