"""What calls have printed in pods, as Kubernetes has it: while they run, and as long as the pods are there."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from lithops_mini.errors import ConfigError, InvocationError
from lithops_mini.runtimes.cluster import Cluster

logger = logging.getLogger("lithops_mini.knative")

Take = Callable[[str, int, str], object]

_LINES = 1000  # that are shown of what a pod has printed before
_SILENCE = 15.0  # seconds after which a log is asked for again
_AGAIN = 1.0  # seconds until that is done where there is none, or pods cannot be listed
_LINE = re.compile(r"(\S+) call (\d+): (.*)", re.DOTALL)


def read(cluster: Cluster, job: str, call: int, since: float) -> Iterator[str]:
    """Yield the lines that a call has printed since a time, in seconds since the epoch, in pods that are there.

    Of a container that has ended only the last one of its pod has a log. Raises ``ConfigError`` and
    ``InvocationError``.
    """
    seconds = max(1, int(time.time() - since) + 1)
    _, pods = next(iter(cluster.all_pods()))
    lines: list[tuple[str, str]] = []
    for pod in pods:
        for previous in (True, False):
            lines += cluster.log(pod, previous=previous, seconds=seconds)
    for _, line in sorted(lines, key=lambda each: each[0]):
        if (found := _LINE.fullmatch(line)) and (found[1], int(found[2])) == (job, call):
            yield found[3]


@contextmanager
def tail(cluster: Cluster, take: Take) -> Iterator[None]:
    """Give ``take`` job, call and line of what is printed in all pods, and of their last lines before.

    Raises ``ConfigError`` and ``InvocationError``.
    """
    followed = _Tail(cluster, take)
    followed.begin(next(iter(cluster.all_pods()))[1])
    thread = threading.Thread(target=followed.watch, name="lithops_mini-tail", daemon=True)
    thread.start()
    try:
        yield
    finally:
        followed.close()


class _Tail:
    """A thread for each pod, which waits for its next line."""

    def __init__(self, cluster: Cluster, take: Take) -> None:
        self._cluster = cluster
        self._take = take
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._there: set[str] = set()
        self._followed: set[str] = set()

    def close(self) -> None:
        """Take nothing any more. Threads end when they next look."""
        with self._lock:
            self._closed.set()

    def begin(self, pods: Iterable[str]) -> None:
        """Follow these pods, which are all there are."""
        with self._lock:
            self._there = set(pods)
            new = self._there - self._followed
            self._followed |= new
        for pod in new:
            threading.Thread(target=self._follow, args=(pod,), name="lithops_mini-log", daemon=True).start()

    def watch(self) -> None:
        """Follow new pods too, until it is closed."""
        while not self._closed.is_set():
            try:
                for _, pods in self._cluster.all_pods():
                    self.begin(pods)
            except (ConfigError, InvocationError) as error:
                if self._closed.is_set():
                    return
                logger.warning("nobody sees now whether there are new pods: %s", error)
                self._closed.wait(_AGAIN)

    def _follow(self, pod: str) -> None:
        """Take what a pod prints until it is gone."""
        last = ""  # the time of the last line, in an order that texts have too
        while not self._closed.is_set() and pod in self._there:
            try:
                for stamp, line in self._cluster.follow_log(pod, _LINES, _SILENCE):
                    if stamp > last:
                        last = stamp
                        self._taken(line)
            except ConfigError as error:
                logger.warning("the log of the pod %s tells nothing: %s", pod, error)
                return
            self._closed.wait(_AGAIN)

    def _taken(self, line: str) -> None:
        if found := _LINE.fullmatch(line):
            with self._lock:
                if not self._closed.is_set():
                    self._take(found[1], int(found[2]), found[3])
