"""The way of a call: from the ingress, by its Host header, to a pod of a revision and back."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

from lithops_mini.emulators.front import Request, Response
from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.connections import Cut, Stream, is_gone
from lithops_mini.emulators.knative.controller import Controller
from lithops_mini.emulators.knative.pod import Pod
from lithops_mini.emulators.knative.scale import ClientGone, NoPod, QueueFull, Scale, TookTooLong

DOMAIN = "localhost"
"""What the host of each service ends with, after its name and its namespace."""

_CHUNK = 1 << 16
_LOOK = 0.1  # seconds between two looks whether somebody still waits for an answer that has begun
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)

_OURS = _HOP | {"date"}  # headers that an answer has already


class _Broken(Exception):
    """A pod has given no answer."""


class _Late(Exception):
    """A pod has not answered in time."""


def host_of(name: str, namespace: str) -> str:
    return f"{name}.{namespace}.{DOMAIN}"


def is_call(request: Request) -> bool:
    """Whether a request is for a service, by its Host."""
    host = str(request.headers.get("Host") or "").partition(":")[0].lower()
    return host.endswith(f".{DOMAIN}")


class Activator:
    """Hands calls on, and holds those for which there is no pod yet."""

    def __init__(self, cluster: Cluster, controller: Controller) -> None:
        self._cluster = cluster
        self._controller = controller

    def answer(self, request: Request) -> Response:
        cluster = self._cluster
        cluster.count("calls")
        if cluster.dice.falls("busy"):
            return _told("busy", 429, "too many requests", (("Retry-After", "1"),), cluster)
        if cluster.dice.falls("unavailable"):
            return _told("unavailable", 503, "upstream connect error or disconnect/reset before headers", (), cluster)
        scale = self._scale(request)
        if scale is None:
            return _told("not_found", 404, "", (), cluster)
        deadline = time.monotonic() + scale.timeout
        try:
            pod = scale.take(deadline, lambda: is_gone(request))
        except QueueFull:
            return _told("queue_full", 503, "pending request queue full", (), cluster)
        except NoPod:
            return _told("no_pod", 503, "no healthy upstream", (), cluster)
        except TookTooLong:
            return _told("timeouts", 504, "activator request timeout", (), cluster)
        except ClientGone:
            cluster.count("gone")
            raise Cut from None
        with ExitStack() as stack:
            stack.callback(scale.give, pod)
            response = self._forwarded(scale, pod, request, deadline, stack)
            if isinstance(response, Stream):  # its end is that of the call
                parts = _held(stack.pop_all(), response.parts)
                next(parts)
                return replace(response, parts=parts)
        return response

    def _scale(self, request: Request) -> Scale | None:
        """The revision that a call goes to; ``None`` if there is none."""
        host = str(request.headers["Host"]).partition(":")[0].lower()
        name, _, namespace = host.removesuffix(f".{DOMAIN}").partition(".")
        route = self._cluster.store.find(kinds.ROUTE, namespace, name)
        traffic = (route or {}).get("status", {}).get("traffic")
        if not traffic:
            return None
        revision = self._cluster.store.find(kinds.REVISION, namespace, traffic[0]["revisionName"])
        return None if revision is None else self._controller.scale(revision)

    def _forwarded(self, scale: Scale, pod: Pod, request: Request, deadline: float, stack: ExitStack) -> Response:
        """The pod's answer, or that of the proxies; ``stack`` is closed when it has been sent."""
        crash, cut = self._cluster.dice.crash(), self._cluster.dice.falls("cut")
        try:
            if pod.sandbox is None:
                raise _Broken("connection refused")
            connection = HTTPConnection(*pod.sandbox.address)
            stack.callback(connection.close)
            _send(connection, request, deadline)
            if crash == "event":
                self._crash(scale, pod)
                raise _Broken("EOF")  # even if it was quicker
            sock = connection.sock
            answer = _begun(connection, request, deadline)
            stack.callback(answer.close)
            headers = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _OURS)
            parts = _parts(sock, answer, request, deadline)
            if answer.chunked and not crash and not cut:
                return Stream(answer.status, headers, parts=self._sent(parts))
            body = b"".join(parts)
            if crash == "response":
                self._crash(scale, pod)
                raise _Broken("EOF")
        except _Late:
            return _told("timeouts", 504, "request timeout", (), self._cluster)
        except _Broken as error:
            if pod.lost:
                self._cluster.count("cut")
                raise Cut from None
            return _told("broken", 502, str(error), (), self._cluster)
        except ClientGone:
            self._cluster.count("gone")
            raise Cut from None
        if cut:
            self._cluster.count("cut")
            raise Cut
        return Response(answer.status, headers, body)

    def _sent(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """The parts of an answer that has begun: what befalls it now can only end it."""
        try:
            yield from parts
        except (_Late, _Broken, ClientGone) as error:
            self._cluster.count({_Late: "timeouts", _Broken: "broken"}.get(type(error), "gone"))
            raise Cut from None

    def _crash(self, scale: Scale, pod: Pod) -> None:
        self._cluster.count("crashes")
        scale.evict(pod)


def _told(what: str, status: int, text: str, headers: tuple[tuple[str, str], ...], cluster: Cluster) -> Response:
    """An answer that no pod has given."""
    cluster.count(what)
    return Response(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), f"{text}\n".encode())


def _send(connection: HTTPConnection, request: Request, deadline: float) -> None:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
    headers |= {"K-Proxy-Request": "activator", "Connection": "close", "Content-Length": str(len(request.body))}
    path = f"{request.path}?{request.query}" if request.query else request.path
    connection.timeout = _left(deadline)
    try:
        connection.connect()
        connection.request(request.method, path, request.body, headers)
    except TimeoutError as error:
        raise _Late from error
    except OSError as error:
        raise _Broken(f"dial tcp: {error.strerror or error}".lower()) from error


def _begun(connection: HTTPConnection, request: Request, deadline: float) -> HTTPResponse:
    """The pod's answer, as soon as it begins. ``ClientGone`` as soon as nobody waits for it."""
    sock = connection.sock
    client: socket.socket = request.environ["werkzeug.socket"]
    watched: list[Any] = [sock, client]
    while True:
        readable, _, _ = select.select(watched, [], [], _left(deadline))
        if sock in readable:
            break
        if client in readable:
            if is_gone(request):
                raise ClientGone
            watched = [sock]  # it has sent its next request already
    with _translated():
        sock.settimeout(_left(deadline))
        return connection.getresponse()


def _parts(sock: socket.socket, answer: HTTPResponse, request: Request, deadline: float) -> Iterator[bytes]:
    """What the pod answers, as it comes. ``ClientGone`` when nobody waits for it any more."""
    over, gone = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK):
            if is_gone(request):
                gone.set()
                with suppress(OSError):  # it has ended by itself
                    sock.shutdown(socket.SHUT_RDWR)
                return

    if answer.chunked:  # others come at once
        threading.Thread(target=watch, name="client", daemon=True).start()
    try:
        with _translated():
            while data := answer.read1(_CHUNK):
                yield data
                sock.settimeout(_left(deadline))
            if answer.length:
                raise _Broken("unexpected EOF")
    except _Broken:
        if gone.is_set():
            raise ClientGone from None
        raise
    finally:
        over.set()


def _held(stack: ExitStack, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts, with the stack closed behind them; the first is empty, so that it has begun."""
    with stack:
        yield b""
        yield from parts


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise _Late from error
    except (OSError, HTTPException) as error:
        raise _Broken("EOF") from error


def _left(deadline: float) -> float:
    """Seconds until then. ``_Late`` if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise _Late
    return left
