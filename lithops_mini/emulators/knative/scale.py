"""A revision at work: its pods, as many as its calls need, the calls that wait for them, and what is told of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.admission import PROGRESS, SCALE
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.conditions import Condition, written
from lithops_mini.emulators.knative.health import Health
from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.pod import Pod
from lithops_mini.emulators.knative.quantities import seconds
from lithops_mini.emulators.knative.status import Refused
from lithops_mini.emulators.knative.store import Change

_LOOK = 0.5  # seconds between looks whether who waits is still there
_RETRY = 0.5  # seconds between looks for an image that is missing
_TARGET = 100  # calls at a time for which there is a pod, where a pod may have any number


class NoPod(Exception):
    """No pod can be had now."""


class QueueFull(Exception):
    """Too many calls wait already."""


class TookTooLong(Exception):
    """No pod was free in time."""


class ClientGone(Exception):
    """Who called does not wait any more."""


class _Waiter:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.pod: Pod | None = None  # None, once done: there is none to be had


class Scale:
    """Pods of a revision, from now on until ``close``."""

    def __init__(self, cluster: Cluster, revision: Object) -> None:
        self._cluster = cluster
        self._revision = revision
        self._lock = threading.RLock()
        self._pods: dict[str, Pod] = {}
        self._waiters: deque[_Waiter] = deque()
        self._began = time.monotonic()
        self._initialised = False
        self._reachable = True
        self._closed = threading.Event()
        self._pulled = False
        self._image_trouble = ""
        self._refusal = ""
        self._digest = ""
        annotations = revision["metadata"].get("annotations") or {}

        def count(default: int, *names: str) -> int:
            return next(
                (int(annotations[f"{SCALE}/{name}"]) for name in names if f"{SCALE}/{name}" in annotations), default
            )

        self.concurrency: int = revision["spec"]["containerConcurrency"]
        self.timeout: int = revision["spec"]["timeoutSeconds"]
        self._least = count(0, "min-scale", "minScale")
        self._most = count(0, "max-scale", "maxScale")
        self._initial = max(count(1, "initial-scale", "initialScale"), self._least, 1)
        self._target = self.concurrency or count(_TARGET, "target")
        self._progress = annotations.get(PROGRESS)
        threading.Thread(target=self._begin, name="revision", daemon=True).start()

    # -- calls

    def take(self, deadline: float, is_gone: Callable[[], bool]) -> Pod:
        """A pod for a call, to be given back. ``NoPod``, ``QueueFull``, ``TookTooLong``, ``ClientGone``."""
        waiter = _Waiter()
        with self._lock:
            if self._closed.is_set():
                raise NoPod
            if len(self._waiters) >= self._cluster.limits().queue:
                raise QueueFull
            self._waiters.append(waiter)
            self._hand_out()
            self._grow()
            self._give_up()
        while not waiter.done.wait(max(min(deadline - time.monotonic(), _LOOK), 0)):
            late = time.monotonic() >= deadline
            if not late and not is_gone():
                continue
            with self._lock:
                if waiter.done.is_set():
                    break
                self._waiters.remove(waiter)
            raise TookTooLong if late else ClientGone
        if waiter.pod is None:
            raise NoPod
        return waiter.pod

    def give(self, pod: Pod) -> None:
        with self._lock:
            pod.in_flight -= 1
            pod.last_used = time.monotonic()
            if pod.ending.is_set() and not pod.in_flight:
                pod.drained()
            self._hand_out()

    def evict(self, pod: Pod, *, lost: bool = False) -> None:
        """Kill a pod and all that runs in it, without a warning. ``lost``: with its node."""
        pod.lost = lost
        pod.end(0)

    def evict_all(self) -> int:
        """Lose the node of all pods; returns how many there were."""
        with self._lock:
            pods = list(self._pods.values())
        for pod in pods:
            self.evict(pod, lost=True)
        return len(pods)

    def _hand_out(self) -> None:
        while self._waiters:
            free = [each for each in self._pods.values() if self._takes(each)]
            if not free:
                return
            pod = min(free, key=lambda each: each.in_flight)
            pod.in_flight += 1
            waiter = self._waiters.popleft()
            waiter.pod = pod
            waiter.done.set()

    def _takes(self, pod: Pod) -> bool:
        room = not self.concurrency or pod.in_flight < self.concurrency
        return pod.ready and not pod.ending.is_set() and room

    def _give_up(self) -> None:
        """Tell who waits that there is no pod to be had, if all that could be are in trouble."""
        pods = [each for each in self._pods.values() if not each.ending.is_set()]
        hopeless = all(each.trouble or each.unschedulable for each in pods) and (pods or self._refusal)
        if not hopeless:
            return
        while self._waiters:
            self._waiters.popleft().done.set()

    # -- pods

    def _begin(self) -> None:
        """Wait for the image, and make the first pods."""
        cluster, image = self._cluster, self._revision["spec"]["containers"][0]["image"]
        self._report()
        if self._closed.wait(cluster.dice.faults.pull):
            return
        while (digest := cluster.machine.image(image)) is None and not _is_digest(image):
            self._image_trouble = f'Unable to fetch image "{image}": failed to resolve image to digest: not found'
            self._report()
            if self._closed.wait(_RETRY):
                return
        self._image_trouble, self._digest = "", digest or ""
        with self._lock:
            self._pulled = True
            self._grow()
        self._report()

    def _grow(self) -> None:
        needed = self._reachable or bool(self._waiters)
        if self._closed.is_set() or not self._pulled or not needed:
            return
        there = [each for each in self._pods.values() if not each.ending.is_set()]
        for _ in range(self._wanted(there) - len(there)):
            try:
                pod = Pod(self._cluster, self._revision, self._changed)
            except Refused as error:
                self._refusal = error.text
                break
            self._refusal = ""
            self._pods[pod.name] = pod
            self._cluster.count("pods")
            pod.start()

    def _wanted(self, there: list[Pod]) -> int:
        calls = sum(each.in_flight for each in there) + len(self._waiters)
        least = max(self._least if self._reachable else 0, 0 if self._initialised else self._initial)
        wanted = max(math.ceil(calls / self._target), least)
        return min(wanted, self._most) if self._most else wanted

    def shrink(self) -> None:
        """Let pods go that nobody has needed for a while, and look after what has come to nothing."""
        oldest = time.monotonic() - (self._cluster.limits().idle if self._reachable else 0)
        with self._lock:
            there = [each for each in self._pods.values() if not each.ending.is_set()]
            unused = [each for each in there if not each.in_flight and each.last_used <= oldest and each.has_served]
            surplus = len(there) - self._wanted(there) if self._initialised else 0
            going = sorted(unused, key=lambda each: each.last_used)[: max(surplus, 0)]
            if not self._reachable and not self._waiters:
                going = [each for each in there if not each.in_flight]
            self._grow()
            self._give_up()
        for pod in going:
            self._delete(pod)
        self._report()

    def _delete(self, pod: Pod) -> None:
        try:
            self._cluster.store.delete(kinds.POD, pod.object["metadata"]["namespace"], pod.name)
        except Refused:  # somebody else has deleted it
            return

    def pod_changed(self, change: Change) -> None:
        """An object of a pod of ours is another, or has gone: by ``shrink``, or by who has deleted it."""
        pod = self._pods.get(change.object["metadata"]["name"])
        if pod is None:
            return
        if change.type == "DELETED" and not pod.gone.is_set():
            pod.end(0)
        elif "deletionTimestamp" in change.object["metadata"]:
            pod.end(change.object["metadata"]["deletionGracePeriodSeconds"])
            with self._lock:
                if not pod.in_flight:
                    pod.drained()

    def pod(self, name: str) -> Pod | None:
        return self._pods.get(name)

    def reach(self, reachable: bool) -> None:
        """Whether calls come here. One to which none come needs no pods, whatever its least number is."""
        self._reachable = reachable

    def counts(self) -> dict[str, int]:
        with self._lock:
            pods = list(self._pods.values())
            running = sum(each.in_flight for each in pods)
            ready = sum(each.ready for each in pods)
            return {"pods": len(pods), "ready": ready, "running": running, "waiting": len(self._waiters)}

    def close(self, *, kill: bool = False) -> None:
        """Make no more pods. They end when their objects go, or with ``kill`` now."""
        self._closed.set()
        with self._lock:
            while self._waiters:
                self._waiters.popleft().done.set()
            pods = list(self._pods.values())
        if kill:
            for pod in pods:
                pod.end(0)
            for pod in pods:
                pod.gone.wait()

    def _changed(self) -> None:
        with self._lock:
            self._pods = {name: each for name, each in self._pods.items() if not each.gone.is_set()}
            ready = sum(each.ready for each in self._pods.values())
            self._initialised = self._initialised or ready >= min(self._initial, self._most or self._initial)
            self._hand_out()
            self._grow()
            self._give_up()
        self._report()

    # -- what is told

    def _report(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            metadata = self._revision["metadata"]
            found = self._cluster.store.find(kinds.REVISION, metadata["namespace"], metadata["name"])
            if found is None or found["metadata"]["uid"] != metadata["uid"]:
                return
            there = [each for each in self._pods.values() if not each.ending.is_set()]
            told: dict[str, Any] = {"observedGeneration": 1, "actualReplicas": sum(each.ready for each in there)}
            told["desiredReplicas"] = self._wanted(there)
            told["conditions"] = written(self._conditions(there, found), found.get("status", {}).get("conditions", ()))
            if self._digest:
                container = self._revision["spec"]["containers"][0]
                told["containerStatuses"] = [{"name": container["name"], "imageDigest": self._digest}]
            self._cluster.set_status(kinds.REVISION, found, told)

    def _conditions(self, there: list[Pod], found: Object) -> list[Condition]:
        late = time.monotonic() > self._began + self._progress_limit()
        return Health(there, self._initialised, late, self._image_trouble, self._refusal).conditions(found)

    def _progress_limit(self) -> float:
        return seconds(self._progress) if self._progress else self._cluster.limits().progress


def _is_digest(image: str) -> bool:
    """Whether there is nothing to resolve: the name is one already, or of a registry that is not asked."""
    return "@" in image or image.partition("/")[0] in ("dev.local", "kind.local", "ko.local")
