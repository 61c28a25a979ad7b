"""What the container of a Knative service runs: an HTTP server, to which each message is posted.

    python3 -m lithops_mini.worker.knative

    GET /                 200 and {"python", "version"}: it takes messages
    POST / and a message  200 and the reply, or 422 and {"text", "reason", "retryable"} if there can be none

Who sends ``Accept: application/x-lithops-mini-frames`` gets an answer that takes long in parts, as frames: DELIVER for
what is known, PONG so that nobody on the way takes the connection for idle, REPLY or REFUSED at the end. When the
connection of a message is closed, its calls are stopped.

Who sends a place (``X-Lithops-Mini-Place``) does not wait for the reply: the answer is 202, and begins at once with a
frame HELLO, JSON: pod, since (the time there, in seconds since the epoch). The reply goes into storage, signed with the
key. The answer ends then, but nobody need wait for that: work goes on without its connection. While all lanes have such
work whose connection was lost, ``GET /`` is answered with 503, so that nobody sends messages here.

Where the environment has a key, only messages that are signed with it are taken, and replies are signed. On SIGTERM the
server ends with the calls that run then; what comes later is answered with 503.
"""

from __future__ import annotations

import hmac
import json
import os
import platform
import queue
import signal
import socket
import sys
import tempfile
import threading
import time
from base64 import b64encode
from typing import Any, NoReturn

from lithops_mini import wire
from lithops_mini.errors import IntegrityError, InvocationError, Reason, StorageError
from lithops_mini.version import __version__
from lithops_mini.worker import frames
from lithops_mini.worker.frames import Kind
from lithops_mini.worker.http_server import Connection, Server
from lithops_mini.worker.outbox import Outbox
from lithops_mini.worker.output import show_output
from lithops_mini.worker.supervisor import Supervisor

MAX_MESSAGE = 4 << 20
"""Bytes of a message, or of a reply: what is larger is better written to storage once than copied by every proxy."""

PORT, LANES, KEY = "PORT", "CONTAINER_CONCURRENCY", "LITHOPS_MINI_KEY"
"""Variables: where it listens (8080), how many messages run at once (1), and the key in hexadecimal (none)."""

SECONDS = "x-lithops-mini-seconds"
"""The header with the time there is: what still runs then is stopped."""
STOP = "x-lithops-mini-stop"
"""The header with the numbers of calls that are to be stopped when they come to run."""
PYTHON = "x-lithops-mini-python"
"""The header with the minor version of Python that has pickled the functions."""
PLACE = "x-lithops-mini-place"
"""The header with where in storage the reply goes, as JSON."""
NONCE, SIGNATURE = "x-lithops-mini-nonce", "x-lithops-mini-signature"
"""The headers with a random text, and with the signature of the message and of what the other headers say."""

BYTES, FRAMES = "application/octet-stream", "application/x-lithops-mini-frames"
WORKER_PREFIX = "knative/"
"""What the id of a worker begins with; the name of its pod follows."""

# Seconds between two looks at the connections of messages under way.
_LOOK = 0.1
# Seconds after which a message under way gives a sign of life for the first time, and then between two of them.
_FIRST_BEAT, _BEAT = 1.0, 10.0
# Seconds that an event waits for a lane: one that has just answered is soon free.
_MOMENT = 2.0
# Seconds between tries to store a reply that cannot be stored.
_PAUSES = (1.0, 5.0, 25.0)


def request_name(nonce: str, seconds: str, stop: str, place: str = "") -> str:
    """Under which the message of a request is signed."""
    return f"request {nonce} {seconds} {stop} {place}"


def reply_name(nonce: str) -> str:
    """Under which the replies to a request are signed."""
    return f"reply {nonce}"


