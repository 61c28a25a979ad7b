"""What calls have printed in functions of AWS Lambda, as CloudWatch Logs has it: while they run, and after them."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from lithops_mini.runtimes.aws import AWS_ERRORS, connections, passes, problem, translated

logger = logging.getLogger("lithops_mini.aws_lambda")

Take = Callable[[str, int, str], object]

# No invocation lasts longer, in seconds: what a running call has printed is no older.
_LONGEST = 900
# By so many seconds may lines be there later than others of the same time.
_LATE = 15
# Seconds between two requests: more each time that there is nothing new.
_LEAST, _GROWTH, _MOST = 0.5, 1.5, 5.0
_LINE = re.compile(r"(\S+) call (\d+): (.*)", re.DOTALL)
# Of each partition of AWS: where its console is, and what the names of its services end with.
_CONSOLES = {
    "aws": ("console.aws.amazon.com", "amazonaws.com"),
    "aws-cn": ("console.amazonaws.cn", "amazonaws.com.cn"),
    "aws-us-gov": ("console.amazonaws-us-gov.com", "amazonaws.com"),
}


def console_url(client: Any, group: str, stream: str = "") -> str | None:
    """The page of a group of logs, or of a stream in it, in AWS's console; ``None`` if the service is not AWS's own."""
    partition, region = client.meta.partition, client.meta.region_name
    console, suffix = _CONSOLES.get(partition, ("", ""))
    if not console or not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(f".{suffix}"):
        return None
    page = f"log-groups/log-group/{_encoded(group)}" + (f"/log-events/{_encoded(stream)}" if stream else "")
    return f"https://{console}/cloudwatch/home?region={region}#logsV2:{page}"


def _encoded(name: str) -> str:
    """As the console wants names in its addresses: encoded twice, with another sign the second time."""
    return quote(quote(name, safe=""), safe="").replace("%", "$")


def read(client: Any, group: str, job: str, call: int, since: float) -> Iterator[str]:
    """Yield the lines that a call has printed since a time, in seconds since the epoch. Raises ``ConfigError`` and
    ``InvocationError``.
    """
    events = []
    with translated(f"read the log group {group}"):
        for page in _pages(client, group, since, f'"{job} call {call}:"'):
            events += page["events"]
    for event in sorted(events, key=_time):
        if (found := _parsed(event)) and found[:2] == (job, call):
            yield found[2]


@contextmanager
def tail(client: Any, group: str, take: Take) -> Iterator[None]:
    """Give ``take`` job, call and line of what is printed, and of what running calls may have printed before.

    ``client`` must not repeat requests by itself, and is of no use afterwards. Raises ``ConfigError`` and
    ``InvocationError``.
    """
    followed = _Tail(client, group, take)
    with translated(f"read the log group {group}"):
        followed.begin()
    thread = threading.Thread(target=followed.follow, name="lithops_mini-tail", daemon=True)
    thread.start()
    try:
        yield
    finally:
        followed.close()
        thread.join()


class _Tail:
    """What has been read of a group."""

    def __init__(self, client: Any, group: str, take: Take) -> None:
        self._client = client
        self._connections = connections(client)
        self._group = group
        self._take = take
        self._closed = threading.Event()
        self._since = time.time() - _LONGEST
        self._seen: dict[str, float] = {}  # ids of entries, with their times: of those that are found again

    def close(self) -> None:
        self._closed.set()
        self._connections.end()
        self._client.close()

    def begin(self) -> None:
        """Look once. Raises what the SDK raises if it is of no use to look again."""
        try:
            self._look()
        except AWS_ERRORS as error:
            if not passes(error):
                raise

    def follow(self) -> None:
        """Look until it is closed."""
        pause = _LEAST
        while not self._closed.wait(pause):
            try:
                pause = _LEAST if self._look() else min(_MOST, pause * _GROWTH)
            except AWS_ERRORS as error:
                if self._closed.is_set():
                    return
                if not passes(error):
                    logger.warning("the log group %s tells no more: %s", self._group, problem(error))
                    return
                logger.debug("the log group %s is asked again: %s", self._group, problem(error))
                pause = _MOST

    def _look(self) -> bool:
        """Take what is new; return whether there was anything."""
        new = 0
        for page in _pages(self._client, self._group, self._since, "call"):
            for event in sorted(page["events"], key=_time):
                if event["eventId"] in self._seen:
                    continue
                if self._closed.is_set():
                    return False
                self._seen[event["eventId"]] = _time(event)
                new += 1
                if found := _parsed(event):
                    self._take(*found)
        if new:
            self._since = max(self._since, max(self._seen.values()) - _LATE)
            self._seen = {name: at for name, at in self._seen.items() if at >= self._since}
        return new > 0


def _pages(client: Any, group: str, since: float, pattern: str) -> Iterator[Mapping[str, Any]]:
    pages = client.get_paginator("filter_log_events")
    yield from pages.paginate(logGroupName=group, startTime=int(since * 1000), filterPattern=pattern)


def _time(event: Mapping[str, Any]) -> float:
    """Seconds since the epoch."""
    return float(event["timestamp"]) / 1000


def _parsed(event: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Job, call and line of an entry; ``None`` if it is none of a call's."""
    found = _LINE.fullmatch(event["message"].removesuffix("\n"))
    return (found[1], int(found[2]), found[3]) if found else None
