"""What an action of OpenWhisk runs: each activation is one message.

    params = {"payload": base64, "environment": {name: value}}

``environment`` is bound to the action, which is how OpenWhisk keeps the credentials of its worker.
"""

from __future__ import annotations

import os
import sys
import time
from base64 import b64decode
from typing import Any

from lithops_mini.worker.function import FunctionWorker, most_bytes

MAX_MESSAGE = most_bytes(1 << 20)
"""Bytes of a payload, or of a reply, where a namespace has OpenWhisk's own limit: 1 MB of a request as of a result."""

WORKER_PREFIX = "openwhisk/"
"""What the id of a worker begins with."""


class Worker:
    """The function that a runtime calls with the parameters of each activation; there is one in a container."""

    def __init__(self) -> None:
        self._worker: FunctionWorker | None = None
        # OpenWhisk's own runtimes start what they run without one, and calls may start programs.
        os.environ.setdefault("PATH", os.pathsep.join((os.path.dirname(sys.executable), os.defpath)))

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        """Run the message of an activation, as long as ``__OW_DEADLINE`` permits: milliseconds since the epoch."""
        seconds = int(os.environ["__OW_DEADLINE"]) / 1000 - time.time()
        if self._worker is None:  # what is bound comes with the first activation
            name = f"{WORKER_PREFIX}{os.urandom(6).hex()}"
            self._worker = FunctionWorker(name, MAX_MESSAGE, params.get("environment"))
        return self._worker.answer(b64decode(params["payload"]), seconds)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
