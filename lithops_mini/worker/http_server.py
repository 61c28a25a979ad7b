"""The HTTP server of containers that their platform posts messages to."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """A thread for each connection; they end with the process."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, connection: type[Connection]) -> None:
        super().__init__(("", port), connection)

    def server_bind(self) -> None:
        # HTTPServer's own asks for this machine's name, which may take seconds where nobody answers.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # whoever asked may leave at any time
            super().handle_error(request, client_address)


class Connection(ABC, BaseHTTPRequestHandler):
    """A connection, with one request after the other."""

    protocol_version = "HTTP/1.1"  # connections stay
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave together

    def get(self) -> None:
        """Answer a GET request."""
        self.send_json(404, {"error": "there is nothing to get here"})

    @abstractmethod
    def post(self, body: bytes) -> None:
        """Answer a POST request."""

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        if (length := self.headers.get("Content-Length", "")).isdecimal():
            self.post(self.rfile.read(int(length)))
        else:
            self.close_connection = True
            self.send_json(411, {"error": "a request must say its length"})

    def send_json(self, status: int, told: dict[str, Any]) -> None:
        """Answer with a JSON object."""
        self.send_bytes(status, "application/json", json.dumps(told).encode())

    def send_bytes(self, status: int, kind: str, *parts: bytes) -> None:
        """Answer with these bytes, which are of that type."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(map(len, parts))))
        self.end_headers()
        for part in parts:
            self.wfile.write(part)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing: what is on the streams is what calls have printed."""
