"""A local OpenWhisk for the tests: `lithops-mini emulate openwhisk` in a process of its own, and actions in it."""

from __future__ import annotations

import base64
import io
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from engines import Engine

KIND = f"python:{sys.version_info.major}.{sys.version_info.minor}"
CODE = """
import json, os, signal, sys, time
calls = 0

def main(params):
    global calls
    calls += 1
    if "file" in params:
        with open(params["file"], "a") as file:
            file.write(os.environ["__OW_ACTIVATION_ID"] + "\\n")
    match params.get("do"):
        case "raise":
            raise ValueError("no")
        case "error":
            return {"error": params["error"]}
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(params["seconds"])
        case "print":
            print(params["text"] * params.get("times", 1))
            print("to stderr", file=sys.stderr)
        case "large":
            return {"x": "x" * (params["size"] - 9)}
        case "value":
            return json.loads(params["json"])
        case "await":
            while not os.path.exists(params["until"]):
                time.sleep(0.01)
        case "environment":
            return {name: value for name, value in os.environ.items() if name.startswith("__OW_") or name in params}
        case "memory":
            return {"length": len(bytearray(params["bytes"]))}
        case "python":
            return {"value": eval(params["code"])}
    return {"calls": calls, "pid": os.getpid(), "params": params}
"""

_numbers = itertools.count()


@dataclass(frozen=True)
class Answered:
    """An answer of the API."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        """The text of a refusal, which must have the transaction's id."""
        assert set(self.body) == {"error", "code"}
        assert self.body["code"] == self.headers["x-request-id"]
        return str(self.body["error"])

    @property
    def result(self) -> Any:
        return self.body["response"]["result"]


Watch = Callable[[str, str, Answered], None]


class Emulated:
    """A running emulator. ``watch`` is called with the method, the path and the answer of each request."""

    def __init__(self, process: subprocess.Popen[str], profile: Path, lines: list[str]) -> None:
        self.process = process
        self.profile = profile
        self.lines = lines  # what it has printed
        sections = yaml.safe_load(profile.read_text())["profiles"]["emulator"]
        self.place: dict[str, str] = sections["openwhisk"]
        self.ibm: dict[str, str] = {**sections["ibm_cf"], **sections["ibm"]}
        self.url = self.place["endpoint"]
        self.namespace = self.place["namespace"]
        self.session = requests.Session()
        self.session.trust_env = False
        self.watch: Watch = lambda *_: None

    def openwhisk(self) -> dict[str, Any]:
        """Arguments of ``function_executor`` for the backend openwhisk."""
        return {"backend": "openwhisk", **self.place}

    def ibm_cf(self) -> dict[str, Any]:
        """Arguments of ``function_executor`` for the backend ibm_cf."""
        return {"backend": "ibm_cf", **self.ibm}

    def ask(self, method: str, path: str, value: Any = None, **options: Any) -> Answered:
        """The answer to a request below the namespace, as whoever has the key unless ``options`` say otherwise."""
        url = (
            path if path.startswith("http") else f"{self.url}/api/v1/namespaces/{options.pop('namespace', '_')}/{path}"
        )
        if value is not None:
            options["json"] = value
        options = {"auth": tuple(self.place["api_key"].split(":")), "timeout": 60, **options}
        answer = self.session.request(method, url, **options)
        found = Answered(answer.status_code, answer.json() if answer.content else None, answer.headers)
        self.watch(method, url.removeprefix(self.url), found)
        return found

    def token(self, **form: str) -> requests.Response:
        """What the IAM endpoint answers."""
        grant = "urn:ibm:params:oauth:grant-type:apikey"
        given = {"grant_type": grant, "apikey": self.ibm["iam_api_key"], **form}
        return self.session.post(f"{self.ibm['iam_endpoint']}/identity/token", data=given, timeout=10)

    def own(self, name: str, method: str = "GET", **values: Any) -> Any:
        """What the emulator says of itself; an error of its is returned too."""
        return self.session.request(method, f"{self.url}/_emulator/{name}", json=values, timeout=30).json()

    @contextmanager
    def changed(self, name: str, **values: Any) -> Iterator[None]:
        """Other limits or faults in the ``with`` block."""
        before = self.own(name)
        changed = self.own(name, "PUT", **values)
        assert "error" not in changed, changed
        try:
            yield
        finally:
            self.own(name, "PUT", **before)

    def settle(self, limit: float = 30.0) -> None:
        """Return when no invocation runs."""
        deadline = time.monotonic() + limit
        while self.own("state")["running"]:
            assert time.monotonic() < deadline, "invocations are still running"
            threading.Event().wait(0.01)

    def make(self, code: str | bytes = CODE, package: str = "", **more: Any) -> str:
        """The name of a new action, with that of its package; of bytes, which are a zip."""
        name = f"{package}/action-{next(_numbers)}" if package else f"action-{next(_numbers)}"
        text = code if isinstance(code, str) else base64.b64encode(code).decode()
        answer = self.ask("PUT", f"actions/{name}", {"exec": {"kind": KIND, "code": text}, **more})
        assert answer.status == 200, answer
        return name

    def invoke(self, name: str, blocking: bool = True, *, query: str = "", **params: Any) -> Answered:
        return self.ask("POST", f"actions/{name}?blocking={str(blocking).lower()}{query}", params)

    def record(self, activation_id: str, limit: float = 30.0) -> dict[str, Any]:
        """The record of an activation, once it is there."""
        deadline = time.monotonic() + limit
        while (answer := self.ask("GET", f"activations/{activation_id}")).status == 404:
            assert time.monotonic() < deadline, "there is no such record"
            threading.Event().wait(0.01)
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.body
        return found


def annotation(record: Mapping[str, Any], name: str) -> Any:
    """The value of an annotation; ``None`` if there is none."""
    return next((each["value"] for each in record["annotations"] if each["key"] == name), None)


def zipped(files: Mapping[str, str]) -> bytes:
    """A zip of modules."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return archive.getvalue()


def stored(engine: Engine) -> dict[str, Any]:
    """Arguments of ``function_executor`` for a storage that actions reach."""
    place = {"storage": "aws_s3", "storage_bucket": "jobs", "endpoint_url": engine.url, "region": engine.region}
    return {**place, "access_key_id": engine.access_key_id, "secret_access_key": engine.secret_access_key}


@contextmanager
def start_openwhisk(directory: Path, *flags: str) -> Iterator[Emulated]:
    """An emulator with these flags, ended with SIGTERM."""
    profile = directory / "emulator.yaml"
    command = [sys.executable, "-m", "lithops_mini", "emulate", "openwhisk", "--profile-file", str(profile), *flags]
    # Not below pytest's directories: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="lm-ow-") as temporary, open(directory / "emulator.log", "w+") as errors:
        environment = {**os.environ, "TMPDIR": temporary}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            assert lines[0].startswith("An emulator of OpenWhisk answers at "), Path(errors.name).read_text()
            emulated = Emulated(process, profile, lines)
            yield emulated
            emulated.session.close()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            lines += process.stdout.readlines()
            process.stdout.close()
            process.wait(60)
        assert process.returncode == 0
        assert "Traceback" not in Path(errors.name).read_text(), Path(errors.name).read_text()
        assert os.listdir(temporary) == []
