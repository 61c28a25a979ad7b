"""The local OpenWhisk, asked by Apache's own client for JavaScript, which is an independent judge of the protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, missing_engine
from docker_engine import install_packages
from engines import CACHE, EngineMissing
from openwhisk_emulator import CODE, KIND, start_openwhisk, zipped

VERSION = "3.21.9"


class ClientError(Exception):
    """What the client raises; ``status`` is HTTP's."""

    def __init__(self, told):
        super().__init__(told["error"])
        self.status = told.get("status")
        self.body = told.get("body")


class Client:
    """Apache's client, in a process of its own."""

    def __init__(self, process):
        self._process = process

    def __call__(self, resource, method, **options):
        """What a method of one of its resources returns. ``ClientError`` for what it throws."""
        self._process.stdin.write(json.dumps([resource, method, options]) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        if "error" in told:
            raise ClientError(told)
        return told["value"]


@pytest.fixture(scope="module")
def modules():
    """The directory of the client's modules."""
    try:
        return install_client()
    except EngineMissing as error:
        missing_engine(str(error))


@pytest.fixture(scope="module")
def ow(modules, tmp_path_factory):
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), "--sandbox", "process") as emulated:
        yield emulated


@pytest.fixture(scope="module")
def client(modules, ow):
    with running(modules, ow) as client:
        yield client


def install_client() -> Path:
    """Install it with npm, below ``build/engines``. ``EngineMissing`` if it cannot be."""
    if not all(shutil.which(program) for program in ("node", "npm")):
        install_packages("node and npm", ("node", "npm"), ("nodejs", "npm"))
    target = CACHE / f"openwhisk-client-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            command = ["npm", "install", "--prefix", str(target), "--no-audit", "--no-fund", f"openwhisk@{VERSION}"]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except subprocess.CalledProcessError as error:
                raise EngineMissing(f"Apache's client for OpenWhisk: {error.stderr[-2000:]}") from error
            (target / "complete").touch()
    return target / "node_modules"


@contextmanager
def running(modules, ow, **options):
    """The client, with the variables that the emulator prints, and these options."""
    exported = dict(line.removeprefix("export ").strip().split("=", 1) for line in ow.lines[1:4])
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(modules), **exported}
    command = ["node", str(REPOSITORY / "tests" / "openwhisk_client.js"), json.dumps(options)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        yield Client(process)
        process.stdin.close()
        assert process.wait(10) == 0


def create(client, name, **more):
    return client("actions", "create", name=name, kind=KIND, **{"action": CODE, **more})


def test_an_action_from_its_making_to_its_end(client):
    limits = {"memory": 128, "timeout": 5000}
    made = create(client, "one", params={"a": 1}, limits=limits)
    assert made["exec"]["kind"] == KIND
    assert made["parameters"] == [{"key": "a", "value": 1}]
    assert client("actions", "get", name="one")["limits"] == {**limits, "logs": 10, "concurrency": 1}
    changed = client("actions", "update", name="one", kind=KIND, action=CODE, params={"a": 2})
    assert (changed["version"], changed["limits"]["memory"]) == ("0.0.2", 128)
    assert [each["name"] for each in client("actions", "list", limit=10)] == ["one"]
    assert client("actions", "invoke", name="one", blocking=True)["response"]["result"]["params"] == {"a": 2}
    assert client("actions", "delete", name="one")["name"] == "one"
    assert client("actions", "list") == []


def test_a_package_with_a_zip(client):
    assert (
        client("packages", "create", name="pack", package={"parameters": [{"key": "a", "value": 1}]})["version"]
        == "0.0.1"
    )
    code = base64.b64encode(zipped({"__main__.py": CODE})).decode()
    made = client("actions", "create", name="pack/zipped", kind=KIND, zip=code)
    assert made["exec"]["binary"] is True
    result = client("actions", "invoke", name="pack/zipped", blocking=True, result=True, params={"b": 2})
    assert result["params"] == {"a": 1, "b": 2}
    assert [each["name"] for each in client("packages", "get", name="pack")["actions"]] == ["zipped"]
    assert [each["name"] for each in client("packages", "list")] == ["pack"]
    with pytest.raises(ClientError, match="Package not empty") as caught:
        client("packages", "delete", name="pack")
    assert caught.value.status == 409
    client("actions", "delete", name="pack/zipped")
    assert client("packages", "delete", name="pack")["name"] == "pack"


def test_activations_and_their_logs(client, ow):
    create(client, "logged")
    accepted = client("actions", "invoke", name="logged", params={"do": "print", "text": "hello"})
    assert set(accepted) == {"activationId"}
    ow.record(accepted["activationId"])
    waited = client("actions", "invoke", name="logged", blocking=True)
    listed = client("activations", "list", name="logged")
    assert {each["activationId"] for each in listed} == {accepted["activationId"], waited["activationId"]}
    shown = client("activations", "get", name=accepted["activationId"])
    assert shown["response"]["success"] is True
    logs = client("activations", "logs", name=accepted["activationId"])["logs"]
    assert sorted(line[31:] for line in logs) == ["stderr: to stderr", "stdout: hello"]
    assert client("activations", "result", name=accepted["activationId"])["status"] == "success"
    assert client("activations", "list", name="logged", count=True) == {"activations": 2}
    client("actions", "delete", name="logged")


def test_failures(client, ow):
    create(client, "failing")
    with pytest.raises(ClientError, match=r"Returned HTTP 502 \(Bad Gateway\) --> \"no\"") as caught:
        client("actions", "invoke", name="failing", blocking=True, params={"do": "raise"})
    assert caught.value.body["response"]["status"] == "application error"
    with pytest.raises(ClientError, match="exited unexpectedly") as caught:
        client("actions", "invoke", name="failing", blocking=True, params={"do": "exit"})
    assert caught.value.body["response"]["status"] == "action developer error"
    for name, status, text in (("absent", 404, "does not exist"), ("failing", 409, "resource already exists")):
        with pytest.raises(ClientError, match=text) as caught:
            create(client, name) if status == 409 else client("actions", "get", name=name)
        assert caught.value.status == status
    with pytest.raises(ClientError, match="not supported by this platform") as caught:
        client("actions", "create", name="other", kind="nodejs:20", action="x")
    assert caught.value.status == 400
    with ow.changed("limits", concurrent=0), pytest.raises(ClientError, match="Too many concurrent requests") as caught:
        client("actions", "invoke", name="failing")
    assert caught.value.status == 429
    client("actions", "delete", name="failing")


def test_who_may_not(client, modules, ow):
    assert client("namespaces", "list") == [ow.namespace]
    with running(modules, ow, api_key="a:b") as nobody, pytest.raises(ClientError, match="401") as caught:
        nobody("actions", "list")
    assert caught.value.body["error"] == "The supplied authentication is invalid"
    with pytest.raises(ClientError, match="403"):
        client("actions", "list", namespace="other")


def test_a_blocking_invocation_that_takes_long(client, ow):
    create(client, "slow")
    with ow.changed("limits", wait=0.2):
        answer = client("actions", "invoke", name="slow", blocking=True, params={"do": "sleep", "seconds": 0.5})
    assert set(answer) == {"activationId"}
    assert ow.record(answer["activationId"])["response"]["success"]
    client("actions", "delete", name="slow")
