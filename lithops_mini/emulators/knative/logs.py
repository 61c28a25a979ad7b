"""What containers print, as the API server gives it out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lithops_mini.emulators.front import Request, Response
from lithops_mini.emulators.knative.asked import Asked
from lithops_mini.emulators.knative.connections import Stream, is_gone

_LIMIT = 10 << 20  # bytes that are kept, as kubelet does
_LOOK = 1.0  # seconds between looks whether who follows is still there
_TEXT = (("Content-Type", "text/plain"),)


@dataclass(frozen=True)
class Line:
    number: int
    time: datetime
    text: bytes  # with its end, if it has one


class Log:
    """The lines of one container; those of the beginning are lost when there are too many."""

    def __init__(self) -> None:
        self._written = threading.Condition()
        self._lines: deque[Line] = deque()
        self._size = 0
        self._next = 0
        self._ended = False

    def write(self, data: bytes) -> None:
        """Add what has been printed; a line may come in pieces."""
        with self._written:
            for part in data.splitlines(keepends=True):
                if self._lines and not self._lines[-1].text.endswith(b"\n"):
                    last = self._lines.pop()
                    part, number, stamp = last.text + part, last.number, last.time
                    self._size -= len(last.text)
                else:
                    number, stamp = self._next, datetime.now(UTC)
                    self._next += 1
                self._lines.append(Line(number, stamp, part))
                self._size += len(part)
            while self._size > _LIMIT and len(self._lines) > 1:
                self._size -= len(self._lines.popleft().text)
            self._written.notify_all()

    def end(self) -> None:
        """Nothing more is printed."""
        with self._written:
            self._ended = True
            self._written.notify_all()

    def lines(self) -> list[Line]:
        with self._written:
            return list(self._lines)

    def tail(self, size: int) -> str:
        """The last bytes, decoded."""
        return b"".join(each.text for each in self.lines())[-size:].decode(errors="replace")

    def follow(self, after: int, request: Request) -> Iterator[Line]:
        """Lines after the one of this number as they become whole, until the end or until the client has gone."""
        while True:
            with self._written:
                whole = [each for each in self._lines if each.number > after]
                if not self._ended:
                    whole = [each for each in whole if each.text.endswith(b"\n")]
                    if not whole:
                        self._written.wait(_LOOK)
                elif not whole:
                    return
            yield from whole
            after = whole[-1].number if whole else after
            if is_gone(request):
                return


def answer(log: Log, asked: Asked) -> Response:
    """Lines of a log, as the query wants them."""
    lines = log.lines()
    if (seconds := asked.number("sinceSeconds")) is not None:
        oldest = datetime.now(UTC) - timedelta(seconds=seconds)
        lines = [each for each in lines if each.time >= oldest]
    if (count := asked.number("tailLines")) is not None:
        lines = lines[-count:] if count else []
    stamped = asked.flag("timestamps")
    if not asked.flag("follow"):
        body = b"".join(_shown(each, stamped) for each in lines)
        limit = asked.number("limitBytes")
        return Response(200, _TEXT, body if limit is None else body[:limit])
    if lines and not lines[-1].text.endswith(b"\n"):
        lines = lines[:-1]
    return Stream(200, _TEXT, parts=_followed(log, lines, stamped, asked.request))


def _followed(log: Log, lines: list[Line], stamped: bool, request: Request) -> Iterator[bytes]:
    last = -1 if lines else max((each.number for each in log.lines()), default=-1)
    for each in lines:
        last = each.number
        yield _shown(each, stamped)
    for each in log.follow(last, request):
        yield _shown(each, stamped)


def _shown(line: Line, stamped: bool) -> bytes:
    stamp = line.time.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() if stamped else b""
    return stamp + line.text
