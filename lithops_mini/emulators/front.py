"""HTTP: connections that stay, requests whole, answers in as few packets as possible."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any, TypeVar
from urllib.parse import unquote

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from lithops_mini.errors import ConfigError

_BACKLOG = 1024  # connections that wait to be accepted


@dataclass(frozen=True)
class Request:
    """A request as it came, and what is needed to hand it on."""

    method: str
    path: str  # still encoded
    query: str
    headers: Message
    body: bytes
    environ: dict[str, Any]  # of WSGI
    late: bool = False  # the body has not come in time

    @property
    def parts(self) -> list[str]:
        """The path's segments, decoded."""
        return [unquote(part) for part in self.path.strip("/").split("/")]


@dataclass(frozen=True)
class Response:
    """An answer. Its length need not be among the headers, except for HEAD."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def compact(value: Any) -> bytes:
    """JSON in as few bytes as possible."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_response(status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """An answer that is JSON."""
    return Response(status, (("Content-Type", "application/json"), *headers), compact(value))


class Connection(WSGIRequestHandler):
    """A connection, with one request after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Front

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()  # who expects it waits for it
        return True

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        path, _, query = self.path.partition("?")
        late = False
        self.connection.settimeout(self.server.patience())
        try:
            body = self._read(environ)
        except TimeoutError:
            body, late, self.close_connection = b"", True, True
        self.connection.settimeout(None)
        environ["CONTENT_LENGTH"] = str(len(body))
        self._write(self.server.answer(Request(self.command, path, query, self.headers, body, environ, late)))

    def finish(self) -> None:
        try:
            super().finish()
        except ConnectionError:  # the client has gone, and what could not be sent is still in the buffer
            self.rfile.close()

    def _read(self, environ: dict[str, Any]) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        body: bytes = environ["wsgi.input"].read() if "wsgi.input_terminated" in environ else self.rfile.read(length)
        return body

    def _write(self, response: Response) -> None:
        self.send_response_only(response.status)
        self.send_header("Date", self.date_time_string())
        names = set()
        for name, value in response.headers:
            names.add(name.lower())
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        elif self.command == "HEAD" and "content-length" not in names:
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD" and response.status not in (204, 304):
            self.wfile.write(response.body)
        self.wfile.flush()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


class Front(ThreadedWSGIServer):
    """Serves ``answer`` on a port of loopback, a thread for each connection.

    0 is any free port. ``patience``: the seconds in which a body must have come; ``None`` for as long as it takes.
    ``OSError`` for a port that is taken.
    """

    def __init__(
        self,
        port: int,
        answer: Callable[[Request], Response],
        *,
        connection: type[Connection] = Connection,
        patience: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.answer = answer
        self.patience = patience
        with socket.create_server(("127.0.0.1", port), backlog=_BACKLOG) as listener:
            super().__init__("127.0.0.1", port, _nothing, connection, fd=listener.fileno())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


AnyFront = TypeVar("AnyFront", bound=Front)


def serve(port: int, make: Callable[[], AnyFront]) -> AnyFront:
    """Make a front that listens on ``port``, and let it serve from now on. ``ConfigError`` for a port that is taken."""
    try:
        front = make()
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used: {os.strerror(error.errno or 0)}; choose another") from error
    threading.Thread(target=front.serve_forever, name="front", daemon=True).start()
    return front


def _nothing(_environ: Any, _start: Any) -> list[bytes]:
    raise AssertionError("the front answers itself")
