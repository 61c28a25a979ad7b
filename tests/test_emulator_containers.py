"""What the emulators ask of a Docker engine: not too much at once, and nothing is left, whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from openwhisk_emulator import start_openwhisk
from requests.adapters import HTTPAdapter

from lithops_mini.emulators.containers import AT_ONCE, LABEL, OWNER, Container, Ending, Engine
from lithops_mini.runtimes.engine import identity

SLEEP = ["python3", "-c", "import time; time.sleep(1000)"]
KILLED = """
import os, signal
from lithops_mini.emulators.containers import Container, Engine
engine = Engine()
container = Container(engine, engine.base_image(print), engine.api.create_host_config(init=True), command={sleep})
container.start()
Container(engine, engine.base_image(print), engine.api.create_host_config(), command={sleep})
print(engine.owner, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def engine(docker_engine):
    made = Engine()
    yield made
    assert owned(docker_engine, made.owner) == []


@pytest.fixture(scope="module")
def base(docker_engine):
    with ExitStack() as stack:
        first = Engine()
        stack.callback(first.close)
        return first.base_image(print)


def owned(client, owner):
    found = client.api.containers(all=True, filters={"label": f"{OWNER}={owner}"})
    return [each["Id"] for each in found]


def container(engine, base):
    return Container(engine, base, engine.api.create_host_config(init=True), command=SLEEP)


def test_what_is_left_goes_with_the_engine(engine, docker_engine, base):
    made = [container(engine, base) for _ in range(2)]
    made[0].start()
    assert len(owned(docker_engine, engine.owner)) == 2
    made[0].remove()
    made[0].remove()
    assert owned(docker_engine, engine.owner) == [made[1].id]
    other = Engine()
    other.close()  # of the same process
    assert owned(docker_engine, engine.owner) == [made[1].id]
    engine.close()


def test_what_a_killed_emulator_has_left_goes_with_the_next(docker_engine, base):
    command = [sys.executable, "-c", KILLED.format(sleep=SLEEP)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    owner = ended.stdout.strip()
    assert len(owned(docker_engine, owner)) == 2
    Engine().close()
    assert owned(docker_engine, owner) == []


def test_whose_containers_are_left_alone(docker_engine, base):
    mine, host = identity(os.getpid()), socket.gethostname()
    _, boot, pid, started = mine.split("/")
    owners = {
        f"{mine}/1": True,  # another emulator of this process
        f"{host}/{boot}/{pid}/{int(started) - 1}/1": False,  # one whose number this process has now
        f"{host}/another-boot/{pid}/{started}/1": False,
        f"another-{host}/{boot}/99999999/1/1": True,  # nobody here knows
        "32211": True,
    }
    made = {}
    try:
        for owner in owners:
            labels = {LABEL: "emulator", OWNER: owner}
            made[owner] = docker_engine.api.create_container(base, SLEEP, labels=labels)["Id"]
        Engine().close()
        assert {owner: bool(owned(docker_engine, owner)) for owner in owners} == owners
    finally:
        for owner in made:
            for each in owned(docker_engine, owner):
                docker_engine.api.remove_container(each, force=True)


def test_not_too_many_start_at_once(engine):
    lock, go_on, now, most = threading.Lock(), threading.Event(), 0, 0

    def start(_):
        nonlocal now, most
        with engine.starting():
            with lock:
                now += 1
                most = max(most, now)
            go_on.wait(10)
            with lock:
                now -= 1

    with ThreadPoolExecutor(4 * AT_ONCE) as executor:
        started = executor.map(start, range(4 * AT_ONCE))
        while now < AT_ONCE:
            threading.Event().wait(0.01)
        assert not go_on.wait(0.2)
        assert now == AT_ONCE
        go_on.set()
        list(started)
    assert (now, most) == (0, AT_ONCE)
    engine.close()


def test_who_waits_for_its_turn_is_told_of_the_end(engine):
    with ExitStack() as stack, ThreadPoolExecutor(1) as executor:
        for _ in range(AT_ONCE):
            stack.enter_context(engine.starting())
        waiting = executor.submit(lambda: stack.enter_context(engine.starting()))
        engine.end()
        with pytest.raises(Ending):
            waiting.result(10)
    engine.close()


def test_a_hundred_cold_starts_at_once(docker_engine, tmp_path):
    flags = ("--per-minute", "1000", "--wait", "600")
    with start_openwhisk(tmp_path, "--sandbox", "docker", *flags) as emulated:
        emulated.session.mount("http://", HTTPAdapter(pool_maxsize=100))
        path, given = f"actions/{emulated.make()}?blocking=true", {"do": "sleep", "seconds": 3}
        with ThreadPoolExecutor(100) as executor:
            answers = list(executor.map(lambda _: emulated.ask("POST", path, given, timeout=240), range(100)))
        assert {each.status for each in answers} == {200}
        state = emulated.own("state")
        assert (state["errors"], state["running"]) == (0, 0)
        assert state["cold_starts"] == state["sandboxes"] > 50
        assert len(mine(docker_engine, emulated)) == state["sandboxes"]
    assert mine(docker_engine, emulated) == []


def test_the_end_in_the_middle_of_cold_starts(docker_engine, tmp_path):
    with start_openwhisk(tmp_path, "--sandbox", "docker", "--per-minute", "1000") as emulated:
        name = emulated.make()
        for _ in range(60):
            assert emulated.invoke(name, False, do="sleep", seconds=60).status == 202
        while len(mine(docker_engine, emulated)) < AT_ONCE:
            threading.Event().wait(0.05)
        emulated.process.send_signal(signal.SIGTERM)
        emulated.process.wait(30)
    assert mine(docker_engine, emulated) == []


def mine(client, emulated):
    """The containers of an emulator that is a process of its own."""
    found = client.api.containers(all=True, filters={"label": f"{LABEL}=emulator"})
    return [each["Id"] for each in found if f"/{emulated.process.pid}/" in each["Labels"].get(OWNER, "")]
