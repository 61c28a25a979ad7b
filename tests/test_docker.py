"""The docker backend on a real engine: the contract of compute backends, and the worker as an engine sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import docker
import pytest
from attempts import until

from lithops_mini.testing.compute import ComputeContract
from lithops_mini.worker import frames
from lithops_mini.worker.frames import Kind

pytestmark = pytest.mark.usefixtures("runtime_image")


class TestContract(ComputeContract):
    many: ClassVar[int] = 20

    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {
            "backend": "docker",
            "storage": "localhost",
            "storage_path": str(tmp_path / "s"),
            "max_workers": 2,
            "base": "host",
        }


@pytest.fixture
def worker(docker_engine: docker.DockerClient, runtime_image: str) -> Iterator[Any]:
    """A container of the runtime image as anybody would start it, whose input stays open."""
    container = docker_engine.containers.run(
        runtime_image, detach=True, stdin_open=True, labels={"lithops-mini": "test"}
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def test_a_container_says_whether_it_is_well(worker: Any) -> None:
    check = ["python3", "-P", "-m", "lithops_mini.worker.server", "--health"]
    until(lambda: worker.exec_run(check).exit_code == 0, "the worker is well")
    assert worker.exec_run(["id", "-u"]).output == b"65534\n"
    assert worker.exec_run(["python3", "-P", "-m", "lithops_mini.worker.server", "--what"]).exit_code == 1


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_at_once_when_it_is_told_to(worker: Any, busy: bool) -> None:
    attached = worker.attach_socket(params={"stdin": 1, "stream": 1})
    setup = b'{"name": "w", "environment": {}, "show_output": false}'
    connection = attached._sock
    connection.sendall(frames.pack(Kind.SETUP, setup) if busy else b"")
    check = ["python3", "-P", "-m", "lithops_mini.worker.server", "--health"]
    until(lambda: worker.exec_run(check).exit_code == 0, "the worker is well")
    began = time.monotonic()
    worker.stop(timeout=20)
    assert time.monotonic() - began < 15
    assert worker.wait()["StatusCode"] == 0
    connection.close()
    attached.close()


def test_a_worker_ends_when_its_client_has_gone(docker_engine: docker.DockerClient, runtime_image: str) -> None:
    container = docker_engine.containers.run(runtime_image, detach=True, labels={"lithops-mini": "test"})
    try:
        assert container.wait(timeout=20)["StatusCode"] == 0
    finally:
        container.remove(force=True)
