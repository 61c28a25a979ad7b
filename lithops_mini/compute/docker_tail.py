"""What calls print in the containers of a Docker engine, while they run, for whoever may talk to the engine."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from typing import Any

import docker
import docker.errors

from lithops_mini.compute.container import CHUNK, ENGINE_ERRORS, STDOUT
from lithops_mini.worker import frames

logger = logging.getLogger("lithops_mini.docker")

Take = Callable[[str, int, str], object]

# Its standard input is ours: so it ends when we do, however that is.
_COMMAND = ["python3", "-P", "-m", "lithops_mini.worker.server", "--tail"]
_LINE = re.compile(r"(\S+) call (\d+): (.*)", re.DOTALL)


@contextmanager
def tail(client: docker.DockerClient, label: str, take: Take) -> Iterator[None]:
    """Give ``take`` job, call and line of what is printed in the containers with the label: now, and those to come.

    Raises what the SDK raises.
    """
    workers = _Workers(client, label, take)
    try:
        workers.follow()
        yield
    finally:
        workers.close()


class _Workers:
    """The containers that are followed, each by a thread."""

    def __init__(self, client: docker.DockerClient, label: str, take: Take) -> None:
        self._api = client.api
        self._take = take
        self._label = label
        self._lock = threading.Lock()
        self._closed = False
        self._known: set[str] = set()
        self._open: set[Any] = set()
        self._started: Any = None

    def follow(self) -> None:
        # The engine begins to tell of containers a moment after it has said so, and then from this time on.
        now = datetime.fromisoformat(self._api.info()["SystemTime"]).timestamp()
        wanted = {"type": "container", "event": "start", "label": self._label}
        self._started = self._api.events(since=int(now), filters=wanted, decode=True)
        _in_thread(self._follow_started)
        for container in self._api.containers(filters={"label": self._label}):
            self._follow(container["Id"])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            left = list(self._open)
        for connection in left:
            _disconnect(connection)
        if self._started is not None:
            with suppress(*ENGINE_ERRORS):  # by ssh it ends with the process, otherwise it may have ended
                self._started.close()

    def _follow_started(self) -> None:
        try:
            for event in self._started:
                self._follow(event["id"])
        except ENGINE_ERRORS as error:
            logger.debug("the engine's events have ended: %s", error)
        if not self._closed:
            logger.warning("the Docker engine tells no more of what is printed: the connection was lost")

    def _follow(self, container: str) -> None:
        with self._lock:
            if container in self._known:
                return
            self._known.add(container)
        _in_thread(self._copy, container)

    def _copy(self, container: str) -> None:
        try:
            created = self._api.exec_create(container, _COMMAND, stdin=True)
            attached = self._api.exec_start(created["Id"], socket=True)
            with closing(attached), self._connected(attached) as connection:
                for line in _lines(connection):
                    if (found := _LINE.fullmatch(line)) is not None:
                        self._take(found[1], int(found[2]), found[3])
        except ENGINE_ERRORS as error:
            logger.debug("the container %.12s is not followed any more: %s", container, error)

    @contextmanager
    def _connected(self, attached: Any) -> Iterator[Any]:
        """The connection below the SDK's view of it, which keeps it open; ``close`` ends what is read from it."""
        connection = getattr(attached, "_sock", attached)
        if isinstance(connection, socket.socket):
            connection.settimeout(None)
        with self._lock:
            self._open.add(connection)
            closed = self._closed
        try:
            if closed:
                _disconnect(connection)
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            with suppress(ValueError):  # it was the same one
                attached._response.close()


def _in_thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, name="lithops_mini-tail", daemon=True).start()


def _disconnect(connection: Any) -> None:
    with suppress(OSError):  # not connected any more
        connection.shutdown(socket.SHUT_RDWR)


def _lines(connection: Any) -> Iterator[str]:
    """The lines of standard output in the engine's stream."""
    rest = b""
    while (head := frames.read_exactly(connection.recv, CHUNK.size)) is not None:
        stream, size = CHUNK.unpack(head)
        body = frames.read_exactly(connection.recv, size)
        if stream == STDOUT and body is not None:
            *lines, rest = (rest + body).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
