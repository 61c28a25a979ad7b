"""lithops-mini emulate: what is refused before anything starts, and the file that it writes its profile into."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml
from click.testing import CliRunner

from lithops_mini.cli.app import app
from lithops_mini.cli.profile_file import read_profile
from lithops_mini.config import load
from lithops_mini.emulators.openwhisk.settings import Limits
from lithops_mini.emulators.settings import change
from lithops_mini.errors import ConfigError

MINE = """\
# mine
profiles:
  prod:  # that of all days
    backend: localhost
    storage: localhost
"""


def refused(*arguments):
    result = CliRunner().invoke(app, ["emulate", *arguments, "--sandbox", "process"], prog_name="lithops-mini")
    assert result.exit_code == 1, result.output
    return result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("openwhisk --min-memory 600", "min_memory is 600, and must not be above max_memory, which is 512"),
        ("openwhisk --max-timeout 50", "min_timeout is 100, and must not be above max_timeout, which is 50"),
        ("openwhisk --per-minute -1", "per_minute is -1, and must be a whole number not below 0"),
        ("openwhisk --concurrent -1", "concurrent is -1, and must be a whole number not below 0"),
        ("openwhisk --patience 0", "patience is 0.0, and must be a number between 0.01 and 1e+09"),
        ("openwhisk --cold-start inf", "cold_start is inf, and must be a number between 0 and 1e+09"),
        ("aws --cold-start inf", "cold_start is inf, and must be a number between 0 and 1e+09"),
        ("aws --scaling 0", "scaling is 0, and must be a whole number not below 1"),
        ("knative --cold-start nan", "cold_start is nan, and must be a number between 0 and 1e+09"),
        ("knative --crash 1.5", "crash is 1.5, and must be a number between 0 and 1"),
        ("knative --queue 0", "queue is 0, and must be a whole number not below 1"),
    ],
)
def test_numbers_that_make_no_sense(arguments, text):
    assert refused(*arguments.split()) == f"Error: {text}\n"


def test_numbers_are_checked_together():
    assert change(Limits(), {"min_memory": 1024, "max_memory": 2048}).min_memory == 1024
    with pytest.raises(ConfigError, match="min_memory is 1024, and must not be above max_memory, which is 512"):
        change(Limits(), {"min_memory": 1024})


def test_a_profile_file_that_cannot_be_written(tmp_path):
    nowhere = tmp_path / "nowhere" / "x.yaml"
    for kind in ("aws", "openwhisk", "knative"):
        assert refused(kind, "--profile-file", str(nowhere)) == (
            f"Error: cannot write {nowhere}: there is no directory {nowhere.parent}; choose another --profile-file\n"
        )
    assert not nowhere.parent.exists()
    other = tmp_path / "notes.txt"
    other.write_text("text\n")
    assert f"Error: {other}: has no key 'profiles'" in refused("openwhisk", "--profile-file", str(other))
    assert other.read_text() == "text\n"


@contextmanager
def running(kind, *flags):
    """What an emulator has said when it answers, and the rest at its end: a list."""
    command = [sys.executable, "-m", "lithops_mini", "emulate", kind, "--sandbox", "process", *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "answers at" in process.stdout.readline(), process.stderr.read()
        told: list[str] = []
        try:
            yield told
        finally:
            process.send_signal(signal.SIGTERM)
            told += process.stderr.readlines()
            process.stdout.read()
            process.wait(30)


@pytest.mark.parametrize("kind", ["aws", "openwhisk", "knative"])
def test_the_other_profiles_of_a_file_stay(tmp_path, kind):
    file = tmp_path / "lithops_mini.yaml"
    file.write_text(MINE)
    file.chmod(0o644)
    ports = []
    for _ in range(2):  # the second time in place of the first
        with running(kind, "--profile-file", str(file)) as told:
            assert file.read_text().startswith(MINE)
            assert file.stat().st_mode & 0o777 == 0o600  # there are keys in it now
            ports.append(read_profile(file, "emulator"))
            assert load(config_file=file).profile == "prod"
            assert load(config_file=file, profile="emulator").backend.startswith(kind)
        assert told == [f"Take -p emulator: the default profile of {file} is prod.\n"]
    assert ports[0] != ports[1]
    assert list(yaml.safe_load(file.read_text())["profiles"]) == ["prod", "emulator"]


def test_a_new_file_has_the_profile_as_its_default(tmp_path):
    for name in ("new.yaml", "empty.yaml"):
        file = tmp_path / name
        if name == "empty.yaml":
            file.touch()
        with running("openwhisk", "--profile-file", str(file)) as told:
            assert (load(config_file=file).profile, load(config_file=file).backend) == ("emulator", "openwhisk")
            assert file.stat().st_mode & 0o777 == 0o600
        assert told == []
