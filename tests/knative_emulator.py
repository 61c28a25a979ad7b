"""A local Knative for the tests: `lithops-mini emulate knative` in a process of its own, and services in it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import yaml
from engines import CACHE, EngineMissing
from kubernetes import client, config, watch

SERVER = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

print("starts", flush=True)
calls = running = 0
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"path": self.path})

    def do_POST(self):
        global calls, running
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        with lock:
            calls += 1
            running += 1
            peak = running
        time.sleep(asked.get("sleep", 0))
        while "until" in asked and not os.path.exists(asked["until"]):
            time.sleep(0.01)
        if "file" in asked:
            with open(asked["file"], "a") as file:
                file.write("x")
        if "print" in asked:
            print(asked["print"], flush=True)
        if "memory" in asked:
            asked["memory"] = len(bytearray(asked["memory"]))
        if "exit" in asked:
            os._exit(asked["exit"])
        if "kill" in asked:
            os.kill(os.getpid(), asked["kill"])
        with lock:
            running -= 1
        names = asked.get("environment", ())
        self.answer({
            "pid": os.getpid(), "pod": os.environ["HOSTNAME"], "revision": os.environ["K_REVISION"], "calls": calls,
            "peak": peak, "path": self.path, "headers": dict(self.headers), "uid": os.getuid(),
            "environment": {name: os.environ.get(name) for name in names},
        }, asked.get("status", 200), asked.get("large", 0))

    def answer(self, value, status=200, large=0):
        body = json.dumps(value).encode() + b" " * large
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 100


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Server(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
GROUP = ("serving.knative.dev", "v1")
LIMIT = 100.0
"""Seconds in which anything must have come to be, on a machine that has much else to do."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Answer:
    """Of a service: ``body`` is what its JSON says, else its text."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Emulated:
    """A running emulator, asked by the official client and by plain HTTP."""

    def __init__(self, process: subprocess.Popen[str], profile: Path, lines: list[str]) -> None:
        self.process = process
        self.profile = profile
        self.lines = lines  # what it has printed
        settings = yaml.safe_load(profile.read_text())["profiles"]["emulator"]["knative"]
        self.kubeconfig = Path(settings["kubeconfig"])
        self.ingress: str = settings["ingress"]
        self._connect()

    def _connect(self) -> None:
        self.api = config.new_client_from_config(str(self.kubeconfig))
        self.core = client.CoreV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)

    def reconnect(self) -> None:
        """Read the kubeconfig again."""
        self.api.close()
        self._connect()

    def own(self, name: str, method: str = "GET", **values: Any) -> Any:
        """What the emulator says of itself; an error of its is returned too."""
        return requests.request(method, f"{self.ingress}/_emulator/{name}", json=values or None, timeout=30).json()

    @contextmanager
    def faults(self, **values: Any) -> Iterator[None]:
        self.own("faults", "PUT", **values)
        try:
            yield
        finally:
            self.own("faults", "PUT", **dict.fromkeys(values, 0))

    @contextmanager
    def limits(self, **values: Any) -> Iterator[None]:
        before = self.own("limits")
        self.own("limits", "PUT", **values)
        try:
            yield
        finally:
            self.own("limits", "PUT", **{name: before[name] for name in values})

    def call(self, name: str, asked: Any = None, timeout: float = LIMIT, **options: Any) -> Answer:
        """Call a service of the namespace ``default`` through the ingress."""
        headers = {"Host": f"{name}.default.localhost", **options.pop("headers", {})}
        path = options.pop("path", "/")
        answer = requests.post(f"{self.ingress}{path}", json=asked or {}, headers=headers, timeout=timeout, **options)
        is_json = answer.headers.get("Content-Type") == "application/json"
        return Answer(answer.status_code, answer.json() if is_json else answer.text, answer.headers)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """What the API server answers, without the client and its retries."""
        configuration = self.api.configuration
        token = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"]
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        url, ca = f"{configuration.host}{path}", configuration.ssl_ca_cert
        return requests.request(method, url, headers=headers, verify=ca, timeout=30, **options)

    # -- objects

    def body(self, name: str, container: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        """A Service of Knative. ``spec``: of its revisions; ``annotations`` are those of its template."""
        annotations = spec.pop("annotations", {})
        one = {"image": "example.com/any", "command": [sys.executable, "-c", SERVER], **(container or {})}
        template = {
            "metadata": {"annotations": annotations},
            "spec": {"containers": [one], "timeoutSeconds": 30, **spec},
        }
        metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "lithops-mini"}}
        return {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"template": template},
        }

    def make(self, container: Mapping[str, Any] | None = None, *, ready: bool = True, **spec: Any) -> str:
        """The name of a new service."""
        name = f"service-{next(_numbers)}"
        self.create(self.body(name, container, **spec))
        if ready:
            self.await_ready(name)
        return name

    def create(self, body: Mapping[str, Any], namespace: str = "default", **options: Any) -> dict[str, Any]:
        return self.custom.create_namespaced_custom_object(*GROUP, namespace, "services", body, **options)

    def get(self, name: str, plural: str = "services", namespace: str = "default") -> dict[str, Any]:
        return self.custom.get_namespaced_custom_object(*GROUP, namespace, plural, name)

    def list(self, plural: str = "services", namespace: str = "default", **options: Any) -> list[dict[str, Any]]:
        return self.custom.list_namespaced_custom_object(*GROUP, namespace, plural, **options)["items"]

    def patch(self, name: str, body: Any, **options: Any) -> dict[str, Any]:
        return self.custom.patch_namespaced_custom_object(*GROUP, "default", "services", name, body, **options)

    def delete(self, name: str, **options: Any) -> Any:
        return self.custom.delete_namespaced_custom_object(*GROUP, "default", "services", name, **options)

    def pods(self, name: str = "") -> list[client.V1Pod]:
        """All, or those of a service."""
        selector = {"label_selector": f"serving.knative.dev/service={name}"} if name else {}
        return self.core.list_namespaced_pod("default", **selector).items

    def log(self, pod: str, **options: Any) -> str:
        return self.core.read_namespaced_pod_log(pod, "default", container="user-container", **options)

    # -- what comes to be

    def events(self, plural: str = "services", **options: Any) -> Iterator[dict[str, Any]]:
        """What a watch tells, as it comes; it ends after 30 s."""
        watched = watch.Watch()
        listed = self.custom.list_namespaced_custom_object
        yield from watched.stream(listed, *GROUP, "default", plural, **{"timeout_seconds": 30, **options})

    def await_ready(self, name: str, generation: int = 1) -> dict[str, Any]:
        """The service once it is ready, by a watch."""
        for event in self.events(field_selector=f"metadata.name={name}", timeout_seconds=round(LIMIT)):
            found = event["object"]
            ready = condition(found)
            if found.get("status", {}).get("observedGeneration") == generation and ready["status"] != "Unknown":
                assert ready["status"] == "True", found["status"]
                return found
        raise AssertionError(f"{name} is not ready: {self.get(name)}")

    def await_condition(self, name: str, kind: str = "Ready", plural: str = "services") -> dict[str, Any]:
        """A condition of an object once it is false."""
        found: dict[str, Any] = {}

        def is_false() -> bool:
            nonlocal found
            objects = self.list(plural, field_selector=f"metadata.name={name}")
            found = condition(objects[0], kind) if objects else {}
            return found.get("status") == "False"

        wait_until(is_false)
        return found

    def settle(self) -> None:
        """Delete all services, and return when no pod of them is left."""
        self.custom.delete_collection_namespaced_custom_object(*GROUP, "default", "services")
        wait_until(lambda: not self.pods())


def condition(found: Mapping[str, Any], kind: str = "Ready") -> dict[str, Any]:
    """One of an object; unknown if it is not there yet."""
    conditions = found.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == kind), {"status": "Unknown"})


def wait_until(done: Callable[[], Any], limit: float = LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not done():
        assert time.monotonic() < deadline, "it has not come to be"
        threading.Event().wait(0.02)


@contextmanager
def start_knative(directory: Path, *flags: str) -> Iterator[Emulated]:
    """An emulator with these flags, ended with SIGTERM."""
    profile = directory / "knative.yaml"
    command = [sys.executable, "-m", "lithops_mini", "emulate", "knative", "--profile-file", str(profile), *flags]
    temporary = tempfile.mkdtemp(dir=directory)
    with open(directory / "knative.log", "w+") as errors:
        environment = {**os.environ, "TMPDIR": temporary}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            assert lines[0].startswith("An emulator of Knative answers at "), Path(errors.name).read_text()
            emulated = Emulated(process, profile, lines)
            yield emulated
            emulated.api.close()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.stdout.close()
            process.wait(60)
        assert process.returncode == 0
        assert os.listdir(temporary) == []
        assert "Traceback" not in Path(errors.name).read_text(), Path(errors.name).read_text()


def host(url: str) -> str:
    """Of a URL, with its port."""
    return urlsplit(url).netloc


def status(error: client.ApiException) -> dict[str, Any]:
    """The ``Status`` that the API server has refused with."""
    found: dict[str, Any] = json.loads(error.body)
    assert found["kind"] == "Status"
    assert found["status"] == "Failure"
    assert found["code"] == error.status
    return found


def install_kubectl() -> str:
    """The path of a kubectl: of the one that is here, or of Debian's. ``EngineMissing``."""
    here = shutil.which("kubectl")
    if here:
        return here
    target = CACHE / "kubectl"
    program = target / "usr" / "bin" / "kubectl"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            if not shutil.which("apt-get") or not shutil.which("dpkg"):
                raise EngineMissing("kubectl, and there is no apt-get to get one")
            _unpack(target)
    return str(program)


def _unpack(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        get = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "kubernetes-client"]
        found = subprocess.run(get, cwd=directory, capture_output=True, text=True, check=False)
        if found.returncode and os.geteuid() == 0:  # nobody has asked yet which packages there are
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            found = subprocess.run(get, cwd=directory, capture_output=True, text=True, check=False)
        packages = list(Path(directory).glob("*.deb"))
        if not packages:
            raise EngineMissing(f"kubectl: apt-get download kubernetes-client: {found.stderr[-2000:]}")
        subprocess.run(["dpkg", "-x", str(packages[0]), str(target)], check=True, capture_output=True)
