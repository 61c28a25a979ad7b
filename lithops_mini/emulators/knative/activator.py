"""The way of a call: from the ingress, by its Host header, to a pod of a revision and back."""

from __future__ import annotations

import select
import socket
import time
from http.client import HTTPConnection, HTTPException
from typing import Any

from lithops_mini.emulators.front import Request, Response
from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.connections import Cut, is_gone
from lithops_mini.emulators.knative.controller import Controller
from lithops_mini.emulators.knative.pod import Pod
from lithops_mini.emulators.knative.scale import ClientGone, NoPod, QueueFull, Scale, TookTooLong

DOMAIN = "localhost"
"""What the host of each service ends with, after its name and its namespace."""

_CHUNK = 1 << 16
_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


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
        try:
            response = self._forwarded(scale, pod, request, deadline)
        finally:
            scale.give(pod)
        if cluster.dice.falls("cut"):
            cluster.count("cut")
            raise Cut
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

    def _forwarded(self, scale: Scale, pod: Pod, request: Request, deadline: float) -> Response:
        crash = self._cluster.dice.crash()
        try:
            if pod.sandbox is None:
                raise _Broken("connection refused")
            connection = HTTPConnection(*pod.sandbox.address)
            try:
                _send(connection, request, deadline)
                if crash == "event":
                    self._crash(scale, pod)
                response = _receive(connection, request, deadline)
            finally:
                connection.close()
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
        return response

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


def _receive(connection: HTTPConnection, request: Request, deadline: float) -> Response:
    """The pod's answer. ``ClientGone`` as soon as nobody waits for it, which ends the connection to the pod."""
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
    try:
        sock.settimeout(_left(deadline))
        response = connection.getresponse()
        body = bytearray()
        while data := response.read1(_CHUNK):
            body += data
            sock.settimeout(_left(deadline))
        if response.length:
            raise _Broken("unexpected EOF")
    except TimeoutError as error:
        raise _Late from error
    except (OSError, HTTPException) as error:
        raise _Broken("EOF") from error
    headers = tuple((name, value) for name, value in response.getheaders() if name.lower() not in _HOP)
    return Response(response.status, headers, bytes(body))


def _left(deadline: float) -> float:
    """Seconds until then. ``_Late`` if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise _Late
    return left
