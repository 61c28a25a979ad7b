"""What goes wrong on the way to OpenWhisk, and there: told in our words, with the way out."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from engines import free_ports
from openwhisk_emulator import Emulated, start_openwhisk

import lithops_mini as lm
from lithops_mini.compute import openwhisk_errors
from lithops_mini.compute.base import Activation
from lithops_mini.compute.ibm_cf import IbmCfCompute, IbmCfOptions
from lithops_mini.compute.openwhisk import OpenWhiskCompute, OpenWhiskOptions
from lithops_mini.config import load
from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import action_zip
from lithops_mini.runtimes.openwhisk import Actions, Setup
from lithops_mini.runtimes.openwhisk_service import Refusal, Service
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker.function import most_bytes

LIMITS = {"concurrentInvocations": 10, "invocationsPerMinute": 60, "maxActionTimeout": 60_000, "maxActionMemory": 512}
Answer = tuple[int, Any]


class Told:
    """A service that answers as a test says."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.invoked: Callable[[], Answer | None] = lambda: (200, {})  # None: the connection breaks
        self.paths: dict[str, Answer] = {
            "GET /": (200, {}),
            "GET /api/v1/namespaces/_/limits": (200, LIMITS),
        }
        self.actions: Answer = (200, {"name": "a"})  # to who looks for an action
        self.seen: list[str] = []
        self.asked_by: list[str | None] = []
        self.sent: Any = None  # what was posted last
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                told.sent = json.loads(data) if self.command == "POST" else told.sent
                asked = f"{self.command} {self.path.partition('?')[0]}"
                told.seen.append(asked)
                told.asked_by.append(self.headers.get("Authorization"))
                other = told.actions if self.command == "GET" else (200, {})
                found = told.invoked() if self.command == "POST" else told.paths.get(asked, other)
                if found is None:
                    self.close_connection = True
                    return
                body = found[1] if isinstance(found[1], bytes) else json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = started(self.server, certificate)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def started(server: ThreadingHTTPServer, certificate: tuple[str, str] | None) -> str:
    """The URL of a server, which serves from now on; with a certificate by TLS."""
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{scheme}://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.close()


@pytest.fixture
def make() -> Iterator[Callable[..., OpenWhiskCompute]]:
    """Makes backends, which are closed after the test."""
    made: list[OpenWhiskCompute] = []

    def make(endpoint: str, **options: Any) -> OpenWhiskCompute:
        made.append(OpenWhiskCompute(OpenWhiskOptions(endpoint=endpoint, api_key="user:secret", **options)))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def failure(backend: OpenWhiskCompute) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        backend.invoke(b"message", Activation())
    return caught.value


# ---------------------------------------------------------------- answers to invocations


