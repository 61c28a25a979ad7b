"""What befalls containers on a real engine: killed, out of memory, stuck, gone with their engine; what they may."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from attempts import until
from conftest import missing_engine
from container_calls import MARKS, fill_disk_and_memory, waits_the_first_time
from docker_engine import start_own_docker
from engines import Engine, EngineMissing

import lithops_mini as lm
from lithops_mini.compute import container
from lithops_mini.errors import ConfigError, InvocationError, OutOfMemory, Reason, WorkerDied

pytestmark = pytest.mark.usefixtures("runtime_image")
LIMIT = 60.0

Settings = dict[str, Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    storage = {"storage": "localhost", "storage_path": str(tmp_path / "storage")}
    return {"backend": "docker", "base": "host", "max_workers": 2, "progress": False, **storage}


@pytest.fixture
def executor(settings: Settings) -> Iterator[lm.FunctionExecutor]:
    with lm.function_executor(**settings) as executor:
        yield executor


def containers(client: docker.DockerClient, pid: int | None = None) -> list[Any]:
    """Those of this process, or of another, whether they run or not."""
    found = client.containers.list(all=True, ignore_removed=True, filters={"label": "lithops-mini=worker"})
    return [c for c in found if c.labels["lithops-mini.owner"].split("/")[2] == str(pid or os.getpid())]


@pytest.fixture
def sdk_that_leaks() -> Iterator[None]:
    """The SDK does not close a socket that finds no engine."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def none_left(docker_engine: docker.DockerClient) -> Iterator[None]:
    yield
    assert containers(docker_engine) == []


def begun(executor: lm.FunctionExecutor) -> None:
    until(lambda: any(executor.storage.list_keys(None, MARKS)), "the call runs")


def returned(future: lm.ResponseFuture[Any], value: object, *, attempt: int) -> None:
    assert future.result(LIMIT) == value
    assert future.stats is not None
    assert future.stats.attempt == attempt


# -- deaths


def test_a_call_whose_container_is_killed_is_run_again(
    executor: lm.FunctionExecutor, docker_engine: docker.DockerClient
) -> None:
    future = executor.submit(waits_the_first_time)
    begun(executor)
    (victim,) = containers(docker_engine)
    victim.kill()
    returned(future, "again", attempt=2)


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_a_call_whose_container_dies_for_good_says_how(
    settings: Settings, docker_engine: docker.DockerClient, how: str
) -> None:
    with lm.function_executor(**settings, retries=0) as executor:
        future = executor.submit(waits_the_first_time)
        begun(executor)
        (victim,) = containers(docker_engine)
        began = time.monotonic()
        victim.kill() if how == "kill" else victim.remove(force=True)
        with pytest.raises(WorkerDied) as caught:
            future.result(LIMIT)
        assert time.monotonic() - began < 10
        told = f"the container {victim.name} "
        assert str(caught.value) in (told + "ended: killed by signal 9", told + "was removed by somebody")
        assert executor.submit(abs, -1).result(LIMIT) == 1


def test_a_container_out_of_memory_is_known_by_the_engines_record(settings: Settings) -> None:
    with lm.function_executor(**settings, retries=2) as executor:
        future = executor.call_async(fill_disk_and_memory, 400, runtime_memory=64)
        error = future.exception(LIMIT)
        assert isinstance(error, OutOfMemory)
        assert future.stats is not None
        assert future.stats.attempt == 1
        assert executor.submit(abs, -1).result(LIMIT) == 1


def test_a_call_out_of_memory_gets_a_larger_container_where_that_is_wanted(settings: Settings) -> None:
    with lm.function_executor(**settings, retries=3, on_oom="double") as executor:
        future = executor.call_async(fill_disk_and_memory, 300, runtime_memory=64)
        returned(future, 300, attempt=4)  # 64, 128, 256 and 512 MiB, each and the worker's 64


