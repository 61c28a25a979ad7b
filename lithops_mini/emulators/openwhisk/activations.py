"""What came of invocations: records, of which the latest are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lithops_mini.emulators.openwhisk.entities import pairs_json

SUCCESS, APPLICATION_ERROR, DEVELOPER_ERROR, WHISK_ERROR = range(4)
_STATUS = ("success", "application error", "action developer error", "whisk internal error")


@dataclass(frozen=True)
class Outcome:
    """What came of an activation; ``size``: characters of the container's answer, ``None`` if there was none."""

    code: int  # SUCCESS to WHISK_ERROR
    result: Any
    size: int | None = None

    def as_json(self) -> dict[str, Any]:
        found = {"status": _STATUS[self.code], "success": self.code == SUCCESS, "result": self.result}
        return found | ({} if self.size is None else {"size": self.size})


def failed(code: int, error: Any, size: int | None = None) -> Outcome:
    return Outcome(code, {"error": error}, size)


@dataclass(frozen=True)
class Activation:
    """One run of an action. Times are milliseconds since 1970."""

    activation_id: str
    namespace: str
    name: str
    package: str
    subject: str
    version: str
    start: int
    end: int
    outcome: Outcome
    annotations: Mapping[str, Any]
    logs: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """By which lists find it: the name of the action, with that of its package."""
        return f"{self.package}/{self.name}" if self.package else self.name

    def with_logs(self, logs: list[str]) -> Activation:
        return replace(self, logs=tuple(logs))

    def as_json(self) -> dict[str, Any]:
        more = {"subject": self.subject, "response": self.outcome.as_json(), "logs": list(self.logs)}
        return {**self._common(), **more}

    def summary(self) -> dict[str, Any]:
        """As lists show it."""
        return {**self._common(), "statusCode": self.outcome.code}

    def _common(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace,
            "name": self.name,
            "version": self.version,
            "publish": False,
            "annotations": pairs_json(self.annotations),
            "activationId": self.activation_id,
            "start": self.start,
            "end": self.end,
            "duration": self.end - self.start,
        }


class Activations:
    """The latest records."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[tuple[str, str], Activation] = OrderedDict()

    def add(self, record: Activation, most: int) -> None:
        """Keep a record, and of all no more than ``most``."""
        with self._lock:
            self._records[record.namespace, record.activation_id] = record
            while len(self._records) > most:
                self._records.popitem(last=False)

    def get(self, namespace: str, activation_id: str) -> Activation | None:
        with self._lock:
            return self._records.get((namespace, activation_id))

    def list(self, namespace: str, path: str | None, since: float, upto: float) -> list[Activation]:
        """Those of a namespace that began at these times, the latest first; ``path``: only of this action."""
        with self._lock:
            records = list(self._records.values())
        chosen = [
            each
            for each in records
            if each.namespace == namespace and path in (None, each.path) and since <= each.start <= upto
        ]
        return sorted(chosen, key=lambda each: -each.start)

    def __len__(self) -> int:
        return len(self._records)
