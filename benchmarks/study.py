"""The OpenAQ study on this machine, for docs/study.md: on localhost, in containers and on the local AWS Lambda.

python benchmarks/study.py                       # all three, each kind of run once, and the page
python benchmarks/study.py localhost --quick     # to see that it runs: nothing is written
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from measure import fill, markdown

from lithops_mini.durations import format_duration
from lithops_mini.sizes import format_size
from lithops_mini.study.grid import OTHER, SAME, Measurement, Place, Study, medians

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from lambda_account import BUCKET, start_account

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "study.md"
PICTURES = ("scalability", "speedup", "utilisation", "cpu-network", "memory", "distribution", "regions", "cost")
ONCE = ("--repeat", "1")
QUICK = (*ONCE, "--workers", "1,2", "--data", "0.005,0.01", "--stations", "300")

Profile = dict[str, Any]


@contextmanager
def localhost(_: Path) -> Iterator[Profile]:
    yield {"backend": "localhost"}


@contextmanager
def docker(_: Path) -> Iterator[Profile]:
    yield {"backend": "docker", "docker": {"base": "host"}}


@contextmanager
def aws_lambda(directory: Path) -> Iterator[Profile]:
    with start_account(directory) as account:
        place: Profile = {"backend": "aws_lambda", "storage": "aws_s3", "storage_bucket": BUCKET}
        yield {**place, "aws": account.aws.account, "aws_lambda": {"role": account.role}}


SETUPS = (localhost, docker, aws_lambda)


def run(setup: Callable[[Path], Any], dst: Path, options: Sequence[str]) -> None:
    """The command, with a configuration and a storage of its own."""
    with tempfile.TemporaryDirectory() as temporary, setup(Path(temporary)) as profile:
        stored = {"localhost": {"storage_path": f"{temporary}/storage"}}
        file = Path(temporary, "config.yaml")
        file.write_text(yaml.safe_dump({"profiles": {"only": {**stored, **profile}}}))
        command = [sys.executable, "-m", "lithops_mini"]
        selection = ["--config", str(file)]
        if "docker" in profile:
            subprocess.run([*command, "runtime", "build", *selection], check=True)
        subprocess.run([*command, "study", "openaq", "--dst", str(dst), *selection, *options], check=True)


def lines(measured: Sequence[Measurement]) -> Iterator[list[str]]:
    """The cells of the page's table: medians, if there is more than one run of a kind."""
    times = medians(measured, "wall_time")
    found = {
        name: medians(measured, name)
        for name in ("bytes_per_second", "cpu_share", "peak_memory", "distribution_time", "dollars")
    }
    for line, values in times.items():
        engine, gigabytes, region = line
        fewest = min(values)
        for workers, time in values.items():
            told = {name: by_line[line][workers] for name, by_line in found.items()}
            yield [
                f"{gigabytes:g} GB" + (", other region" if region == OTHER else ""),
                engine,
                f"{workers:,}",
                format_duration(time),
                f"{values[fewest] * fewest / time:.2f} x",
                f"{told['bytes_per_second'] / 1e6:,.1f} MB/s",
                f"{told['cpu_share']:.0%}",
                format_size(round(told["peak_memory"])),
                format_duration(told["distribution_time"]),
                f"${told['dollars']:.6f}",
            ]


def write(name: str, dst: Path) -> None:
    """The table and the pictures of one setup into the page."""
    study = Study(dst, {SAME: Place({})}, seed=1, stations=1, check=False)
    headings = ["data", "engine", "workers", "time", "speed-up", "read", "processor", "memory", "to distribute", "cost"]
    text = markdown(headings, list(lines(study.measured())))
    pictures = PAGE.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for picture in PICTURES:
        if (dst / f"{picture}.png").exists():
            shutil.copy(dst / f"{picture}.png", pictures / f"{name}-{picture}.png")
            text += f"\n\n![{picture}]({pictures.name}/{name}-{picture}.png)"
    fill(PAGE, name, text)


def main() -> None:
    names = [setup.__name__ for setup in SETUPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*names, []], help="only these; default: all")
    parser.add_argument("--quick", action="store_true", help="less of everything; nothing is written to the page")
    given = parser.parse_args()
    for setup in SETUPS:
        name = setup.__name__
        if given.names and name not in given.names:
            continue
        dst = ROOT / "build" / "study" / (f"{name}-quick" if given.quick else name)
        print(f"{name}: {dst}", flush=True)
        run(setup, dst, (*QUICK, "--again") if given.quick else ONCE)
        if not given.quick:
            write(name, dst)


if __name__ == "__main__":
    main()
