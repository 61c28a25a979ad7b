"""Whether a configuration does what the documentation promises: runs the checks that ship, on any backends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lithops_mini.checks import CHECKS, Bench, Check, CheckFailed
from lithops_mini.executor import FunctionExecutor, function_executor
from lithops_mini.records import VERIFY_PREFIX

# Why a check does not apply where there is not what it needs.
_LACKS = {
    "isolates": "calls of the {} backend run in the client's own process",
    "stops": "the {} backend cannot stop a call that runs",
    "composes": "functions on the {} backend cannot start executors of their own",
    "stores": "workers of the {} backend do not reach the storage {}: configure an object storage",
}


@dataclass(frozen=True)
class Verdict:
    """What came of a check: ``ok``, ``failed`` or ``skipped``, and why."""

    name: str
    outcome: str
    seconds: float
    reason: str = ""
    error: BaseException | None = None


def verify(names: Sequence[str] | None = None, **settings: Any) -> Iterator[Verdict]:
    """Run the checks of these names, or all, and yield a verdict on each as soon as it is known.

    ``settings`` are arguments of ``function_executor``. Everything the checks stored is removed at the end. Raises what
    ``function_executor`` raises.
    """
    settings = {"progress": False, **settings}
    executor = function_executor(**settings)
    bench = Bench(executor, f"{VERIFY_PREFIX}{os.urandom(6).hex()}/", settings)
    try:
        for name in CHECKS if names is None else names:
            check = CHECKS[name]
            reason = _lack(check, executor)
            yield Verdict(name, "skipped", 0.0, reason) if reason else _run(check, bench)
    finally:
        executor.shutdown(cancel_futures=True)
        executor.clean()
        bench.storage.delete_objects(None, list(bench.storage.list_keys(None, bench.prefix)))


def _lack(check: Check, executor: FunctionExecutor) -> str:
    """Why the check does not apply here; empty if it does."""
    for need in check.needs:
        if not (executor._stores if need == "stores" else getattr(executor._compute, need)):
            return _LACKS[need].format(executor.config.backend, executor.config.storage)
    return ""


def _run(check: Check, bench: Bench) -> Verdict:
    began = time.perf_counter()
    try:
        check.run(bench)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the check has found
        text = str(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}"
        return Verdict(check.name, "failed", time.perf_counter() - began, text.partition("\n")[0], error)
    return Verdict(check.name, "ok", time.perf_counter() - began)
