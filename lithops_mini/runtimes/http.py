"""Requests that can be broken off: an answer may take minutes, and who cancels a call will not wait for it.

requests and urllib3 offer no way to do that. What is used here of urllib3's inside has had these names since its
version 1.26.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection

# Seconds without a word after which a connection is tried, between two tries, and how many: a peer that is gone is
# noticed, and devices in between do not forget a connection on which somebody waits.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Exchange:
    """One request and its answer, to be broken off by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._cut = False

    def cut(self) -> None:
        """Break it off, now or when it has a connection. One that has its answer is left alone."""
        with self._lock:
            self._cut = True
            self._shut()

    def uses(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection
            connection.exchange = self
            if self._cut:
                self._shut()

    def over(self) -> None:
        """The connection may be another's from now on."""
        with self._lock:
            self._connection = None

    def _shut(self) -> None:
        there = None if self._connection is None else self._connection.sock
        if there is not None and self._connection.exchange is self:
            with suppress(OSError):  # it has ended by itself
                # Not TLS's own: that would take from the thread that reads what it reads with.
                socket.socket.shutdown(there, socket.SHUT_RDWR)


class Client:
    """Sends requests, from many threads at once, over connections that are kept.

    Of the environment it heeds the proxies; neither a .netrc nor other files of certificates.
    """

    def __init__(self, connections: int, verify: bool | str = True) -> None:
        """``connections``: how many are kept. ``verify``: whether certificates are checked, or the file of those to
        trust.
        """
        self._verify = verify
        self._lock = threading.Lock()
        self._under_way: set[Exchange] = set()
        self._ended = False
        self._adapter = _Adapter(pool_connections=8, pool_maxsize=connections)
        self._way = lru_cache(maxsize=1024)(_way)

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | None,
        timeout: tuple[float, float],
        exchange: Exchange | None = None,
    ) -> Iterator[requests.Response]:
        """Within the ``with`` block there is the answer, whose body has not been read yet, and no redirect followed.

        ``timeout``: seconds to connect, and of silence. Raises what requests and urllib3 raise.
        """
        exchange = exchange or Exchange()
        with self._lock:
            self._under_way.add(exchange)
            if self._ended:
                exchange.cut()
        _current.exchange = exchange
        try:
            # Not by a session, which takes as long to think of cookies, of a .netrc and of redirects as all the rest.
            way = self._way(url)
            request = requests.PreparedRequest()
            request.method, request.url, request.body = method, way.url, data
            length = {} if data is None else {"Content-Length": str(len(data))}
            request.headers = CaseInsensitiveDict(headers, **length)
            response = self._adapter.send(
                request, stream=True, timeout=timeout, verify=self._verify, proxies=way.proxies
            )
            with response:
                yield response
        finally:
            _current.exchange = None
            exchange.over()
            with self._lock:
                self._under_way.discard(exchange)

    def end(self) -> None:
        """Break off what is under way, and whatever is sent later."""
        with self._lock:
            self._ended = True
            left = list(self._under_way)
        for exchange in left:
            exchange.cut()
        self._adapter.close()


@dataclass(frozen=True)
class _Way:
    """A URL as it is sent, and the proxies to it that the environment names."""

    url: str
    proxies: Mapping[str, str]


def _way(url: str) -> _Way:
    prepared = requests.Request("GET", url).prepare()
    assert prepared.url is not None
    return _Way(prepared.url, get_environ_proxies(prepared.url))


_current = threading.local()  # the exchange of this thread


class _Adapter(HTTPAdapter):
    """Keeps connections alive, and lets exchanges know theirs."""

    def init_poolmanager(self, *arguments: Any, **settings: Any) -> None:
        keep = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        keep += [
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in _KEEP_ALIVE.items()
            if hasattr(socket, name)
        ]
        options = [*HTTPConnection.default_socket_options, *keep]
        super().init_poolmanager(*arguments, **{**settings, "socket_options": options})
        self._classes = {name: _telling(pool) for name, pool in self.poolmanager.pool_classes_by_scheme.items()}
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **settings)
        manager.pool_classes_by_scheme = self._classes
        return manager


def _telling(pool: Any) -> Any:
    """The class of pools whose connections tell the thread's exchange that they are what it uses."""
    kind = pool.ConnectionCls

    def connect(connection: Any) -> None:
        kind.connect(connection)
        _tell(connection)

    def putrequest(connection: Any, *arguments: Any, **settings: Any) -> Any:
        _tell(connection)
        return kind.putrequest(connection, *arguments, **settings)

    known = type(kind.__name__, (kind,), {"connect": connect, "putrequest": putrequest})
    return type(pool.__name__, (pool,), {"ConnectionCls": known})


def _tell(connection: Any) -> None:
    if (exchange := getattr(_current, "exchange", None)) is not None:
        exchange.uses(connection)