def test_files_in_memory_are_memory_that_a_call_holds(settings: Settings) -> None:
    def write() -> None:
        with open("/tmp/large", "wb") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
        time.sleep(0.2)

    with lm.function_executor(**settings) as executor:
        future = executor.call_async(write, (), runtime_memory=1024)
        future.result(LIMIT)
        assert future.stats is not None
        assert 200 << 20 < future.stats.peak_memory < 300 << 20


def test_a_container_that_is_stuck_is_replaced(
    executor: lm.FunctionExecutor, docker_engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_QUIET", 0.3)
    monkeypatch.setattr(container, "_PATIENCE", 1.0)
    future = executor.submit(waits_the_first_time)
    begun(executor)
    (victim,) = containers(docker_engine)
    victim.pause()
    returned(future, "again", attempt=2)


def test_a_quiet_call_is_not_stuck(executor: lm.FunctionExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_QUIET", 0.1)
    monkeypatch.setattr(container, "_PATIENCE", 1.0)
    future = executor.submit(time.sleep, 2)
    returned(future, None, attempt=1)


def test_containers_killed_every_second_cost_no_result(settings: Settings, docker_engine: docker.DockerClient) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance, over = random.Random(seed), threading.Event()
    killed = 0

    def kill_one_a_second() -> None:
        nonlocal killed
        while not over.wait(1.0):
            if running := [c for c in containers(docker_engine) if c.status == "running"]:
                try:
                    chance.choice(running).kill()
                    killed += 1
                except docker.errors.APIError:  # it has just ended by itself
                    continue

    def square(x: int) -> int:
        time.sleep(0.08)
        return x * x

    with lm.function_executor(**settings | {"retries": 10}) as executor:
        killer = threading.Thread(target=kill_one_a_second)
        killer.start()
        try:
            futures = executor.map(square, range(200))
            assert executor.get_result(futures, timeout=110) == [x * x for x in range(200)]
        finally:
            over.set()
            killer.join()
    assert killed >= 5


@pytest.mark.usefixtures("sdk_that_leaks")
@pytest.mark.filterwarnings("ignore:unclosed <socket", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_restarts_costs_no_result(settings: Settings, runtime_image: str) -> None:
    def square(x: int) -> int:
        time.sleep(0.3)
        return x * x

    try:
        own = start_own_docker()
        engine = own.__enter__()
    except EngineMissing as error:
        missing_engine(str(error))
    try:
        with lm.function_executor(**settings, host=engine.host) as executor:
            futures = executor.map(square, range(20), chunksize=1)
            futures[3].result(LIMIT)
            engine.stop()
            engine.run()
            assert executor.get_result(futures, timeout=LIMIT) == [x * x for x in range(20)]
        client = docker.DockerClient(engine.host)
        try:
            assert containers(client) == []
        finally:
            client.close()
    finally:
        own.__exit__(None, None, None)


def test_a_runtime_that_is_gone(settings: Settings, docker_engine: docker.DockerClient, runtime_image: str) -> None:
    name = "lithops-mini/test-gone"
    docker_engine.api.tag(runtime_image, name, "1")
    try:
        with lm.function_executor(**settings | {"base": None}, runtime=f"{name}:1") as executor:
            docker_engine.images.remove(f"{name}:1")
            error = executor.submit(abs, -1).exception(LIMIT)
    finally:
        if any(f"{name}:1" in image.tags for image in docker_engine.images.list()):
            docker_engine.images.remove(f"{name}:1")
    assert isinstance(error, InvocationError)
    assert error.reason == Reason.REFUSED
    assert "lithops-mini runtime build" in str(error)


# -- what is refused


@pytest.mark.usefixtures("sdk_that_leaks")
@pytest.mark.filterwarnings("ignore:unclosed <socket", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"runtime": "no/such-image:1", "base": None}, ("no/such-image:1", "runtime build")),
        ({"host": "unix:///no/such/socket"}, ("no Docker engine unix:///no/such/socket", "DOCKER_HOST")),
        ({"host": "what is this"}, ("no Docker engine what is this",)),
        ({"gpus": "many"}, ("gpus must be", "'many'")),
        ({"requirements": "no-such-file.txt"}, ("no-such-file.txt",)),
    ],
    ids=["runtime", "socket", "host", "gpus", "requirements"],
)
def test_what_cannot_be_is_one_clear_error(settings: Settings, wrong: Settings, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught, lm.function_executor(**settings | wrong):
        pass
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"network": "no-such-network"}, "no-such-network"), ({"gpus": "all"}, "device driver")],
    ids=["network", "gpus"],
)
def test_what_the_engine_refuses_is_told_at_once(settings: Settings, wrong: Settings, words: str) -> None:
    with lm.function_executor(**settings | wrong) as executor:
        error = executor.submit(abs, -1).exception(20)
    assert isinstance(error, InvocationError)
    assert words in str(error)


