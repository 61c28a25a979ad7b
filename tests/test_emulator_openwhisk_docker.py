"""Actions of the local OpenWhisk in containers: what only a container can enforce, and actions that are images."""

from __future__ import annotations

import io
import tarfile
import threading

import pytest
from openwhisk_emulator import CODE, annotation, start_openwhisk, zipped

from lithops_mini.runtimes import engine
from lithops_mini.runtimes.recipe import Recipe

# An action that is an image: it listens on 8080, or where PORT says, and its code is its own.
SERVER = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("got", self.path)
        if self.path == "/init":
            answer = {"ok": True}
        elif given["value"].get("error"):
            return self.answer(500, {"error": given["value"]["error"]})
        else:
            answer = {"said": given["value"], "name": given["action_name"], "port": os.environ.get("PORT")}
        self.answer(200, answer)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/run":
            for stream in (sys.stdout, sys.stderr):
                print("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX", file=stream, flush=True)

    def log_message(self, *_):
        pass

HTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def ow(docker_engine, image, tmp_path_factory):
    flags = ("--sandbox", "docker", "--per-minute", "100000")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as emulated:
        yield emulated
    assert containers(docker_engine, emulated) == []


@pytest.fixture(scope="module")
def image(docker_engine):
    base = engine.base_image(docker_engine, Recipe(base="host"), print)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("server.py")
        info.size = len(SERVER)
        tar.addfile(info, io.BytesIO(SERVER.encode()))
    container = docker_engine.containers.create(base)
    try:
        container.put_archive("/", archive.getvalue())
        made = container.commit("lithops-mini-test/action", "latest", changes='CMD ["python3", "-u", "/server.py"]')
    finally:
        container.remove()
    yield "lithops-mini-test/action:latest"
    docker_engine.images.remove(made.id, force=True)


def containers(client, emulated):
    """The containers of an emulator."""
    found = client.containers.list(all=True, filters={"label": "lithops-mini=emulator"}, ignore_removed=True)
    return [each for each in found if f"__OW_API_HOST={emulated.url}" in each.attrs["Config"]["Env"]]


def blackbox(ow, image, name, **more):
    assert ow.ask("PUT", f"actions/{name}", {"exec": {"kind": "blackbox", "image": image}, **more}).status == 200
    return name


def test_an_action_in_a_container(ow):
    name = ow.make(zipped({"__main__.py": CODE}))
    first, second = ow.invoke(name, do="print", text="x" * 30_000), ow.invoke(name)
    assert [annotation(each.body, "initTime") is None for each in (first, second)] == [False, True]
    assert second.result["calls"] == 2
    logs = ow.record(first.body["activationId"])["logs"]
    assert sorted(len(line) for line in logs) == [48, 39 + 30_000 - 16384, 39 + 16384]
    where = ow.invoke(name, do="python", code="[os.getcwd()[:12], os.listdir('/lithops-mini'), os.getpid()]")
    assert where.result["value"][:2] == ["/tmp/action-", ["action_runtime.py", "socket"]]
    assert ow.invoke(name, do="environment").result["__OW_API_HOST"] == ow.url


def test_more_memory_than_the_action_has(ow):
    name = ow.make(limits={"memory": 128})
    answer = ow.invoke(name, do="memory", bytes=400_000_000)
    assert (answer.status, answer.body["response"]["status"]) == (502, "action developer error")
    assert answer.result == {"error": "The action exhausted its memory and was aborted."}
    logs = ow.record(answer.body["activationId"])["logs"]
    assert logs[-1].endswith("The action did not initialize or run as expected. Log data might be missing.")
    assert ow.invoke(name).result["calls"] == 1
    assert ow.invoke(ow.make(limits={"memory": 512}), do="memory", bytes=400_000_000).status == 200


def test_a_child_with_more_memory_leaves_the_action(ow):
    name = ow.make(limits={"memory": 128})
    child = "__import__('subprocess').call(['python3', '-c', 'len(bytearray(400_000_000))'])"
    assert ow.invoke(name, do="python", code=child).result == {"value": -9}
    text = "The action did not produce a valid response and exited unexpectedly."
    assert ow.invoke(name, do="kill").result == {"error": text}


def test_limits_of_the_container(ow, docker_engine):
    before = {each.id for each in containers(docker_engine, ow)}
    ow.invoke(ow.make(limits={"memory": 192}))
    (made,) = [each for each in containers(docker_engine, ow) if each.id not in before]
    host = made.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (192 << 20, 192 << 20, 1024)
    assert host["CapDrop"] == ["NET_RAW", "NET_ADMIN"] or set(host["CapDrop"]) == {"CAP_NET_RAW", "CAP_NET_ADMIN"}


def test_an_action_that_takes_too_long(ow, docker_engine):
    name = ow.make(limits={"timeout": 1000})
    before = {each.id for each in containers(docker_engine, ow)}
    answer = ow.invoke(name, do="sleep", seconds=60)
    assert answer.result == {"error": "The action exceeded its time limits of 1000 milliseconds."}
    assert {each.id for each in containers(docker_engine, ow)} == before


def test_a_sandbox_that_is_killed(ow):
    name = ow.make()
    answer = ow.invoke(name, do="kill")
    text = "The action did not produce a valid response and exited unexpectedly."
    assert (answer.status, answer.result) == (502, {"error": text})
    with ow.changed("faults", crash=1.0):
        assert ow.invoke(name).result == {"error": text}


def test_an_action_that_is_an_image(ow, image):
    name = blackbox(ow, image, "imaged")
    for number in range(2):
        answer = ow.invoke(name, number=number)
        assert answer.result == {"said": {"number": number}, "name": f"/{ow.namespace}/{name}", "port": None}
        assert annotation(answer.body, "kind") == "blackbox"
    logs = ow.record(answer.body["activationId"])["logs"]
    assert [line[31:] for line in logs] == ["stdout: got /run"]
    failed = ow.invoke(name, error="mine")
    assert (failed.status, failed.body["response"]["status"]) == (502, "action developer error")
    assert failed.result == {"error": "mine"}
    exec_ = ow.ask("GET", f"actions/{name}").body["exec"]
    assert exec_ == {"kind": "blackbox", "image": image, "binary": False}


def test_many_images_at_a_time(ow, image):
    name = blackbox(ow, image, "many")
    threads = [threading.Thread(target=ow.invoke, args=(name,)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each["statusCode"] for each in ow.ask("GET", f"activations?name={name}").body] == [0, 0, 0]


def test_images_that_cannot_run(ow, docker_engine):
    answer = ow.invoke(blackbox(ow, "lithops-mini-test/absent:latest", "absent"))
    assert (answer.status, answer.body["response"]["status"]) == (502, "action developer error")
    assert answer.result == {"error": "Failed to pull container image 'lithops-mini-test/absent:latest'."}
    ended = ow.invoke(blackbox(ow, engine.base_image(docker_engine, Recipe(base="host"), print), "ended"))
    assert ended.result == {"error": "The action did not initialize and exited unexpectedly."}


def test_images_in_the_network_of_this_machine(image, docker_engine, tmp_path):
    flags = ("--sandbox", "docker", "--network", "host")
    with start_openwhisk(tmp_path, *flags) as emulated:
        name = blackbox(emulated, image, "here")
        answer = emulated.invoke(name)
        assert int(answer.result["port"]) > 1023
    assert containers(docker_engine, emulated) == []
