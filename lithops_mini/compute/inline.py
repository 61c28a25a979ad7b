"""Calls in the client's own process, one after the other: for debuggers, tests and explanations.

Nothing is isolated here: a call that ends its process ends the client, and nothing stops a call that runs too long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lithops_mini import wire
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker.call import Jobs, set_environment


@dataclass(frozen=True)
class InlineOptions:
    """The inline backend has no settings."""


class InlineCompute(ComputeBackend):
    """Runs each message where it is sent from."""

    Options = InlineOptions
    max_payload = 1 << 20
    max_reply = 1 << 20
    shares_files: ClassVar[bool] = True
    shows_output: ClassVar[bool] = True
    isolates: ClassVar[bool] = False
    stops = False

    def __init__(self, options: InlineOptions) -> None:
        self._jobs = Jobs(None)
        self._environment: Mapping[str, str] = {}
        self._one = threading.Lock()
        self._closed = False

    @property
    def concurrency(self) -> int:
        return 1

    def deploy(self, needs: WorkerNeeds) -> None:
        self._environment = needs.environment

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        with self._one:
            if self._closed:
                raise InvocationError("the inline backend was closed", reason=Reason.CANCELLED)
            # Arrays among the arguments become views of the message, and a function may write to them.
            restore = set_environment(self._environment)
            try:
                outcomes = [wire.encode_outcome(outcome) for outcome in self._jobs.run(bytearray(payload), _no_log)]
            finally:
                restore()
        return wire.encode_reply(f"inline/{os.getpid()}", b"".join(outcomes))

    def close(self) -> None:
        self._closed = True


def _no_log() -> bytes:
    """What a call prints goes straight to the client's own output."""
    return b""
