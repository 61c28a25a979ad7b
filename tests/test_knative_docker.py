"""The knative backend with containers: images of the engine, memory that is enforced, and images that are not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from engines import Engine
from knative_cluster import Local, start_knative

import lithops_mini as lm
from lithops_mini.errors import ConfigError, OutOfMemory
from lithops_mini.runtimes import cluster, knative_ready

_PATH = "__import__('os').environ['PYTHONPATH']"


@pytest.fixture(scope="module")
def local(
    tmp_path_factory: pytest.TempPathFactory, moto: Engine, docker_engine: docker.DockerClient, runtime_image: str
) -> Iterator[Local]:
    with start_knative(tmp_path_factory.mktemp("knative"), moto, "--sandbox", "docker") as local:
        yield local


@pytest.fixture
def own(local: Local, tmp_path) -> dict[str, Any]:
    """Arguments for an executor on images of the engine; its storage needs no packages in them."""
    environment = {"TEST": os.urandom(4).hex()}
    place = {"backend": "knative", "storage": "localhost", "storage_path": str(tmp_path / "s"), "progress": False}
    return {**place, **local.settings, "base": "host", "push": False, "max_workers": 2, "environment": environment}


def test_an_image_is_built_and_used_and_named_for_the_cluster(own, docker_engine, runtime_image):
    with lm.function_executor(**own) as executor:
        user, python = executor.get_result(executor.map(eval, ["__import__('os').getuid()", _PATH]))
        assert user in (65534, os.getuid())  # where the emulator lends a directory of ours
        assert python == "/opt/lithops_mini/worker:/opt/lithops_mini/packages"
        runtimes = executor._compute.runtimes("")
        recipe = runtimes.recipe(())
        name = runtimes._images.name(recipe)
        (found,) = [each for each in runtimes.list() if each.name == runtimes.name(recipe)]
    assert name.startswith("dev.local/lithops-mini:3.")
    assert docker_engine.images.get(name).id == docker_engine.images.get(runtime_image).id
    assert found.size > 1 << 20
    assert found.current


def test_a_call_without_memory_is_one_failure(own):
    def fill(mebibytes):
        return len([bytearray(os.urandom(1 << 10) * (1 << 10)) for _ in range(mebibytes)])

    with lm.function_executor(**{**own, "memory": 200}) as executor:
        values = executor.get_result(executor.map(fill, [10, 600, 20], chunksize=1), throw_except=False)
    assert type(values[1]) is OutOfMemory
    assert (values[0], values[2]) == (10, 20)


def test_an_image_that_is_not_there_is_said_in_the_words_of_the_cluster(own, monkeypatch):
    monkeypatch.setattr(knative_ready, "_GRACE", 1.0)
    monkeypatch.setattr(cluster, "WATCHED", 1)
    with pytest.raises(ConfigError, match=r"ImagePullBackOff|ErrImagePull|Unable to fetch image") as caught:
        lm.function_executor(**{**own, "base": None, "image": "dev.local/nobody:has", "start_timeout": 60})
    assert "dev.local/nobody:has" in str(caught.value)
    assert "lithops-mini runtime build -b knative" in str(caught.value)
