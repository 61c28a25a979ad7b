"""Connections: with TLS by an authority of our own, answers that go on, and ends that come too early."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trustme

from lithops_mini.emulators.front import Connection, Front, Request, Response


@dataclass(frozen=True)
class Stream(Response):
    """An answer that comes in parts; it ends, or is cut if the iterator raises ``Cut``."""

    parts: Iterator[bytes] = field(default_factory=lambda: iter(()))


class Cut(Exception):
    """The connection ends here, without an answer."""


class Authority:
    """A certificate authority, and a server's certificate by it for loopback."""

    def __init__(self) -> None:
        authority = trustme.CA(organization_name="lithops-mini emulator")
        self.certificate: bytes = authority.cert_pem.bytes()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self.context)


class StreamingConnection(Connection):
    """A connection that knows ``Stream`` and ``Cut``."""

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except (Cut, ConnectionError, ssl.SSLError):
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:  # who is to have the last bytes has gone
            return

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Who speaks no TLS to us, or goes in the middle of it, is no news."""

    def _write(self, response: Response) -> None:
        if not isinstance(response, Stream):
            super()._write(response)
            return
        self.send_response_only(response.status)
        for name, value in (*response.headers, ("Transfer-Encoding", "chunked")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        for part in response.parts:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class CuttableFront(Front):
    """A front whose connections can all be cut at once; with a ``context`` they are TLS's."""

    def __init__(self, port: int, answer: Callable[[Request], Response], context: ssl.SSLContext | None = None) -> None:
        super().__init__(port, answer, connection=StreamingConnection)
        self.ssl_context = context
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[Any, Any]:
        accepted, address = super().get_request()
        if self.ssl_context is not None:
            # Its thread shakes hands, so that nobody who does not can hold up the others.
            accepted = self.ssl_context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.add(accepted)
        return accepted, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Refuse connections from now on, and cut those there are."""
        self.shutdown()
        self.server_close()
        with self._lock:
            for each in self._open:
                try:
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # not TLS's own, which would say goodbye
                except OSError:  # it has ended by itself
                    continue


def is_gone(request: Request) -> bool:
    """Whether the client has closed the connection on which it waits for an answer."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        # Of TLS nothing can be had without taking it, and who waits for an answer sends nothing.
        return bool(readable) and (isinstance(connection, ssl.SSLSocket) or not connection.recv(1, socket.MSG_PEEK))
    except (OSError, ValueError):
        return True
