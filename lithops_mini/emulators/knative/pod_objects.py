"""Pods as objects: what a revision says, and what runs then."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from lithops_mini.emulators.knative import kinds
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.kinds import SERVING, Object
from lithops_mini.emulators.knative.quantities import quantity
from lithops_mini.emulators.knative.sandbox import Program
from lithops_mini.emulators.knative.store import owned_by

QUEUE_PROXY = "queue-proxy"

_PORT = 8080


class NotConfigured(Exception):
    """A container whose environment names what is not there."""


def pod_object(revision: Object) -> Object:
    """A new pod of a revision, as it is to be created."""
    metadata, spec = revision["metadata"], revision["spec"]
    name, labels = metadata["name"], metadata["labels"]
    container = {**spec["containers"][0]}
    container["env"] = [
        *container.get("env", ()),
        {"name": "PORT", "value": str(_port(container))},
        *({"name": name, "value": value} for name, value in _names(revision).items()),
    ]
    container["ports"] = [{"name": "user-port", "containerPort": _port(container), "protocol": "TCP"}]
    container.pop("readinessProbe", None)  # the queue proxy probes
    own = {
        "name": f"{name}-deployment",
        "namespace": metadata["namespace"],
        "labels": {**labels, "app": name, f"{SERVING}/revision": name, f"{SERVING}/revisionUID": metadata["uid"]},
        "annotations": dict(metadata.get("annotations") or {}),
        "ownerReferences": owned_by(kinds.REVISION, revision),
    }
    own["generateName"] = f"{own.pop('name')}-{metadata['uid'][:8]}-"
    return {
        "metadata": own,
        "spec": {
            "containers": [container, {"name": QUEUE_PROXY, "image": QUEUE_PROXY, "resources": {}}],
            "restartPolicy": "Always",
            "serviceAccountName": spec.get("serviceAccountName", "default"),
            "terminationGracePeriodSeconds": spec["timeoutSeconds"],
            "dnsPolicy": "ClusterFirst",
            **{name: spec[name] for name in ("imagePullSecrets", "nodeSelector", "volumes") if spec.get(name)},
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def program(cluster: Cluster, revision: Object, pod: Object) -> Program:
    """What the container of a pod runs. ``NotConfigured``."""
    container = revision["spec"]["containers"][0]
    limits = (container.get("resources") or {}).get("limits") or {}
    security = container.get("securityContext") or {}
    environment = _environment(cluster, container, pod) | _names(revision)
    environment["HOSTNAME"] = pod["metadata"]["name"]
    return Program(
        image=container["image"],
        command=tuple(container.get("command") or ()),
        arguments=tuple(container.get("args") or ()),
        environment=environment,
        port=_port(container),
        memory=int(quantity(limits.get("memory", 0))),
        processors=quantity(limits.get("cpu", 0)),
        directory=container.get("workingDir", ""),
        user=security.get("runAsUser"),
        read_only=bool(security.get("readOnlyRootFilesystem")),
        drop_all="ALL" in (security.get("capabilities") or {}).get("drop", ()),
        empty=_empty(revision["spec"], container),
    )


def _names(revision: Object) -> dict[str, str]:
    labels = revision["metadata"]["labels"]
    service, configuration = labels[f"{SERVING}/service"], labels[f"{SERVING}/configuration"]
    return {"K_SERVICE": service, "K_CONFIGURATION": configuration, "K_REVISION": revision["metadata"]["name"]}


def _port(container: Mapping[str, Any]) -> int:
    return next((int(each["containerPort"]) for each in container.get("ports") or () if "containerPort" in each), _PORT)


def _empty(spec: Object, container: Mapping[str, Any]) -> dict[str, int]:
    sizes = {
        each["name"]: int(quantity(each["emptyDir"].get("sizeLimit", 0)))
        for each in spec.get("volumes") or ()
        if each.get("emptyDir") is not None
    }
    mounts = container.get("volumeMounts") or ()
    return {each["mountPath"]: sizes[each["name"]] for each in mounts if each["name"] in sizes}


def _environment(cluster: Cluster, container: Mapping[str, Any], pod: Object) -> dict[str, str]:
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        if (reference := source.get("configMapRef")) is not None and not reference.get("optional"):
            raise NotConfigured(f'configmap "{reference.get("name", "")}" not found')
        if (reference := source.get("secretRef")) is not None:
            data = _secret(cluster, namespace, reference) or {}
            found |= {source.get("prefix", "") + key: value for key, value in data.items()}
    for variable in container.get("env") or ():
        value = _value(cluster, variable, pod)
        if value is not None:
            found[variable["name"]] = value
    return found


def _value(cluster: Cluster, variable: Mapping[str, Any], pod: Object) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return str(variable.get("value", ""))
    if (field := source.get("fieldRef")) is not None:
        return {f"metadata.{each}": str(pod["metadata"][each]) for each in ("name", "namespace", "uid")}.get(
            field.get("fieldPath", "")
        )
    if (reference := source.get("secretKeyRef")) is None:
        raise NotConfigured(f"the emulator has no such source of {variable['name']}: {', '.join(source)}")
    namespace = pod["metadata"]["namespace"]
    data = _secret(cluster, namespace, reference)
    if data is None or reference["key"] in data or reference.get("optional"):
        return (data or {}).get(reference["key"])
    raise NotConfigured(f"couldn't find key {reference['key']} in Secret {namespace}/{reference['name']}")


def _secret(cluster: Cluster, namespace: str, reference: Mapping[str, Any]) -> dict[str, str] | None:
    """What is in a Secret; ``None`` if it is not there and need not be."""
    name = reference.get("name", "")
    secret = cluster.store.find(kinds.SECRET, namespace, name)
    if secret is not None:
        return {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}
    if reference.get("optional"):
        return None
    raise NotConfigured(f'secret "{name}" not found')
