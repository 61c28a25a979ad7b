"""An account from nothing to the demo, and back to nothing, by the command line, with functions in containers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from aws_emulator import start_aws
from test_examples import DATA, nycflights, run

__all__ = ["nycflights"]


def command(directory: Path, *arguments: str) -> str:
    line = [sys.executable, "-W", "error", "-m", "lithops_mini", *arguments]
    done = subprocess.run(line, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("docker_engine", "nycflights")
@pytest.mark.parametrize("carrier", ["reply", "event"])
def test_from_nothing_to_the_demo_and_back(carrier: str, tmp_path: Path) -> None:
    profile = ("-c", "emulator.yaml", "-p", "emulator")
    with start_aws(tmp_path, "--sandbox", "docker") as aws:
        written = yaml.safe_load(aws.profile.read_text())
        written["profiles"]["emulator"]["aws_lambda"] = {"carrier": carrier, "max_workers": 4, "max_time": 60}
        aws.profile.write_text(yaml.safe_dump(written))
        aws.client("s3").create_bucket(Bucket="flights")
        told = command(tmp_path, "aws", "setup", *profile, "--yes", "--data", "flights")
        assert told.endswith("Everything works.\n")
        verified = command(tmp_path, "verify", *profile)
        assert ": 24 ok, 0 failed, 2 skipped" in verified

        arguments = ("--cache", str(DATA), "--config", "emulator.yaml", "--profile", "emulator", "--bucket", "flights")
        printed = run(tmp_path, "nycflights.py", *arguments)
        assert len(re.findall(r"^Checked: [\d,]+ averages of [\d,]+ values agree", printed, re.MULTILINE)) == 2
        assert "WRONG" not in printed
        assert "backend aws_lambda" in printed

        command(tmp_path, "aws", "teardown", *profile, "--yes")
        assert aws.client("lambda").list_functions()["Functions"] == []
        assert [each["RoleName"] for each in aws.client("iam").list_roles()["Roles"]] == []
        assert [each["Name"] for each in aws.client("s3").list_buckets()["Buckets"]] == ["flights"]
        assert aws.client("logs").describe_log_groups()["logGroups"] == []