class Service:
    """Runs messages, as many at once as there are lanes, each with a supervisor of its own."""

    def __init__(self, lanes: int, key: bytes = b"") -> None:
        """``key``: what messages and replies are signed with; empty: they are not."""
        self.key = key
        self.ending = False
        self.outbox = Outbox()
        self._lanes = lanes
        self._lock = threading.Lock()
        self._running: set[_Exchange] = set()
        self._closed = threading.Event()
        # Of the free ones the one that was used last, which is the warmest.
        self._free: queue.LifoQueue[Supervisor] = queue.LifoQueue()
        directory = tempfile.mkdtemp(prefix="lithops-mini-")
        name = f"{WORKER_PREFIX}{_pod()}-{os.urandom(3).hex()}"
        for lane in range(lanes):
            own = os.path.join(directory, str(lane))
            os.mkdir(own, mode=0o700)
            supervisor = Supervisor(f"{name}.{lane}", own)
            supervisor.start()
            self._free.put(supervisor)
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, exchange: _Exchange, payload: bytes, seconds: float | None, stop: frozenset[int]) -> None:
        """Run the calls of a message, and answer."""
        until = None if seconds is None else time.monotonic() + seconds
        try:
            # Behind an event may be hours: then it is for another container.
            supervisor = self._free.get(timeout=seconds if exchange.waits else _MOMENT)
        except queue.Empty:
            reason = Reason.THROTTLED if exchange.waits else Reason.UNAVAILABLE
            exchange.refuse(InvocationError("all lanes of the container are busy", reason=reason, retryable=True))
            return
        try:
            if stop:
                supervisor.cancel(stop)
            exchange.begin(supervisor, payload)
            with self._lock:
                self._running.add(exchange)
            try:
                deliver = exchange.deliver if exchange.framed else None
                reply = supervisor.run(payload, deliver, until=until, room=MAX_MESSAGE)
                if len(reply) > MAX_MESSAGE:
                    text = f"a reply of {len(reply):,} bytes is over the limit of {MAX_MESSAGE:,}"
                    raise InvocationError(text, reason=Reason.REFUSED)
            except InvocationError as error:
                exchange.refuse(error)
            else:
                exchange.reply(reply)
        finally:
            with self._lock:
                self._running.discard(exchange)
            supervisor.forget_cancelled()
            self._free.put(supervisor)  # with the answer sent: close() waits for that

    @property
    def is_free(self) -> bool:
        """Whether a message that comes could be run; the proxy knows of those whose connection is there."""
        with self._lock:
            return sum(each.alone for each in self._running) < self._lanes

    def close(self) -> None:
        """Wait for what runs, and end. Nothing may be run afterwards."""
        self.ending = True
        for supervisor in [self._free.get() for _ in range(self._lanes)]:
            supervisor.close()
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK):
            with self._lock:
                running = list(self._running)
            for exchange in running:
                exchange.look()


class _Exchange:
    """A message under way, and its answer, which is begun early if it takes long and the other side knows frames."""

    waits = True  # for a lane that becomes free
    alone = False  # nobody is there to whom it could be answered, and it goes on
    beat = _BEAT

    def __init__(self, connection: Connection, key: bytes) -> None:
        self._connection = connection
        self._key = key
        self._name = reply_name(connection.headers.get(NONCE, ""))
        self.framed = connection.headers.get("Accept") == FRAMES
        self._lock = threading.Lock()
        self._status = 200
        self._begun = False
        self._over = False  # all is said, or nobody is there
        self._beat = time.monotonic() + _FIRST_BEAT

    def begin(self, supervisor: Supervisor, payload: bytes) -> None:
        self._supervisor, self._payload = supervisor, payload

    def deliver(self, part: bytes) -> None:
        """Tell what is known of some of the calls, while one runs."""
        with self._lock:
            self._write(Kind.DELIVER, self._signed(part))

    def reply(self, reply: bytes) -> None:
        with self._lock:
            if self._begun:
                self._write(Kind.REPLY, self._signed(reply), last=True)
            else:
                self._connection.send_bytes(200, BYTES, self._signed(reply))
            self._over = True

    def refuse(self, error: InvocationError) -> None:
        told = {"text": str(error), "reason": error.reason, "retryable": error.retryable}
        with self._lock:
            if self._begun:
                self._write(Kind.REFUSED, json.dumps(told).encode(), last=True)
            else:
                self._connection.send_json(422, told)
            self._over = True

    def look(self) -> None:
        """Stop the calls if nobody is there any more; else give a sign of life, if it is time to. It does not wait."""
        if not self._lock.acquire(blocking=False):  # it speaks right now
            return
        try:
            if not self._over and _is_closed(self._connection.connection):
                self._leave()
            elif (self.framed or self._begun) and time.monotonic() >= self._beat:
                self._write(Kind.PONG)
        finally:
            self._lock.release()

    def _leave(self) -> None:
        self._over = True
        self._supervisor.cancel(frozenset(call.id for call in wire.iter_calls(wire.split_payload(self._payload)[2])))

    def _signed(self, data: bytes) -> bytes:
        return data + wire.sign(self._key, self._name, data) if self._key else data

    def _write(self, kind: Kind, body: bytes = b"", *, last: bool = False) -> None:
        if self._over:
            return
        connection = self._connection
        try:
            if not self._begun:
                self._begun = True
                connection.send_response(self._status)
                connection.send_header("Content-Type", FRAMES)
                connection.send_header("Transfer-Encoding", "chunked")
                connection.end_headers()
            frame = frames.pack(kind, body)
            end = b"\r\n0\r\n\r\n" if last else b"\r\n"
            connection.wfile.write(b"".join((b"%x\r\n" % len(frame), frame, end)))
            connection.wfile.flush()
        except ConnectionError:
            connection.close_connection = True
            self._leave()
        self._beat = time.monotonic() + self.beat


