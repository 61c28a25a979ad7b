"""Run ordinary Python functions over many inputs on other people's computers.

import lithops_mini as lm
with lm.function_executor() as ex:
    futures = ex.map(my_function, inputs)
    print(ex.get_result(futures))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lithops_mini.version import __version__

if TYPE_CHECKING:
    from lithops_mini.client import Storage
    from lithops_mini.errors import LithopsMiniError, RemoteError
    from lithops_mini.executor import (
        FunctionExecutor,
        docker_executor,
        function_executor,
        ibm_cf_executor,
        knative_executor,
        localhost_executor,
        openwhisk_executor,
    )
    from lithops_mini.job.future import ResponseFuture
    from lithops_mini.storage.api import CloudObject
    from lithops_mini.waiting import ALL_COMPLETED, ALWAYS, ANY_COMPLETED, as_completed, get_result, wait

# Imported when first used: workers import this package for every cold start, and need none of these.
_PLACES = {
    "ALL_COMPLETED": "lithops_mini.waiting",
    "ALWAYS": "lithops_mini.waiting",
    "ANY_COMPLETED": "lithops_mini.waiting",
    "CloudObject": "lithops_mini.storage.api",
    "FunctionExecutor": "lithops_mini.executor",
    "LithopsMiniError": "lithops_mini.errors",
    "RemoteError": "lithops_mini.errors",
    "ResponseFuture": "lithops_mini.job.future",
    "Storage": "lithops_mini.client",
    "as_completed": "lithops_mini.waiting",
    "docker_executor": "lithops_mini.executor",
    "function_executor": "lithops_mini.executor",
    "get_result": "lithops_mini.waiting",
    "ibm_cf_executor": "lithops_mini.executor",
    "knative_executor": "lithops_mini.executor",
    "localhost_executor": "lithops_mini.executor",
    "openwhisk_executor": "lithops_mini.executor",
    "wait": "lithops_mini.waiting",
}

__all__ = [  # noqa: RUF022 - as one would explain them
    "function_executor",
    "localhost_executor",
    "docker_executor",
    "openwhisk_executor",
    "ibm_cf_executor",
    "knative_executor",
    "FunctionExecutor",
    "ResponseFuture",
    "wait",
    "get_result",
    "as_completed",
    "ALL_COMPLETED",
    "ANY_COMPLETED",
    "ALWAYS",
    "Storage",
    "CloudObject",
    "LithopsMiniError",
    "RemoteError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lithops_mini' has no attribute {name!r}")
    import importlib

    try:
        module = importlib.import_module(_PLACES[name])
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lithops_mini."):
            raise
        raise ImportError(
            f"there is no lithops_mini.{name} in this worker, which has what runs calls and no more: functions that run"
            " here cannot start executors of their own",
            name=error.name,
        ) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
