"""The first process of a container: takes messages from a stream and has a supervisor run them, one at a time.

    python3 -m lithops_mini.worker.server             serve on standard input and output until the input ends
    python3 -m lithops_mini.worker.server --health    end with 0 if the server of this container answers
    python3 -m lithops_mini.worker.server --tail      print the last lines that calls have printed, and follow

It ends at once, and all it started with it, when the client goes away or SIGTERM arrives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import queue
import select
import signal
import socket
import stat
import sys
import threading
from collections import deque
from typing import Any, NoReturn

from lithops_mini.errors import InvocationError
from lithops_mini.worker import frames
from lithops_mini.worker.frames import Kind
from lithops_mini.worker.supervisor import Supervisor

# Lines of output kept for whoever asks for them later.
_LINES = 1000
_ANSWER_LIMIT = 5.0  # seconds a server has to answer a health check


def directory() -> str:
    """The directory of this container's worker: where it unpacks modules, and can be asked how it is."""
    return os.path.join(os.environ.get("TMPDIR", "/tmp"), "lithops-mini")


def _socket_path() -> str:
    return os.path.join(directory(), "socket")


def _memory_disk() -> str | None:
    """The container's directory for temporary files, if that is in its memory."""
    place = os.environ.get("TMPDIR", "/tmp")
    with open("/proc/self/mounts") as mounts:
        kinds = {where: kind for _, where, kind, *_ in map(str.split, mounts)}
    return place if kinds.get(place) == "tmpfs" else None


def _gate() -> str:
    """A named pipe: opening it to read returns when the server takes questions, and not before."""
    path = os.path.join(directory(), "gate")
    os.makedirs(directory(), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    return path


class Lines(logging.Handler):
    """What calls print, line by line: to whoever asks, and to standard error if the client wants to see it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.show = False
        self._last: deque[str] = deque(maxlen=_LINES)
        self._followers: list[queue.SimpleQueue[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{getattr(record, 'job', '')} {record.getMessage()}\n"
        if self.show:
            sys.stderr.write(line)
            sys.stderr.flush()
        self._last.append(line)
        for follower in self._followers:
            if follower.qsize() < 10 * _LINES:  # one that does not read loses lines, and costs no memory
                follower.put(line)

    def follow(self) -> queue.SimpleQueue[str]:
        """A queue with the last lines and all to come."""
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        with self.lock:  # type: ignore[union-attr]  # the one that emit() is called with
            for line in self._last:
                lines.put(line)
            self._followers.append(lines)
        return lines

    def forget(self, follower: queue.SimpleQueue[str]) -> None:
        with self.lock:  # type: ignore[union-attr]
            self._followers.remove(follower)


class Server:
    """Serves one client, by two file descriptors: ``source`` is what the client writes, ``sink`` what it reads."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._writing = threading.Lock()
        self._messages: queue.SimpleQueue[tuple[bool, bytearray] | None] = queue.SimpleQueue()
        self._supervisor: Supervisor | None = None
        self._lines = Lines()

    def serve(self) -> None:
        """Return when the client has gone."""
        os.makedirs(directory(), mode=0o700, exist_ok=True)
        logger = logging.getLogger("lithops_mini.worker")
        logger.addHandler(self._lines)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for work in (self._read, self._answer_askers):
            threading.Thread(target=work, daemon=True).start()
        try:
            while (message := self._messages.get()) is not None:
                self._run(*message)
        finally:
            self._close()

    def _read(self) -> None:
        """Take in what the client sends, also while calls run."""
        try:
            self._take_frames()
        finally:
            self._messages.put(None)
            self._close()

    def _take_frames(self) -> None:
        number = 0  # of the message under way
        while (frame := frames.read(lambda most: os.read(self._source, most))) is not None:
            kind, body = frame
            if kind == Kind.RUN:
                if self._supervisor is not None:
                    self._supervisor.forget_cancelled()  # the message before this one has been answered
                number, parts = frames.MESSAGE.unpack_from(body)
                self._messages.put((parts, body[frames.MESSAGE.size :]))
            elif kind == Kind.PING:
                self._send(Kind.PONG)
            elif kind == Kind.SETUP:
                self._set_up(json.loads(body))
            elif kind == Kind.STOP and self._supervisor is not None:
                meant, *calls = (number for (number,) in frames.NUMBER.iter_unpack(body))
                if meant == number:  # else it comes too late
                    self._supervisor.cancel(frozenset(calls))

    def _close(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close(0.0)

    def _set_up(self, given: dict[str, Any]) -> None:
        self._lines.show = given["show_output"]
        self._supervisor = Supervisor(
            given["name"], directory(), environment=given["environment"], memory_disk=_memory_disk()
        )
        self._supervisor.start()
        self._send(Kind.HELLO, json.dumps({"python": platform.python_version()}).encode())

    def _run(self, parts: bool, payload: bytearray) -> None:
        supervisor = self._supervisor
        assert supervisor is not None
        try:
            reply = supervisor.run(payload, (lambda part: self._send(Kind.DELIVER, part)) if parts else None)
        except InvocationError as error:
            said = {"text": str(error), "reason": error.reason, "retryable": error.retryable}
            self._send(Kind.REFUSED, json.dumps(said).encode())
        else:
            self._send(Kind.REPLY, reply)

    def _send(self, kind: Kind, body: bytes = b"") -> None:
        left = memoryview(frames.pack(kind, body))
        with self._writing:
            while left:
                left = left[os.write(self._sink, left) :]

    # -- others who ask

    def _answer_askers(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_socket_path())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(_socket_path())
            listener.listen()
            os.open(_gate(), os.O_RDWR)  # from now on, for whoever waits there
            while True:
                asker, _ = listener.accept()
                threading.Thread(target=self._answer, args=(asker,), daemon=True).start()

    def _answer(self, asker: socket.socket) -> None:
        with asker, contextlib.suppress(OSError):  # whoever asked may leave at any time
            if asker.recv(16) == b"health":
                asker.sendall(b"well")
                return
            lines = self._lines.follow()
            try:
                while True:
                    asker.sendall(lines.get().encode(errors="replace"))
            finally:
                self._lines.forget(lines)


def _ask(what: bytes) -> socket.socket:
    asked = socket.socket(socket.AF_UNIX)
    asked.settimeout(_ANSWER_LIMIT)
    asked.connect(_socket_path())
    asked.sendall(what)
    return asked


def check_health() -> None:
    """Raise ``OSError`` unless the server of this container answers."""
    with _ask(b"health") as asked:
        if asked.recv(16) != b"well":
            raise ConnectionError("the worker gave another answer than it should")


def tail() -> None:
    """Copy what calls print to standard output until the server ends; or standard input, if that is a pipe.

    A server that has just been started is waited for.
    """
    os.close(os.open(_gate(), os.O_RDONLY))
    with _ask(b"tail") as asked:
        asked.settimeout(None)
        watched: list[socket.socket | int] = [asked, 0] if stat.S_ISFIFO(os.fstat(0).st_mode) else [asked]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if 0 in ready and not os.read(0, 1 << 16):
                return
            if asked in ready:
                if not (data := asked.recv(1 << 16)):
                    return
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


def main(arguments: list[str]) -> None:
    if arguments == ["--health"]:
        check_health()
    elif arguments == ["--tail"]:
        tail()
    elif arguments:
        sys.exit(f"the worker takes --health, --tail or nothing, not {' '.join(arguments)}")
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        # What is printed by mistake must not get into the stream.
        sink = os.dup(1)
        os.dup2(2, 1)
        Server(0, sink).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
