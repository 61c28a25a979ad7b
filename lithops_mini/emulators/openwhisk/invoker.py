"""Runs actions in sandboxes: a warm one if there is one. What comes of it is an activation record."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from lithops_mini.emulators.openwhisk import outcomes
from lithops_mini.emulators.openwhisk.activations import (
    APPLICATION_ERROR,
    DEVELOPER_ERROR,
    WHISK_ERROR,
    Activation,
    Outcome,
    failed,
)
from lithops_mini.emulators.openwhisk.entities import Action
from lithops_mini.emulators.openwhisk.faults import Dice
from lithops_mini.emulators.openwhisk.identities import Identity
from lithops_mini.emulators.openwhisk.sandbox import Broken, NoSandbox, Sandbox, TookTooLong
from lithops_mini.emulators.pool import Pool


@dataclass(frozen=True)
class Invocation:
    """An action that is to run. ``done`` has the activation once it is known; of a lost one, never."""

    caller: Identity
    action: Action  # with the parameters of its package
    arguments: Any  # of the caller: an object, or an array
    transaction_id: str
    activation_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    received: float = field(default_factory=time.time)
    done: Future[Activation] = field(default_factory=Future)


@dataclass
class Totals:
    """What has been counted since the start."""

    invocations: int = 0
    errors: int = 0
    cold_starts: int = 0
    lost: int = 0


class Invoker:
    """``record``: called with each activation, before it is done. ``ended``: called with what has ended or is lost."""

    def __init__(
        self,
        pool: Pool[int, Action, Sandbox],
        dice: Dice,
        record: Callable[[Activation], None],
        ended: Callable[[Invocation], None],
    ) -> None:
        self._pool = pool
        self._dice = dice
        self._record = record
        self._ended = ended
        self._counting = threading.Lock()
        self.totals = Totals()

    def begin(self, invocation: Invocation) -> None:
        """Run the action, in a thread of its own."""
        self._count(invocations=1)
        if self._dice.falls("lose"):
            self._count(lost=1)
            self._ended(invocation)
            return
        threading.Thread(target=self._run, args=(invocation,), name="invocation", daemon=True).start()

    def _run(self, invocation: Invocation) -> None:
        try:
            activation, sandbox = self._activate(invocation)
            if sandbox is not None:
                activation = activation.with_logs(self._finish(sandbox, activation.outcome))
            self._count(errors=int(activation.outcome.code != 0))
            self._record(activation)
        except BaseException as error:
            self._ended(invocation)
            invocation.done.set_exception(error)
            raise
        self._ended(invocation)
        invocation.done.set_result(activation)

    def _finish(self, sandbox: Sandbox, outcome: Outcome) -> list[str]:
        """The log of an activation; its sandbox waits for the next one, or is ended."""
        if outcome.code <= APPLICATION_ERROR:
            logs = sandbox.output.collect()
            self._pool.give(sandbox.action.revision, sandbox)
            return logs
        self._pool.remove(sandbox)
        return sandbox.output.collect_rest()

    def _activate(self, invocation: Invocation) -> tuple[Activation, Sandbox | None]:
        sandbox = self._pool.take(invocation.action.revision)
        if sandbox is not None:
            return self._run_in(sandbox, invocation, _Times(invocation), None), sandbox
        self._count(cold_starts=1)
        self._pool.closed.wait(self._dice.faults.cold_start)
        try:
            sandbox = self._pool.make(invocation.action)
        except NoSandbox as error:
            code = DEVELOPER_ERROR if error.developer else WHISK_ERROR
            return _Times(invocation).record(failed(code, str(error))), None
        times = _Times(invocation)
        outcome = self._ask(sandbox, times, "init", {"value": _initializer(invocation)})
        times.initialised()
        return self._run_in(sandbox, invocation, times, outcome), sandbox

    def _run_in(
        self, sandbox: Sandbox, invocation: Invocation, times: _Times, init_failure: Outcome | None
    ) -> Activation:
        if init_failure is not None:
            return times.record(init_failure)
        _, parameters = _divided(invocation)
        value = {"value": parameters, **_environment(invocation)}
        crash = self._dice.crash()
        if crash == "event":
            sandbox.stop()
        outcome = self._ask(sandbox, times, "run", value)
        if crash == "response":
            sandbox.stop()
            outcome = outcomes.of_end(sandbox, "run")
        assert outcome is not None
        return times.record(outcome)

    def _ask(self, sandbox: Sandbox, times: _Times, doing: str, value: Any) -> Outcome | None:
        """What comes of /init or /run; ``None`` if the action can run."""
        limit = sandbox.action.limits.timeout
        try:
            answer = sandbox.post(f"/{doing}", value, limit / 1000, wait=doing == "init")
        except TookTooLong:
            times.timeout = True
            return outcomes.of_timeout(limit, doing)
        except Broken:
            return outcomes.of_end(sandbox, doing)
        finally:
            times.ended()
        return outcomes.of_init(answer) if doing == "init" else outcomes.of_run(answer)

    def _count(self, **more: int) -> None:
        with self._counting:
            for name, number in more.items():
                setattr(self.totals, name, getattr(self.totals, name) + number)


class _Times:
    """When an activation began and ended, and of what it consists."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._began = self._end = time.time()
        self._initialised: float | None = None  # seconds
        self.timeout = False

    def initialised(self) -> None:
        """All until now was the initialisation."""
        self._initialised = self._end - self._began

    def ended(self) -> None:
        self._end = time.time()

    def record(self, outcome: Outcome) -> Activation:
        invocation, action = self._invocation, self._invocation.action
        package = action.namespace.partition("/")[2]
        annotations = {
            "limits": vars(action.limits),
            "path": action.path,
            "kind": action.exec.kind,
            "timeout": self.timeout,
            "waitTime": max(round((self._began - invocation.received) * 1000), 0),
        }
        if self._initialised is not None:
            annotations["initTime"] = round(self._initialised * 1000)
        return Activation(
            invocation.activation_id,
            invocation.caller.namespace,
            action.name,
            package,
            invocation.caller.subject,
            action.version,
            int(self._began * 1000),
            int(self._end * 1000),
            outcome,
            annotations,
        )


