"""The first process of an action's container: OpenWhisk posts to it, /init once and then /run for each activation.

    python3 -m lithops_mini.worker.openwhisk_server [port]

It ends at once, and what it started with it, when SIGTERM arrives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NoReturn

from lithops_mini.worker.openwhisk import Worker
from lithops_mini.worker.output import show_output

PORT = 8080
END_OF_LOG = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
"""The line that ends an activation on both streams: with it OpenWhisk knows that the log is complete."""

_Answer = tuple[int, dict[str, Any]]


class ActionServer(ThreadingHTTPServer):
    """Serves the platform. Connections may be several, activations are run one after the other."""

    daemon_threads = True

    def __init__(self, port: int, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """``run(params)`` runs an activation and returns its result."""
        self._run = run
        self._running = threading.Lock()
        self._initialized = False
        super().__init__(("", port), _Request)

    def server_bind(self) -> None:
        # HTTPServer's own asks for this machine's name, which may take seconds where nobody answers.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def answer(self, path: str, body: bytes) -> _Answer:
        """The status and the JSON that answer a request."""
        act = {"/init": self._init, "/run": self._activate}.get(path)
        if act is None:
            return 404, {"error": f"there is nothing at {path}: post to /init once, and then to /run"}
        with self._running:
            try:
                message = json.loads(body)
                value = message["value"]
            except (ValueError, LookupError, TypeError) as error:
                return 400, {"error": f"{path} takes a JSON object with a value: {error!r}"}
            return act(message, value)

    def _init(self, _: Mapping[str, Any], value: Mapping[str, Any]) -> _Answer:
        if self._initialized:
            text = "this container was initialized before, and takes activations only"
            sys.stderr.write(f"{text}\n")
            _end_log()
            return 403, {"error": text}
        for name, setting in (value.get("env") or {}).items():
            os.environ[name] = _text(setting)
        self._initialized = True
        return 200, {"ok": True}

    def _activate(self, message: Mapping[str, Any], params: dict[str, Any]) -> _Answer:
        if not self._initialized:
            return 500, {"error": "this container was not initialized: post to /init before /run"}
        for name, setting in message.items():
            if name != "value":
                os.environ[f"__OW_{name.upper()}"] = _text(setting)
        try:
            return 200, self._run(params)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            traceback.print_exc()
            return 502, {"error": f"{type(error).__name__}: {error}"}
        finally:
            _end_log()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave together

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, ActionServer)
        if not (length := self.headers.get("Content-Length", "")).isdecimal():
            self.close_connection = True
            self._send(411, {"error": "a request must say its length"})
            return
        self._send(*server.answer(self.path, self.rfile.read(int(length))))

    def _send(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing: what is on the streams is the log of the activation."""


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _end_log() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write(f"{END_OF_LOG}\n")
        stream.flush()


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


def main(arguments: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    show_output()
    worker = Worker()
    server = ActionServer(int(arguments[0]) if arguments else PORT, worker)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        worker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
