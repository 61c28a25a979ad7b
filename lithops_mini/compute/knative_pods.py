"""Pods of services: how they have ended, and who lies on one that has."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lithops_mini.compute.inbox import Awaited
from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import knative_ready
from lithops_mini.runtimes.api_server import Object
from lithops_mini.runtimes.cluster import Cluster
from lithops_mini.runtimes.knative_ready import End

logger = logging.getLogger("lithops_mini.knative")

_SHOWN = 5  # lines of a log
_AGAIN = 1.0  # seconds until pods are listed again, if that has failed


def told(cluster: Cluster, end: End) -> str:
    """How a container has ended: its pod, why, and what it has printed last."""
    said = end.message
    if not said:
        try:
            said = "\n".join(line for _, line in cluster.log(end.pod, previous=True, lines=_SHOWN))
        except (ConfigError, InvocationError) as error:
            logger.info("nobody knows what %s has printed last: %s", end.pod, error)
    lines = [line for line in said.splitlines() if line.strip()][-_SHOWN:]
    words = f", and had printed: {' | '.join(lines)}" if lines else ""
    return f"the container of the pod {end.pod} ended with exit code {end.code} ({end.reason}){words}"


@dataclass(eq=False)
class Watched:
    """A message that a pod works on."""

    pod: str
    since: float  # of the pod's clock: when it began
    awaited: Awaited
    at: float  # monotonic: when that was known
    seen: bool = False  # the pod, in a list
    end: InvocationError | None = None  # why no reply comes any more, but for one that is there already


class PodWatch:
    """Tells those who await replies from pods when there is nobody left to reply. One thread, while anybody does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._condition = threading.Condition()
        self._messages: list[Watched] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watching(self, pod: str, since: float, awaited: Awaited) -> Iterator[Watched]:
        """Within the ``with`` block, the end of the pod, or of its container, is an end of waiting."""
        message = Watched(pod, since, awaited, time.monotonic())
        with self._condition:
            self._messages.append(message)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._watch_forever, name="lithops_mini-pods", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        try:
            yield message
        finally:
            with self._condition:
                self._messages.remove(message)

    def close(self) -> None:
        """Watch no more, nor ask the cluster for anything. May be called again."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            thread, self._thread = self._thread, None
        self._cluster.close()
        if thread is not None:
            thread.join()

    def _watch_forever(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._messages)
                if self._closed:
                    return
            try:
                for began, pods in self._cluster.all_pods():
                    self._look(began, pods)
            except (ConfigError, InvocationError) as error:
                # They go on, whether or not we see them.
                if not self._closed:
                    logger.warning("nobody sees now whether pods live: %s", error)
                with self._condition:
                    self._condition.wait_for(lambda: self._closed, _AGAIN)

    def _look(self, began: float, pods: Mapping[str, Object]) -> None:
        """Compare with how all pods are, which were listed at a time, and have been watched since."""
        with self._condition:
            messages = [each for each in self._messages if each.end is None]
        for message in messages:
            pod = pods.get(message.pod)
            if pod is None:
                if message.seen or message.at < began:
                    self._lost(message, f"the pod {message.pod} is gone", Reason.DIED)
                continue
            message.seen = True
            if (end := knative_ready.end_since(pod, message.since)) is not None:
                reason = Reason.OUT_OF_MEMORY if end.is_out_of_memory else Reason.DIED
                self._lost(message, told(self._cluster, end), reason)

    def _lost(self, message: Watched, text: str, reason: Reason) -> None:
        message.end = InvocationError(text, reason=reason, retryable=True)
        message.awaited.wake()
