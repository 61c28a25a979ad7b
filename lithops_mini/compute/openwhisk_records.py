"""Which activations of OpenWhisk have ended: one thread asks for all that are waited for, in one listing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from lithops_mini.compute.inbox import Awaited
from lithops_mini.errors import InvocationError
from lithops_mini.runtimes.openwhisk_service import SERVICE_ERRORS, Service, passes

logger = logging.getLogger("lithops_mini.openwhisk")

# Seconds between two looks: a share of the time in which none was found, but neither less nor more than these, and
# so many times what a look takes.
_LEAST, _SHARE, _MOST, _LOAD = 0.5, 0.1, 5.0, 4.0
# Seconds by which the service's clock may be behind ours.
_SKEW = 60.0


class _Watched(NamedTuple):
    action: str
    sent: float  # since the epoch
    awaited: Awaited
    successes: bool


class Records:
    """Wakes those who wait for activations that have ended. Its thread starts when there is one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._condition = threading.Condition()
        self._watched: dict[str, _Watched] = {}  # by activation
        self._quiet_since = 0.0  # monotonic: when something was last sent, or found
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def watch(self, action: str, activation: str, awaited: Awaited, *, successes: bool) -> Iterator[None]:
        """Within the ``with`` block ``awaited`` is woken when there is a record of the activation, or no way to know.

        ``successes``: whether also if it has not failed.
        """
        with self._condition:
            self._watched[activation] = _Watched(action, time.time(), awaited, successes)
            self._quiet_since = time.monotonic()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._look_forever, name="lithops_mini-records", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._watched.pop(activation, None)

    def close(self, error: InvocationError) -> None:
        """Who still waits is told that. May be called again."""
        with self._condition:
            self._closed = True
            for each in self._watched.values():
                each.awaited.tell(error)
            self._condition.notify_all()

    def _look_forever(self) -> None:
        took = 0.0
        while True:
            with self._condition:
                while not self._closed and not self._watched:
                    self._condition.wait()
                pause = max(_LOAD * took, min(_MOST, max(_LEAST, _SHARE * (time.monotonic() - self._quiet_since))))
                if self._condition.wait_for(lambda: self._closed, pause):
                    return
                watched = dict(self._watched)
            began = time.monotonic()
            for action in {each.action for each in watched.values()}:
                self._look(action, {name: each for name, each in watched.items() if each.action == action})
            took = time.monotonic() - began

    def _look(self, action: str, watched: Mapping[str, _Watched]) -> None:
        left = dict(watched)
        since = min(each.sent for each in left.values()) - _SKEW
        try:
            for summary in self._service.activations(action, since, docs=False):
                found = left.pop(summary["activationId"], None)
                if found is not None:
                    self._wake(summary["activationId"], found, failed=summary.get("statusCode") != 0)
                if not left:
                    return
        except (*SERVICE_ERRORS, ValueError, LookupError) as error:
            if self._closed:
                return
            # Whoever waits does so up to a time of its own.
            logger.info("the activations of %s cannot be listed now: %s", action, error)
            if not (isinstance(error, SERVICE_ERRORS) and passes(error)):
                for name, each in left.items():
                    self._wake(name, each, failed=True)

    def _wake(self, activation: str, ended: _Watched, *, failed: bool) -> None:
        with self._condition:
            self._watched.pop(activation, None)
            self._quiet_since = time.monotonic()
        if failed or ended.successes:
            ended.awaited.wake()
