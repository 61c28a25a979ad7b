"""Objects as rows of a table: what kubectl asks for to print them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.kinds import Kind, Object

Cell = Callable[[Object], Any]

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def wants_table(accept: str) -> bool:
    """Whether a request's ``Accept`` prefers a table."""
    first = accept.partition(",")[0].replace(" ", "")
    return first.startswith("application/json;") and "as=Table" in first.split(";")


def table(kind: Kind, found: Sequence[Object], resource_version: str, include: str) -> Object:
    """A table of objects. ``include``: what a row has besides its cells: ``Metadata``, ``Object``, ``None``."""
    columns = _COLUMNS.get(kind, (("Age", _age),))
    definitions = [_definition("Name"), *(_definition(name) for name, _ in columns)]
    rows = [
        {"cells": [each["metadata"]["name"], *(cell(each) for _, cell in columns)], "object": _kept(each, include)}
        for each in found
    ]
    made = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": resource_version}}
    return {**made, "columnDefinitions": definitions, "rows": rows}


def _definition(name: str) -> Object:
    return {
        "name": name,
        "type": "string",
        "format": "name" if name == "Name" else "",
        "description": "",
        "priority": 0,
    }


def _kept(found: Object, include: str) -> Object | None:
    if include == "None":
        return None
    if include == "Object":
        return found
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": found["metadata"]}


def _at(*path: str) -> Cell:
    def cell(found: Object) -> Any:
        value: Any = found
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return "" if value is None else value

    return cell


def _condition(field: str) -> Cell:
    def cell(found: Object) -> Any:
        conditions = found.get("status", {}).get("conditions", ())
        return next((each.get(field, "") for each in conditions if each["type"] == "Ready"), "")

    return cell


def _age(found: Object) -> str:
    return _since(found["metadata"].get("creationTimestamp"))


def _since(stamp: str | None) -> str:
    if not stamp:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds())
    return next((f"{seconds // size}{unit}" for size, unit in _UNITS if seconds >= 2 * size), f"{max(seconds, 0)}s")


def _ready(found: Object) -> str:
    states = found["status"].get("containerStatuses", ())
    return f"{sum(each['ready'] for each in states)}/{len(found['spec']['containers'])}"


def _pod_status(found: Object) -> str:
    if "deletionTimestamp" in found["metadata"]:
        return "Terminating"
    for each in found["status"].get("containerStatuses", ()):
        for state in ("waiting", "terminated"):
            if reason := each["state"].get(state, {}).get("reason"):
                return str(reason)
    return str(found["status"].get("phase", ""))


def _restarts(found: Object) -> int:
    return sum(each["restartCount"] for each in found["status"].get("containerStatuses", ()))


def _about(found: Object) -> str:
    about = found["involvedObject"]
    return f"{about['kind'].lower()}/{about['name']}"


_READY = (("Ready", _condition("status")), ("Reason", _condition("reason")))
_LATEST = (
    ("LatestCreated", _at("status", "latestCreatedRevisionName")),
    ("LatestReady", _at("status", "latestReadyRevisionName")),
)
_COLUMNS: dict[Kind, tuple[tuple[str, Cell], ...]] = {
    kinds.SERVICE: (("URL", _at("status", "url")), *_LATEST, *_READY),
    kinds.CONFIGURATION: (*_LATEST, *_READY),
    kinds.ROUTE: (("URL", _at("status", "url")), *_READY),
    kinds.REVISION: (
        ("Config Name", _at("metadata", "labels", "serving.knative.dev/configuration")),
        ("Generation", _at("metadata", "labels", "serving.knative.dev/configurationGeneration")),
        *_READY,
        ("Actual Replicas", _at("status", "actualReplicas")),
        ("Desired Replicas", _at("status", "desiredReplicas")),
    ),
    kinds.POD: (("Ready", _ready), ("Status", _pod_status), ("Restarts", _restarts), ("Age", _age)),
    kinds.NAMESPACE: (("Status", _at("status", "phase")), ("Age", _age)),
    kinds.SECRET: (("Type", _at("type")), ("Data", lambda found: len(found.get("data") or {})), ("Age", _age)),
    kinds.SERVICE_ACCOUNT: (("Secrets", lambda found: len(found.get("secrets") or ())), ("Age", _age)),
    kinds.EVENT: (
        ("Last Seen", lambda found: _since(found.get("lastTimestamp"))),
        ("Type", _at("type")),
        ("Reason", _at("reason")),
        ("Object", _about),
        ("Message", _at("message")),
    ),
}
