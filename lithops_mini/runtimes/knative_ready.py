"""Whether a service takes requests, and why not: in the words of Knative, of the kubelet and of the events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.api_server import Object
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.cluster import Cluster

# What containers wait for that seldom comes by itself, and the seconds for which it may come all the same.
_STUCK = (
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
    "RunContainerError",
)
_GRACE = 20.0
_PROXY = "queue-proxy"  # the container beside that of calls
_HINTS = {
    "Image": "is the image where the cluster finds it? 'lithops-mini runtime build -b knative' puts it there, and"
    " knative.pull_secret names the secret for a registry that wants to know who asks",
    "CrashLoopBackOff": "kubectl logs has its last words",
    "Unschedulable": "ask for less memory or cpu, or add nodes",
    "exceeded quota": "ask for less memory, cpu or max_scale, or have the quota raised",
    "denied the request": "what the webhook does not like is a setting of knative",
}


def wait(cluster: Cluster, name: str, seconds: float, tell: Tell) -> str:
    """The URL of a service as soon as it is ready. ``ConfigError`` says why it is not, and will not be."""
    deadline = time.monotonic() + seconds
    stuck_since: float | None = None
    told = ""
    for service in cluster.versions(name, deadline):
        if service is None:
            continue
        if url := ready_url(service):
            return url
        if failed := failure(service):
            raise ConfigError(_explain(cluster, name, "is not ready", [failed]))
        state = _state(service)
        if state != told:
            tell(f"Waiting for {name}: {state}")
            told = state
        if not any(reason in _STUCK for reason, _ in _waiting(cluster.pods(name))):
            stuck_since = None
        elif stuck_since is None:
            stuck_since = time.monotonic()
        elif time.monotonic() - stuck_since > _GRACE:
            break
    else:
        raise ConfigError(_explain(cluster, name, f"was not ready within {seconds:g} s", [told]))
    raise ConfigError(_explain(cluster, name, "does not get ready", [told]))


def ready_url(service: Object) -> str | None:
    """The URL of a service that is ready, as it was last asked for; else ``None``."""
    status = service.get("status") or {}
    condition = _condition(service)
    if status.get("observedGeneration") != service["metadata"].get("generation"):
        return None
    return str(status["url"]) if condition.get("status") == "True" and status.get("url") else None


@dataclass(frozen=True)
class End:
    """How a container has ended."""

    pod: str
    reason: str  # as Kubernetes names it: OOMKilled, Error, Completed
    code: int
    message: str  # what it has printed last, if that is known

    @property
    def is_out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"


def end_since(pod: Object, since: float) -> End | None:
    """How the container of calls has ended in a pod since a time, in seconds since the epoch, if it has."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        for state in (status.get("state"), status.get("lastState")):
            ended = (state or {}).get("terminated") or {}
            # The time of an end has no fractions.
            if ended and status.get("name") != _PROXY and _seconds(ended.get("finishedAt")) + 1 > since:
                name, reason = str(pod["metadata"]["name"]), str(ended.get("reason") or "Error")
                return End(name, reason, int(ended.get("exitCode") or 0), str(ended.get("message") or ""))
    return None


def failure(service: Object) -> str | None:
    """Why the service, as it was last asked for, is not going to be ready."""
    condition = _condition(service)
    if condition.get("status") != "False":
        return None
    if (service.get("status") or {}).get("observedGeneration") != service["metadata"].get("generation"):
        return None
    return _said(condition)


def _state(service: Object) -> str:
    return _said(_condition(service)) or "Knative has not said anything yet"


def _condition(service: Object) -> Mapping[str, Any]:
    conditions = (service.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "Ready"), {})


def _said(condition: Mapping[str, Any]) -> str:
    parts = (condition.get("reason"), condition.get("message"))
    return ": ".join(" ".join(str(part).split()) for part in parts if part)


def _waiting(pods: Sequence[Object]) -> Iterator[tuple[str, str]]:
    """What containers wait for, or were ended by: reason and message."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield str(condition.get("reason", "")), str(condition.get("message", ""))
        for each in status.get("containerStatuses") or ():
            if waiting := (each.get("state") or {}).get("waiting"):
                yield str(waiting.get("reason", "")), str(waiting.get("message", ""))
            if ended := (each.get("lastState") or {}).get("terminated"):
                yield str(ended.get("reason", "")), f"exit code {ended.get('exitCode')} {ended.get('message') or ''}"


def _explain(cluster: Cluster, name: str, what: str, said: Sequence[str]) -> str:
    lines = [line for line in said if line]
    usual = ("ContainerCreating", "PodInitializing")
    lines += [f"{reason}: {text}" for reason, text in _waiting(cluster.pods(name)) if reason not in usual]
    events = sorted(cluster.warnings(name), key=lambda each: _seconds(each.get("lastTimestamp")))
    lines += [f"{each.get('reason')}: {each.get('message')}" for each in events[-5:]]
    distinct = list(dict.fromkeys(" ".join(line.split()) for line in lines))
    hints = [hint for word, hint in _HINTS.items() if any(word in line for line in distinct)]
    return "\n  ".join((f"the service {name} {what}" + (f"; {hints[0]}:" if hints else ":"), *distinct))


def _seconds(stamp: object) -> float:
    """A time as Kubernetes writes it, in seconds since the epoch; 0 if there is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return 0.0
