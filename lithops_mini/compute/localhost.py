"""Calls in warm processes of this machine."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import ClassVar

from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.scratch import Scratch
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker.supervisor import Supervisor

# What an idle worker has time for when it is asked to end, in seconds.
_GRACE = 0.3


@dataclass(frozen=True)
class LocalhostOptions:
    """Settings of the localhost compute backend."""

    max_workers: int | None = field(
        default=None,
        metadata={"help": "Worker processes; by default one for each processor this process may use.", "ge": 1},
    )
    python: str | None = field(
        default=None, metadata={"help": "Interpreter of the workers; by default the one that runs the client."}
    )


class LocalhostCompute(ComputeBackend):
    """A pool of supervised runners, started as they are needed and kept until ``close``."""

    Options = LocalhostOptions
    # Pipes have no limit; what is larger is written to storage once and read there, instead of copied twice.
    max_payload = 1 << 20
    max_reply = 1 << 20
    shares_files: ClassVar[bool] = True
    shows_output: ClassVar[bool] = True

    def __init__(self, options: LocalhostOptions) -> None:
        self._concurrency = options.max_workers or len(os.sched_getaffinity(0))
        self._scratch = Scratch()
        self._environment: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._all = [
            Supervisor(f"localhost/{n}", self._scratch.path, python=options.python, environment=self._environment)
            for n in range(self._concurrency)
        ]
        self._idle = list(reversed(self._all))

    @property
    def concurrency(self) -> int:
        return self._concurrency

    def deploy(self, needs: WorkerNeeds) -> None:
        self._environment.update(needs.environment)
        # One process warms up while the client still prepares; the others start when there is work for them.
        self._all[0].start()

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        with self._lock:
            if self._closed:
                raise InvocationError("the localhost backend was closed", reason=Reason.CANCELLED)
            if not self._idle:
                raise InvocationError(
                    f"all {self._concurrency} worker processes are busy", reason=Reason.THROTTLED, retryable=True
                )
            # The one used last is the warmest.
            supervisor = self._idle.pop()
        activation.stoppable(supervisor.cancel)
        try:
            return supervisor.run(payload, activation.deliver)
        finally:
            activation.end()
            supervisor.forget_cancelled()
            with self._lock:
                self._idle.append(supervisor)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asked = [runner for supervisor in self._all if (runner := supervisor.retire()) is not None]
        deadline = time.monotonic() + _GRACE
        for runner in asked:
            runner.finish(deadline - time.monotonic())
        self._scratch.close()
