"""What all parts of the cluster use: the store, the node, the numbers, and what is told of objects."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.dice import Dice
from lithops_mini.emulators.knative.kinds import Kind, Object
from lithops_mini.emulators.knative.machine import Machine
from lithops_mini.emulators.knative.settings import Limits
from lithops_mini.emulators.knative.status import Refused
from lithops_mini.emulators.knative.store import Store, now

_EVENTS = 500  # that are kept


class Cluster:
    """``limits`` are those in force; ``closing`` is set when all is to end."""

    def __init__(self, store: Store, machine: Machine, dice: Dice, limits: Callable[[], Limits]) -> None:
        self.store = store
        self.machine = machine
        self.dice = dice
        self.limits = limits
        self.closing = threading.Event()
        self._counting = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._events: deque[tuple[str, str, str]] = deque()

    def count(self, what: str) -> None:
        with self._counting:
            self._totals[what] += 1

    @property
    def totals(self) -> Mapping[str, int]:
        return dict(self._totals)

    def record(self, kind: Kind, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell what has happened to an object: an Event; one that is there already is counted once more."""
        metadata = about["metadata"]
        who = {"kind": kind.name, "namespace": metadata["namespace"], "name": metadata["name"]}
        who |= {"uid": metadata["uid"], "apiVersion": kind.api_version}
        digest = f"{hash((metadata['uid'], reason, message)) & (1 << 64) - 1:016x}"
        name = f"{metadata['name']}.{digest}"

        def again(found: Object) -> Object:
            return {**found, "count": found["count"] + 1, "lastTimestamp": now()}

        said: Object = {"metadata": {"name": name, "namespace": metadata["namespace"]}, "involvedObject": who}
        said |= {"reason": reason, "message": message, "type": "Warning" if warning else "Normal", "count": 1}
        said |= {"firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "lithops-mini-emulator"}}
        try:
            if self.store.find(kinds.EVENT, metadata["namespace"], name) is not None:
                self.store.update(kinds.EVENT, metadata["namespace"], name, again)
                return
            made = self.store.create(kinds.EVENT, said)
        except Refused:  # its namespace ends, or another thread tells the same now
            return
        with self._counting:
            self._events.append((metadata["namespace"], name, made["metadata"]["uid"]))
            old = self._events.popleft() if len(self._events) > _EVENTS else None
        if old is not None:
            self.store.remove(kinds.EVENT, *old)

    def set_status(self, kind: Kind, found: Object, values: Mapping[str, Any]) -> None:
        """Change fields of an object's status, unless it has gone."""
        metadata = found["metadata"]

        def change(latest: Object) -> Object:
            if latest["metadata"]["uid"] != metadata["uid"]:
                return latest
            return {**latest, "status": {**latest.get("status", {}), **values}}

        if self.store.find(kind, metadata["namespace"], metadata["name"]) is None:
            return
        try:
            self.store.update(kind, metadata["namespace"], metadata["name"], change)
        except Refused as error:
            if error.code != 404:
                raise
