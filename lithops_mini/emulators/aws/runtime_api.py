"""The Lambda Runtime API of one sandbox: the runtime in it asks for events and posts what came of them."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from socketserver import BaseServer
from typing import Any, Literal

RESPONSE_LIMIT = 6 * 1024 * 1024 + 100
"""Bytes of a response: what is more is refused."""

_VERSION = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Invocation:
    """An event on its way into a sandbox."""

    request_id: str
    event: bytes
    deadline: float  # seconds since the epoch


@dataclass(frozen=True)
class Outcome:
    """What a runtime posts, or that it has ended, or taken too long."""

    kind: Literal["ready", "response", "error", "init_error", "too_large", "exit", "timeout"]
    body: bytes = b""
    request_id: str = ""


class RuntimeApi:
    """Listens on loopback for the runtime of one sandbox, until it is closed."""

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self.events: SimpleQueue[Invocation | None] = SimpleQueue()  # None: there will be no more
        self.outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="runtime-api", daemon=True).start()

    def close(self) -> None:
        self.events.put(None)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:  # it has been closed
                return
            threading.Thread(target=self._serve, args=(connection, address), name="runtime", daemon=True).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        with connection:
            try:
                _Conversation(connection, address, self)
            except ConnectionError:  # the runtime has ended: whoever watches its process tells
                return


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet

    def __init__(self, connection: socket.socket, address: Any, api: RuntimeApi) -> None:
        self._api = api
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(connection, address, BaseServer(address, BaseHTTPRequestHandler))

    def do_GET(self) -> None:
        if self.path != f"{_VERSION}/invocation/next":
            self._answer(404)
            return
        self._api.outcomes.put(Outcome("ready"))
        invocation = self._api.events.get()
        if invocation is None:
            self.close_connection = True
            return
        number = invocation.request_id.replace("-", "")[:24]
        self._answer(
            200,
            invocation.event,
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": self._api.arn,
                "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{number};Sampled=0",
            },
        )

    def do_POST(self) -> None:
        body = (
            self._chunked()
            if self.headers.get("Transfer-Encoding")
            else self.rfile.read(int(self.headers["Content-Length"]))
        )
        match self.path.removeprefix(_VERSION).strip("/").split("/"):
            case ["init", "error"]:
                outcome = Outcome("init_error", body)
            case ["invocation", request_id, "response"] if len(body) > RESPONSE_LIMIT:
                outcome = Outcome("too_large", b"", request_id)
            case ["invocation", request_id, ("response" | "error") as kind]:
                outcome = Outcome("response" if kind == "response" else "error", body, request_id)
            case _:
                self._answer(404)
                return
        self._api.outcomes.put(outcome)
        self._answer(413 if outcome.kind == "too_large" else 202, b'{"status":"OK"}')

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name for it
        pass
