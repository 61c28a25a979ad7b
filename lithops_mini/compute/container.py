"""One warm container as its client sees it: started, spoken to over the engine's own connection, and removed.

Messages travel on the standard input and output of the container's first process, through the engine's API: no port is
opened, so it is the same for an engine of this machine and a remote one, and nobody else can send work there.
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import docker
import docker.errors
import requests

from lithops_mini.compute.base import Activation
from lithops_mini.compute.tls import Duplex
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.worker import frames
from lithops_mini.worker.frames import Kind

logger = logging.getLogger("lithops_mini.docker")

# What the engine's client raises; the last when a connection breaks in the middle of an answer.
ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException, OSError)

# Seconds a container has from its start to the first word of its worker.
_START_LIMIT = 60.0
# After so many seconds without a word the worker is asked whether it is there; then it has so many to answer.
_QUIET, _PATIENCE = 5.0, 10.0
# Seconds for which the engine may take nothing of a message.
_SEND_LIMIT = 20
# Seconds until the engine knows how a container has ended.
_END_LIMIT = 10
# Bytes kept of what a worker says outside the calls' output: why it could not start, mostly.
_LAST_WORDS = 4096

# Of the engine's stream: which of the container's streams, how many bytes; big-endian.
CHUNK = struct.Struct(">BxxxI")
STDOUT, STDERR = 1, 2


class Container:
    """``run`` is for one thread at a time; ``remove`` may be called from any."""

    def __init__(
        self, client: docker.DockerClient, arguments: Mapping[str, Any], memory: int, setup: Mapping[str, Any]
    ) -> None:
        """Create it, not yet started. Raises what the SDK raises.

        ``arguments`` are those of the SDK's ``create_container``; ``memory`` is its limit in bytes; ``setup`` is the
        first message to the worker.
        """
        self.memory = memory
        self._client = client
        self._setup = setup
        self._id: str = client.api.create_container(**arguments)["Id"]
        self.name: str = arguments["name"]
        self._socket: socket.socket | Duplex | None = None
        self._inbox: queue.SimpleQueue[tuple[Kind, bytearray] | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._left = 0  # bytes of the worker's output in the chunk that is being read
        self._words = b""
        self._number = 0  # of messages

    def start(self) -> None:
        """Start it and wait until its worker takes messages. Raises ``InvocationError``, or what the SDK raises."""
        attached = self._client.api.attach_socket(self._id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        self._attached = attached  # the SDK's view of the socket, which keeps it open
        connection = self._socket = getattr(attached, "_sock", attached)
        if isinstance(connection, ssl.SSLSocket):
            self._socket = Duplex(connection)
        elif isinstance(connection, socket.socket):
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_LIMIT, 0))
        threading.Thread(target=self._receive, name=f"{self.name}-reader", daemon=True).start()
        self._client.api.start(self._id)
        self._send(Kind.SETUP, json.dumps(self._setup).encode())
        deadline = time.monotonic() + _START_LIMIT
        while (frame := self._next(deadline)) is not None:
            if frame[0] == Kind.HELLO:
                return
        raise self._death()

    def limit_memory(self, memory: int) -> None:
        """Let the container hold so many bytes. Raises what the SDK raises."""
        if memory != self.memory:
            self._client.api.update_container(self._id, mem_limit=memory, memswap_limit=memory)
            self.memory = memory

    def run(self, payload: bytes, activation: Activation) -> bytes:
        """Have the worker run a message; return its reply. Raises ``InvocationError``."""
        self._number += 1
        number, deliver = self._number, activation.deliver
        self._send(Kind.RUN, frames.MESSAGE.pack(number, deliver is not None), payload)
        activation.stoppable(lambda calls: self._stop(number, calls))
        while (frame := self._next()) is not None:
            kind, body = frame
            if kind == Kind.DELIVER and deliver is not None:
                deliver(bytes(body))
            elif kind == Kind.REPLY:
                return bytes(body)
            elif kind == Kind.REFUSED:
                said = json.loads(body)
                raise InvocationError(said["text"], reason=Reason(said["reason"]), retryable=said["retryable"])
        raise self._death()

    def remove(self) -> None:
        """Kill the container, if it runs, and remove it; whoever waits for it is told that it has ended.

        Raises what the SDK raises, but not if it is gone already.
        """
        try:
            with suppress(docker.errors.NotFound):
                self._client.api.remove_container(self._id, force=True, v=True)
        finally:
            if self._socket is not None:
                with suppress(OSError):  # not connected any more
                    self._socket.shutdown(socket.SHUT_RDWR)

    # -- frames

    def _stop(self, number: int, calls: frozenset[int]) -> None:
        with suppress(InvocationError):  # run() in its thread will see the same
            self._send(Kind.STOP, *map(frames.NUMBER.pack, (number, *calls)))

    def _send(self, kind: Kind, *body: bytes) -> None:
        assert self._socket is not None
        try:
            with self._sending:
                self._socket.sendall(frames.pack(kind, b"".join(body)))
        except OSError as error:
            raise self._death() from error

    def _next(self, deadline: float | None = None) -> tuple[Kind, bytearray] | None:
        """The next frame that is not a sign of life; ``None`` once the connection has ended.

        A worker that is there says so when asked, whatever its calls do: else it is stuck, and its container ends.
        """
        asked = deadline is not None  # a worker that starts cannot answer yet
        while True:
            wait = _QUIET if not asked else _PATIENCE if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                frame = self._inbox.get(timeout=wait)
            except queue.Empty:
                if asked:
                    raise self._stuck(deadline is not None) from None
                self._send(Kind.PING)
                asked = True
            else:
                asked = deadline is not None
                if frame is None or frame[0] != Kind.PONG:
                    return frame

    def _stuck(self, starting: bool) -> InvocationError:
        did = f"did not start within {_START_LIMIT:g} s" if starting else f"has not answered for {_PATIENCE:g} s"
        return InvocationError(f"the container {self.name} {did}{self._said()}", reason=Reason.DIED, retryable=True)

    def _receive(self) -> None:
        """Read what the container says, for as long as it lives."""
        try:
            while (frame := frames.read(self._read_output)) is not None:
                self._inbox.put(frame)
        except (OSError, ValueError) as error:
            logger.debug("the connection to %s broke: %s", self.name, error)
        finally:
            self._inbox.put(None)
            assert self._socket is not None
            # The SDK has three views of one socket, which is closed with the last of them.
            self._attached.close()
            self._socket.close()
            with suppress(ValueError):  # it was the same one
                self._attached._response.close()

    def _read_output(self, most: int) -> bytes:
        """Bytes of the worker's frames; what comes in between on standard error is noted."""
        assert self._socket is not None
        while not self._left:
            head = frames.read_exactly(self._socket.recv, CHUNK.size)
            if head is None:
                return b""
            stream, size = CHUNK.unpack(head)
            if stream == STDERR:
                self._note(frames.read_exactly(self._socket.recv, size) or b"")
            else:
                self._left = size
        data = self._socket.recv(min(most, self._left))
        self._left -= len(data)
        return data

    def _note(self, words: bytes | bytearray) -> None:
        lines = (self._words.rpartition(b"\n")[2] + words).split(b"\n")
        for line in lines[:-1]:  # the last is not complete yet
            logger.debug("%s", line.decode(errors="replace"))
        self._words = (self._words + words)[-_LAST_WORDS:]

    # -- its end

    def _death(self) -> InvocationError:
        """What became of the container, by the engine's own record."""
        try:
            with suppress(requests.Timeout):
                self._client.api.wait(self._id, timeout=_END_LIMIT)
            state = self._client.api.inspect_container(self._id)["State"]
        except docker.errors.NotFound:
            text, reason = "was removed by somebody", Reason.DIED
        except ENGINE_ERRORS as error:
            text, reason = f"is lost: the engine does not answer ({error})", Reason.DIED
        else:
            text, reason = _describe(state)
        return InvocationError(f"the container {self.name} {text}{self._said()}", reason=reason, retryable=True)

    def _said(self) -> str:
        words = self._words.decode(errors="replace").strip()
        return f"; its last words:\n{words}" if words else ""


def _describe(state: Mapping[str, Any]) -> tuple[str, Reason]:
    if state["OOMKilled"]:
        return "ran out of memory: its limit is the runtime_memory of the call", Reason.OUT_OF_MEMORY
    if state["Running"]:
        return f"was {state['Status']} and does not speak to us any more", Reason.DIED
    code = state["ExitCode"]
    how = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
    return f"ended: {how}{state['Error'] and ', ' + state['Error']}", Reason.DIED
