"""Pods of the local Knative in containers: what only a container can enforce, and images."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from knative_emulator import SERVER, condition, start_knative, wait_until

from lithops_mini.emulators.containers import AT_ONCE, LABEL, OWNER
from lithops_mini.runtimes import engine
from lithops_mini.runtimes.recipe import Recipe

NAME = f"lithops-mini-test/service-{os.getpid()}"


@pytest.fixture(scope="module")
def image(docker_engine):
    """An image whose entry point is a server, and whose arguments it does not look at."""
    base = engine.base_image(docker_engine, Recipe(base="host"), print)
    container = docker_engine.containers.create(base, ["python3", "-c", "0"])
    try:
        program = SERVER.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        changes = [f'ENTRYPOINT ["python3", "-c", "{program}"]', 'CMD ["argument"]', "WORKDIR /tmp", "USER 65534"]
        made = container.commit(NAME, "latest", changes="\n".join(changes))
    finally:
        container.remove()
    yield f"{NAME}:latest"
    docker_engine.images.remove(made.id, force=True)


@contextmanager
def started(docker_engine, directory, *flags):
    with start_knative(directory, "--sandbox", "docker", "--grace", "5", *flags) as emulated:
        yield emulated
    assert containers(docker_engine, emulated) == []


@pytest.fixture(scope="module")
def knative(image, docker_engine, tmp_path_factory):  # no container is left when the image goes
    directory = tmp_path_factory.mktemp("knative")
    with started(docker_engine, directory, "--mount", str(directory)) as emulated:
        emulated.directory = directory
        yield emulated


def containers(client, emulated, name=""):
    """Those of an emulator, or of one of its services."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL}=emulator"}, ignore_removed=True)
    mine = [each for each in found if f"/{emulated.process.pid}/" in each.labels.get(OWNER, "")]
    return [each for each in mine if not name or f"K_SERVICE={name}" in each.attrs["Config"]["Env"]]


def container(image, **more):
    """What replaces the helper's own command."""
    return {"image": image, "command": [], **more}


def limited(**limits):
    return {"limits": {name: str(value) for name, value in limits.items()}}


def test_an_image(knative, image):
    name = knative.make(container(image))
    found = knative.call(name, {"environment": ["PORT", "K_SERVICE"]}).body
    assert found["environment"]["K_SERVICE"] == name
    (pod,) = knative.pods(name)
    assert found["pod"] == pod.metadata.name
    state = pod.status.container_statuses[0]
    assert (state.image, state.image_id.startswith("sha256:")) == (image, True)
    revision = knative.get(f"{name}-00001", "revisions")
    assert revision["status"]["containerStatuses"][0]["imageDigest"] == state.image_id
    assert knative.log(pod.metadata.name) == "starts\n"


def test_another_command(knative, image):
    name = knative.make({"image": image, "command": ["python3", "-c"], "args": [SERVER]})
    assert knative.call(name).status == 200


def test_what_a_container_may_use(knative, image, docker_engine):
    name = knative.make(container(image, resources=limited(memory="96Mi", cpu="500m")))
    (found,) = containers(docker_engine, knative, name)
    host = found.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (96 << 20, 96 << 20, 500_000_000)


def test_more_memory_than_it_may_have(knative, image):
    name = knative.make(container(image, resources=limited(memory="96Mi")), containerConcurrency=1)
    answer = knative.call(name, {"memory": 300_000_000})
    assert (answer.status, answer.body) == (502, "EOF\n")
    wait_until(lambda: knative.call(name).status == 200)  # until its end is noticed, calls still come to it
    state = knative.pods(name)[0].status.container_statuses[0]
    assert state.restart_count == 1
    assert (state.last_state.terminated.reason, state.last_state.terminated.exit_code) == ("OOMKilled", 137)


def test_a_security_context(knative, image):
    security = {"runAsUser": 1234, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    mounts = [{"name": "scratch", "mountPath": "/scratch"}]
    given = container(image, securityContext=security, volumeMounts=mounts)
    name = knative.make(given, volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "10Mi"}}])
    assert knative.call(name, {"file": "/scratch/x"}).body["uid"] == 1234
    answer = knative.call(name, {"file": "/x"})
    assert (answer.status, answer.body) == (502, "EOF\n")