class _Event(_Exchange):
    """A message whose reply goes into storage, and whose answer says only that it runs, as long as somebody listens."""

    waits = False
    beat = 60.0  # nobody may read them, and there may be many

    def __init__(self, connection: Connection, service: Service, place: str) -> None:
        super().__init__(connection, service.key)
        self._outbox = service.outbox
        self._place = {**json.loads(place), "secret": service.key.hex()}
        self._status = 202
        self.framed = False  # nothing is told of some of the calls

    @property
    def is_late(self) -> bool:
        """Whether nobody waits for the reply any more."""
        return self._outbox.comes_too_late(self._place)

    def begin(self, supervisor: Supervisor, payload: bytes) -> None:
        super().begin(supervisor, payload)
        told = json.dumps({"pod": _pod(), "since": time.time()}).encode()
        with self._lock:
            self._write(Kind.HELLO, self._signed(told))
        self._outbox.prepare(self._place)

    def reply(self, reply: bytes) -> None:
        self._store({"reply": b64encode(reply).decode("ascii")})

    def refuse(self, error: InvocationError) -> None:
        if self._begun:
            self._store({"refused": {"text": str(error), "reason": error.reason, "retryable": error.retryable}})
        else:
            super().refuse(error)

    def _store(self, answer: dict[str, Any]) -> None:
        for pause in (*_PAUSES, None):
            try:
                self._outbox.store(self._place, answer)
                break
            except StorageError as error:
                # It is missed when its time is over.
                print(f"the reply {self._place['key']} cannot be stored: {error}", flush=True)  # noqa: T201
                if pause is not None:
                    threading.Event().wait(pause)
        with self._lock:
            self._write(Kind.PONG, last=True)
            self._over = True

    def _leave(self) -> None:
        self._over = self.alone = True


class _Connection(Connection):
    def get(self) -> None:
        server = self.server
        assert isinstance(server, WorkerServer)
        told = {"python": platform.python_version(), "version": __version__}
        self.send_json(200 if server.service.is_free else 503, told)

    def post(self, body: bytes) -> None:
        server = self.server
        assert isinstance(server, WorkerServer)
        service = server.service
        seconds, stop, place = (self.headers.get(name, "") for name in (SECONDS, STOP, PLACE))
        try:
            self._check(service.key, body, request_name(self.headers.get(NONCE, ""), seconds, stop, place))
        except IntegrityError as error:
            self.send_json(403, {"text": str(error), "reason": Reason.REFUSED, "retryable": False})
            return
        exchange = _Event(self, service, place) if place else _Exchange(self, service.key)
        if service.ending:
            self.close_connection = True
            self.send_json(503, {"text": "the container ends"})
        elif self.headers.get(PYTHON, _python()) != _python():
            theirs = self.headers[PYTHON]
            text = f"the image has Python {_python()}, and functions pickled by Python {theirs} cannot run there"
            exchange.refuse(InvocationError(text, reason=Reason.REFUSED))
        elif isinstance(exchange, _Event) and exchange.is_late:
            exchange.refuse(InvocationError("nobody waits for the reply any more", reason=Reason.CANCELLED))
        else:
            calls = frozenset(map(int, stop.split(",") if stop else ()))
            service.run(exchange, body, float(seconds) if seconds else None, calls)

    def _check(self, key: bytes, payload: bytes, name: str) -> None:
        """Raise ``IntegrityError`` for a message of somebody who does not have the key."""
        if key and not hmac.compare_digest(wire.sign(key, name, payload).hex(), self.headers.get(SIGNATURE, "")):
            raise IntegrityError("the message is not signed with the key of this service")


class WorkerServer(Server):
    """Serves messages on a port."""

    def __init__(self, port: int, service: Service) -> None:
        self.service = service
        super().__init__(port, _Connection)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection on which nothing is expected from it."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _pod() -> str:
    """The name of the pod, which Kubernetes gives to its containers as that of their machine."""
    return os.environ.get("HOSTNAME") or socket.gethostname()


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _end(*_: Any) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    show_output()
    service = Service(int(os.environ.get(LANES, "1")), bytes.fromhex(os.environ.pop(KEY, "")))
    server = WorkerServer(int(os.environ.get(PORT, "8080")), service)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        threading.Event().wait()
    finally:
        service.close()


if __name__ == "__main__":
    main()
