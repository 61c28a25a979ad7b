"""knative among faults of the local Knative: each result right, one outcome used for each call, nothing left."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import many_calls
import pytest
from engines import Engine
from knative_cluster import Local, start_knative
from knative_emulator import wait_until
from many_calls import CALLS, changes, square

import lithops_mini as lm
from lithops_mini.compute.knative import KnativeCompute
from lithops_mini.compute.knative_options import KnativeOptions
from lithops_mini.errors import WorkerDied


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, moto: Engine) -> Iterator[Local]:
    with start_knative(tmp_path_factory.mktemp("knative"), moto, "--idle", "5", "--back-off", "0.2") as local:
        local.cluster()  # the official client keeps a kubeconfig's certificates in files until the process ends
        yield local


@pytest.fixture
def change(local: Local) -> Iterator[Callable[..., None]]:
    """What goes wrong from now on, and after the test no more."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    with changes(local, seed) as change:
        yield change
    gc.collect()  # here, where the warning of a socket is known


class Counting:
    """The emulator, whose numbers have the names that other emulators have for them."""

    def __init__(self, local: Local) -> None:
        self._local = local

    def own(self, name: str, method: str = "GET", **values: Any) -> Any:
        found = self._local.own(name, method, **values)
        if name != "state":
            return found
        totals = {each: found.get(f"total_{each}", 0) for each in ("calls", "crashes", "cut", "busy", "unavailable")}
        return {
            "running": found["running"] + found["waiting"],
            "sandboxes": found["pods"],
            "invocations": totals["calls"],
            "errors": totals["crashes"] + totals["cut"],
            "throttles": totals["busy"] + totals["unavailable"],
        }


def zero(local: Local, change: Callable[..., None]) -> None:
    """Let all pods go."""
    change(idle=0.1)
    wait_until(lambda: local.own("state")["pods"] == 0)
    change(idle=5)


# ssl.SSLSocket of Python 3.11 does not close itself if its peer has gone before the handshake, as API servers do here.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("carrier", ["reply", "event"])
def test_five_hundred_calls(local: Local, change: Callable[..., None], carrier: str) -> None:
    """Pods are killed in calls, half of them with all work done, a node is lost, answers are lost, calls are refused;
    requests to the API server are refused, too many or of an old version, its watches end, it starts again, and who
    one is is true no more.
    """
    settings = local.executor(
        carrier=carrier, max_workers=8, max_scale=8, max_time=60, environment={"TEST": os.urandom(4).hex()}
    )
    change(conflict=0.2, throttle=0.1, end_watch=0.2)
    with lm.function_executor(**settings) as executor:  # a service is made among faults
        assert executor.get_result(executor.submit(abs, -1)) == 1
    zero(local, change)
    trouble: list[threading.Timer] = []

    def begin() -> None:
        change(crash=0.06, cut=0.04, unavailable=0.05, busy=0.05, throttle=0.1, end_watch=0.2)
        for seconds, name in ((0.5, "lose-node"), (0.8, "restart-api"), (1.2, "expire-token")):
            trouble.append(threading.Timer(seconds, local.own, (name, "POST")))
            trouble[-1].start()

    counted = many_calls.work(Counting(local), square(seconds=0.01), begin, **settings)
    for each in trouble:
        each.join()
    assert counted.errors > 0
    assert counted.throttles > 0
    assert counted.attempts > CALLS
    assert counted.invocations > CALLS // 4
    zero(local, change)
    change()
    with lm.function_executor(**{**settings, "max_scale": 9}) as executor:
        local.own("restart-api", "POST", seconds=10 if carrier == "reply" else 1)
        futures = executor.map(abs, range(-20, 0), runtime_memory=256)  # another service, while the server is away
        assert executor.get_result(futures) == list(range(20, 0, -1))
        runtimes = executor._compute.runtimes("")
        for each in runtimes.list():
            runtimes.delete(each.name)
    wait_until(lambda: not local.own("state")["pods"])
    state = local.own("state")
    assert (state["services"], state["revisions"], state["secrets"]) == (0, 0, 0)


# ---------------------------------------------------------------- pods that end


@pytest.fixture
def settings(local: Local) -> dict[str, Any]:
    environment = {"TEST": "ends"}
    return local.executor(max_workers=2, max_scale=2, retries=0, environment=environment)


def kill(local: Local, pod: str) -> None:
    local.cluster()._core.delete_namespaced_pod(pod, "default", grace_period_seconds=0)


def end_container(where: str) -> None:
    """Say something, and take the worker along."""
    import signal

    print("last words")
    Path(where).touch()
    time.sleep(1)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.parametrize("carrier", ["reply", "event"])
