"""Actions of OpenWhisk in containers of a Docker engine: images of ours, and the memory of an action."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from docker import DockerClient
from openwhisk_emulator import Emulated, start_openwhisk

import lithops_mini as lm
from lithops_mini.compute.openwhisk import OpenWhiskCompute, OpenWhiskOptions
from lithops_mini.errors import ConfigError, OutOfMemory
from lithops_mini.runtimes import openwhisk_image
from lithops_mini.storage.base import WorkerNeeds

REPOSITORY = "lithops-mini-test/actions"


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory, docker_engine: DockerClient) -> Iterator[Emulated]:
    flags = ("--sandbox", "docker", "--per-minute", "1000000")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as openwhisk:
        yield openwhisk


def local(openwhisk, **more):
    """Arguments of ``openwhisk_executor``, for jobs that need no storage."""
    return {"storage": "localhost", **openwhisk.place, "max_workers": 2, "progress": False, **more}


def images(engine):
    return {tag for image in engine.images.list(REPOSITORY) for tag in image.tags}


@pytest.mark.timeout(300)
def test_an_image_from_the_build_to_its_end(openwhisk, docker_engine):
    given = local(openwhisk, package="image", image=REPOSITORY, push=False, base="host", max_time=20)
    with lm.openwhisk_executor(**given) as executor:
        assert executor.get_result(executor.map(lambda x: x * x, range(50))) == [x * x for x in range(50)]
        user, name = executor.get_result(executor.submit(lambda: (os.getuid(), os.environ["__OW_ACTION_NAME"])))
        futures = executor.map(lambda x: os._exit(7) if x == 1 else print(f"hello {x}"), range(3), retries=0)
        failed = executor.get_result(futures, throw_except=False)
        assert isinstance(failed[1], lm.errors.WorkerDied)
        assert futures[2].logs == "hello 2\n"
        runtimes = executor._compute.runtimes("")
        (found,) = runtimes.list()
        # Another size has the same image, and nothing is built.
        assert executor.get_result(executor.map(abs, [-1], runtime_memory=300)) == [1]
    assert user == 65534
    assert found.current
    assert images(docker_engine) == {f"{REPOSITORY}:{found.name}"}
    assert name.startswith(f"/guest/lithops_mini/{found.name}-")
    assert re.fullmatch(rf"the image {REPOSITORY}:{found.name}, with 256 MiB", found.base)
    backend = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place, image=REPOSITORY, push=False))
    runtimes = backend.runtimes("")
    untagged = nameless(docker_engine)
    runtimes.delete(found.name)  # while containers of it are warm
    assert images(docker_engine) == set()
    assert nameless(docker_engine) == untagged
    assert runtimes.list() == []
    backend.close()


def nameless(engine):
    return {image.id for image in engine.images.list(filters={"dangling": True})}


@pytest.mark.timeout(300)
def test_an_image_that_a_container_goes_on_to_use_is_left_with_its_name(openwhisk, docker_engine, monkeypatch, caplog):
    monkeypatch.setattr(openwhisk_image, "_PATIENCE", 1.0)
    options = OpenWhiskOptions(**openwhisk.place, package="image", image=REPOSITORY, push=False, base="host")
    backend = OpenWhiskCompute(options)
    runtimes = backend.runtimes("")
    name = f"{REPOSITORY}:{runtimes.build(runtimes.recipe(()), print).name}"
    container = docker_engine.containers.create(name)
    try:
        runtimes.delete(name.partition(":")[2])
        assert runtimes.list() == []
        assert images(docker_engine) == {name}
        assert f"the image {name} stays" in caplog.text
        assert f"docker rmi {name}" in caplog.text
    finally:
        container.remove()
        docker_engine.images.remove(name)
        backend.close()


@pytest.mark.timeout(300)
def test_an_image_that_cannot_be_pushed_is_an_error_that_says_so(openwhisk, docker_engine):
    options = OpenWhiskOptions(**openwhisk.place, package="image", image="127.0.0.1:1/actions", base="host")
    backend = OpenWhiskCompute(options)
    with pytest.raises(ConfigError, match=r"cannot be pushed to 127\.0\.0\.1:1/actions.*set push to false"):
        backend.deploy(WorkerNeeds())
    backend.close()
    for image in docker_engine.images.list("127.0.0.1:1/actions"):
        docker_engine.images.remove(image.id, force=True)


def test_memory_of_an_action_that_is_full(openwhisk):
    """The kernel kills the runner, and the worker lives to tell."""

    def fill(mebibytes):
        return len([bytearray(os.urandom(1 << 10) * (1 << 10)) for _ in range(mebibytes)])

    with lm.openwhisk_executor(**local(openwhisk, memory=256)) as executor:
        values = executor.get_result(executor.map(fill, [10, 600, 20], chunksize=1), throw_except=False)
        assert type(values[1]) is OutOfMemory
        assert (values[0], values[2]) == (10, 20)
    with lm.openwhisk_executor(**local(openwhisk, on_oom="double")) as executor:
        assert executor.get_result(executor.map(fill, [350], runtime_memory=250)) == [350]
        assert executor.get_result(executor.map(fill, [350])) == [350]
        (error,) = executor.get_result(executor.map(fill, [900]), throw_except=False)
        assert type(error) is OutOfMemory  # the namespace gives no more than 512 MiB
