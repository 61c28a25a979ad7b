"""Clients of the local OpenWhisk that are interrupted, or leave, while calls run: what runs ends by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from attempts import until
from openwhisk_emulator import Emulated, start_openwhisk

import lithops_mini as lm

CALLS = 6  # of which two run at a time
SECONDS = 3.0  # that a call takes
PROGRAM = """
import json, sys, time
import lithops_mini as lm

def work(number):
    time.sleep({seconds})

if __name__ == "__main__":
    with lm.openwhisk_executor("localhost", **json.loads(sys.argv[1])) as executor:
        {body}
"""
BODIES = {
    "get_result": "executor.get_result(executor.map(work, range({calls})))",
    "leaving the block": "executor.map(work, range({calls}))",
    "killed": "executor.get_result(executor.map(work, range({calls})))",
}


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    flags = ("--sandbox", "process", "--per-minute", "1000000")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as openwhisk:
        yield openwhisk


def running(openwhisk: Emulated) -> int:
    return int(openwhisk.own("state")["running"])


def ends_by_itself(openwhisk: Emulated, begun: int) -> None:
    """What runs comes to its end, and no other begins."""
    openwhisk.settle(SECONDS + 15)
    assert openwhisk.own("state")["invocations"] == begun


@pytest.mark.parametrize(("where", "wait"), [*((where, 60.0) for where in BODIES), ("get_result", 0.3)])
def test_ctrl_c_gives_the_prompt_back(openwhisk: Emulated, where: str, wait: float, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(seconds=SECONDS, body=BODIES[where].format(calls=CALLS)))
    settings = {**openwhisk.place, "max_workers": 2, "storage_path": str(tmp_path / "storage"), "progress": False}
    with openwhisk.changed("limits", wait=wait):
        client = subprocess.Popen(
            [sys.executable, str(program), json.dumps(settings)],
            env=os.environ | {"TMPDIR": str(temporary), "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        until(lambda: running(openwhisk) == 2, "two calls run")
        threading.Event().wait(0.5)  # where a record is asked for, by now it is
        begun, began = openwhisk.own("state")["invocations"], time.monotonic()
        os.killpg(client.pid, signal.SIGKILL if where == "killed" else signal.SIGINT)
        said, _ = client.communicate(timeout=20)
        took = time.monotonic() - began
    assert took < 3
    if where == "killed":
        assert client.returncode == -signal.SIGKILL
    else:
        assert client.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 1)
        assert said.count("Traceback") == 1
        assert "KeyboardInterrupt" in said
        assert "2 activations go on until their calls end" in said
        assert list(temporary.iterdir()) == []
    ends_by_itself(openwhisk, begun)


def test_shutting_down_while_calls_run(openwhisk: Emulated, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = {**openwhisk.place, "storage_path": str(tmp_path)}
    executor = lm.function_executor("openwhisk", "localhost", max_workers=2, progress=False, **place)
    futures = executor.map(time.sleep, [SECONDS] * CALLS, chunksize=1)
    until(lambda: running(openwhisk) == 2, "two calls run")
    begun, began = openwhisk.own("state")["invocations"], time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 3
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=1)
    assert "2 activations go on" in caplog.text
    ends_by_itself(openwhisk, begun)
