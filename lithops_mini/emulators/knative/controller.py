"""What follows from a Service: its configuration, its revisions, its route, and what is told of all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from lithops_mini.emulators.knative import kinds, told
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.conditions import condition
from lithops_mini.emulators.knative.kinds import CONFIGURATION, REVISION, ROUTE, SERVICE, SERVING, Kind, Object
from lithops_mini.emulators.knative.scale import Scale
from lithops_mini.emulators.knative.status import Refused
from lithops_mini.emulators.knative.store import Change, owned_by

_LOOK = 0.25  # seconds between looks at what nobody needs
_GENERATION = f"{SERVING}/configurationGeneration"
_SERVICE = f"{SERVING}/service"
_CHAIN = (SERVICE, CONFIGURATION, REVISION, ROUTE)


class Controller:
    """Makes the store true, from now on until ``close``. ``url``: that of a service, by its name and namespace."""

    def __init__(self, cluster: Cluster, url: Callable[[str, str], str]) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._url = url
        self._scales: dict[str, Scale] = {}  # by the uid of the revision
        self._retired: list[Scale] = []  # whose revision has gone, and whose pods have not yet
        self._queue: SimpleQueue[Change] = SimpleQueue()
        for namespace in self._store.find_all(kinds.NAMESPACE)[0]:
            self._make_account(namespace)
        self._store.listeners.append(self._queue.put)
        self._thread = threading.Thread(target=self._work, name="controller", daemon=True)
        self._thread.start()

    def scale(self, revision: Object) -> Scale | None:
        return self._scales.get(revision["metadata"]["uid"])

    def scales(self) -> list[Scale]:
        """All that have pods, or may have."""
        return [*self._scales.values(), *self._retired]

    def close(self) -> None:
        """Kill all pods."""
        self._cluster.closing.set()
        self._thread.join()
        for scale in self.scales():
            scale.close(kill=True)

    def _work(self) -> None:
        look = time.monotonic()
        while not self._cluster.closing.is_set():
            if time.monotonic() >= look:
                for scale in self.scales():
                    scale.shrink()
                self._retired = [each for each in self._retired if each.counts()["pods"]]
                look = time.monotonic() + _LOOK
            try:
                self._follow(self._queue.get(timeout=_LOOK))
            except Empty:
                continue
            except Refused as error:
                if error.code not in (403, 404):  # otherwise it has just gone, and this will be the next change
                    raise

    def _follow(self, change: Change) -> None:
        kind, found = change.kind, change.object
        if kind is kinds.NAMESPACE and change.type == "ADDED":
            self._make_account(found)
        if kind is kinds.POD:
            for scale in self.scales():
                scale.pod_changed(change)
        if kind is REVISION:
            uid = found["metadata"]["uid"]
            if change.type == "ADDED":
                self._scales[uid] = Scale(self._cluster, found)
            elif change.type == "DELETED" and uid in self._scales:
                self._retired.append(self._scales.pop(uid))
                self._retired[-1].close()
        if kind in _CHAIN:
            name = found["metadata"]["name"] if kind is SERVICE else found["metadata"]["labels"].get(_SERVICE, "")
            service = self._store.find(SERVICE, found["metadata"]["namespace"], name)
            if service is not None and "deletionTimestamp" not in service["metadata"]:
                self._reconcile(service)

    def _make_account(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        if self._store.find(kinds.SERVICE_ACCOUNT, name, "default") is None:
            self._store.create(kinds.SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": name}})

    def _reconcile(self, service: Object) -> None:
        template = service["spec"]["template"]
        configuration = self._ensure(CONFIGURATION, service, {"template": template})
        traffic = [{"configurationName": configuration["metadata"]["name"], "latestRevision": True, "percent": 100}]
        route = self._ensure(ROUTE, service, {"traffic": traffic})
        created = self._ensure_revision(configuration)
        latest = self._latest_ready(configuration)
        place = service["metadata"]["namespace"], service["metadata"]["name"]
        self._cluster.set_status(CONFIGURATION, configuration, told.of_configuration(configuration, created, latest))
        configuration = self._store.get(CONFIGURATION, *place)
        self._cluster.set_status(ROUTE, route, told.of_route(route, configuration, self._url(place[1], place[0])))
        route = self._store.get(ROUTE, *place)
        self._cluster.set_status(SERVICE, service, told.of_service(service, configuration, route))
        self._lead_calls(configuration, latest)

    def _ensure(self, kind: Kind, service: Object, spec: Mapping[str, Any]) -> Object:
        """A service's configuration or route, as it is to be."""
        metadata = service["metadata"]
        place = metadata["namespace"], metadata["name"]
        if self._store.find(kind, *place) is not None:
            return self._store.update(kind, *place, lambda found: {**found, "spec": spec}, state=False)
        labels = {_SERVICE: metadata["name"], f"{SERVING}/serviceUID": metadata["uid"]}
        own: Object = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels}
        own["ownerReferences"] = owned_by(SERVICE, service)
        made = self._store.create(kind, {"metadata": own, "spec": spec})
        self._cluster.record(SERVICE, service, "Created", f'Created {kind.name} "{metadata["name"]}"')
        return made

    def _ensure_revision(self, configuration: Object) -> Object:
        metadata, template = configuration["metadata"], configuration["spec"]["template"]
        own = template.get("metadata") or {}
        name = own.get("name") or f"{metadata['name']}-{metadata['generation']:05d}"
        found = self._store.find(REVISION, metadata["namespace"], name)
        if found is not None:
            return found
        labels = {**(own.get("labels") or {}), **metadata["labels"], f"{SERVING}/configuration": metadata["name"]}
        labels |= {_GENERATION: str(metadata["generation"]), f"{SERVING}/configurationUID": metadata["uid"]}
        made = {"name": name, "namespace": metadata["namespace"], "labels": labels}
        made["annotations"] = dict(own.get("annotations") or {})
        made["ownerReferences"] = owned_by(CONFIGURATION, configuration)
        created = self._store.create(REVISION, {"metadata": made, "spec": template["spec"]})
        self._cluster.record(CONFIGURATION, configuration, "Created", f'Created Revision "{name}"')
        return created

    def _latest_ready(self, configuration: Object) -> str | None:
        """The newest revision that has become ready; one that is in trouble later stays it."""
        current: str | None = configuration.get("status", {}).get("latestReadyRevisionName")
        for each in sorted(self._revisions(configuration), key=_generation, reverse=True):
            name = str(each["metadata"]["name"])
            if name == current or condition(each).state == "True":
                return name
        return current

    def _revisions(self, configuration: Object) -> list[Object]:
        metadata = configuration["metadata"]

        def belongs(found: Object) -> bool:
            return bool(found["metadata"]["labels"].get(f"{SERVING}/configurationUID") == metadata["uid"])

        return self._store.find_all(REVISION, metadata["namespace"], belongs)[0]

    def _lead_calls(self, configuration: Object, latest: str | None) -> None:
        """Calls come to the latest revision that is ready, and newer ones must become ready."""
        for each in self._revisions(configuration):
            scale = self.scale(each)
            if scale is not None:
                newest = _generation(each) >= configuration["metadata"]["generation"]
                scale.reach(newest or each["metadata"]["name"] == latest)


def _generation(revision: Object) -> int:
    return int(revision["metadata"]["labels"][_GENERATION])
