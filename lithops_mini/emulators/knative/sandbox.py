"""What containers of pods are here: processes of this machine, or containers of its Docker engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

from lithops_mini.emulators.knative.logs import Log
from lithops_mini.emulators.processes import End, ProcessGroup

WORKER = (sys.executable, "-P", "-m", "lithops_mini.worker.knative")
"""What a process runs if a container names no command: what our image runs."""

_CHUNK = 1 << 16
_LAST_WORDS = 1.0  # seconds for output to come to its end; a process that has fled from its group may hold it open
_PORTS = range(20_000, 32_000)  # below those that the kernel gives to who connects


@dataclass(frozen=True)
class Program:
    """What a container runs, and what it may use. 0 is no limit."""

    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    memory: int = 0  # bytes
    processors: float = 0.0
    directory: str = ""
    user: int | None = None
    read_only: bool = False
    drop_all: bool = False  # capabilities
    empty: Mapping[str, int] = field(default_factory=dict)  # directories of its own, and their bytes


class CannotStart(Exception):
    """A program that cannot be run; the text says why."""


class Sandbox(ABC):
    """One container, started at once. ``CannotStart`` if it cannot be.

    ``address``: where its server is to be found. ``not_enforced``: what is otherwise than on Kubernetes.
    """

    not_enforced: ClassVar[tuple[str, ...]]
    address: tuple[str, int]

    def __init__(self, program: Program, log: Log) -> None:
        self.program = program
        self.log = log
        self.end: End | None = None  # how it has ended, once ``ended`` is set
        self.ended = threading.Event()
        self._killing = threading.Lock()
        self._removed = False
        try:
            self.start()
        except BaseException:
            self.kill()
            raise

    @abstractmethod
    def start(self) -> None:
        """Start it, and threads that read its output and wait for its end."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""

    @abstractmethod
    def stop(self) -> None:
        """Kill all that runs in it, and return when it is gone; also twice, or before it was started."""

    @abstractmethod
    def remove(self) -> None:
        """Remove what is left of it, once it has stopped."""

    def kill(self) -> None:
        """End it and remove what belongs to it; also twice."""
        with self._killing:
            if not self._removed:
                self.stop()
                self.remove()
                self._removed = True

    def finish(self, end: End) -> None:
        """To be called once, when all has ended and been read."""
        self.end = end
        self.log.end()
        self.ended.set()


class ProcessSandbox(Sandbox):
    """A process of this machine: nothing limits its memory, its processors or the files it may write."""

    not_enforced: ClassVar[tuple[str, ...]] = (
        "images: a container's command runs here, or our worker if it names none, with the packages of this Python",
        "limits of memory and processors, users, capabilities and volumes",
        "a file system and a network of its own: it has this machine's",
        "the number of the port: a container listens on any that is free, which PORT names",
    )
    _group: ProcessGroup | None = None
    _directory: Path | None = None

    def start(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="lithops-mini-knative-"))
        port = free_port()
        self.address = ("127.0.0.1", port)
        environment = {
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._directory),
            **self.program.environment,
            "PORT": str(port),
        }
        command = [*(self.program.command or WORKER), *self.program.arguments]
        try:
            self._group = ProcessGroup(
                expanded(command, environment),
                directory=self._directory,
                environment=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise CannotStart(f'exec: "{command[0]}": {os.strerror(error.errno or 0).lower()}') from error
        threading.Thread(target=self._follow, args=(self._group,), name="container", daemon=True).start()

    def terminate(self) -> None:
        assert self._group is not None
        with suppress(ProcessLookupError):
            self._group.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()
            self.ended.wait()

    def remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory)

    def _follow(self, group: ProcessGroup) -> None:
        """Read what it prints, until its end: what it has started ends with it."""
        assert group.process.stdout is not None
        reader = threading.Thread(target=self._read, args=(group.process.stdout,), name="container-output", daemon=True)
        reader.start()
        end = group.wait()
        reader.join(_LAST_WORDS)
        self.finish(end)

    def _read(self, output: IO[bytes]) -> None:
        with output:
            while data := os.read(output.fileno(), _CHUNK):
                self.log.write(data)


def expanded(command: list[str], environment: Mapping[str, str]) -> list[str]:
    """A command with the variables that are written ``$(NAME)``; unknown ones stay as they are."""
    return [re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), each) for each in command]


_port_lock = threading.Lock()
_last_port = os.getpid() % len(_PORTS)


def free_port() -> int:
    """A port of loopback that nobody uses now, and that nobody who connects is given."""
    global _last_port
    with _port_lock:
        for _ in _PORTS:
            _last_port = (_last_port + 1) % len(_PORTS)
            with socket.socket() as tried, suppress(OSError):
                tried.bind(("127.0.0.1", _PORTS[_last_port]))
                return _PORTS[_last_port]
    raise CannotStart("no port is free")
