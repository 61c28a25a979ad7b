"""Packages and actions: what is kept of them, and how they are answered."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KIND = "python:" + ".".join(platform.python_version_tuple()[:2])
"""The only kind besides images: this machine's Python."""
BLACKBOX = "blackbox"

_revisions = itertools.count(1)


@dataclass(frozen=True)
class Parameter:
    """A value that is bound to an action or a package."""

    value: Any
    init: bool = False  # it is a variable of the environment, and no parameter


Parameters = Mapping[str, Parameter]


@dataclass(frozen=True)
class Exec:
    """What an action runs."""

    kind: str
    code: str = ""
    binary: bool = False
    image: str = ""
    main: str = ""

    def as_json(self, *, code: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": self.kind, "binary": self.binary}
        found |= {"main": self.main} if self.main else {}
        found |= {"image": self.image} if self.kind == BLACKBOX else {}
        return found | ({"code": self.code} if code and (self.code or self.kind != BLACKBOX) else {})


@dataclass(frozen=True)
class ActionLimits:
    """Of one activation: milliseconds, MB, MB, and activations of a container at a time."""

    timeout: int = 60_000
    memory: int = 256
    logs: int = 10
    concurrency: int = 1


@dataclass(frozen=True)
class Package:
    """A package; ``namespace`` is that in which it is."""

    namespace: str
    name: str
    parameters: Parameters
    annotations: Mapping[str, Any]
    version: str
    publish: bool
    updated: int = field(default_factory=lambda: int(time.time() * 1000))

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    def summary(self) -> dict[str, Any]:
        """As lists show it."""
        return {**_common(self), "binding": False}

    def as_json(self) -> dict[str, Any]:
        return {**_common(self), "parameters": _parameters_json(self.parameters), "binding": {}}


@dataclass(frozen=True)
class Action:
    """An action; ``namespace`` has the package too, after a slash."""

    namespace: str
    name: str
    exec: Exec
    limits: ActionLimits
    parameters: Parameters
    annotations: Mapping[str, Any]
    version: str
    publish: bool
    updated: int = field(default_factory=lambda: int(time.time() * 1000))
    revision: int = field(default_factory=lambda: next(_revisions))  # no two actions have the same

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    def summary(self) -> dict[str, Any]:
        """As lists show it."""
        return {**_common(self), "limits": vars(self.limits), "exec": {"binary": self.exec.binary}}

    def as_json(self, *, code: bool = True) -> dict[str, Any]:
        more = {"exec": self.exec.as_json(code=code), "limits": vars(self.limits)}
        return {**_common(self), **more, "parameters": _parameters_json(self.parameters)}


Entity = Package | Action


def _common(entity: Entity) -> dict[str, Any]:
    return {
        "namespace": entity.namespace,
        "name": entity.name,
        "version": entity.version,
        "publish": entity.publish,
        "annotations": pairs_json(entity.annotations),
        "updated": entity.updated,
    }


def pairs_json(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Annotations as they are answered."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _parameters_json(parameters: Parameters) -> list[dict[str, Any]]:
    init = {True: {"init": True}, False: {}}
    return [{"key": key, "value": each.value, **init[each.init]} for key, each in parameters.items()]
