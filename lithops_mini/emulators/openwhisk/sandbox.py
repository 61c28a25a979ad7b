"""Where an action runs: a process or a container that speaks OpenWhisk's contract for actions."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, ClassVar

from lithops_mini.emulators.front import compact
from lithops_mini.emulators.openwhisk import action_runtime
from lithops_mini.emulators.openwhisk.entities import Action
from lithops_mini.emulators.openwhisk.output import Output, Stream
from lithops_mini.emulators.openwhisk.settings import PAYLOAD_LIMIT
from lithops_mini.emulators.processes import PYTHON, End, ProcessGroup

RUNTIME = Path(action_runtime.__file__)
"""The program that runs Python actions."""

_CHUNK = 1 << 16
_PLACE = 50  # characters of a directory for temporary files: with more the path of a socket may be too long
_TRY = 1.0  # seconds for a connection: where nobody is any more, it may come to nothing without a word
_LOOK = 0.01  # seconds between tries to reach what has just been started


class NoSandbox(Exception):
    """There can be none for an action; the text says why. ``developer``: it is the action's own fault."""

    def __init__(self, text: str, *, developer: bool) -> None:
        super().__init__(text)
        self.developer = developer


class Broken(Exception):
    """A sandbox has given no answer."""


class TookTooLong(Exception):
    """A sandbox has not answered in time."""


@dataclass(frozen=True)
class Answer:
    """What a sandbox has answered; of a body that is too long, its beginning."""

    status: int
    body: bytes
    length: int


class Sandbox(ABC):
    """Runs one activation at a time. It is started at once; ``NoSandbox`` if it cannot be.

    ``not_enforced``: what is otherwise than on OpenWhisk.
    """

    not_enforced: ClassVar[tuple[str, ...]]

    def __init__(self, action: Action, endpoint: str) -> None:
        """``endpoint``: where the action finds the API."""
        self.action = action
        self.variables = {
            "__OW_API_HOST": endpoint,
            "__OW_ALLOW_CONCURRENT": "false",
            "PYTHONIOENCODING": "UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.output = Output(action.limits.logs << 20)
        self.last_used = time.monotonic()
        self.end: End | None = None  # how it has ended, once ``ended`` is set
        self.ended = threading.Event()
        self.directory = Path(tempfile.mkdtemp(prefix="lithops-mini-openwhisk-", dir=_place()))
        self._kill_lock = threading.Lock()
        self._killed = False
        try:
            self.start()
        except BaseException:
            self.kill()
            raise

    @abstractmethod
    def start(self) -> None:
        """Start it, and threads that read its output and wait for its end."""

    @abstractmethod
    def stop(self) -> None:
        """Kill all that runs in it, and return when it is gone; also twice, or before it was started."""

    @abstractmethod
    def connect(self, limit: float) -> socket.socket:
        """A connection to its server. ``OSError`` if there is none yet."""

    def kill(self) -> None:
        """End it and remove what belongs to it; also twice."""
        with self._kill_lock:
            if not self._killed:
                self.stop()
                shutil.rmtree(self.directory)
                self._killed = True

    def post(self, path: str, value: Any, limit: float, *, wait: bool = False) -> Answer:
        """The answer to JSON. ``wait``: it may take its time until it listens. ``Broken``, ``TookTooLong``.

        ``limit``: seconds for all of it.
        """
        deadline = time.monotonic() + limit
        connection = HTTPConnection("localhost")
        try:
            connection.sock = self._connected(deadline, wait=wait)
            headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
            connection.request("POST", path, compact(value), headers)
            return _read(connection, deadline)
        except TimeoutError as error:
            raise TookTooLong(path) from error
        except (OSError, HTTPException) as error:
            raise Broken(path) from error
        finally:
            connection.close()

    def _connected(self, deadline: float, *, wait: bool) -> socket.socket:
        while True:
            left = _left(deadline)
            try:
                connected = self.connect(min(left, _TRY))
            except OSError as error:
                if not wait or self.ended.wait(_LOOK):
                    raise ConnectionAbortedError(str(error)) from error
            else:
                connected.settimeout(left)
                return connected

    def watch(self, end: End) -> None:
        """To be called once, when what runs in it has ended."""
        self.end = end
        self.ended.set()


class ProcessSandbox(Sandbox):
    """A process of this machine: nothing limits its memory, its processors or the files it may write."""

    not_enforced: ClassVar[tuple[str, ...]] = (
        "an action's memory and its share of the processors",
        "a file system and a network of its own: it has this machine's",
        "actions that are images: they are refused",
    )
    _group: ProcessGroup | None = None

    def start(self) -> None:
        self._socket = self.directory / "socket"
        environment = {
            **self.variables,
            "PATH": f"{os.path.dirname(PYTHON)}:{os.defpath}",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.directory),
        }
        self._group = ProcessGroup(
            [PYTHON, "-S", str(RUNTIME), str(self._socket)],
            directory=self.directory,
            environment=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process = self._group.process
        assert process.stdout is not None
        assert process.stderr is not None
        self._open = 2
        self._closing = threading.Lock()
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            threading.Thread(target=self._read, args=(name, stream), name="sandbox-output", daemon=True).start()
        threading.Thread(target=lambda group: self.watch(group.wait()), args=(self._group,), daemon=True).start()

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()

    def connect(self, limit: float) -> socket.socket:
        return connect_to_file(self._socket, limit)

    def _read(self, name: Stream, stream: IO[bytes]) -> None:
        with stream:
            while data := os.read(stream.fileno(), _CHUNK):
                self.output.feed(name, data)
        with self._closing:
            self._open -= 1
            if not self._open:
                self.output.end()


def _place() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _PLACE else "/tmp"


def connect_to_file(path: Path, limit: float) -> socket.socket:
    """A connection to the Unix socket of this path."""
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(limit)
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return connected


def _left(deadline: float) -> float:
    """Seconds until then. ``TimeoutError`` if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(connection: HTTPConnection, deadline: float) -> Answer:
    sock = connection.sock
    sock.settimeout(_left(deadline))
    response = connection.getresponse()
    kept, length = bytearray(), 0
    while True:
        sock.settimeout(_left(deadline))
        data = response.read1(_CHUNK)
        if not data:
            break
        length += len(data)
        kept += data[: max(PAYLOAD_LIMIT - len(kept), 0)]
    return Answer(response.status, bytes(kept), length)