def _divided(invocation: Invocation) -> tuple[dict[str, Any], Any]:
    """Variables of the environment, and parameters."""
    if isinstance(invocation.arguments, list):
        return {}, invocation.arguments
    bound = invocation.action.parameters
    values = {name: each.value for name, each in bound.items()} | invocation.arguments
    init = {name for name, each in bound.items() if each.init}
    return {name: values[name] for name in init}, {name: values[name] for name in values if name not in init}


def _environment(invocation: Invocation) -> dict[str, str]:
    """What /run says besides the parameters."""
    action = invocation.action
    found = {
        "namespace": invocation.caller.namespace,
        "action_name": f"/{action.path}",
        "action_version": action.version,
        "activation_id": invocation.activation_id,
        "transaction_id": invocation.transaction_id,
        "deadline": str(int(time.time() * 1000) + action.limits.timeout),
    }
    if action.annotations.get("provide-api-key", True) and invocation.caller.key:
        found["api_key"] = invocation.caller.key
    return found


def _initializer(invocation: Invocation) -> dict[str, Any]:
    """What /init is told."""
    chosen = invocation.action.exec
    variables, _ = _divided(invocation)
    own = {f"__OW_{name.upper()}": value for name, value in _environment(invocation).items()}
    value: dict[str, Any] = {
        "name": invocation.action.name,
        "binary": chosen.binary,
        "main": chosen.main or "main",
        "env": _texts(variables) | own,
    }
    return value | ({"code": chosen.code} if chosen.code else {})


def _texts(variables: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in variables.items():
        found[name] = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return found
