"""The shipped contract of compute backends, on ours and on one that only an entry point knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lithops_mini import registry
from lithops_mini.config import load
from lithops_mini.errors import ConfigError
from lithops_mini.testing.compute import ComputeContract


class TestLocalhost(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": "localhost", "max_workers": 3, "storage": "localhost", "storage_path": str(tmp_path / "s")}


class TestInline(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": "inline", "storage": "localhost", "storage_path": str(tmp_path / "s")}


PLUGIN = '''
"""A backend as a third party would write it: a process of its own for every message, which sees no files of ours."""

import shutil
import tempfile
import threading
from dataclasses import dataclass, field

from lithops_mini.compute.base import ComputeBackend
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.worker.supervisor import Supervisor


@dataclass(frozen=True)
class OneShotOptions:
    lanes: int = field(default=2, metadata={"help": "Messages at once.", "ge": 1})


class OneShot(ComputeBackend):
    Options = OneShotOptions
    max_payload = 300_000
    max_reply = 200_000

    def __init__(self, options):
        self._lanes = threading.Semaphore(options.lanes)
        self._concurrency = options.lanes
        self._lock = threading.Lock()
        self._running = set()
        self._count = 0
        self._environment = {}
        self._closed = False

    @property
    def concurrency(self):
        return self._concurrency

    def deploy(self, needs):
        self._environment = needs.environment

    def invoke(self, payload, activation):
        with self._lanes, tempfile.TemporaryDirectory() as directory:
            with self._lock:
                if self._closed:
                    raise InvocationError("closed", reason=Reason.CANCELLED)
                self._count += 1
                supervisor = Supervisor(f"oneshot/{self._count}", directory, environment=self._environment)
                self._running.add(supervisor)
            activation.stoppable(supervisor.cancel)
            try:
                return supervisor.run(payload)
            finally:
                activation.end()
                supervisor.close()
                with self._lock:
                    self._running.discard(supervisor)

    def close(self):
        with self._lock:
            self._closed = True
            running = list(self._running)
        for supervisor in running:
            supervisor.close()
'''
METADATA = "Metadata-Version: 2.1\nName: oneshot\nVersion: 1.0\n"


class TestPlugin(ComputeContract):
    """A backend that only an entry point of an installed distribution knows."""

    reuses_workers = False
    many = 10

    @pytest.fixture
    def executor_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
        site = tmp_path / "site-packages"
        (site / "oneshot-1.0.dist-info").mkdir(parents=True)
        (site / "oneshot.py").write_text(PLUGIN)
        (site / "oneshot-1.0.dist-info" / "METADATA").write_text(METADATA)
        entry_points = "[lithops_mini.compute]\noneshot = oneshot:OneShot\n"
        (site / "oneshot-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(site)
        yield {"backend": "oneshot", "lanes": 3, "storage": "localhost", "storage_path": str(tmp_path / "s")}
        sys.modules.pop("oneshot", None)

    def test_it_is_known_by_name(self, executor_settings: dict[str, Any]) -> None:
        assert "oneshot" in registry.names("compute")
        with pytest.raises(ConfigError, match="lanes"):
            load(**{**executor_settings, "lanes": 0})
        with pytest.raises(ConfigError, match="Did you mean 'oneshot'"):
            load(backend="onesht")
