"""The study: data that is the same everywhere, averages that are right, and measurements that are kept."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aws_emulator import start_aws
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from lithops_mini.client import Storage
from lithops_mini.study import analysis, dataset, generator
from lithops_mini.study.stations import POLLUTANTS, make_stations

FIELDS = [
    *("country", "city", "location", "coordinates", "date", "parameter", "value", "unit", "averagingPeriod"),
    *("attribution", "sourceName", "sourceType", "mobile"),
]
SMALL = ("--stations", "100", "--workers", "1,2", "--data", "0.0007,0.002", "--repeat", "1")
PICTURES = [
    "bytes",
    "cost",
    "cpu-network",
    "distribution",
    "lifetimes",
    "memory",
    "scalability",
    "speedup",
    "utilisation",
]


def study(directory: Path, *args: str, code: int = 0) -> str:
    command = [sys.executable, "-W", "error", "-m", "lithops_mini", "study", "openaq", "--dst", "out", *args]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plainly(text: bytes) -> dict[tuple[str, str, str], tuple[int, float]]:
    """The same averages by another program."""
    values = defaultdict(list)
    for line in text.splitlines():
        row = json.loads(line)
        if row["value"] != -999:
            values[row["location"], row["parameter"], row["date"]["utc"].partition("T")[0]].append(row["value"])
    return {key: (len(some), float(sum(map(Fraction, map(str, some))) / len(some))) for key, some in values.items()}


def as_dict(table: Any) -> dict[tuple[str, str, str], tuple[int, float]]:
    cells = [line.rstrip("\n").split("\t") for line in table]
    found = {(place, what, day): (int(count), float(mean)) for place, what, day, count, mean in cells}
    assert len(found) == len(cells)
    assert list(found) == sorted(found)
    return found


# The data.


def test_a_file_has_the_same_bytes_on_every_machine() -> None:
    later = b"".join(generator.lines(1, 7, 60))
    earlier = b"".join(generator.lines(1, 3, 60))
    assert hashlib.sha256(earlier).hexdigest() == "716a8cd1cd0cebcd103d8dc624d86dc3a1eb01012c3c519182658c333252f28a"
    assert hashlib.sha256(later).hexdigest() == "14130646ec4dd31f30c4167b9ac74003288f4d8f8ee0bb04939afb73748d8aea"
    assert b"".join(generator.lines(2, 3, 60)) != earlier


def test_stations_are_of_real_countries_and_measure_one_to_six_pollutants() -> None:
    stations = make_stations(1)
    assert len(stations) == 8000
    assert stations[:60] == make_stations(1, 60)
    assert len({station.location for station in stations}) == 8000
    assert {len(station.sensors) for station in stations} == {1, 2, 3, 4, 5, 6}
    assert {"US", "CN", "IN", "ES", "CL"} <= {station.country for station in stations}
    assert {POLLUTANTS[each.pollutant].name for station in stations for each in station.sensors} == {
        *("pm25", "pm10", "no2", "o3", "so2", "co", "bc")
    }


def test_lines_are_those_of_openaq_with_their_faults() -> None:
    lines = [line for number in range(40, 44) for line in b"".join(generator.lines(1, number, 300)).splitlines()]
    measured = [json.loads(line) for line in lines]
    assert all(list(row) == FIELDS for row in measured)
    assert {(row["parameter"], row["unit"]) for row in measured} >= {("o3", "ppm"), ("o3", "µg/m³"), ("pm25", "µg/m³")}
    days = Counter(row["date"]["utc"][:10] for row in measured)
    assert days.most_common(1)[0][0] == "2024-01-05"
    assert set(days) >= {"2024-01-04", "2024-01-05"}, "none is late"
    values = [row["value"] for row in measured]
    assert -999 in values
    assert 0 in values
    assert len(set(lines)) < len(lines), "none comes twice"
    particles = sorted(row["value"] for row in measured if row["parameter"] == "pm25" and row["value"] > 0)
    median, mean = particles[len(particles) // 2], math.fsum(particles) / len(particles)
    assert 5 < median < mean < 100, "not log-normal"
    assert abs(len(b"\n".join(lines)) / (4 * 300 * generator.SIZE) - 1) < 0.15


# The averages.

MEASURED = st.lists(
    st.tuples(
        st.sampled_from(["Delhi", "Kraków Station", "Lima"]),
        st.sampled_from(["pm25", "o3"]),
        st.sampled_from(["2024-01-01T00:00:00.000Z", "2024-01-01T23:59:00.000Z", "2024-01-02T00:00:00.000Z"]),
        st.one_of(st.just(-999), st.just(0), st.integers(1, 400), st.decimals(0, 500, places=4).map(float)),
    ),
    max_size=60,
)


def as_lines(measured: list[tuple[str, str, str, float]]) -> list[bytes]:
    return [
        json.dumps({"location": place, "date": {"utc": time}, "parameter": what, "value": value}).encode() + b"\n"
        for place, what, time, value in measured
    ]


@settings(max_examples=60)
@given(MEASURED, st.data(), st.sampled_from(analysis.ENGINES))
def test_the_averages_are_those_of_a_plain_program(measured: Any, data: Any, engine: str) -> None:
    lines = as_lines(measured)
    cut = data.draw(st.integers(0, len(lines)))
    files = [b"".join(lines[:cut]), b"".join(lines[cut:])]
    expected = plainly(b"".join(lines))
    first, both = ("".join(table) for table in analysis.truth(map(io.BytesIO, files), [1, 2]))
    assert as_dict(first.splitlines()) == plainly(files[0])
    assert as_dict(both.splitlines()) == expected

    sums: analysis.Sums = {}
    for parts in ([files[0]], [b"", files[1]]):
        obj = [SimpleNamespace(data_stream=io.BytesIO(part)) for part in parts]
        part = analysis.partial_sums(obj, engine)
        assert part["samples"][-1][1] == sum(map(len, parts))
        for sensor, days in part["sums"].items():
            for day, (number, total) in days.items():
                analysis.add(sums, sensor, day, number, total)
    found = list(analysis.table(sums))
    assert list(analysis.differences(found, both.splitlines())) == []
    if found:
        assert list(analysis.differences(found[1:], both.splitlines()))
        place, what, day, count, mean = found[-1].split("\t")
        for wrong in ((place, what, day, int(count) + 1, mean), (place, what, day, count, float(mean) + 1e-6)):
            changed = [*found[:-1], "\t".join(map(str, wrong))]
            assert len(list(analysis.differences(changed, both.splitlines()))) == 1


@given(st.integers(1, 600), st.integers(1, 600))
def test_shares_are_even(files: int, workers: int) -> None:
    how = dataset.shares([100] * files, workers)
    if "obj_chunk_number" in how:
        calls = files * how["obj_chunk_number"]
        parts = 100 / how["obj_chunk_number"]
    else:
        each = how["obj_pack_size"] // 100
        calls, parts = math.ceil(files / each), 100 * each
        assert files >= workers
    assert calls >= workers or "obj_pack_size" in how
    assert math.ceil(calls / workers) * parts <= 1.1 * 100 * files / workers + 1e-6


# The command.


@pytest.mark.timeout(300)
def test_the_study_is_measured_kept_and_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lithops_mini", "study", "openaq", "--dst", "out", *SMALL]
    begun = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with begun:
        for line in begun.stdout:
            if line.startswith("1 of 4: "):
                begun.send_signal(signal.SIGINT)
    assert begun.returncode == 130
    kept = rows(tmp_path / "out" / "measurements.csv")
    assert 1 <= len(kept) < 4

    # What was damaged is made again, by its checksum; what was measured is not measured again.
    with Storage() as storage:
        [key, *_] = storage.list_keys(None, "lithops_mini/study/openaq/1-100/files/")
        whole = storage.get_object(None, key)
        storage.put_object(None, key, whole[:-1] + b" ")
        printed = study(tmp_path, *SMALL, "--engine", "python", "--engine", "pandas")
        assert storage.get_object(None, key) == whole
        assert not list(storage.list_keys(None, "lithops_mini/study/openaq/1-100/results/"))
    assert f"1 of {8 - len(kept)}: " in printed
    measured = rows(tmp_path / "out" / "measurements.csv")
    assert measured[: len(kept)] == kept
    points = [(row["engine"], row["workers"], row["gigabytes"]) for row in measured]
    assert sorted(points) == sorted(product(analysis.ENGINES, ("1", "2"), ("0.0007", "0.002")))
    assert all(row["checked"] == "1" and int(row["lines"]) > 1000 and float(row["dollars"]) > 0 for row in measured)
    for name in PICTURES:
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert rows(tmp_path / "out" / f"{name}.csv"), name
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('<img src="data:image/png') == len(PICTURES)
    assert "give another directory" in study(tmp_path, *SMALL, "--seed", "2", code=1)


@pytest.mark.timeout(300)
def test_storage_in_another_region_is_slower(tmp_path: Path) -> None:
    with start_aws(tmp_path, "--sandbox", "process") as aws:
        profile = {"backend": "localhost", "storage": "aws_s3", "storage_bucket": "study", "aws": aws.account}
        (tmp_path / "lithops_mini.yaml").write_text(yaml.safe_dump({"profiles": {"only": profile}}))
        far = ("--workers", "2", "--data", "0.0007", "--stations", "100", "--repeat", "1", "--far-latency", "0.1")
        study(tmp_path, *far)
        limits = aws.own("limits")
    assert (limits["s3_latency"], limits["s3_bandwidth"]) == (0, 0)
    measured = {row["region"]: row for row in rows(tmp_path / "out" / "measurements.csv")}
    assert set(measured) == {"same", "other"}
    assert float(measured["other"]["map_time"]) > 0.1
    assert all(row["checked"] == "1" and int(row["storage_requests"]) > 0 for row in measured.values())
    assert (tmp_path / "out" / "regions.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(tmp_path / "out" / "regions.csv")) == 2


def test_the_example_agrees_with_the_truth(tmp_path: Path) -> None:
    (tmp_path / "measurements").mkdir()
    files = [b"".join(generator.lines(1, number, 300)) for number in range(3)]
    for number, file in enumerate(files):
        (tmp_path / "measurements" / f"{number}.ndjson").write_bytes(file)
    command = [sys.executable, "-W", "error", str(REPOSITORY / "examples" / "openaq" / "day_averages.py")]
    command += ["./measurements/", "--chunk-size", "700kB"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split("\t") for line in done.stdout.splitlines()]
    expected = sorted(plainly(b"".join(files)).items())
    assert [tuple(key) for *key, _ in found] == [key for key, _ in expected]
    for (*_, printed), (_, (_, mean)) in zip(found, expected, strict=True):
        assert math.isclose(float(printed), mean, abs_tol=0.5001e-4)
