"""What actions of OpenWhisk run: the function that its own runtime calls, and the server of an image of ours."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lithops_mini.config import load
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.testing.messages import Messages, outcomes, statuses, worker_id
from lithops_mini.worker import openwhisk, openwhisk_server
from lithops_mini.worker.openwhisk import Worker
from lithops_mini.worker.openwhisk_server import END_OF_LOG


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    config = load(storage="localhost", storage_path=str(tmp_path / "s"))
    storage = LocalhostStorage(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    return Messages(config, storage)


def deadline(seconds: float) -> str:
    return str(int((time.time() + seconds) * 1000))


# ---------------------------------------------------------------- the function


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("__OW_DEADLINE", deadline(60))
    made = Worker()
    yield made
    made.close()


def test_an_activation_is_a_message_and_its_result_the_reply(worker, messages):
    payload = b64encode(messages.payload(lambda x: x * x, range(5))).decode()
    answer = worker({"payload": payload})
    assert list(answer) == ["reply"], answer
    assert messages.values(b64decode(answer["reply"])) == [0, 1, 4, 9, 16]
    assert worker_id(b64decode(answer["reply"])).startswith("openwhisk/")


def test_a_reply_has_no_more_bytes_than_its_message_permits(worker, messages):
    payload = b64encode(messages.payload(lambda size: b"r" * size, [20_000] * 8, inline=24_000)).decode()
    for room, done in ((128 << 10, 3), (1 << 20, 8), (128 << 10, 3)):
        reply = b64decode(worker({"payload": payload, "room": room})["reply"])
        assert statuses(reply) == ["OK"] * done + ["UNSTARTED"] * (8 - done)
        assert len(reply) <= room
    assert "over the platform's limit of 1,000" in worker({"payload": payload, "room": 1000})["refused"]["text"]


def test_what_is_bound_is_in_the_environment_of_calls(worker, messages, monkeypatch):
    monkeypatch.setenv("LM_TEST_BOUND", "")

    def read(name):
        return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest()

    payload = b64encode(messages.payload(read, ["LM_TEST_BOUND"])).decode()
    answer = worker({"payload": payload, "environment": {"LM_TEST_BOUND": "secret"}})
    assert messages.values(b64decode(answer["reply"])) == [hashlib.sha256(b"secret").hexdigest()]


def test_calls_can_start_programs_where_the_runtime_has_no_path(worker, messages, monkeypatch):
    monkeypatch.delenv("PATH")
    bare = Worker()
    try:
        payload = messages.payload(lambda _: subprocess.run(["true"], check=True).returncode, [0])
        reply = b64decode(bare({"payload": b64encode(payload).decode()})["reply"])
        assert messages.values(reply) == [0]
    finally:
        bare.close()


def test_what_runs_at_the_deadline_is_stopped_before_openwhisk_does(worker, messages, monkeypatch):
    worker({"payload": b64encode(messages.payload(abs, [1])).decode()})
    monkeypatch.setenv("__OW_DEADLINE", deadline(2))
    began = time.monotonic()
    answer = worker({"payload": b64encode(messages.payload(time.sleep, [0, 60, 0])).decode()})
    assert time.monotonic() - began < 2
    assert statuses(b64decode(answer["reply"])) == ["OK", "TIMEOUT", "UNSTARTED"]


@pytest.mark.parametrize("module", [openwhisk, openwhisk_server], ids=lambda module: module.__name__)
def test_it_imports_little(module):
    heavy = {"boto3", "botocore", "yaml", "tqdm", "requests", "click", "pydantic", "asyncio", "urllib.request"}
    code = f"import {module.__name__}, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------- the server


class Container:
    """A running server, its streams, and a connection that stays."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.out, self.err = directory / "stdout", directory / "stderr"
        command = [sys.executable, "-m", openwhisk_server.__name__, str(self.port)]
        environment = {**os.environ, "TMPDIR": str(directory), "__OW_API_HOST": "http://openwhisk"}
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def _connect(self) -> http.client.HTTPConnection:
        until = time.monotonic() + 20
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert time.monotonic() < until
                assert self.process.poll() is None, self.err.read_text()
                threading.Event().wait(0.02)
            else:
                return connection

    def init(self, **env: str) -> tuple[int, Any]:
        return self.post("/init", {"value": {"name": "a", "main": "main", "code": "", "binary": False, "env": env}})

    def run(self, payload: bytes, seconds: float = 60, **context: Any) -> tuple[int, Any]:
        value = {"payload": b64encode(payload).decode(), **context.pop("bound", {})}
        return self.post("/run", {"value": value, "deadline": deadline(seconds), **context})

    def end(self) -> int:
        if self._connection is not None:
            self._connection.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    yield made
    if made.process.poll() is None:
        assert made.end() == 0


