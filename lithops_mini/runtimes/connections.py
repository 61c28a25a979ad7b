"""The connections of urllib3's pools, to break off: an answer may take minutes, and who closes will not wait for it.

urllib3 offers no way to do that. What is used here of its inside has had these names since its version 1.11.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from typing import Any


class Connections:
    """Those that pools of these classes open from now on."""

    def __init__(self, pool_classes: dict[str, Any]) -> None:
        """``pool_classes``: of a pool manager, by scheme; they are replaced."""
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended = False
        for scheme, pool in pool_classes.items():
            kind = pool.ConnectionCls
            known = type(kind.__name__, (kind,), {"connect": self._connecting(kind)})
            pool_classes[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": known})

    def _connecting(self, kind: Any) -> Any:
        def connect(connection: Any) -> None:
            kind.connect(connection)
            with self._lock:
                self._open.add(connection)
                if self._ended:
                    _shut(connection)

        return connect

    def end(self) -> None:
        """Break off what is under way, and whatever is begun later."""
        with self._lock:
            self._ended = True
            for connection in self._open:
                _shut(connection)


def _shut(connection: Any) -> None:
    if (there := connection.sock) is not None:
        with suppress(OSError):  # it has ended by itself
            # Not TLS's own: that would take from the thread that reads what it reads with.
            socket.socket.shutdown(there, socket.SHUT_RDWR)
