"""Messages that come as JSON to a function of some platform, and the answers to them.

    answer = {"reply": base64}, or {"refused": {"text", "reason", "retryable"}} if there can be no reply

The process that the platform knows is the supervisor, so that it can tell how the runner ended.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from base64 import b64encode
from typing import Any

from lithops_mini.errors import InvocationError, Reason
from lithops_mini.worker.outbox import Outbox
from lithops_mini.worker.supervisor import Supervisor

# What is left of the time of an invocation, in seconds, when its calls are stopped: for the answer.
_MARGIN = 0.75
# What of a message or an answer is there besides the payload or the reply, in bytes, at most.
_BESIDE = 4096


def most_bytes(largest: int) -> int:
    """How many bytes a payload, or a reply, may have where a platform takes JSON of the ``largest`` size."""
    return (largest - _BESIDE) // 4 * 3


class FunctionWorker(Outbox):
    """What answers messages. ``name`` identifies it in replies; ``room``: bytes that a reply may have.

    It is made while the platform starts the function. ``room`` may be another one for the next message.
    """

    def __init__(self, name: str, room: int) -> None:
        super().__init__()
        self.room = room
        # Where a platform's own runtime has packages from, another process would not look for them.
        path = os.pathsep.join(filter(None, sys.path))
        directory = tempfile.mkdtemp(prefix="lithops-mini-")
        self._supervisor = Supervisor(name, directory, environment={"PYTHONPATH": path})
        self._supervisor.start()

    def answer(self, payload: bytes, seconds: float) -> dict[str, Any]:
        """Run the calls of a message, within so many seconds."""
        until = time.monotonic() + seconds - _MARGIN
        try:
            reply = self._supervisor.run(payload, until=until, room=self.room)
            if len(reply) > self.room:
                text = f"a reply of {len(reply):,} bytes is over the platform's limit of {self.room:,}"
                raise InvocationError(text, reason=Reason.REFUSED)
        except InvocationError as error:
            return {"refused": {"text": str(error), "reason": error.reason, "retryable": error.retryable}}
        return {"reply": b64encode(reply).decode("ascii")}

    def close(self) -> None:
        self._supervisor.close()