# -- what a call may, and what it may not


def test_a_call_is_locked_in(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the client")
    executor.storage.create_bucket("data")
    executor.storage.put_object("data", "key", b"to read")

    def try_all(storage: Any, outside: str) -> dict[str, Any]:
        import os

        def attempt(function: Callable[[], Any]) -> Any:
            try:
                return function()
            except OSError as error:
                return type(error).__name__

        with open("/proc/self/status") as status:
            capabilities = {line.split()[1] for line in status if line.startswith("Cap")}
        with open("/proc/self/status") as status:
            no_more = next(line.split()[1] for line in status if line.startswith("NoNewPrivs"))
        return {
            "capabilities": capabilities,
            "no more": no_more,
            "root": attempt(lambda: open("/new", "w")),
            "etc": attempt(lambda: open("/etc/passwd", "a")),
            "outside": attempt(lambda: open(outside).read()),
            "socket": os.path.exists("/var/run/docker.sock"),
            "data": storage.get_object("data", "key"),
            "others": attempt(lambda: storage.put_object("data", "new", b"")),
            "own": attempt(lambda: storage.put_object(None, "lithops_mini/test/new", b"x")),
            "tmp": attempt(lambda: open("/tmp/new", "w").write("x")),
        }

    assert executor.get_result(executor.call_async(try_all, {"outside": str(secret)})) == {
        "capabilities": {"0000000000000000"},
        "no more": "1",
        "root": "OSError",
        "etc": "OSError",
        "outside": "FileNotFoundError",
        "socket": False,
        "data": b"to read",
        "others": "AccessDenied",
        "own": None,
        "tmp": 1,
    }


def test_limits_of_processes_and_disk(settings: Settings) -> None:
    def fork(count: int) -> int:
        import os
        import signal

        made: list[int] = []
        try:
            for _ in range(count):
                child = os.fork()
                if not child:
                    signal.pause()
                made.append(child)
        finally:
            for child in made:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return len(made)

    def write(mebibytes: int) -> int:
        with open("/tmp/large", "wb") as file:
            file.write(bytes(mebibytes << 20))
        return mebibytes

    with lm.function_executor(**settings | {"max_workers": 1}, pids=40, disk=20) as executor:
        assert executor.submit(fork, 10).result(LIMIT) == 10
        with pytest.raises(BlockingIOError):
            executor.submit(fork, 100).result(LIMIT)
        assert executor.submit(write, 10).result(LIMIT) == 10
        with pytest.raises(OSError, match="No space left"):
            executor.submit(write, 30).result(LIMIT)
        assert executor.submit(abs, -1).result(LIMIT) == 1  # although the disk is still full


def test_without_a_network(settings: Settings) -> None:
    def interfaces() -> list[str]:
        import socket

        return [name for _, name in socket.if_nameindex()]

    with lm.function_executor(**settings, network="none") as executor:
        assert executor.submit(interfaces).result(LIMIT) == ["lo"]


def test_processors_are_limited(settings: Settings, docker_engine: docker.DockerClient) -> None:
    with lm.function_executor(**settings | {"max_workers": 1}, cpus=0.5) as executor:
        executor.call_async(abs, -1, runtime_memory=200).result(LIMIT)
        (one,) = containers(docker_engine)
        host = docker_engine.api.inspect_container(one.id)["HostConfig"]
        assert host["NanoCpus"] == 500_000_000
        assert host["Memory"] == host["MemorySwap"] == (200 + 64) << 20
        executor.call_async(abs, -1, runtime_memory=300).result(LIMIT)
        (same,) = containers(docker_engine)
        assert same.id == one.id
        assert docker_engine.api.inspect_container(one.id)["HostConfig"]["Memory"] == (300 + 64) << 20


# -- storage


def s3(swift: Engine, bucket: str) -> Settings:
    account = {"region": swift.region, "endpoint_url": swift.url}
    keys = {"access_key_id": swift.access_key_id, "secret_access_key": swift.secret_access_key}
    config = {"backend": "docker", "storage": "aws_s3", "storage_bucket": bucket, "aws": account | keys}
    return {"config": config, "base": "host", "max_workers": 2, "progress": False}


def test_a_job_over_s3(swift: Engine, docker_engine: docker.DockerClient) -> None:
    with lm.function_executor(**s3(swift, "docker-jobs"), network="host") as executor:
        executor.storage.create_bucket("docker-data")
        body = b"".join(b"%d\n" % number for number in range(50_000))
        executor.storage.put_object("docker-data", "numbers", body)
        total = executor.map_reduce(
            lambda obj: sum(map(int, obj.data_stream)), "docker-data/numbers", sum, obj_chunk_size="100KiB"
        )
        assert executor.get_result(total) == sum(range(50_000))
        assert len(executor.submit(bytes, 2 << 20).result(LIMIT)) == 2 << 20
        for each in containers(docker_engine):
            assert swift.secret_access_key not in json.dumps(docker_engine.api.inspect_container(each.id))


def test_keys_that_are_found_here_reach_containers(swift: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = s3(swift, "docker-jobs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["config"]["aws"].pop("access_key_id"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["config"]["aws"].pop("secret_access_key"))
    with lm.function_executor(**given, network="host") as executor:
        assert len(executor.submit(bytes, 2 << 20).result(LIMIT)) == 2 << 20


def test_an_endpoint_that_containers_cannot_reach(swift: Engine) -> None:
    with pytest.raises(ConfigError, match=r"containers cannot reach .*docker\.network"):
        lm.function_executor(**s3(swift, "docker-jobs"))


# -- clients that end

CLIENT = """
import sys
import lithops_mini as lm

def wait():
    import time
    time.sleep(100)

with lm.function_executor(backend="docker", base="host", max_workers=2, storage_path=sys.argv[1]) as executor:
    executor.get_result(executor.map(abs, [-1, -2]))
    futures = [executor.submit(wait) for _ in range(2)]
    print("ready", flush=True)
    executor.get_result(futures)
"""


@pytest.fixture
def client(tmp_path: Path, docker_engine: docker.DockerClient) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), str(tmp_path / "of-client")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until(lambda: len(containers(docker_engine, process.pid)) == 2, "both containers run")
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupted_client_leaves_none(
    client: subprocess.Popen[str], docker_engine: docker.DockerClient, number: signal.Signals
) -> None:
    client.send_signal(number)
    client.wait(LIMIT)
    if number == signal.SIGINT:
        assert containers(docker_engine, client.pid) == []
    else:
        until(lambda: not any(c.status == "running" for c in containers(docker_engine, client.pid)), "they have ended")


def test_what_a_killed_client_leaves_ends_and_is_removed(
    client: subprocess.Popen[str], docker_engine: docker.DockerClient, settings: Settings
) -> None:
    client.kill()
    client.wait(LIMIT)
    until(lambda: not any(c.status == "running" for c in containers(docker_engine, client.pid)), "they have ended")
    with lm.function_executor(**settings):
        assert containers(docker_engine, client.pid) == []


def test_the_containers_of_others_are_left_alone(
    client: subprocess.Popen[str], docker_engine: docker.DockerClient, settings: Settings
) -> None:
    with lm.function_executor(**settings):
        assert [c.status for c in containers(docker_engine, client.pid)] == ["running", "running"]
