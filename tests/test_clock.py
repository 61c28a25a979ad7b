"""What counts as a call's time: its own, and not what a cold worker must do first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lithops_mini import registry
from lithops_mini.config import load
from lithops_mini.testing.messages import Messages, outcomes, statuses
from lithops_mini.worker.supervisor import Supervisor

# A storage whose SDK takes as long as a call may.
SLOW = """
import time
from lithops_mini.storage.localhost import LocalhostStorage


class SlowStorage(LocalhostStorage):
    def prepare(self):
        time.sleep(0.6)
"""
TIMEOUT = 0.5


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Messages:
    information = tmp_path / "slow_storage-1.0.dist-info"
    information.mkdir()
    (tmp_path / "slow_storage.py").write_text(SLOW)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: slow_storage\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[lithops_mini.storage]\nslow = slow_storage:SlowStorage\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    monkeypatch.syspath_prepend(tmp_path)
    config = load(storage="slow", storage_path=str(tmp_path / "s"))
    storage = registry.find("storage", "slow")(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    return Messages(config, storage)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor("w", str(tmp_path))
    yield supervisor
    supervisor.close()


def test_opening_the_storage_is_no_part_of_the_call_that_needs_it(messages: Messages, supervisor: Supervisor) -> None:
    def put(x: int, storage) -> int:  # type: ignore[no-untyped-def]
        storage.put_object(None, "key", b"")
        return x

    reply = supervisor.run(messages.payload(put, [7], inject=["storage"], timeout=TIMEOUT))
    assert messages.values(reply) == [7]
    (outcome,) = outcomes(reply)
    assert outcome.ended - outcome.started < TIMEOUT


def test_nor_of_the_call_whose_result_is_stored(messages: Messages, supervisor: Supervisor) -> None:
    reply = supervisor.run(messages.payload(lambda size: bytes(size), [1 << 20], timeout=TIMEOUT))
    assert messages.values(reply) == [bytes(1 << 20)]


def test_the_clock_goes_on_when_the_storage_is_open(messages: Messages, supervisor: Supervisor) -> None:
    def sleep(seconds: float, storage) -> None:  # type: ignore[no-untyped-def]
        time.sleep(seconds)

    began = time.monotonic()
    reply = supervisor.run(messages.payload(sleep, [60], inject=["storage"], timeout=TIMEOUT))
    assert statuses(reply) == ["TIMEOUT"]
    assert time.monotonic() - began > 0.6 + TIMEOUT - 0.05
