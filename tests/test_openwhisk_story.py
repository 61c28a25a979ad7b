"""A namespace of the local OpenWhisk from nothing to the demo, and back to nothing, by the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from engines import Engine
from openwhisk_emulator import start_openwhisk
from test_aws_story import command
from test_examples import DATA, nycflights, run

from lithops_mini.client import Storage

__all__ = ["nycflights"]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nycflights")
def test_from_nothing_to_the_demo_and_back(moto: Engine, tmp_path: Path) -> None:
    profile = ("-c", "story.yaml", "-p", "story")
    keys = {"access_key_id": moto.access_key_id, "secret_access_key": moto.secret_access_key}
    mine = {
        "aws_s3": {"endpoint_url": moto.url, "region": moto.region, **keys},
        "openwhisk": {"max_workers": 4, "carrier": "event"},
    }
    file = tmp_path / "story.yaml"
    file.write_text(yaml.safe_dump({"profiles": {"story": mine}}))
    with start_openwhisk(tmp_path, "--sandbox", "process", "--per-minute", "100000") as openwhisk:
        place = ("--endpoint", openwhisk.url, "--key", openwhisk.place["api_key"])
        stored = ("--storage", "aws_s3", "--bucket", "story-jobs")
        assert command(tmp_path, "openwhisk", "setup", *profile, *place, *stored, "--yes").endswith(
            "Everything works.\n"
        )
        assert re.search(r": \d+ ok, 0 failed, 2 skipped", command(tmp_path, "verify", *profile))

        arguments = ("--cache", str(DATA), "--config", "story.yaml", "--profile", "story", "--bucket", "story-data")
        printed = run(tmp_path, "nycflights.py", *arguments)
        assert len(re.findall(r"^Checked: [\d,]+ averages of [\d,]+ values agree", printed, re.MULTILINE)) == 2
        assert "WRONG" not in printed
        assert "backend openwhisk" in printed

        command(tmp_path, "clean", *profile, "--yes")
        with Storage("aws_s3", config={**mine, "storage": "aws_s3", "storage_bucket": "story-jobs"}) as storage:
            assert list(storage.list_keys("story-jobs")) == []
        command(tmp_path, "openwhisk", "teardown", *profile, "--yes")
        assert yaml.safe_load(file.read_text()) == {"profiles": {"story": mine}}
        assert openwhisk.ask("GET", "packages").body == []
        assert openwhisk.ask("GET", "actions").body == []
        assert openwhisk.own("state")["running"] == 0
