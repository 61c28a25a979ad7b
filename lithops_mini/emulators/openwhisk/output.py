"""What a container prints, cut into the logs of its activations at the markers that end each."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Literal

MARKER = b"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
"""What a container prints on both streams after each activation."""

MISSING = "There was an issue while collecting your logs. Data might be missing."
INCOMPLETE = "The action did not initialize or run as expected. Log data might be missing."

_LINE = 16 << 10  # bytes: longer lines are cut, as by Docker's log
_QUIET = 2.0  # seconds without a line, after which markers are not waited for any more

Stream = Literal["stdout", "stderr"]


class Output:
    """The lines of a container. ``limit``: bytes of the log of an activation; what is more is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._partial = {"stdout": b"", "stderr": b""}
        self._complete: list[list[str]] = []  # logs that both markers have ended
        self._lines: list[str] = []
        self._size = 0
        self._markers = 0
        self._count = 0  # lines since the beginning, so that it is noticed when one comes
        self._ended = False

    def feed(self, stream: Stream, data: bytes) -> None:
        """More that was printed."""
        with self._changed:
            *lines, rest = (self._partial[stream] + data).split(b"\n")
            while len(rest) > _LINE:
                lines.append(rest[:_LINE])
                rest = rest[_LINE:]
            self._partial[stream] = rest
            for line in lines:
                for start in range(0, max(len(line), 1), _LINE):
                    self._add(stream, line[start : start + _LINE])
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will be printed."""
        with self._changed:
            for stream in ("stdout", "stderr"):
                if self._partial[stream]:
                    self._add(stream, self._partial[stream])
            self._ended = True
            self._changed.notify_all()

    def collect(self) -> list[str]:
        """The log of an activation that has answered: up to its markers."""
        if not self._limit:
            return []
        with self._changed:
            while not self._complete and not self._ended:
                before = self._count
                if not self._changed.wait_for(lambda: self._count != before or self._ended, _QUIET):  # noqa: B023
                    break
            if self._complete:
                return self._complete.pop(0)
            return [*self._take(), line("stderr", MISSING)]

    def collect_rest(self) -> list[str]:
        """The log of an activation that has failed, and whose container has been ended."""
        if not self._limit:
            return []
        with self._changed:
            self._changed.wait_for(lambda: self._ended, _QUIET)
            found = [each for log in self._complete for each in log]
            return [*found, *self._take(), line("stderr", INCOMPLETE)]

    def _add(self, stream: str, text: bytes) -> None:
        self._count += 1
        if MARKER in text:
            self._markers += 1
            if self._markers == 2:
                if self._limit:
                    self._complete.append(self._take())
                self._markers, self._size = 0, 0
            return
        if self._size > self._limit:
            return
        self._size += len(text) + 1
        if self._size <= self._limit:
            self._lines.append(line(stream, text.decode(errors="replace").removesuffix("\r")))
        elif self._limit:
            warning = f"Logs were truncated because the total bytes size exceeds the limit of {self._limit} bytes."
            self._lines.append(line("stderr", warning))

    def _take(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken


def line(stream: str, text: str) -> str:
    """A line of a log, of this moment."""
    nanoseconds = time.time_ns()
    moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{f'{moment}.{nanoseconds % 10**9:09}Z':<30} {stream}: {text}"
