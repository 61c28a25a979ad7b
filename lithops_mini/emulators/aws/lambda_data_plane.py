"""Invocations: a sandbox for each, a warm one if there is one, within the limits of function and account."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lithops_mini.emulators.aws.faults import Dice
from lithops_mini.emulators.aws.functions import Function, exists, reserved
from lithops_mini.emulators.aws.run import Run
from lithops_mini.emulators.aws.runtime_api import Outcome
from lithops_mini.emulators.aws.sandbox import Sandbox
from lithops_mini.emulators.aws.settings import Limits
from lithops_mini.emulators.pool import Pool
from lithops_mini.emulators.settings import change

INIT_LIMIT = 10.0  # seconds in which a runtime must be ready
_WINDOW = 10.0  # seconds in which so many sandboxes may be made for a function as `Limits.scaling` says

MakeSandbox = Callable[[Function], Sandbox]


class Throttled(Exception):
    """There is no sandbox for an invocation; ``args[0]`` is AWS's word for the reason."""


@dataclass(frozen=True)
class Reply:
    """What came of an invocation."""

    request_id: str
    payload: bytes
    error: bool
    log: bytes  # the last bytes
    version: str


@dataclass
class Totals:
    """What has been counted since the start."""

    invocations: int = 0
    errors: int = 0
    throttles: int = 0
    cold_starts: int = 0
    billed_ms: int = 0


class DataPlane:
    """Runs functions. ``close`` ends every sandbox."""

    def __init__(self, make: MakeSandbox, dice: Dice, limits: Limits) -> None:
        self._dice = dice
        self.limits = limits
        self._lock = threading.Lock()
        self._pool: Pool[Function, Function, Sandbox] = Pool(
            make, exists, lambda: self.limits.idle, lambda: Throttled("CallerRateLimitExceeded")
        )
        self._made: dict[Function, deque[float]] = {}  # when sandboxes were made, in the last seconds
        self._busy: Counter[tuple[str, str]] = Counter()  # by region and name
        self.totals = Totals()

    def invoke(self, function: Function, event: bytes, request_id: str | None = None) -> Reply:
        """Run the function with an event. ``Throttled`` if that must not be now."""
        request_id = request_id or str(uuid.uuid4())
        sandbox = self._acquire(function)
        key = (function.region, function.name)
        try:
            return self._run(function, sandbox, event, request_id)
        finally:
            with self._lock:
                self._busy[key] -= 1

    def limit(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set some of the limits, and return all. ``ConfigError`` for what is none."""
        with self._lock:
            self.limits = change(self.limits, changes)
            return asdict(self.limits)

    def state(self) -> dict[str, int]:
        """How many invocations run, and sandboxes are there."""
        with self._lock:
            return {"running": self._busy.total(), "sandboxes": len(self._pool), **vars(self.totals)}

    def close(self) -> None:
        self._pool.close()

    def _acquire(self, function: Function) -> Sandbox | None:
        """Count the invocation, and take a warm sandbox if there is one."""
        reservations = reserved(function.region)
        with self._lock:
            try:
                return self._take(function, reservations)
            except Throttled:
                self.totals.throttles += 1
                raise

    def _take(self, function: Function, reservations: dict[str, int]) -> Sandbox | None:
        key = (function.region, function.name)
        if function.name in reservations:
            if self._busy[key] >= reservations[function.name]:
                raise Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
        else:
            others = sum(
                busy
                for (region, name), busy in self._busy.items()
                if region == function.region and name not in reservations
            )
            if others >= self.limits.concurrency - sum(reservations.values()):
                raise Throttled("ConcurrentInvocationLimitExceeded")
        sandbox = self._pool.take(function)
        if sandbox is None:
            now, made = time.monotonic(), self._made.setdefault(function, deque())
            while made and made[0] <= now - _WINDOW:
                made.popleft()
            if len(made) >= self.limits.scaling:
                raise Throttled("FunctionInvocationRateLimitExceeded")
            made.append(now)
        self._busy[key] += 1
        return sandbox

    def _run(self, function: Function, sandbox: Sandbox | None, event: bytes, request_id: str) -> Reply:
        initialised = 0.0  # seconds
        outcome: Outcome | None = None
        if sandbox is None:
            sandbox, outcome, initialised = self._start(function)
        run = Run(sandbox, request_id, initialised)
        run.begin()
        if outcome is None:
            outcome = run.send(event, self._dice.crash())
        payload, failure = run.judge(outcome)
        run.end(failure)
        with self._lock:
            self.totals.invocations += 1
            self.totals.errors += failure is not None
            self.totals.billed_ms += run.billed
        log = sandbox.log.tail()
        if outcome is not None and outcome.kind in ("response", "error"):
            self._pool.give(function, sandbox)
        else:
            self._pool.remove(sandbox)
        return Reply(request_id, payload, failure is not None, log, function.version)

    def _start(self, function: Function) -> tuple[Sandbox, Outcome | None, float]:
        """A sandbox whose runtime is ready, or in which it cannot become ready, with what it said then.

        And the seconds that the function is to pay for: those in which its sandbox had to be made are not.
        """
        began = time.monotonic()
        self._pool.closed.wait(self._dice.faults.cold_start)
        limit = INIT_LIMIT
        while True:
            with self._lock:
                self.totals.cold_starts += 1
            asked = time.monotonic()
            sandbox = self._pool.make(function)
            began += time.monotonic() - asked
            outcome = sandbox.next(limit)
            if outcome is None and limit == INIT_LIMIT:  # once more, within the time of the function
                self._pool.remove(sandbox)
                limit = float(function.timeout)
                continue
            if outcome is None:
                outcome = Outcome("timeout")
            elif outcome.kind == "ready":
                sandbox.ready()
                outcome = None
            return sandbox, outcome, time.monotonic() - began
