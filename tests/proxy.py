"""A proxy between client and S3 service that does what networks and services do, by a script.

    with Proxy(engine) as proxy:
        proxy.script = lambda request: SLOW_DOWN if request.number == 3 else None
        ...
        assert proxy.counts["get"] == 1

The script is asked once per request, and may be called by several threads at once.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from engines import Engine


@dataclass(frozen=True)
class Request:
    """A request as a script sees it."""

    number: int  # from 0, in the order they came
    kind: str  # put, get, head, list, delete, create_upload, part, complete, abort, create_bucket
    bucket: str
    key: str
    start: int  # first byte of the range asked for; 0 without
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class Fault:
    """What happens to one request, instead of or besides its being carried there and back."""

    status: tuple[int, str] | None = None  # answered with this code, or with this body, and not carried
    lose_request: bool = False  # the connection is reset before the service hears of it
    lose_answer: bool = False  # the connection is reset after the service has done it
    truncate: float | None = None  # the connection is closed after this share of the answer's body
    corrupt_request: bool = False  # a byte of its body is changed
    corrupt_answer: bool = False
    latency: float = 0.0  # seconds


SLOW_DOWN = Fault(status=(503, "SlowDown"))
INTERNAL_ERROR = Fault(status=(500, "InternalError"))
LOST_REQUEST = Fault(lose_request=True)
LOST_ANSWER = Fault(lose_answer=True)
TRUNCATED = Fault(truncate=0.5)
CORRUPT_REQUEST = Fault(corrupt_request=True)
CORRUPT_ANSWER = Fault(corrupt_answer=True)
LATENCY = Fault(latency=0.2)

Script = Callable[[Request], Fault | None]


class _Lost(Exception):
    """The connection to the client is to be reset."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Nobody reads it."""

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.server.proxy.target.port, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except _Lost:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    def relay(self) -> None:
        body = self._read_body()
        request, fault = self.server.proxy.judge(self.command, self.path, self.headers)
        if fault.latency:
            self.server.proxy.closing.wait(fault.latency)
        if fault.lose_request:
            raise _Lost
        if fault.status is not None:
            self._answer(fault.status[0], [], _error(*fault.status))
            return
        if fault.corrupt_request:
            body = _corrupted(body)
        self.upstream.request(self.command, self.path, body, dict(self.headers.items()))
        answer = self.upstream.getresponse()
        data = answer.read()
        self.server.proxy.carried(request, len(data))
        if fault.lose_answer:
            raise _Lost
        if fault.corrupt_answer:
            data = _corrupted(data)
        kept = data if fault.truncate is None else data[: int(len(data) * fault.truncate)]
        self._answer(answer.status, answer.getheaders(), kept, len(data))
        if len(kept) < len(data):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)  # and no reset, which could take back what was sent
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = relay

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        described = {name.lower(): value for name, value in headers}
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        size = described.get("content-length", "0") if self.command == "HEAD" else length or len(body)
        if status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.proxy.errors.append(repr(sys.exception()))


@dataclass
class Proxy:
    """``engine`` is the service as seen through the proxy; ``counts`` tells the requests by kind."""

    target: Engine
    script: Script = lambda _: None
    counts: Counter[str] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    faults: int = 0
    received: int = 0  # bytes of answers
    errors: list[str] = field(default_factory=list)  # of the proxy itself

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.engine = replace(self.target, url=f"http://127.0.0.1:{self._server.server_address[1]}")

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def secure(self, context: Any) -> str:
        """Speak TLS from now on; return the URL."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        return self.engine.url.replace("http:", "https:")

    def reset(self, script: Script = lambda _: None) -> None:
        """Forget what has been, and go by another script."""
        with self._lock:
            self.script, self.counts, self.requests, self.faults, self.received = script, Counter(), [], 0, 0

    def judge(self, method: str, path: str, headers: Any) -> tuple[Request, Fault]:
        with self._lock:
            parts = urlsplit(path)
            bucket, _, key = parts.path.lstrip("/").partition("/")
            kind = _kind(method, key, parse_qs(parts.query, keep_blank_values=True))
            lowered = {name.lower(): value for name, value in headers.items()}
            found = re.match(r"bytes=(\d+)-", lowered.get("range", ""))
            start = int(found[1]) if found else 0
            request = Request(len(self.requests), kind, bucket, unquote(key), start, lowered)
            self.requests.append(request)
            self.counts[kind] += 1
        fault = self.script(request)
        if fault is not None:
            with self._lock:
                self.faults += 1
        return request, fault or Fault()

    def carried(self, request: Request, size: int) -> None:
        with self._lock:
            self.received += size


def _kind(method: str, key: str, query: dict[str, list[str]]) -> str:
    if method == "POST":
        return "delete" if "delete" in query else "create_upload" if "uploads" in query else "complete"
    if method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    if method == "PUT":
        return "part" if "uploadId" in query else "put" if key else "create_bucket"
    if method == "GET":
        return "get" if key else "list"
    return "head"


def _error(status: int, code: str) -> bytes:
    if status < 300:  # it is a whole answer
        return code.encode()
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected {status}</Message></Error>".encode()


def _corrupted(body: bytes) -> bytes:
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
