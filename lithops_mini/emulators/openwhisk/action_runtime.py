"""What runs Python actions, alone in a container or a process: HTTP by OpenWhisk's contract for actions.

``python3 action_runtime.py SOCKET`` listens at the path of a Unix socket. It is run by itself, and imports the standard
library only.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import json
import os
import socket
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from typing import Any

MARKER = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n"


class Failed(Exception):
    """A request that is answered with a status and an error."""


class Action:
    """The code, once it has been given."""

    def __init__(self) -> None:
        self._main: Callable[[Any], Any] | None = None
        self._initialized = False

    def init(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import the code; only once."""
        if self._initialized:
            raise Failed(403, "Cannot initialize the action more than once.")
        value = request.get("value") or {}
        if not value.get("code"):
            raise Failed(403, "Missing main/no code to execute.")
        os.environ.update({name: str(each) for name, each in (value.get("env") or {}).items()})
        directory = Path(tempfile.mkdtemp(prefix="action-"))
        try:
            source = unpack(value["code"], bool(value.get("binary")), directory)
            os.chdir(directory)
            sys.path.insert(0, str(directory))
            module = load(source)
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Failed(400, f"cannot decode the request: {error}") from error
        except (zipfile.BadZipFile, FileNotFoundError, SyntaxError) as error:
            sys.stderr.write("".join(traceback.format_exception_only(error)))
            text = "The action failed to generate or locate a binary. See logs for details."
            raise Failed(502, text) from error
        except Exception as error:
            traceback.print_exc()
            raise Failed(502, "Cannot start action. Check logs for details.") from error
        self._main = getattr(module, value.get("main") or "main", None)
        if self._main is None:
            sys.stderr.write(f"the action has no function {value.get('main') or 'main'}\n")
            raise Failed(502, "Cannot start action. Check logs for details.")
        self._initialized = True
        return {"ok": True}

    def run(self, request: dict[str, Any]) -> Any:
        """Call it; what it raises is an error in its result."""
        if self._main is None:
            raise Failed(500, "no action defined yet")
        os.environ.update({f"__OW_{name.upper()}": str(each) for name, each in request.items() if name != "value"})
        try:
            result = self._main(request.get("value") or {})
        except Exception as error:  # noqa: BLE001 - whatever it raises is its answer
            traceback.print_exc()
            return {"error": str(error)}
        if not isinstance(result, (dict, list)):
            raise Failed(502, "The action did not return a dictionary or array.")
        return result


def unpack(code: str, binary: bool, directory: Path) -> Path:
    """Write the code to the directory, and return the file to be run. ``FileNotFoundError`` if a zip has none."""
    main = directory / "__main__.py"
    if binary:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(code, validate=True))) as archive:
            archive.extractall(directory)
        if not main.exists():
            raise FileNotFoundError("the zip has no __main__.py")
    else:
        main.write_text(code, encoding="utf-8")
    activate = directory / "virtualenv" / "bin" / "activate_this.py"
    if activate.exists():
        exec(compile(activate.read_bytes(), activate, "exec"), {"__file__": str(activate)})  # noqa: S102
    return main


def load(source: Path) -> Any:
    """The module, under the name that it has on the platform."""
    spec = importlib.util.spec_from_file_location("main__", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["main__"] = module
    spec.loader.exec_module(module)
    return module


class Server(TCPServer):
    """Answers one request after the other, in the main thread, where an action may expect to run."""

    address_family = socket.AF_UNIX

    def __init__(self, path: str) -> None:
        self.action = Action()
        super().__init__(path, Handler)  # type: ignore[arg-type]
        os.chmod(path, 0o666)  # in a container it may be another user who listens


class Handler(BaseHTTPRequestHandler):
    """One request."""

    wbufsize = -1
    server: Server

    def do_POST(self) -> None:
        routes = {"/init": self.server.action.init, "/run": self.server.action.run}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.path not in routes:
                raise Failed(404, f"there is no {self.path}")
            answer = 200, encode(routes[self.path](decode(body)))
        except Failed as error:
            status, text = error.args
            answer = status, encode({"error": text})
        sys.stdout.flush()
        sys.stderr.flush()
        if self.path == "/run" or answer[0] != 200:
            for stream in (sys.stdout, sys.stderr):
                stream.write(MARKER)
                stream.flush()
        self.send_response_only(answer[0])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def decode(body: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise Failed(400, f"Error unmarshaling request: {error}") from error
    return found


def encode(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise Failed(502, f"The action did not return a JSON object: {error}") from error


if __name__ == "__main__":
    with Server(sys.argv[1]) as server:
        server.serve_forever()
