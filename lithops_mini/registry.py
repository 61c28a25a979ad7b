"""Backends by name. A backend's module is imported when its name is first asked for, not before.

Third parties add theirs through the entry point groups ``lithops_mini.compute`` and ``lithops_mini.storage``.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from lithops_mini.errors import ConfigError

Kind = Literal["compute", "storage"]

_BUILTIN: dict[Kind, dict[str, str]] = {
    "compute": {
        "localhost": "lithops_mini.compute.localhost:LocalhostCompute",
        "inline": "lithops_mini.compute.inline:InlineCompute",
        "docker": "lithops_mini.compute.docker:DockerCompute",
        "aws_lambda": "lithops_mini.compute.aws_lambda:AwsLambdaCompute",
        "openwhisk": "lithops_mini.compute.openwhisk:OpenWhiskCompute",
        "ibm_cf": "lithops_mini.compute.ibm_cf:IbmCfCompute",
        "knative": "lithops_mini.compute.knative:KnativeCompute",
    },
    "storage": {
        "localhost": "lithops_mini.storage.localhost:LocalhostStorage",
        "aws_s3": "lithops_mini.storage.aws_s3:AwsS3Storage",
        "ibm_cos": "lithops_mini.storage.ibm_cos:IbmCosStorage",
    },
}


def names(kind: Kind) -> list[str]:
    """The names that ``find`` knows: ours, then those of installed plugins."""
    return [*_BUILTIN[kind], *(point.name for point in _entry_points(kind) if point.name not in _BUILTIN[kind])]


def find(kind: Kind, name: str) -> type[Any]:
    """Return the backend class of this name; ``ConfigError`` lists the names that exist."""
    if target := _BUILTIN[kind].get(name):
        module, _, attribute = target.partition(":")
        backend: type[Any] = getattr(importlib.import_module(module), attribute)
        return backend
    for point in _entry_points(kind):
        if point.name == name:
            loaded: type[Any] = point.load()
            return loaded
    from difflib import get_close_matches

    known = names(kind)
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"there is no {kind} backend named {name!r}.{hint} Known: {', '.join(known)}.")


def _entry_points(kind: Kind) -> list[Any]:
    from importlib.metadata import entry_points  # 30 ms, and only plugins need it

    return list(entry_points(group=f"lithops_mini.{kind}"))