def test_a_directory_of_this_machine(knative, image):
    name = knative.make(container(image))
    assert knative.call(name, {"file": str(knative.directory / "seen")}).status == 200
    assert (knative.directory / "seen").read_text() == "x"


def test_an_image_that_is_not_there(knative, image, docker_engine):
    name = knative.make(container(f"{NAME}:later"), ready=False)
    found = knative.await_condition(f"{name}-00001", "ContainerHealthy", "revisions")
    assert found["reason"] == "ContainerMissing"
    text = f'Unable to fetch image "{NAME}:later": failed to resolve image to digest: not found'
    assert found["message"] == text
    ready = knative.await_condition(name)
    assert ready["reason"] == "RevisionFailed"
    assert ready["message"] == f'Revision "{name}-00001" failed with message: {text}.'
    assert knative.pods(name) == []
    docker_engine.images.get(image).tag(NAME, "later")
    try:
        wait_until(lambda: condition(knative.get(name))["status"] == "True")
        assert knative.call(name).status == 200
    finally:
        docker_engine.images.remove(f"{NAME}:later", force=True)


def test_an_image_that_cannot_be_pulled(knative):
    progress = {"serving.knative.dev/progress-deadline": "1s"}
    name = knative.make(container("dev.local/absent"), ready=False, annotations=progress)
    wait_until(lambda: knative.pods(name))
    found = knative.await_condition(f"{name}-00001", "ResourcesAvailable", "revisions")
    assert (found["reason"], found["message"]) == ("ImagePullBackOff", 'Back-off pulling image "dev.local/absent"')
    state = knative.pods(name)[0].status.container_statuses[0].state.waiting
    assert (state.reason, state.message) == ("ImagePullBackOff", 'Back-off pulling image "dev.local/absent"')
    knative.delete(name)


def test_to_zero_and_from_zero(knative, image, docker_engine):
    name = knative.make(container(image), containerConcurrency=1)
    with knative.limits(idle=0.3):
        wait_until(lambda: not knative.pods(name))
    assert containers(docker_engine, knative, name) == []
    with ThreadPoolExecutor() as executor:
        answers = list(executor.map(lambda _: knative.call(name, {"sleep": 0.5}), range(3)))
    assert len({each.body["pod"] for each in answers}) > 1


def test_a_program_that_cannot_be_run(knative, image):
    name = knative.make(container(image, command=["/no/such/program"]), ready=False)
    found = knative.await_condition(f"{name}-00001", "ContainerHealthy", "revisions")
    assert found["reason"] == "ExitCode128"
    assert "/no/such/program" in found["message"]
    knative.delete(name)


def test_pods_that_are_killed(knative, image):
    name = knative.make(container(image), containerConcurrency=1)
    with knative.faults(crash=1.0):
        assert {knative.call(name).status for _ in range(2)} == {502}
    assert knative.call(name).status == 200


def test_a_network_of_its_own(image, docker_engine, tmp_path):
    with started(docker_engine, tmp_path, "--network", "bridge") as knative:
        name = knative.make(container(image, ports=[{"containerPort": 8081}]))
        assert knative.call(name, {"environment": ["PORT"]}).body["environment"] == {"PORT": "8081"}
        (found,) = containers(docker_engine, knative, name)
        assert found.attrs["HostConfig"]["NetworkMode"] == "bridge"
        assert knative.call(name, {"exit": 3}).status == 502
        wait_until(lambda: knative.call(name).status == 200)


def test_the_end_in_the_middle_of_cold_starts(image, docker_engine, tmp_path):
    with ThreadPoolExecutor(30) as executor:
        with started(docker_engine, tmp_path) as knative:
            name = knative.make(container(image), containerConcurrency=1)
            calls = [executor.submit(knative.call, name, {"sleep": 5}) for _ in range(30)]
            wait_until(lambda: len(containers(docker_engine, knative, name)) > AT_ONCE)
        assert all(each.exception() for each in calls)
