"""A connection with TLS that one thread reads while others write."""

from __future__ import annotations

import select
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Duplex:
    """Wraps a connected socket; has what is used of one.

    OpenSSL's state is one for both directions, so no two threads may be in it at once, and nobody may wait in there.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._lock = threading.Lock()

    def recv(self, most: int) -> bytes:
        """Wait for data; empty when the connection has ended."""
        return self._when_ready(lambda: self._connection.recv(most))

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            sending = left
            left = left[self._when_ready(lambda: self._connection.send(sending)) :]  # noqa: B023 - called at once

    def _when_ready(self, act: Callable[[], T]) -> T:
        while True:
            try:
                with self._lock:
                    return act()
            except ssl.SSLWantReadError:
                select.select([self._connection], [], [])
            except ssl.SSLWantWriteError:
                select.select([], [self._connection], [])

    def shutdown(self, how: int) -> None:
        self._connection.shutdown(how)

    def close(self) -> None:
        self._connection.close()