def test_init_and_run(container, messages):
    assert container.init() == (200, {"ok": True})
    for turn in range(3):
        status, told = container.run(messages.payload(lambda x: x + 1, [turn]))
        assert (status, list(told)) == (200, ["reply"])
        assert messages.values(b64decode(told["reply"])) == [turn + 1]
    assert container.end() == 0


def test_it_is_initialized_once_and_before_it_runs(container, messages):
    status, told = container.run(messages.payload(abs, [-1]))
    assert (status, list(told)) == (500, ["error"])
    assert "/init" in told["error"]
    assert container.init()[0] == 200
    status, told = container.init()
    assert (status, list(told)) == (403, ["error"])
    assert "before" in told["error"]
    assert container.err.read_text().endswith(f"\n{END_OF_LOG}\n")
    status, told = container.run(messages.payload(abs, [-1]))
    assert messages.values(b64decode(told["reply"])) == [1]


def test_each_activation_ends_on_both_streams_after_what_it_printed(container, messages):
    def speak(x):
        print(f"hello {x}")

    container.init()
    for turn in range(2):
        container.run(messages.payload(speak, [turn]))
        lines = container.out.read_text().splitlines()
        assert lines[-2].endswith(f"call 0: hello {turn}")
        assert lines.count(END_OF_LOG) == turn + 1
        assert lines[-1] == END_OF_LOG
        assert container.err.read_text() == f"{END_OF_LOG}\n" * (turn + 1)


def test_the_context_of_an_activation_is_in_the_environment(container, messages):
    def read(_):
        names = ("__OW_API_HOST", "__OW_NAMESPACE", "__OW_ACTION_NAME", "OF_INIT", "OF_STORAGE")
        return [os.environ.get(name) for name in names]

    container.init(OF_INIT="there")
    context = {"namespace": "guest", "action_name": "/guest/lithops_mini/a", "activation_id": "1"}
    _, told = container.run(messages.payload(read, [0]), bound={"environment": {"OF_STORAGE": "key"}}, **context)
    found = messages.values(b64decode(told["reply"]))
    assert found == [["http://openwhisk", "guest", "/guest/lithops_mini/a", "there", "key"]]


def test_the_deadline_of_the_activation_is_kept(container, messages):
    container.init()
    container.run(messages.payload(abs, [1]))
    began = time.monotonic()
    _, told = container.run(messages.payload(time.sleep, [60]), seconds=2)
    assert time.monotonic() - began < 2
    (outcome,) = outcomes(b64decode(told["reply"]))
    assert statuses(b64decode(told["reply"])) == ["TIMEOUT"]
    assert b"the time of its worker was over" in bytes(outcome.data)


def test_a_call_that_dies_is_one_outcome_and_the_container_stays(container, messages):
    container.init()
    _, told = container.run(messages.payload(lambda x: os._exit(5) if x else x, [0, 1, 2]))
    assert statuses(b64decode(told["reply"])) == ["OK", "DIED", "UNSTARTED"]
    _, told = container.run(messages.payload(abs, [-1]))
    assert messages.values(b64decode(told["reply"])) == [1]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/init", b"not JSON", 400),
        ("/init", b"[]", 400),
        ("/run", b"{}", 400),
        ("/elsewhere", b"{}", 404),
    ],
)
def test_what_makes_no_sense_is_refused_and_does_no_harm(container, messages, path, body, status):
    found, told = container.post(path, body)
    assert (found, list(told)) == (status, ["error"])
    assert container.init()[0] == 200
    assert container.run(messages.payload(abs, [-1]))[0] == 200


def test_an_activation_without_a_message_is_an_error_in_its_log(container, messages):
    container.init()
    status, told = container.post("/run", {"value": {}, "deadline": deadline(60)})
    assert status == 502
    assert "payload" in told["error"]
    assert "Traceback" in container.err.read_text()
    assert container.err.read_text().endswith(f"\n{END_OF_LOG}\n")
    assert container.run(messages.payload(abs, [-1]))[0] == 200


def test_it_ends_at_once_with_what_it_has_started(container, messages):
    container.init()
    _, told = container.run(messages.payload(lambda _: os.getpid(), [0]))
    (runner,) = messages.values(b64decode(told["reply"]))
    assert container.end() == 0
    until = time.monotonic() + 10
    while Path(f"/proc/{runner}").exists():
        assert time.monotonic() < until
        threading.Event().wait(0.02)
