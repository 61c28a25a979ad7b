"""What a function of AWS Lambda runs: each event is one message, its answer the reply.

    event  = {"payload": base64}
    answer = {"reply": base64}, or {"refused": {"text", "reason", "retryable"}} if there can be no reply

Lambda carries JSON. The process that Lambda knows is the supervisor, so that it can tell how the runner ended.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from typing import Any, Protocol

from lithops_mini.errors import InvocationError, Reason
from lithops_mini.worker.supervisor import Supervisor

# What is left of the time of an invocation, in seconds, when its calls are stopped: for the answer.
_MARGIN = 0.75
# Bytes that Lambda takes, of a request as of an answer; and those of a message or a reply that fit in.
_LARGEST = 6 << 20
MAX_MESSAGE = (_LARGEST - 1024) // 4 * 3


class Context(Protocol):
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


class Worker:
    """The handler of a function. It is made while Lambda gives a sandbox all the processor it has to start with."""

    def __init__(self) -> None:
        # The name of a log stream is as unique as its sandbox, and leads to what the sandbox has logged.
        stream = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "").rpartition("]")[2]
        directory = tempfile.mkdtemp(prefix="lithops-mini-")
        # Where Lambda's own runtime has the packages of layers from, another process would not look for them.
        path = os.pathsep.join(filter(None, sys.path))
        self._supervisor = Supervisor(
            f"lambda/{stream or os.urandom(8).hex()}", directory, environment={"PYTHONPATH": path}
        )
        self._supervisor.start()

    def __call__(self, event: dict[str, str], context: Context) -> dict[str, Any]:
        """Run the message of an event."""
        until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _MARGIN
        try:
            reply = self._supervisor.run(b64decode(event["payload"]), until=until, room=MAX_MESSAGE)
            if len(reply) > MAX_MESSAGE:
                text = f"a reply of {len(reply):,} bytes is over AWS Lambda's limit of {MAX_MESSAGE:,}"
                raise InvocationError(text, reason=Reason.REFUSED)
        except InvocationError as error:
            return {"refused": {"text": str(error), "reason": error.reason, "retryable": error.retryable}}
        return {"reply": b64encode(reply).decode("ascii")}
