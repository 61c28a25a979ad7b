"""What the container of a Knative service runs: an HTTP server, spoken to as the proxy beside it does."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import free_ports

from lithops_mini import wire
from lithops_mini.config import load
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.testing.messages import Messages, outcomes, statuses, worker_id
from lithops_mini.worker import frames, knative
from lithops_mini.worker.frames import Kind

FRAMED = {"Accept": knative.FRAMES}


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    config = load(storage="localhost", storage_path=str(tmp_path / "s"))
    storage = LocalhostStorage(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    return Messages(config, storage)


class Container:
    """A running server."""

    def __init__(self, directory: Path, **environment: str) -> None:
        (self.port,) = free_ports(1)
        self.out, self.err = directory / "stdout", directory / "stderr"
        own = {"PORT": str(self.port), "TMPDIR": str(directory), "HOSTNAME": "pod", **environment}
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", knative.__name__], stdout=out, stderr=err, env={**os.environ, **own}
            )
        self._await()

    def _await(self) -> None:
        until = time.monotonic() + 20
        while True:
            try:
                assert self.get()[0] == 200
            except ConnectionRefusedError:
                assert time.monotonic() < until
                assert self.process.poll() is None, self.err.read_text()
                threading.Event().wait(0.02)
            else:
                return

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str = "/") -> tuple[int, Any]:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def post(self, payload: bytes, **headers: str) -> tuple[int, str, bytes]:
        """Status, type and body of the answer."""
        with closing(self.connect()) as connection:
            connection.request("POST", "/", payload, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()

    def reply(self, payload: bytes, **headers: str) -> bytes:
        status, kind, body = self.post(payload, **headers)
        assert (status, kind) == (200, knative.BYTES), body
        return body

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def start(directory: Path, **environment: str) -> Iterator[Container]:
    container = Container(directory, **environment)
    try:
        yield container
    finally:
        if container.process.poll() is None:
            container.process.kill()
        container.process.wait()
        assert "Traceback" not in container.err.read_text(), container.err.read_text()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    with start(tmp_path) as container:
        yield container


def beating(path: Path) -> Any:
    """A function that writes to a file again and again, for long."""

    def beat(_: int) -> None:
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            with open(path, "a") as file:
                file.write(".")
            time.sleep(0.02)

    return beat


def until(holds: Any, what: str) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends, what
        threading.Event().wait(0.01)


def is_still(path: Path) -> bool:
    before = path.stat().st_size
    threading.Event().wait(0.3)
    return path.stat().st_size == before


# ---------------------------------------------------------------- messages


def test_a_post_is_a_message_and_the_answer_is_the_reply(container, messages):
    reply = container.reply(messages.payload(lambda x: x * x, range(5)))
    assert messages.values(reply) == [0, 1, 4, 9, 16]
    assert worker_id(reply).startswith("knative/pod-")
    again = container.reply(messages.payload(lambda _: os.getpid(), [0, 0]))
    assert worker_id(again) == worker_id(reply)


def test_it_says_when_it_takes_messages_and_what_it_is(container):
    status, told = container.get()
    assert status == 200
    assert told["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_a_request_without_a_length_is_told_so(container):
    with socket.create_connection(("127.0.0.1", container.port), 10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 411 Length Required\r\n"


def test_what_cannot_be_run_is_refused_with_the_reason(container, messages):
    status, kind, body = container.post(messages.payload(abs, [1]), **{knative.PYTHON: "2.7"})
    assert (status, kind) == (422, "application/json")
    told = json.loads(body)
    assert (told["reason"], told["retryable"]) == ("refused", False)
    assert "functions pickled by Python 2.7 cannot run there" in told["text"]


def test_what_runs_when_the_time_is_over_is_stopped(container, messages):
    container.reply(messages.payload(abs, [1]))
    began = time.monotonic()
    reply = container.reply(messages.payload(time.sleep, [0, 60, 0]), **{knative.SECONDS: "0.5"})
    assert time.monotonic() - began < 5
    assert statuses(reply) == ["OK", "TIMEOUT", "UNSTARTED"]
    assert b"the time of its worker was over" in bytes(outcomes(reply)[1].data)


def test_calls_may_be_stopped_before_they_run(container, messages):
    reply = container.reply(messages.payload(time.sleep, [0, 60, 0]), **{knative.STOP: "1"})
    assert statuses(reply) == ["OK", "CANCELLED", "UNSTARTED"]
    assert statuses(container.reply(messages.payload(abs, [0, 1]))) == ["OK", "OK"]


@pytest.mark.parametrize("headers", [{}, FRAMED], ids=["bytes", "frames"])
def test_calls_end_with_their_connection(container, messages, tmp_path, headers):
    file = tmp_path / "beats"
    connection = container.connect()
    connection.request("POST", "/", messages.payload(beating(file), [0, 1]), headers)
    until(file.exists, "the call runs")
    connection.close()
    began = time.monotonic()
    assert container.reply(messages.payload(lambda x: -x, [1])) is not None
    assert time.monotonic() - began < 10
    assert is_still(file)


# ---------------------------------------------------------------- answers in parts


def parts_of(body: bytes) -> list[tuple[Kind, bytes]]:
    stream = io.BytesIO(body)
    return [(kind, bytes(data)) for kind, data in iter(lambda: frames.read(stream.read), None)]


def test_what_is_soon_done_is_answered_as_to_anybody(container, messages):
    container.reply(messages.payload(abs, [1]))
    assert messages.values(container.reply(messages.payload(abs, [-1]), **FRAMED)) == [1]


def test_what_takes_long_is_answered_in_parts(container, messages):
    container.reply(messages.payload(abs, [1]))
    status, kind, body = container.post(messages.payload(time.sleep, [0, 1.6, 0]), **FRAMED)
    assert (status, kind) == (200, knative.FRAMES)
    (first, known), (last, rest) = parts_of(body)
    assert (first, last) == (Kind.DELIVER, Kind.REPLY)
    assert sorted((each.call, each.status) for each in outcomes(known)) == [(0, 0), (2, wire.Status.UNSTARTED)]
    assert [(each.call, each.status) for each in outcomes(rest)] == [(1, 0)]


def test_an_answer_in_parts_leaves_its_connection_open(container, messages):
    with closing(container.connect()) as connection:
        for _ in range(2):
            connection.request("POST", "/", messages.payload(time.sleep, [1.5]), FRAMED)
            answer = connection.getresponse()
            assert [kind for kind, _ in parts_of(answer.read())] == [Kind.PONG, Kind.REPLY]


# ---------------------------------------------------------------- who may send messages

KEY = bytes(range(32))


def signed(payload: bytes, key: bytes = KEY, **told: str) -> dict[str, str]:
    name = knative.request_name("n", told.get(knative.SECONDS, ""), told.get(knative.STOP, ""))
    return {knative.NONCE: "n", knative.SIGNATURE: wire.sign(key, name, payload).hex(), **told}


def test_with_a_key_only_what_is_signed_runs_and_replies_are_signed(tmp_path, messages):
    with start(tmp_path, **{knative.KEY: KEY.hex()}) as container:
        payload = messages.payload(
            lambda name: hashlib.sha256(str(os.environ.get(name)).encode()).digest(), [knative.KEY]
        )
        forged = [{}, signed(payload, bytes(32)), signed(payload + b"x"), signed(payload) | {knative.SECONDS: "9"}]
        for headers in (*forged, signed(payload) | {knative.NONCE: "m"}):
            status, _, body = container.post(payload, **headers)
            assert (status, json.loads(body)["reason"]) == (403, "refused")
        reply = wire.verify(KEY, knative.reply_name("n"), container.reply(payload, **signed(payload)))
        assert messages.values(bytes(reply)) == [hashlib.sha256(b"None").digest()]
        long = messages.payload(time.sleep, [0, 1.5])
        _, _, body = container.post(long, **signed(long, **{knative.SECONDS: "60"}), **FRAMED)
        told = [bytes(wire.verify(KEY, knative.reply_name("n"), data)) for kind, data in parts_of(body) if data]
        assert [each.call for part in told for each in outcomes(part)] == [0, 1]


# ---------------------------------------------------------------- replies that go into storage


def test_an_event_goes_on_without_its_connection_and_its_reply_is_stored(tmp_path, messages):
    storage, bucket = messages._storage, messages._config.job.storage_bucket
    place = json.dumps(
        {
            "storage": "localhost",
            "options": storage.worker_options(),
            "bucket": bucket,
            "key": "inbox/1",
            "sent": time.time(),
            "closed": "inbox/closed",
        }
    )

    def wait(_: int) -> str:
        (tmp_path / "runs").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.05)
        return "done"

    def asked(payload: bytes, place: str) -> dict[str, str]:
        name = knative.request_name("n", "60", "", place)
        signature = wire.sign(KEY, name, payload).hex()
        return {knative.NONCE: "n", knative.SECONDS: "60", knative.PLACE: place, knative.SIGNATURE: signature}

    payload = messages.payload(wait, [0])
    with start(tmp_path, **{knative.KEY: KEY.hex()}) as container:
        forged = asked(payload, place) | {knative.PLACE: place.replace("inbox/1", "inbox/2")}
        assert container.post(payload, **forged)[0] == 403
        with closing(container.connect()) as connection:
            connection.request("POST", "/", payload, asked(payload, place))
            answer = connection.getresponse()
            kind, body = frames.read(answer.read1)
            begun = json.loads(bytes(wire.verify(KEY, knative.reply_name("n"), body)))
            assert (answer.status, kind, begun["pod"]) == (202, Kind.HELLO, "pod")
            until((tmp_path / "runs").exists, "the call runs")
            assert container.get()[0] == 200
        until(lambda: container.get()[0] == 503, "it says that it takes nothing more")
        status, _, body = container.post(payload, **asked(payload, place))
        assert (status, json.loads(body)["reason"]) == (422, "unavailable")
        (tmp_path / "go").touch()
        until(lambda: container.get()[0] == 200, "it takes messages again")
        told = json.loads(bytes(wire.verify(KEY, "inbox/1", storage.get(bucket, "inbox/1"))))
        assert messages.values(b64decode(told["reply"])) == ["done"]
        storage.put(bucket, "inbox/closed", b"")
        late = place.replace(str(json.loads(place)["sent"]), "0")
        status, _, body = container.post(payload, **asked(payload, late))
        assert (status, json.loads(body)["reason"]) == (422, "cancelled")


# ---------------------------------------------------------------- several at once, and the end


def test_as_many_messages_at_once_as_it_is_told(tmp_path, messages):
    def meet(name: str) -> list[str]:
        (tmp_path / f"here-{name}").touch()
        ends = time.monotonic() + 20
        while len(found := sorted(path.name for path in tmp_path.glob("here-*"))) < 3 and time.monotonic() < ends:
            time.sleep(0.01)
        return found

    found: list[bytes] = []
    with start(tmp_path, CONTAINER_CONCURRENCY="3") as container:
        payloads = [messages.payload(meet, [name]) for name in "abc"]
        threads = [threading.Thread(target=lambda p=p: found.append(container.reply(p))) for p in payloads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [messages.values(reply) for reply in found] == [[["here-a", "here-b", "here-c"]]] * 3
    assert len({worker_id(reply) for reply in found}) == 3


def test_it_ends_with_the_call_that_runs(container, messages, tmp_path):
    def wait(_: int) -> str:
        (tmp_path / "runs").touch()
        time.sleep(1.5)
        return "done"

    answers = []
    payload = messages.payload(wait, [0])
    thread = threading.Thread(target=lambda: answers.append(container.reply(payload)))
    with closing(container.connect()) as other:
        other.request("GET", "/")
        other.getresponse().read()
        thread.start()
        until((tmp_path / "runs").exists, "the call runs")
        container.process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.3)
        other.request("POST", "/", payload)
        assert other.getresponse().status == 503
    assert container.process.wait(20) == 0
    thread.join()
    assert messages.values(answers[0]) == ["done"]


def test_it_ends_at_once_when_nothing_runs(container):
    began = time.monotonic()
    assert container.end() == 0
    assert time.monotonic() - began < 3


def test_what_calls_print_is_on_its_standard_output_while_they_run(container, messages, tmp_path):
    def speak(name: str) -> None:
        print(f"hello from {name}")
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    payload = messages.payload(speak, ["a call"])
    thread = threading.Thread(target=container.reply, args=(payload,))
    thread.start()
    until(lambda: b"call 0: hello from a call" in container.out.read_bytes(), "its line is there")
    (tmp_path / "go").touch()
    thread.join()


def test_it_imports_little():
    heavy = {"boto3", "botocore", "yaml", "tqdm", "requests", "click", "pydantic", "asyncio", "kubernetes", "urllib3"}
    code = f"import {knative.__name__}, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
