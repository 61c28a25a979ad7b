"""One invocation in its sandbox: what it may take, what came of it in AWS's words, and its lines in the log."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from typing import Literal

from lithops_mini.emulators.aws.runtime_api import RESPONSE_LIMIT, Invocation, Outcome
from lithops_mini.emulators.aws.sandbox import Sandbox


class Run:
    """``initialised``: the seconds that the sandbox was made in for this invocation; 0 if it was there."""

    def __init__(self, sandbox: Sandbox, request_id: str, initialised: float) -> None:
        self._sandbox = sandbox
        self._function = sandbox.function
        self._request_id = request_id
        self._initialised = initialised
        self._began = 0.0
        self.billed = 0  # milliseconds, once it has ended

    def begin(self) -> None:
        log = self._sandbox.log
        if self._initialised:
            self._sandbox.drain()
        else:
            log.begin()
        log.write(f"START RequestId: {self._request_id} Version: {self._function.version}\n".encode())
        self._began = time.monotonic()

    def send(self, event: bytes, crash: Literal["event", "response"] | None) -> Outcome:
        """Give the runtime the event and return what comes of it. ``crash``: when the sandbox is to be killed."""
        limit = self._function.timeout
        self._sandbox.send(Invocation(self._request_id, event, time.time() + limit))
        if crash == "event":
            return self._crash()
        deadline = self._began + limit
        while True:
            outcome = self._sandbox.next(deadline - time.monotonic())
            if outcome is None:
                return Outcome("timeout")
            if crash == "response" and outcome.kind == "response":
                return self._crash()
            if outcome.kind != "ready" and outcome.request_id in ("", self._request_id):
                return outcome

    def _crash(self) -> Outcome:
        """Kill the sandbox; what its runtime may have said just before is lost with it."""
        self._sandbox.stop()
        self._sandbox.ended.wait()
        return Outcome("exit")

    def judge(self, outcome: Outcome) -> tuple[bytes, str | None]:
        """The payload of the reply, and for a failure its type."""
        match outcome.kind:
            case "response":
                return outcome.body, None
            case "error" | "init_error":
                return outcome.body, "Runtime.Unknown" if outcome.kind == "init_error" else ""
            case "too_large":
                text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
                return self._failed("Function.ResponseSizeTooLarge", text)
            case "timeout":
                text = f"Task timed out after {self._function.timeout:.2f} seconds"
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
                self._sandbox.drain()
                self._sandbox.log.end_line()
                self._sandbox.log.write(f"{now}Z {self._request_id} {text}\n\n".encode())
                return self._failed("Sandbox.Timedout", f"RequestId: {self._request_id} Error: {text}")
        end = self._sandbox.end
        how = "Runtime exited without providing a reason"
        if end is not None and end.status:
            how = f"Runtime exited with error: {end.status}"
        kind = "Runtime.OutOfMemory" if end is not None and end.out_of_memory else "Runtime.ExitError"
        text = f"RequestId: {self._request_id} Error: {how}"
        self._sandbox.drain()
        self._sandbox.log.end_line()
        self._sandbox.log.write(f"{text}\n{kind}\n".encode())
        return self._failed(kind, text)

    def end(self, failure: str | None) -> None:
        """Write the last lines."""
        sandbox, function = self._sandbox, self._function
        duration = time.monotonic() - self._began
        if failure == "Sandbox.Timedout":
            duration = min(duration, function.timeout)
        self.billed = math.ceil((duration + self._initialised) * 1000)
        peak = function.memory if failure == "Runtime.OutOfMemory" else min(sandbox.peak_memory(), function.memory)
        report = [
            f"REPORT RequestId: {self._request_id}",
            f"Duration: {duration * 1000:.2f} ms",
            f"Billed Duration: {self.billed} ms",
            f"Memory Size: {function.memory} MB",
            f"Max Memory Used: {peak} MB",
        ]
        if self._initialised:
            report.append(f"Init Duration: {self._initialised * 1000:.2f} ms")
        if failure == "Sandbox.Timedout":
            report.append("Status: timeout")
        elif failure:
            report += ["Status: error", f"Error Type: {failure}"]
        sandbox.drain()
        sandbox.log.end_line()
        lines = f"END RequestId: {self._request_id}\n" + "\t".join([*report, "\n"])
        sandbox.log.write(lines.encode())

    def _failed(self, kind: str, text: str) -> tuple[bytes, str]:
        return json.dumps({"errorType": kind, "errorMessage": text}).encode(), kind
