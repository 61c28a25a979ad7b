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
from typing import Any, NoReturn

from lithops_mini.worker.http_server import Connection, Server
from lithops_mini.worker.openwhisk import Worker
from lithops_mini.worker.output import show_output

PORT = 8080
END_OF_LOG = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
"""The line that ends an activation on both streams: with it OpenWhisk knows that the log is complete."""

_Answer = tuple[int, dict[str, Any]]


class ActionServer(Server):
    """Serves the platform. Connections may be several, activations are run one after the other."""

    def __init__(self, port: int, run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """``run(params)`` runs an activation and returns its result."""
        self._run = run
        self._running = threading.Lock()
        self._initialized = False
        super().__init__(port, _Request)

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


class _Request(Connection):
    def post(self, body: bytes) -> None:
        server = self.server
        assert isinstance(server, ActionServer)
        self.send_json(*server.answer(self.path, body))


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