def test_a_container_that_ends_is_told_of(settings: dict[str, Any], tmp_path: Path, carrier: str) -> None:
    with lm.function_executor(**settings, carrier=carrier) as executor:
        began = time.monotonic()
        with pytest.raises(WorkerDied) as caught:
            executor.get_result(executor.submit(end_container, str(tmp_path / "runs")))
        assert time.monotonic() - began < 30  # and not the time that a call may take
    text = str(caught.value)
    assert "the container of the pod lithops-mini-" in text
    assert "ended with exit code 137 (Error), and had printed: " in text
    assert "call 0: last words" in text


def test_a_pod_that_is_deleted_is_missed_at_once(local: Local, settings: dict[str, Any], tmp_path: Path) -> None:
    """And what lay on it is run again."""

    def work(where: str) -> str:
        name = os.environ["HOSTNAME"]
        with open(where, "a") as file:
            print(name, file=file, flush=True)
        with open(where) as file:
            first = len(file.readlines()) == 1
        time.sleep(100 if first else 0)
        return name

    file = tmp_path / "pods"
    with lm.function_executor(**{**settings, "carrier": "event", "retries": 2}) as executor:
        future = executor.submit(work, str(file))
        wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
        first = file.read_text().strip()
        began = time.monotonic()
        kill(local, first)
        assert executor.get_result(future) != first
        assert time.monotonic() - began < 30
        assert future.stats.attempt == 2


# ---------------------------------------------------------------- events


def test_an_event_outlives_its_connection_and_the_timeout_of_its_service(
    local: Local, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Meanwhile its pod takes no other, and a pod that has to go finishes what it runs."""

    def work(seconds: float) -> tuple[str, float]:
        began = time.time()
        time.sleep(seconds)
        return os.environ["HOSTNAME"], began

    more = {"carrier": "event", "max_time": 30, "service_timeout": 2, "min_scale": 2}
    with lm.function_executor(**{**settings, **more}) as executor:
        long = executor.submit(work, 8.0)
        wait_until(lambda: local.own("state").get("total_timeouts", 0))  # its connection is cut
        threading.Event().wait(5)  # the cluster has seen that it is not ready
        others = executor.get_result(executor.map(work, [0.1] * 4, chunksize=1))
        pod, _ = executor.get_result(long)
        assert long.stats.attempt == 1
        assert pod not in {name for name, _ in others}
    assert local.own("state")["pods"] == 2


def test_a_pod_that_has_to_go_finishes_its_event(local: Local, settings: dict[str, Any], tmp_path: Path) -> None:
    def work(where: str) -> str:
        Path(where).write_text(os.environ["HOSTNAME"])
        time.sleep(4)
        return os.environ["HOSTNAME"]

    file = tmp_path / "pod"
    with lm.function_executor(**{**settings, "carrier": "event"}) as executor:
        future = executor.submit(work, str(file))
        wait_until(lambda: file.exists() and file.read_text())
        local.cluster()._core.delete_namespaced_pod(file.read_text(), "default")
        assert executor.get_result(future) == file.read_text()
        assert future.stats.attempt == 1
    assert "lithops_mini-pods" not in {each.name for each in threading.enumerate()}


def test_what_calls_printed_is_in_the_logs_of_pods(local: Local, settings: dict[str, Any], tmp_path: Path) -> None:
    def speak(x: int) -> None:
        print(f"x is {x}")
        while x == 1 and not (tmp_path / "go").exists():
            time.sleep(0.05)

    seen: list[tuple[str, int, str]] = []
    began = time.time()
    with lm.function_executor(**settings) as executor:
        reader = KnativeCompute(executor.config.compute_options)
        with reader.tail(lambda *line: seen.append(line)):
            futures = executor.map(speak, range(3), chunksize=1)
            job = futures[0].job.id
            wait_until(lambda: (job, 1, "x is 1") in seen)
            assert not futures[1].done()
            (tmp_path / "go").touch()
            executor.get_result(futures)
        assert [list(reader.read_log(job, call, began)) for call in range(3)] == [[f"x is {call}"] for call in range(3)]
        assert list(reader.read_log(job, 3, began)) == []
        reader.close()


def test_what_cannot_be_an_event() -> None:
    for wrong in ({"service_timeout": 100, "max_time": 71}, {"carrier": "event", "max_time": 571}):
        with pytest.raises(ValueError, match="max_time"):
            KnativeOptions(**wrong)
    for right in ({"carrier": "event", "max_time": 7200, "min_scale": 100}, {"service_timeout": 100, "max_time": 70}):
        assert KnativeOptions(**right).timeout in (600, 100)
