"""The log of a sandbox, kept in CloudWatch Logs as Lambda keeps it."""

from __future__ import annotations

import secrets
import threading
import time

from moto.logs.models import LogStream, logs_backends

from lithops_mini.emulators.aws import permissions
from lithops_mini.emulators.aws.account import ACCOUNT
from lithops_mini.emulators.aws.functions import Function

TAIL = 4096
"""Bytes of the log that come with a reply, if they are asked for."""


_making = threading.Lock()  # groups and streams


class Log:
    """The log stream of one sandbox, in its function's group: written as far as the function's role permits it."""

    def __init__(self, function: Function) -> None:
        self._backend = logs_backends[ACCOUNT][function.region]
        self._group = function.log_group
        self._role = function.role
        self._stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/{function.log_streams}{secrets.token_hex(16)}"
        self._arn = f"arn:aws:logs:{function.region}:{ACCOUNT}:log-group:{self._group}:log-stream"
        self._lock = threading.Lock()
        self._partial = b""
        self._tail = b""

    @property
    def stream(self) -> str:
        return self._stream

    def begin(self) -> None:
        """Forget the tail: another invocation begins."""
        with self._lock:
            self._tail = b""

    def write(self, data: bytes) -> None:
        """Add bytes: each complete line is an event."""
        with self._lock:
            self._tail = (self._tail + data)[-TAIL:]
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._put([line + b"\n" for line in lines])

    def end_line(self) -> None:
        """What has been written of a line is a line."""
        with self._lock:
            if self._partial:
                self._put([self._partial])
                self._tail = (self._tail + b"\n")[-TAIL:]
                self._partial = b""

    def tail(self) -> bytes:
        """The last bytes of the invocation's log."""
        with self._lock:
            return self._tail

    def _put(self, lines: list[bytes]) -> None:
        if not lines or not self._is_there() or not self._may("PutLogEvents", self._stream):
            return
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line.decode(errors="replace")} for line in lines]
        self._backend.put_log_events(self._group, self._stream, events)

    def _is_there(self) -> bool:
        """Make group and stream if they are missing, be it that a user has deleted them; whether they are there."""
        with _making:
            if self._group not in self._backend.groups:
                if not self._may("CreateLogGroup", ""):
                    return False
                self._backend.ensure_log_group(self._group)
            group = self._backend.groups[self._group]
            if self._stream not in group.streams:
                if not self._may("CreateLogStream", self._stream):
                    return False
                # Another dictionary: somebody may be going through this one.
                group.streams = {**group.streams, self._stream: LogStream(group, self._stream)}
            return True

    def _may(self, action: str, stream: str) -> bool:
        policies = permissions.role_policies(self._role)
        return permissions.permits(policies, f"logs:{action}", f"{self._arn}:{stream}", {})
