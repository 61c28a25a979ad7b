"""lithops-mini storage sync, and the storage commands on services of the S3 family."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest
from test_cli import run
from test_storage_s3 import aws, cos, settings_of

_numbers = itertools.count()


@pytest.fixture(params=["localhost", "aws_s3", "ibm_cos"])
def cli(request, tmp_path, monkeypatch):
    """Runs ``lithops-mini storage ...`` in a directory, where a bucket is configured that has one object."""
    monkeypatch.chdir(tmp_path)
    bucket = f"sync-{next(_numbers)}"
    if request.param == "localhost":
        profile = {"storage": "localhost", "localhost": {"storage_path": str(tmp_path / "objects")}}
    else:
        storage = {"aws_s3": aws, "ibm_cos": cos}[request.param](request.getfixturevalue("swift"))
        profile = {"storage": request.param, request.param: settings_of(storage)}
    profile["storage_bucket"] = bucket
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))

    def cli(*arguments, command="storage", code=0):
        done = run(command, *arguments, code=code)
        return done.stdout if code == 0 else done.stderr

    cli("put", "--create-bucket", "lithops_mini.yaml", f"{bucket}/other")
    cli.bucket = bucket
    return cli


def write(path, text, age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def test_sync_moves_what_differs(cli, tmp_path):
    data = tmp_path / "data"
    for name in ("a", "b/c", "b/d e"):
        write(data / name, name, age=100)
    place = f"{cli.bucket}/raw"
    told = [json.loads(line) for line in cli("sync", "--json", "--dry-run", "data", place).splitlines()]
    assert [(row["action"], row["name"], row["done"]) for row in told] == [
        ("copy", name, False) for name in ("a", "b/c", "b/d e")
    ]
    assert "Copied 3 of 3 files, 9 B" in cli("sync", "data", place)
    assert "Copied 0 of 3 files" in cli("sync", "data", place)
    write(data / "a", "longer")
    (data / "b/c").unlink()
    assert "Copied 1 of 2 files, 6 B\n" in cli("sync", "data", place)
    assert "deleted 1 surplus one" in cli("sync", "--delete", "data", place)
    listed = [json.loads(line)["key"] for line in cli("list", "--json", cli.bucket).splitlines()]
    assert listed == ["other", "raw/a", "raw/b/d e"]
    (tmp_path / "copy").mkdir()
    write(tmp_path / "copy" / "extra", "x")
    assert "Copied 2 of 2 files" in cli("sync", "--down", "--delete", place, "copy")
    copy = tmp_path / "copy"
    found = {str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*") if path.is_file()}
    assert found == {"a": "longer", "b/d e": "b/d e"}
    assert "Copied 0 of 2 files" in cli("sync", "--down", place, "copy")


def test_what_was_copied_down_has_the_time_of_its_object(cli, tmp_path):
    place = f"{cli.bucket}/raw"
    write(tmp_path / "data" / "a", "text", age=100)
    cli("sync", "data", place)
    listed = json.loads(cli("list", "--json", place))["modified"]
    copy = tmp_path / "copy" / "a"
    assert "Copied 1 of 1 file" in cli("sync", "--down", place, "copy")
    assert copy.stat().st_mtime == pytest.approx(listed, abs=0.001)
    # whatever the clock of this machine said meanwhile: an older file comes again, this one and a newer one do not
    for age, copied in ((0, 0), (-100, 0), (100, 1)):
        os.utime(copy, (listed - age,) * 2) if age else None
        assert f"Copied {copied} of 1 file" in cli("sync", "--down", place, "copy"), age
    assert "Copied 0 of 1 file" in cli("sync", "copy", place)


def test_sync_says_what_is_wrong(cli):
    assert "not a directory" in cli("sync", "nowhere", cli.bucket, code=2)
    assert f"{cli.bucket}-missing" in cli("sync", "--down", f"{cli.bucket}-missing", "copy", code=1)
    Path("data").mkdir()
    assert "--create-bucket makes it" in cli("sync", "data", f"{cli.bucket}-missing", code=1)


def test_the_other_commands(cli, tmp_path):
    body = os.urandom(9 << 20)
    (tmp_path / "large").write_bytes(body)
    assert "Stored 1 object, 9 MiB" in cli("put", "large", f"{cli.bucket}/raw/")
    assert "9 MiB" in cli("list", f"{cli.bucket}/raw/")
    cli("get", f"{cli.bucket}/raw/large", "back")
    assert (tmp_path / "back").read_bytes() == body
    assert "Deleted 1 object, 9 MiB" in cli("delete", f"{cli.bucket}/raw/large")
    assert "there is no object" in cli("get", f"{cli.bucket}/raw/large", code=1)


@pytest.mark.parametrize("cli", ["aws_s3", "ibm_cos"], indirect=True)  # test_verify.py has the other
def test_the_configuration_is_tried_out(cli):
    told = cli("-b", "localhost", command="verify")
    assert " 0 failed, 0 skipped" in told
