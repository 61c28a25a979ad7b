"""Objects with their versions, what has changed, and what goes with what is deleted."""

from __future__ import annotations

import copy
import itertools
import secrets
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from lithops_mini.emulators.knative import status
from lithops_mini.emulators.knative.kinds import KINDS, NAMESPACE, POD, Kind, Object
from lithops_mini.emulators.knative.selectors import Selector

Policy = Literal["Background", "Foreground", "Orphan"]

FOREGROUND = "foregroundDeletion"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # of which generated names end
_SERVERS = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_PERMANENT = ("default", "kube-system", "knative-serving")


@dataclass(frozen=True)
class Change:
    """An object that has come, is another, or has gone. ``before``: as it was; ``None`` if it was not there."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Object
    before: Object | None


class Store:
    """Objects, until the process ends. ``Refused`` for what an API server refuses; all is safe for threads.

    What is returned must not be changed. ``history``: the changes that are kept for who asks for them later.
    ``listeners`` are called with each change, in order, and must not wait.
    """

    def __init__(self, history: Callable[[], int]) -> None:
        self._history = history
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._versions = itertools.count(1)
        self._version = 0
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {kind: {} for kind in KINDS}
        self._changes: deque[Change] = deque()
        self.listeners: list[Callable[[Change], None]] = []
        for name in _PERMANENT:
            self.create(NAMESPACE, {"metadata": {"name": name}})

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._objects[kind].get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.find(kind, namespace, name)
        if found is None:
            raise status.not_found(kind, name)
        return found

    def find_all(self, kind: Kind, namespace: str = "", select: Selector = lambda _: True) -> tuple[list[Object], int]:
        """Those of a namespace, or with ``""`` of all, by their names; and the version of the whole store."""
        with self._lock:
            found = [each for (where, _), each in sorted(self._objects[kind].items()) if namespace in ("", where)]
            return [each for each in found if select(each)], self._version

    def count(self, kind: Kind) -> int:
        return len(self._objects[kind])

    def create(self, kind: Kind, given: Object) -> Object:
        """The new object, with what a server adds."""
        made = copy.deepcopy(given)
        metadata = made["metadata"]
        with self._lock:
            if kind.namespaced:
                self._check_namespace(kind, metadata)
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_LETTERS) for _ in range(5))
            name = metadata["name"]
            if self.find(kind, metadata.get("namespace", ""), name) is not None:
                raise status.exists(kind, name)
            for ours in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"):
                metadata.pop(ours, None)
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if kind.custom:
                metadata["generation"] = 1
            if kind is NAMESPACE:
                metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = name
                made |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            return self._put("ADDED", kind, {"apiVersion": kind.api_version, "kind": kind.name, **made}, None)

    def update(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], Object], *, state: bool | None = None
    ) -> Object:
        """The object as ``change`` returns it, which is given a copy. A ``resourceVersion`` in it must be the latest.

        ``state``: only its status is changed, or all but its status; ``None`` for all of it.
        """
        with self._lock:
            before = self.get(kind, namespace, name)
            made = change(copy.deepcopy(before))
            theirs, ours = made["metadata"], before["metadata"]
            if theirs.get("resourceVersion") not in (None, "", ours["resourceVersion"]):
                raise status.conflict(kind, name)
            if theirs.get("uid") not in (None, "", ours["uid"]):
                why = f"Precondition failed: UID in precondition: {theirs['uid']}, UID in object meta: {ours['uid']}"
                raise status.conflict(kind, name, f"StorageError: invalid object, Code: 4, {why}")
            if state:
                made = {**before, "status": made.get("status", {})}
            else:
                made = {**made, "metadata": {**theirs, **_kept(ours)}}
                if state is not None:
                    made = {key: value for key, value in made.items() if key != "status"}
                    made |= {"status": before["status"]} if "status" in before else {}
            if kind.custom and made.get("spec") != before.get("spec"):
                made["metadata"] = {**made["metadata"], "generation": ours["generation"] + 1}
            if made == before:
                return before
            return self._put("MODIFIED", kind, made, before)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        policy: Policy = "Background",
        *,
        grace: float | None = None,
        preconditions: Object | None = None,
    ) -> tuple[Object, bool]:
        """The object as it was last, and whether it is gone already.

        ``grace``: the seconds that a pod may take to end; ``None`` for what its specification says.
        """
        with self._lock:
            found = self.get(kind, namespace, name)
            _check_preconditions(kind, found, preconditions or {})
            if kind is NAMESPACE:
                return self._delete_namespace(found)
            if kind is POD and grace != 0:
                seconds = found["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
                return self._mark(kind, found, [], seconds), False
            if policy == "Orphan":
                for owned in self._dependants(found):
                    self._disown(*owned, found["metadata"]["uid"])
            if policy == "Foreground" and any(True for _ in self._dependants(found)):
                marked = self._mark(kind, found, [FOREGROUND], 0)
                for their_kind, dependant in list(self._dependants(found)):
                    place = dependant["metadata"]["namespace"], dependant["metadata"]["name"]
                    if self.find(their_kind, *place):
                        self.delete(their_kind, *place, "Foreground")
                return self.find(kind, namespace, name) or marked, self.find(kind, namespace, name) is None
            if found["metadata"].get("finalizers"):
                return self._mark(kind, found, [], 0), False
            self._remove(kind, found)
            return found, True

    def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Remove an object whose end has come; one that is not there any more is none."""
        with self._lock:
            found = self.find(kind, namespace, name)
            if found is not None and found["metadata"]["uid"] == uid:
                self._remove(kind, found)

    def changes(self, since: int, limit: float) -> list[Change]:
        """What has changed after a version. Waits for ``limit`` seconds if that is nothing; ``Refused`` if lost."""
        with self._lock:
            if self._version <= since:
                self._changed.wait_for(lambda: self._version > since, limit)
            if not self._changes or self._version <= since:
                return []
            oldest = self._changes[0].version
            if since < oldest - 1:
                raise status.expired(since, oldest)
            return list(itertools.islice(self._changes, since - oldest + 1, None))

    def _put(self, type_: Literal["ADDED", "MODIFIED"], kind: Kind, made: Object, before: Object | None) -> Object:
        made["metadata"] = {**made["metadata"], "resourceVersion": str(next(self._versions))}
        metadata = made["metadata"]
        place = metadata.get("namespace", ""), metadata["name"]
        self._objects[kind][place] = made
        self._tell(int(metadata["resourceVersion"]), type_, kind, made, before)
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and kind not in (POD, NAMESPACE):
            self._remove(kind, made)
        return made

    def _remove(self, kind: Kind, found: Object) -> None:
        metadata = found["metadata"]
        namespace = metadata.get("namespace", "")
        if self._objects[kind].pop((namespace, metadata["name"]), None) is None:
            return
        version = next(self._versions)
        gone = {**found, "metadata": {**metadata, "resourceVersion": str(version)}}
        self._tell(version, "DELETED", kind, gone, found)
        for their_kind, dependant in list(self._dependants(found)):
            theirs = dependant["metadata"]
            if self.find(their_kind, theirs["namespace"], theirs["name"]):
                self.delete(their_kind, theirs["namespace"], theirs["name"])
        for reference in metadata.get("ownerReferences", ()):
            self._finish_owner(namespace, reference["uid"])
        self._finish_namespace(namespace)

    def _tell(self, version: int, type_: Any, kind: Kind, found: Object, before: Object | None) -> None:
        self._version = version
        change = Change(version, type_, kind, found, before)
        self._changes.append(change)
        while len(self._changes) > max(self._history(), 1):
            self._changes.popleft()
        self._changed.notify_all()
        for listener in self.listeners:
            listener(change)

    def _mark(self, kind: Kind, found: Object, finalizers: list[str], grace: float) -> Object:
        """It is to be deleted, but not yet."""
        metadata = found["metadata"]
        if "deletionTimestamp" in metadata:
            return found
        marked = {**metadata, "deletionTimestamp": now(grace), "deletionGracePeriodSeconds": int(grace)}
        if finalizers:
            marked["finalizers"] = [*metadata.get("finalizers", ()), *finalizers]
        return self._put("MODIFIED", kind, {**found, "metadata": marked}, found)

    def _dependants(self, owner: Object) -> Iterator[tuple[Kind, Object]]:
        uid, namespace = owner["metadata"]["uid"], owner["metadata"].get("namespace", "")
        for kind, objects in self._objects.items():
            for (where, _), each in list(objects.items()):
                owners = each["metadata"].get("ownerReferences", ())
                if where == namespace and any(reference["uid"] == uid for reference in owners):
                    yield kind, each

    def _disown(self, kind: Kind, found: Object, uid: str) -> None:
        metadata = found["metadata"]
        left = [each for each in metadata["ownerReferences"] if each["uid"] != uid]
        self._put("MODIFIED", kind, {**found, "metadata": {**metadata, "ownerReferences": left}}, found)

    def _finish_owner(self, namespace: str, uid: str) -> None:
        """Remove an owner that has only waited for what it owns."""
        for kind, objects in self._objects.items():
            for (where, _), each in list(objects.items()):
                metadata = each["metadata"]
                if where != namespace or metadata["uid"] != uid or FOREGROUND not in metadata.get("finalizers", ()):
                    continue
                if not any(True for _ in self._dependants(each)):
                    left = [name for name in metadata["finalizers"] if name != FOREGROUND]
                    self._put("MODIFIED", kind, {**each, "metadata": {**metadata, "finalizers": left}}, each)

    def _check_namespace(self, kind: Kind, metadata: Object) -> None:
        name = metadata["namespace"]
        namespace = self.get(NAMESPACE, "", name)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            raise status.forbidden_because(kind, metadata.get("name", ""), why)

    def _delete_namespace(self, found: Object) -> tuple[Object, bool]:
        name = found["metadata"]["name"]
        if name in _PERMANENT:
            raise status.forbidden_because(NAMESPACE, name, "this namespace may not be deleted")
        marked = self._mark(NAMESPACE, {**found, "status": {"phase": "Terminating"}}, [], 0)
        for kind, objects in self._objects.items():
            for where, each in [place for place in objects if place[0] == name]:
                if self.find(kind, where, each):
                    self.delete(kind, where, each)
        self._finish_namespace(name)
        return marked, self.find(NAMESPACE, "", name) is None

    def _finish_namespace(self, name: str) -> None:
        namespace = self.find(NAMESPACE, "", name)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        if not any(where == name for objects in self._objects.values() for where, _ in objects):
            self._remove(NAMESPACE, namespace)


def now(after: float = 0) -> str:
    """The time, or that after so many seconds, as it is written in objects."""
    return (datetime.now(UTC) + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%SZ")


def owned_by(kind: Kind, owner: Object) -> list[Object]:
    """The ``ownerReferences`` of what an object controls."""
    reference = {"apiVersion": kind.api_version, "kind": kind.name, "name": owner["metadata"]["name"]}
    return [{**reference, "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}]


def _kept(metadata: Object) -> Object:
    """What nobody but the server can change."""
    return {name: metadata[name] for name in _SERVERS if name in metadata}


def _check_preconditions(kind: Kind, found: Object, wanted: Object) -> None:
    metadata = found["metadata"]
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) not in (None, metadata[field]):
            why = f"{label} in precondition: {wanted[field]}, {label} in object meta: {metadata[field]}"
            raise status.conflict(kind, metadata["name"], f"Precondition failed: {why}")
