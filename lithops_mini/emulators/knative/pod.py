"""A pod: its container, started, probed, started again when it ends, and what is told of it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from lithops_mini.emulators.knative import kinds, status
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.logs import Log
from lithops_mini.emulators.knative.pod_objects import QUEUE_PROXY, NotConfigured, pod_object, program
from lithops_mini.emulators.knative.sandbox import CannotStart, Sandbox
from lithops_mini.emulators.knative.store import now
from lithops_mini.emulators.processes import End

_LOOK = 0.02  # seconds between probes, and between looks for what is missing
_RETRY = 0.5
_PERIOD, _MISSED = 10, 3  # seconds between probes of what is ready, and how many must fail, if nothing else is said
_MOST_BACK_OFF = 300.0
_FORGOTTEN = 600.0  # seconds that a container must run to have its ends forgotten
_LAST = 2048  # bytes of a log that are a container's last words


class Pod:
    """Lives from the beginning; ``changed`` is called when it can take calls, cannot any more, or is in trouble.

    ``Refused`` if the cluster does not take it.
    """

    def __init__(self, cluster: Cluster, revision: Object, changed: Callable[[], None]) -> None:
        self._cluster = cluster
        self._revision = revision
        self._changed = changed
        self.object = self._create()
        self.name: str = self.object["metadata"]["name"]
        self.ready = False
        self.has_served = False
        self.ending = threading.Event()  # it takes no new call
        self.lost = False  # its node has gone
        self.gone = threading.Event()
        self.trouble: tuple[str, str] | None = None  # reason and message: what it waits for
        self.unschedulable = ""
        self.last_end: tuple[int, str] | None = None  # exit code, and last words, of the container before
        self.in_flight = 0  # these two are the scale's
        self.last_used = time.monotonic()
        self.log = Log()
        self.previous_log: Log | None = None
        self.sandbox: Sandbox | None = None
        self._restarts = 0
        self._failures = 0  # in a row
        self._last_state: Object = {}
        self._started = ""
        self._drained = threading.Event()
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="pod", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drained(self) -> None:
        """It is ending, and no call is in it any more."""
        self._drained.set()

    def end(self, seconds: float) -> None:
        """End it within so many seconds: when its calls are through, and then by SIGTERM; by 0 it is killed at once."""
        with self._ending:
            if seconds and self.ending.is_set():
                return
            self.ending.set()
        self.ready = False
        if not seconds:
            self._drained.set()
            if self.sandbox is not None:
                self.sandbox.kill()
        threading.Thread(target=self._end, args=(seconds,), name="pod-end", daemon=True).start()

    def _end(self, seconds: float) -> None:
        if seconds:
            self._cluster.record(kinds.POD, self.object, "Killing", f"Stopping container {self._container}")
            self._drained.wait(seconds)
            if self.sandbox is not None:
                self.sandbox.terminate()
                self.sandbox.ended.wait(min(seconds, self._cluster.limits().grace))
        self._thread.join()
        if self.sandbox is not None:
            self.sandbox.kill()
        metadata = self.object["metadata"]
        self._cluster.store.remove(kinds.POD, metadata["namespace"], self.name, metadata["uid"])
        self.gone.set()
        self._changed()

    @property
    def _container(self) -> str:
        return str(self._revision["spec"]["containers"][0]["name"])

    def _create(self) -> Object:
        cluster, made = self._cluster, pod_object(self._revision)
        metadata, name = made["metadata"], made["metadata"]["generateName"]
        namespace, account = metadata["namespace"], made["spec"]["serviceAccountName"]
        if cluster.store.find(kinds.SERVICE_ACCOUNT, namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise status.forbidden_because(kinds.POD, name, why)
        used, limit = len(cluster.store.find_all(kinds.POD, namespace)[0]), cluster.limits().pods
        if used >= limit:
            why = f"exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={limit}"
            raise status.forbidden_because(kinds.POD, name, why)
        return cluster.store.create(kinds.POD, made)

    def _live(self) -> None:
        if self._schedule():
            while not self.ending.is_set():
                self._run()

    def _schedule(self) -> bool:
        machine, wanted = self._cluster.machine, self._revision["spec"].get("nodeSelector") or {}
        if any(machine.labels.get(name) != value for name, value in wanted.items()):
            self.unschedulable = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
            self._cluster.record(kinds.POD, self.object, "FailedScheduling", self.unschedulable, warning=True)
            self._tell({})
            self.ending.wait()
            return False
        metadata = self.object["metadata"]
        text = f"Successfully assigned {metadata['namespace']}/{self.name} to {machine.name}"
        self._cluster.record(kinds.POD, self.object, "Scheduled", text)
        self._tell({"waiting": {"reason": "ContainerCreating"}})
        return True

    def _run(self) -> None:
        """One container of it, from its image to its end."""
        sandbox = self._start()
        if sandbox is None:
            return
        self.sandbox = sandbox
        began = time.monotonic()
        if self.ending.is_set():  # whoever ended it may have missed the sandbox
            if self._drained.is_set():
                sandbox.kill()
        elif self._probe(sandbox):
            self.ready, self.trouble, self.last_used = True, None, time.monotonic()
            self.has_served = True
            self._tell(self._running)
            self._probe_on(sandbox)
        sandbox.ended.wait()
        self.ready = False
        assert sandbox.end is not None
        if not self.ending.is_set():
            sandbox.kill()
            self._failures = 0 if time.monotonic() - began > _FORGOTTEN else self._failures + 1
            self._ended(sandbox.end, "OOMKilled" if sandbox.end.out_of_memory else "")

    def _start(self) -> Sandbox | None:
        """A container; ``None`` if there can be none, which has been told."""
        pull = self._cluster.dice.faults.cold_start
        if not self._restarts and self.ending.wait(pull):
            return None
        image = self._revision["spec"]["containers"][0]["image"]
        if self._cluster.machine.image(image) is None:
            text = f'Back-off pulling image "{image}"'
            self._wait("ImagePullBackOff", text, lambda: self._cluster.machine.image(image) is not None)
            return None
        try:
            wanted = program(self._cluster, self._revision, self.object)
        except NotConfigured as error:
            self._wait("CreateContainerConfigError", str(error), self._is_configured)
            return None
        self.previous_log = self.log if self._restarts else None
        self.log = Log()
        self._started = now()
        try:
            made = self._cluster.machine.run(wanted, self.log)
        except CannotStart as error:
            self.log.end()
            self._failures += 1
            self._cluster.record(kinds.POD, self.object, "Failed", f"Error: {error}", warning=True)
            self._ended(End(str(error), code=128), "StartError", str(error))
            return None
        self._cluster.record(kinds.POD, self.object, "Started", f"Started container {self._container}")
        self._tell(self._running)
        return made

    def _is_configured(self) -> bool:
        try:
            program(self._cluster, self._revision, self.object)
        except NotConfigured:
            return False
        return True

    def _wait(self, reason: str, message: str, is_there: Callable[[], bool]) -> None:
        self.trouble = reason, message
        self._cluster.record(kinds.POD, self.object, "Failed", f"Error: {message}", warning=True)
        self._tell({"waiting": {"reason": reason, "message": message}})
        while not self.ending.wait(_RETRY) and not is_there():
            pass
        self.trouble = None

    def _probe(self, sandbox: Sandbox) -> bool:
        """Return when its server answers, with whether it does: it may have ended."""
        probe = self._revision["spec"]["containers"][0].get("readinessProbe") or {}
        get = probe.get("httpGet")
        while not _answers(sandbox.address, get):
            if sandbox.ended.wait(_LOOK) or self.ending.is_set():
                return False
        return not self.ending.is_set()

    def _probe_on(self, sandbox: Sandbox) -> None:
        """Tell whenever its server does not answer any more, and when it does again, until it ends."""
        probe = self._revision["spec"]["containers"][0].get("readinessProbe") or {}
        missed = 0
        while not sandbox.ended.wait(probe.get("periodSeconds") or _PERIOD) and not self.ending.is_set():
            missed = 0 if _answers(sandbox.address, probe.get("httpGet")) else missed + 1
            ready = missed < (probe.get("failureThreshold") or _MISSED) and not self.ending.is_set()
            if ready != self.ready:
                self.ready = ready
                self._tell(self._running)

    def _ended(self, end: End, reason: str, message: str = "") -> None:
        """A container has ended by itself: tell so, and wait as long as must be."""
        words = message or self.log.tail(_LAST)
        reason = reason or ("Error" if end.code else "Completed")
        terminated = {"exitCode": end.code, "reason": reason, "startedAt": self._started, "finishedAt": now()}
        self._last_state = {"terminated": {**terminated, **({"message": words} if words else {})}}
        self.last_end = end.code, words
        self._restarts += 1
        self._cluster.count("restarts")
        if self._failures > 1:
            back_off = min(self._cluster.limits().back_off * 2 ** (self._failures - 2), _MOST_BACK_OFF)
            text = f"back-off {back_off:g}s restarting failed container={self._container} pod={self.name}"
            self.trouble = "CrashLoopBackOff", text
            self._cluster.record(kinds.POD, self.object, "BackOff", text, warning=True)
            self._tell({"waiting": {"reason": "CrashLoopBackOff", "message": text}})
            self.ending.wait(back_off)
            self.trouble = None
        else:
            self._tell({"terminated": self._last_state["terminated"]})

    @property
    def _running(self) -> Object:
        return {"running": {"startedAt": self._started}}

    def _tell(self, state: Object) -> None:
        """Write how it is. ``state``: that of its container; empty before it is on a node."""
        metadata = self.object["metadata"]
        scheduled: Object = {"type": "PodScheduled", "status": "True"}
        if self.unschedulable:
            scheduled |= {"status": "False", "reason": "Unschedulable", "message": self.unschedulable}
        ready = "True" if self.ready else "False"
        conditions = [scheduled, *({"type": name, "status": ready} for name in ("ContainersReady", "Ready"))]
        told: dict[str, Any] = {"phase": "Running" if "waiting" not in state or self._restarts else "Pending"}
        told["conditions"] = [{**each, "lastTransitionTime": metadata["creationTimestamp"]} for each in conditions]
        if state:
            told |= {"hostIP": "127.0.0.1", "startTime": metadata["creationTimestamp"]}
            told["containerStatuses"] = [self._container_status(state), _proxy_status(self.ready, metadata)]
        else:
            told["phase"] = "Pending"
        self._cluster.set_status(kinds.POD, self.object, told)
        self._changed()

    def _container_status(self, state: Object) -> Object:
        image = self._revision["spec"]["containers"][0]["image"]
        told = {"name": self._container, "image": image, "imageID": self._cluster.machine.image(image) or ""}
        told |= {"ready": self.ready, "started": self.ready, "restartCount": self._restarts, "state": state}
        return {**told, "lastState": self._last_state}


def _proxy_status(ready: bool, metadata: Object) -> Object:
    told = {"name": QUEUE_PROXY, "image": QUEUE_PROXY, "imageID": "", "ready": ready, "started": True}
    state = {"running": {"startedAt": metadata["creationTimestamp"]}}
    return {**told, "restartCount": 0, "state": state, "lastState": {}}


def _answers(address: tuple[str, int], get: Object | None) -> bool:
    try:
        if get is None:
            socket.create_connection(address, 1).close()
            return True
        connection = http.client.HTTPConnection(*address, timeout=1)
        try:
            headers = {each["name"]: each["value"] for each in get.get("httpHeaders") or ()}
            connection.request("GET", get.get("path") or "/", headers={"User-Agent": "kube-probe/", **headers})
            return 200 <= connection.getresponse().status < 400
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False