@pytest.mark.parametrize(
    ("status", "said", "reason", "retryable", "text"),
    [
        (401, "The supplied authentication is invalid", Reason.REFUSED, False, r"check openwhisk\.api_key"),
        (403, "not authorized to access 'other'", Reason.REFUSED, False, r"check openwhisk\.namespace"),
        (404, "The requested resource does not exist.", Reason.UNAVAILABLE, True, "is made again"),
        (408, "timed out waiting for the request", Reason.UNAVAILABLE, True, "408"),
        (413, "larger than allowed: 2 > 1 bytes.", Reason.REFUSED, False, "larger than OpenWhisk takes"),
        (400, "malformed", Reason.REFUSED, False, "malformed"),
        (
            429,
            "Too many requests in the last minute (count: 61, allowed: 60).",
            Reason.PACED,
            True,
            "as many activations in the last minute as it may, 60, .*invocationsPerMinute",
        ),
        (
            429,
            "Too many concurrent requests in flight (count: 11, allowed: 10).",
            Reason.THROTTLED,
            True,
            "as many activations at a time as it may, 10, .*concurrentInvocations",
        ),
        (429, "slow down", Reason.THROTTLED, True, "too much to do: slow down"),
        (500, "internal", Reason.DIED, True, "500"),
        (502, "<html>Bad Gateway</html>", Reason.DIED, True, "502"),
        (503, "Service Unavailable", Reason.UNAVAILABLE, True, "503"),
        (503, "The server was not able to produce a timely response", Reason.DIED, True, "503"),
        (504, "Gateway Time-out", Reason.DIED, True, "504"),
        (301, "Moved", Reason.REFUSED, False, "301"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else str(value),
)
def test_answers_without_an_activation(told, make, status, said, reason, retryable, text):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    told.invoked = lambda: (status, said.encode() if said.startswith("<") else {"error": said, "code": "1"})
    error = failure(backend)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert pytest.raises(InvocationError, match=text).matches(error) or str(error) == text, str(error)


def test_an_action_that_is_gone_is_looked_for_again(told, make):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    told.invoked = lambda: (404, {"error": "gone"})
    failure(backend)
    looks = [asked for asked in told.seen if asked.startswith("GET") and "/actions/" in asked]
    failure(backend)
    assert len([asked for asked in told.seen if asked.startswith("GET") and "/actions/" in asked]) == len(looks) + 1


RUN = "The action did not produce a valid response and exited unexpectedly."


@pytest.mark.parametrize(
    ("status", "said", "reason", "retryable", "text"),
    [
        ("action developer error", RUN, Reason.DIED, True, "lost its container"),
        ("action developer error", "command exited", Reason.DIED, True, "lost its container"),
        (
            "action developer error",
            "The action did not initialize and exited unexpectedly.",
            Reason.DIED,
            True,
            "lost its container as it started",
        ),
        (
            "action developer error",
            "The action exhausted its memory and was aborted.",
            Reason.OUT_OF_MEMORY,
            False,
            "ran out of memory",
        ),
        (
            "action developer error",
            "The action exceeded its time limits of 3000 milliseconds.",
            Reason.TIMEOUT,
            False,
            "over its time",
        ),
        (
            "action developer error",
            "The action exceeded its time limits of 3000 milliseconds during initialization.",
            Reason.DIED,
            True,
            "took too long to start",
        ),
        (
            "action developer error",
            "The action failed to generate or locate a binary. See logs for details.",
            Reason.REFUSED,
            False,
            "failed",
        ),
        ("action developer error", "Failed to pull container image 'a/b:c'.", Reason.REFUSED, False, "in a registry"),
        ("application error", "'payload'", Reason.REFUSED, False, "failed"),
        (
            "application error",
            "The action produced a response that exceeded the allowed length: 2 > 1 bytes.",
            Reason.REFUSED,
            False,
            "too large",
        ),
        (
            "whisk internal error",
            "Failed to provision resources to run the action.",
            Reason.UNAVAILABLE,
            True,
            "was not started",
        ),
        ("whisk internal error", "something else", Reason.DIED, True, "was lost by OpenWhisk"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else str(value),
)
def test_activations_that_fail(told, make, status, said, reason, retryable, text):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    response = {"success": False, "status": status, "result": {"error": said}}
    record = {"activationId": "a1", "response": response, "logs": []}
    log = [f"2026-11-21T16:00:00.{number:09}Z stdout: j-M000 call 7: line {number}" for number in range(20)]
    told.paths["GET /api/v1/namespaces/_/activations/a1"] = (200, {**record, "logs": [*log, "now stderr: oh"]})
    told.invoked = lambda: (500 if "internal" in status else 502, record)
    error = failure(backend)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert text in str(error)
    assert said in str(error)
    assert str(error).endswith("\n  call 7: line 18\n  call 7: line 19\n  oh")
    assert "line 12\n" not in str(error)


def test_a_failure_is_told_without_its_log_where_there_is_none(told, make, monkeypatch):
    monkeypatch.setattr("lithops_mini.compute.openwhisk._LOG_LIMIT", 0.0)
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    response = {"success": False, "status": "action developer error", "result": {"error": RUN}}
    told.invoked = lambda: (502, {"activationId": "a1", "response": response})
    for answer in ((404, {"error": "no"}), (403, {"error": "no"})):
        told.paths["GET /api/v1/namespaces/_/activations/a1"] = answer
        assert str(failure(backend)).endswith(f"({response['status']}: {RUN})")


def test_a_success_that_is_none_of_ours_is_a_failure(told, make, monkeypatch):
    monkeypatch.setattr("lithops_mini.compute.openwhisk._LOG_LIMIT", 0.0)
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    for result in ({"other": 1}, [1], None, "text"):
        response = {"success": True, "status": "success", "result": result}
        told.invoked = lambda response=response: (200, {"activationId": "a1", "response": response, "logs": ["x"]})
        assert failure(backend).reason == Reason.REFUSED


def test_a_followed_activation_is_listed_and_its_record_is_asked_for_until_it_is_there(told, make):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    listing, path = (f"GET /api/v1/namespaces/_/activations{name}" for name in ("", "/a1"))
    result = {"reply": "AAAA"}
    record = {"activationId": "a1", "response": {"success": True, "status": "success", "result": result}}
    told.invoked = lambda: (202, {"activationId": "a1"})
    told.paths[listing] = (503, {"error": "busy"})
    told.paths[path] = (503, {"error": "busy"})
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(backend.invoke, b"message", Activation())
        _until(lambda: listing in told.seen)
        assert path not in told.seen
        told.paths[listing] = (200, [{"activationId": "a0", "statusCode": 0}, {"activationId": "a1", "statusCode": 0}])
        _until(lambda: path in told.seen)
        told.paths[path] = (200, record)
        assert sent.result(20) == b"\0\0\0"
    told.paths[listing] = (403, {"error": "nobody may list"})
    assert backend.invoke(b"message", Activation()) == b"\0\0\0"
    told.paths[path] = (403, {"error": "not yours"})
    assert failure(backend).reason == Reason.REFUSED


def _until(holds):
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        threading.Event().wait(0.01)


# ---------------------------------------------------------------- connections


def test_an_answer_that_is_lost_may_have_run(told, make):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    told.invoked = lambda: None
    error = failure(backend)
    assert (error.reason, error.retryable) == (Reason.DIED, True)
    assert "was lost" in str(error)
    assert "(Remote end closed connection without response)" in str(error)


def test_what_cannot_be_reached_has_not_run(told, make):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    told.close()
    backend._service._client._adapter.close()
    error = failure(backend)
    assert (error.reason, error.retryable) == (Reason.UNAVAILABLE, True)
    assert "Connection refused" in str(error)


def test_nothing_at_the_endpoint_is_an_error_that_names_it(make):
    (port,) = free_ports(1)
    with pytest.raises(
        InvocationError, match=rf"127\.0\.0\.1:{port} does not answer \(.*refused\); openwhisk\.endpoint"
    ):
        make(f"http://127.0.0.1:{port}").deploy(WorkerNeeds())


def test_something_else_at_the_endpoint_is_an_error_that_names_it(told, make):
    told.paths["GET /api/v1/namespaces/_/limits"] = (404, b"<html>nothing here</html>")
    with pytest.raises(ConfigError, match=r"has no such thing: check openwhisk\.endpoint"):
        make(told.url).deploy(WorkerNeeds())


@pytest.mark.parametrize(
    "body", [b"<html>welcome</html>", b"", [], {}, "text", {"status": "ok"}, {"limits": {}}], ids=str
)
def test_what_answers_as_no_openwhisk_does_is_an_error_that_names_the_endpoint(told, make, body):
    for path in list(told.paths):
        told.paths[path] = (200, body)
    told.actions = (200, body)
    with pytest.raises(
        ConfigError, match=r"what answers at http://127\.0\.0\.1:\d+ is no OpenWhisk: check openwhisk\.end"
    ):
        make(told.url).deploy(WorkerNeeds())
    runtimes = make(told.url, max_time=60).runtimes("")  # which asks for no limits
    for ask in (runtimes.list, runtimes.has_package, lambda: runtimes.planned(Recipe(), 256)):
        with pytest.raises(ConfigError, match="is no OpenWhisk"):
            ask()
    if body != []:  # which says that there are none
        with pytest.raises(Refusal):
            list(make(told.url)._service.activations("a", 0, docs=False))


def test_an_invocation_that_is_answered_as_no_openwhisk_does_is_not_tried_again(told, make):
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    for body in (b"<html>", {}, []):
        told.invoked = lambda body=body: (200, body)
        error = failure(backend)
        assert (error.reason, error.retryable) == (Reason.REFUSED, False)
        assert "is no OpenWhisk" in str(error)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:abc", "http://127.0.0.1:99999", "https://[::1", "http://:80", "ftp://x"]
)
def test_an_endpoint_that_is_no_url_is_an_error_that_names_it(make, url):
    with pytest.raises(ConfigError, match=rf"openwhisk\.endpoint is {re.escape(url)}, which is no URL"):
        make(url)


def test_a_connection_that_is_not_encrypted_is_only_for_this_machine(make):
    with pytest.raises(ConfigError, match=r"set openwhisk\.insecure to true"):
        make("http://openwhisk.example.com")
    make("http://openwhisk.example.com", insecure=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("certificate")
    files = str(directory / "certificate.pem"), str(directory / "key.pem")
    subject = ["-subj", "/CN=openwhisk", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-out", files[0]]
    subprocess.run([*command, "-keyout", files[1]], check=True, capture_output=True)
    return files


def test_a_certificate_of_ones_own_is_trusted_when_one_says_so(certificate, make, tmp_path, monkeypatch):
    secure = Told(certificate)
    try:
        with pytest.raises(ConfigError, match=r"not trusted \(.*self.signed.*\): set openwhisk\.ca_bundle to the file"):
            make(secure.url).deploy(WorkerNeeds())
        make(secure.url, ca_bundle=certificate[0]).deploy(WorkerNeeds())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[1])  # whatever that says
        make(secure.url, insecure=True).deploy(WorkerNeeds())
        with pytest.raises(ConfigError, match="there is no file"):
            make(secure.url, ca_bundle=str(tmp_path / "none"))
        with pytest.raises(ConfigError, match=r"no certificate in .*key\.pem: openwhisk\.ca_bundle"):
            make(secure.url, ca_bundle=certificate[1])
        with pytest.raises(ConfigError, match=r"openwhisk\.ca_bundle cannot be read"):
            make(secure.url, ca_bundle=str(tmp_path))
    finally:
        secure.close()


def test_an_endpoint_without_tls_is_no_matter_of_trust(told, make):
    with pytest.raises(ConfigError, match="does not speak TLS as it should"):
        make(told.url.replace("http:", "https:")).deploy(WorkerNeeds())


def test_no_file_of_logins_says_who_asks(told, make, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    make(told.url)._service.limits()
    assert told.asked_by == ["Basic dXNlcjpzZWNyZXQ="]


# ---------------------------------------------------------------- configuration


def test_what_is_missing_is_said():
    with pytest.raises(ConfigError, match=r"openwhisk\.endpoint and openwhisk\.api_key"):
        OpenWhiskCompute(OpenWhiskOptions(endpoint="http://localhost"))
    for given, text in (
        ({}, r"ibm\.iam_api_key"),
        ({"iam_api_key": "x"}, "namespace_id"),
        ({"iam_api_key": "x", "namespace_id": "y"}, r"ibm\.region"),
    ):
        with pytest.raises(ConfigError, match=text):
            IbmCfCompute(IbmCfOptions(**given))
    assert "secret" not in repr(OpenWhiskOptions(api_key="secret"))


def test_a_storage_on_this_machine_is_none_for_actions_elsewhere(told, make):
    needs = WorkerNeeds(endpoint="http://127.0.0.1:9000")
    make(told.url).deploy(needs)
    with pytest.raises(ConfigError, match="actions cannot reach the storage"):
        make("https://openwhisk.example.com").deploy(needs)


def test_limits_of_older_services_are_in_what_they_tell_everybody(told, make):
    told.paths["GET /api/v1/namespaces/_/limits"] = (200, {"concurrentInvocations": 5, "maxParameterSize": "2 MB"})
    told.paths["GET /"] = (200, {"limits": {"max_action_duration": 90_000, "max_action_memory": 384 << 20}})
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    assert (backend.concurrency, backend.max_time) == (5, 90)
    assert (2 << 20) * 0.74 < backend.max_payload < (2 << 20) * 0.75
    with pytest.raises(InvocationError, match=r"runtime_memory is 385 MiB, and .* at most 384 MiB"):
        backend.invoke(b"", Activation(memory=385 << 20))
    told.paths["GET /"] = (200, b"<html>welcome</html>")
    silent = make(told.url)
    silent.deploy(WorkerNeeds())
    assert silent.max_time == 60


@pytest.mark.parametrize(
    ("told_limits", "payload", "reply"),
    [
        ({}, 1024, 1024),
        ({"maxPayloadSize": "128 KB"}, 128, 128),
        ({"maxPayloadSize": "4 MB"}, 4096, 4096),
        ({"maxParameterSize": "256 KB"}, 256, 256),
        ({"maxParameterSize": "4 MB"}, 4096, 1024),
    ],
    ids=str,
)
def test_a_message_and_a_reply_have_as_many_bytes_as_the_namespace_permits(told, make, told_limits, payload, reply):
    told.paths["GET /api/v1/namespaces/_/limits"] = (200, {**LIMITS, **told_limits})
    backend = make(told.url)
    backend.deploy(WorkerNeeds())
    assert (backend.max_payload, backend.max_reply) == (most_bytes(payload << 10), most_bytes(reply << 10))
    failure(backend)
    assert told.sent["room"] == backend.max_reply


# ---------------------------------------------------------------- tokens of IAM


class Iam:
    """Gives tokens that are good for some seconds."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.answer: tuple[int, bytes, dict[str, str]] | None = None  # whatever it is asked
        self.given = 0
        self.life = 3600
        iam = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                right = form["apikey"] == ["right"] and self.path == "/identity/token"
                iam.given += right
                told = {"access_token": f"token-{iam.given}", "expires_in": iam.life}
                wrong = {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
                usual = (200 if right else 400), json.dumps(told if right else wrong).encode(), {}
                status, body, headers = usual if iam.answer is None else iam.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = started(self.server, certificate)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def iam() -> Iterator[Iam]:
    made = Iam()
    yield made
    made.close()


def ibm(told: Told, iam: Iam | str, key: str = "right", **options: Any) -> IbmCfCompute:
    place = iam if isinstance(iam, str) else iam.url
    given = {"endpoint": told.url, "namespace_id": "_", "iam_endpoint": place, "iam_api_key": key, **options}
    return IbmCfCompute(IbmCfOptions(**given))


def test_one_token_serves_all_threads_until_it_is_used_up(told, iam):
    backend = ibm(told, iam)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: backend._service.limits(), range(24)))
    assert iam.given == 1
    backend.close()
    iam.life = 0
    backend = ibm(told, iam)
    for count in (2, 3):
        backend._service.limits()
        assert iam.given == count
    backend.close()


def test_a_token_that_is_refused_is_replaced_once(told, iam):
    backend = ibm(told, iam)
    backend.deploy(WorkerNeeds())
    answers = [(401, {"error": "expired"}), (503, {"error": "reached"})]
    told.invoked = lambda: answers.pop(0)
    assert failure(backend).reason == Reason.UNAVAILABLE
    assert iam.given == 2
    answers[:] = [(401, {"error": "no"})] * 2
    error = failure(backend)
    assert (error.reason, error.retryable) == (Reason.REFUSED, False)
    assert "check ibm.iam_api_key" in str(error)
    assert iam.given == 3
    backend.close()


def test_a_wrong_api_key_is_said_to_be_one(told, iam):
    backend = ibm(told, iam, "wrong")
    with pytest.raises(ConfigError, match=r"IAM gives no token: check ibm\.iam_api_key \(Provided API key"):
        backend.deploy(WorkerNeeds())
    backend.close()


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "said"),
    [
        (200, b"<html>welcome</html>", {}, ConfigError, "200, <html>welcome</html>"),
        (200, b"{}", {}, ConfigError, "200, {}"),
        (200, b"[]", {}, ConfigError, "200, "),
        (200, b'{"access_token": "x", "expires_in": "soon"}', {}, ConfigError, "200, "),
        (301, b"", {"Location": "https://elsewhere"}, ConfigError, "301, it has moved to https://elsewhere"),
        (400, b"<html>bad</html>", {}, ConfigError, "400, <html>bad</html>"),
        (404, b"", {}, ConfigError, "404, Not Found"),
        (502, b"", {}, InvocationError, "502, Bad Gateway"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_what_answers_as_no_iam_does_is_an_error_that_names_its_endpoint(told, iam, status, body, headers, kind, said):
    iam.answer = status, body, headers
    backend = ibm(told, iam)
    with pytest.raises(kind, match=rf"{iam.url} has answered as no IAM does: check ibm_cf\.iam_endpoint \({said}"):
        backend.deploy(WorkerNeeds())
    assert told.seen == []
    iam.answer = None
    backend.deploy(WorkerNeeds())
    backend._service._authorize._until = 0.0
    iam.answer = status, body, headers
    error = failure(backend)  # the message was not sent, so it is not lost
    assert error.reason == (Reason.REFUSED if kind is ConfigError else Reason.UNAVAILABLE)
    assert error.retryable == (kind is InvocationError)
    backend.close()


def test_an_iam_that_does_not_answer_is_an_error_that_names_it(told):
    (port,) = free_ports(1)
    backend = ibm(told, f"http://127.0.0.1:{port}")
    with pytest.raises(
        InvocationError, match=rf"127\.0\.0\.1:{port} does not answer \(.*refused\); ibm_cf\.iam_endpoint"
    ):
        backend.deploy(WorkerNeeds())
    backend.close()


def test_the_key_goes_to_no_iam_on_the_way_to_which_it_could_be_read(told):
    for wrong, text in (
        ("http://iam.example.com", r"begin ibm_cf\.iam_endpoint with https, or set ibm_cf\.insecure to true"),
        ("127.0.0.1:18205", r"ibm_cf\.iam_endpoint is 127\.0\.0\.1:18205, which is no URL"),
    ):
        with pytest.raises(ConfigError, match=text):
            ibm(told, wrong)
    ibm(told, "http://iam.example.com", insecure=True).close()
    with pytest.raises(ConfigError, match=r"ibm_cf\.iam_endpoint must be text that matches"):
        load(config={"backend": "ibm_cf", "ibm_cf": {"iam_endpoint": "127.0.0.1:18205"}})


def test_a_certificate_of_an_iam_of_ones_own_is_trusted_when_one_says_so(told, certificate):
    iam = Iam(certificate)
    try:
        backend = ibm(told, iam)
        with pytest.raises(ConfigError, match=rf"certificate of {iam.url} is not trusted .* set ibm_cf\.ca_bundle"):
            backend.deploy(WorkerNeeds())
        backend.close()
        for trusting in ({"ca_bundle": certificate[0]}, {"insecure": True}):
            backend = ibm(told, iam, **trusting)
            backend.deploy(WorkerNeeds())
            backend.close()
    finally:
        iam.close()
    assert iam.given == 2


def test_closing_ends_the_wait_for_a_token(told):
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        backend = ibm(told, f"http://127.0.0.1:{silent.getsockname()[1]}")
        sent = pool.submit(backend.deploy, WorkerNeeds())
        connection, _ = silent.accept()
        with connection:
            began = time.monotonic()
            backend.close()
            with pytest.raises(InvocationError):
                sent.result(20)
        assert time.monotonic() - began < 5


# ---------------------------------------------------------------- on the emulator


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), "--sandbox", "process") as openwhisk:
        yield openwhisk


def test_ibm_cf_is_the_same_with_a_token(openwhisk):
    given = {"storage": "localhost", **openwhisk.ibm, "progress": False, "max_workers": 2}
    with (
        openwhisk.changed("limits", token_life=2.0),
        lm.ibm_cf_executor(**given) as executor,
    ):
        for _ in range(4):  # longer than a token is good for
            assert executor.get_result(executor.map(lambda x: x * x, range(10))) == [x * x for x in range(10)]
            executor.get_result(executor.submit(time.sleep, 0.8))
        name = executor._compute.runtimes("").list()[0].name
        assert openwhisk.own("requests")["POST token"] > 1
    assert name.startswith("python3.")
    with pytest.raises(ConfigError, match=r"check ibm\.iam_api_key"):
        lm.ibm_cf_executor(**{**given, "iam_api_key": "wrong"})
    with pytest.raises(ConfigError, match=r"check ibm_cf\.namespace_id"):
        lm.ibm_cf_executor(**{**given, "namespace_id": "another"})


def test_a_wrong_key_or_namespace_is_an_error_before_anything_runs(openwhisk):
    given = {"storage": "localhost", **openwhisk.place, "progress": False}
    with pytest.raises(ConfigError, match=r"check openwhisk\.api_key"):
        lm.openwhisk_executor(**{**given, "api_key": "wrong:key"})
    with pytest.raises(ConfigError, match=r"check openwhisk\.namespace"):
        lm.openwhisk_executor(**{**given, "namespace": "another"})


# ---------------------------------------------------------------- what actions are


def test_a_zip_that_is_too_large_must_be_an_image(openwhisk, monkeypatch):
    monkeypatch.setattr(action_zip, "_LARGEST", 1000)
    for package, text in (
        ("zip", r"set openwhisk\.package to auto"),
        ("auto", r"set openwhisk\.image to a repository"),
    ):
        backend = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place, package=package))
        with pytest.raises(ConfigError, match=text):
            backend.deploy(WorkerNeeds())
        backend.close()


def test_a_python_that_the_service_has_not_must_be_an_image(told, make):
    told.paths["GET /"] = (200, {"runtimes": {"python": [{"kind": "python:3.9"}, {"kind": "python:3.8"}]}})
    for package, text in (
        ("zip", r"has no python:.*, but python:3\.8, python:3\.9: run"),
        ("auto", r"openwhisk\.image"),
    ):
        told.actions = 404, {"error": "no"}
        with pytest.raises(ConfigError, match=text):
            make(told.url, package=package).deploy(WorkerNeeds())


def test_the_name_of_a_runtime_tells_what_is_in_it(tmp_path):
    def name(recipe, setup=Setup(), **more):
        service = Service("http://localhost", "_", lambda _: "", section="openwhisk", key="key", place="place")
        return Actions(service, Recipe(), setup, memory=256, timeout=60_000, **more).name(recipe)

    requirements = tmp_path / "r.txt"
    requirements.write_text("numpy==2.4\n")
    found = name(Recipe(python="3.12"))
    assert found.startswith("python3.12-")
    assert found == name(Recipe(python="3.12"), environment={"X": "secret"})
    others = {
        name(Recipe(python="3.11")),
        name(Recipe(python="3.12", requirements=str(requirements))),
        name(Recipe(python="3.12"), Setup(package="image", image="a/b")),
    }
    assert len(others | {found}) == 4


def test_what_a_refusal_says_is_shown_and_not_endless():
    service = Service("http://x", "_", lambda _: "", section="openwhisk", key="key", place="place")
    error = openwhisk_errors.not_invoked(Refusal(418, "I am a teapot"), "a", service)
    assert str(error) == "the action a was not invoked: it was answered with 418, I am a teapot"
