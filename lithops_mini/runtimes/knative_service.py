"""What is applied to a cluster: the service of a runtime for a size of memory, and the secret with what it is lent."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.api_server import Object
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.cluster import MANAGED, OWNER
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.version import __version__
from lithops_mini.worker.knative import KEY

RUNTIME, MEMORY = "lithops-mini/runtime", "lithops-mini/memory"
"""Labels: the runtime that a service is of, and its MiB for a call."""
SPEC, ABOUT = "lithops-mini/spec", "lithops-mini/about"
"""Annotations: the digest of what was asked for, and what is told of the runtime, as JSON."""
CREDENTIALS = "lithops-mini/credentials"
"""The annotation of a revision with the fingerprint of what it was lent: another one makes another revision."""
RENEWED = "lithops-mini/renewed"
"""The annotation of a revision that is only to be another one."""

START = 30
"""Seconds that a request may take besides the time of its calls: to wait for a container, and on its way."""
MOST_TIMEOUT = 600
"""Seconds that Knative permits as the timeout of a service, unless its operator says otherwise."""

# What a container holds besides a call, in MiB: the worker; and what the worker holds that puts replies into storage.
_OWN_MEMORY, _STORAGE_MEMORY = 64, 64
# Rounds by which a fingerprint of credentials is worth no guessing: it is where others see it.
_ROUNDS = 100_000
_COMMAND = ("python3", "-P", "-m", "lithops_mini.worker.knative")


@dataclass(frozen=True)
class Setup:
    """What services have besides their image and their memory."""

    max_time: int  # seconds
    timeout: int | None = None  # seconds of timeoutSeconds; None: as much as max_time takes
    event: bool = False  # replies go into storage
    container_concurrency: int = 1
    min_scale: int = 0
    max_scale: int = 100
    cpu: float = 1.0
    cpu_limit: float | None = None  # None: cpu
    service_account: str | None = None
    pull_secret: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the revisions
    cluster_local: bool = False

    @property
    def fixed(self) -> dict[str, Any]:
        """What makes another runtime when it is another: all that is not changed in place."""
        return {name: value for name, value in asdict(self).items() if name not in ("min_scale", "max_scale")}


@dataclass(frozen=True)
class Lent:
    """Variables with credentials. Those that a configuration has make a service of its own: nobody else's workers get
    them. Those that were found on this machine are replaced as they expire.
    """

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    found: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        return {**self.found, **self.given}

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint(self.environment)

    @cached_property
    def ending(self) -> str:
        """Of the name of a service; empty if nothing is lent."""
        parts = {**self.given, **dict.fromkeys(self.found.keys() - self.given.keys(), "")}
        return f"-{_fingerprint(parts)[:6]}" if parts else ""


@dataclass(frozen=True)
class Size:
    """One service of a runtime."""

    runtime: str
    memory: int  # MiB for a call
    lent: Lent

    @property
    def name(self) -> str:
        return f"{self.runtime}-{self.memory}{self.lent.ending}"


def runtime_name(recipe: Recipe, image: str, setup: Setup) -> str:
    """The name of the runtime, which the names of its services begin with; what has it is right."""
    # Only an image that is named by what is in it says so; of others it is what this client expects there.
    parts = {"image": image, "python": recipe.python, "bundle": bundle().digest, "setup": setup.fixed}
    digest = hashlib.sha256(json.dumps(parts | {"command": _COMMAND}, sort_keys=True).encode()).hexdigest()
    return f"lithops-mini-{digest[:12]}"


def service(size: Size, namespace: str, image: str, setup: Setup, about: About) -> Object:
    """The service; its secret has the same name."""
    labels = {MANAGED: OWNER, RUNTIME: size.runtime, MEMORY: str(size.memory)}
    scale = {
        "min-scale": str(setup.min_scale),
        "max-scale": str(setup.max_scale),
        # A container has as many messages as it takes, and not 70% of that.
        "target-utilization-percentage": "100",
        # Requests wait where they are given to whoever is free, not each behind another that may be long.
        "target-burst-capacity": "-1",
    }
    annotations = {f"autoscaling.knative.dev/{key}": value for key, value in scale.items()}
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {**annotations, **setup.annotations, CREDENTIALS: size.lent.fingerprint},
        },
        "spec": _pod(size, image, setup),
    }
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    visible = {"networking.knative.dev/visibility": "cluster-local"} if setup.cluster_local else {}
    told = {SPEC: digest[:16], ABOUT: json.dumps(asdict(about), separators=(",", ":"))}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": size.name, "namespace": namespace, "labels": {**labels, **visible}, "annotations": told},
        "spec": {"template": template},
    }


def renewed(wanted: Object) -> Object:
    """The same service with a revision of its own: one that has failed is not tried again."""
    metadata = wanted["spec"]["template"]["metadata"]
    metadata = {**metadata, "annotations": {**metadata["annotations"], RENEWED: secrets.token_hex(4)}}
    return {**wanted, "spec": {"template": {**wanted["spec"]["template"], "metadata": metadata}}}


def changed(there: Object, wanted: Object) -> Object:
    """The service that is there as it should be, to replace it with."""
    metadata = dict(there["metadata"])
    for key in ("labels", "annotations"):
        metadata[key] = {**metadata.get(key, {}), **wanted["metadata"][key]}
    body = {key: value for key, value in there.items() if key != "status"}
    return {**body, "metadata": metadata, "spec": {**there["spec"], **wanted["spec"]}}


def is_as_wanted(there: Object, wanted: Object) -> bool:
    annotations: Mapping[str, str] = there["metadata"].get("annotations") or {}
    return annotations.get(SPEC) == str(wanted["metadata"]["annotations"][SPEC])


def _pod(size: Size, image: str, setup: Setup) -> Object:
    own = _OWN_MEMORY + (_STORAGE_MEMORY if setup.event else 0)
    room = f"{setup.container_concurrency * (size.memory + own)}Mi"
    timeout = setup.max_time + START if setup.timeout is None else setup.timeout
    # A container whose lanes all have lost their connections says so, and soon.
    often = {"periodSeconds": 2, "failureThreshold": 2} if setup.event else {}
    limit = setup.cpu if setup.cpu_limit is None else setup.cpu_limit
    container: Object = {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(_COMMAND),
        "env": [{"name": "CONTAINER_CONCURRENCY", "value": str(setup.container_concurrency)}]
        + [{"name": key, "value": value} for key, value in sorted(setup.environment.items())],
        "envFrom": [{"secretRef": {"name": size.name}}],
        "resources": {
            "requests": {"cpu": _cpu(setup.cpu), "memory": room},
            "limits": {"cpu": _cpu(limit), "memory": room},
        },
        "readinessProbe": {"httpGet": {"path": "/"}, **often},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod: Object = {
        "containerConcurrency": setup.container_concurrency,
        "timeoutSeconds": timeout,
        "responseStartTimeoutSeconds": timeout,
        "containers": [container],
    }
    if setup.service_account is None:
        pod["automountServiceAccountToken"] = False  # functions have no business with the cluster
    else:
        pod["serviceAccountName"] = setup.service_account
    if setup.pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": setup.pull_secret}]
    if setup.node_selector:
        pod["nodeSelector"] = dict(setup.node_selector)
    return pod


def _cpu(processors: float) -> str:
    return f"{round(processors * 1000)}m"


# ---------------------------------------------------------------- what is told of a runtime


@dataclass(frozen=True)
class About:
    """What a service tells of its runtime."""

    python: str
    version: str
    bundle: str
    recipe: str
    base: str
    packages: Sequence[str] = ()
    size: int = 0  # bytes of the image; 0: not known


def about(recipe: Recipe, packages: Sequence[str], size: int) -> About:
    base = recipe.dockerfile or recipe.base_name
    return About(recipe.python, __version__, bundle().digest, recipe.digest, base, tuple(packages), size)


def about_of(service: Object | None) -> About | None:
    """What a service tells; ``None`` if there is none, or it tells nothing that is known here."""
    try:
        told = json.loads(((service or {})["metadata"].get("annotations") or {})[ABOUT])
        return About(**told)
    except (KeyError, TypeError, ValueError):
        return None


# ---------------------------------------------------------------- secrets


def secret(size: Size, namespace: str, key: bytes) -> Object:
    """The secret: what the workers are lent, and the key that messages are signed with."""
    data = {**size.lent.environment, KEY: key.hex()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": size.name, "namespace": namespace, "labels": {MANAGED: OWNER, RUNTIME: size.runtime}},
        "data": {each: b64encode(value.encode()).decode("ascii") for each, value in sorted(data.items())},
    }


def key_of(secret: Object) -> bytes:
    """The key of a secret that is there. ``ConfigError`` if it has none."""
    try:
        return bytes.fromhex(b64decode(secret["data"][KEY]).decode())
    except (KeyError, TypeError, ValueError) as error:
        name = secret["metadata"]["name"]
        raise ConfigError(f"the secret {name} has no {KEY} of ours: delete it, and it is made again") from error


def _fingerprint(environment: Mapping[str, str]) -> str:
    """Something by which environments can be told apart, and which tells nothing of what is in them."""
    data = json.dumps(environment, sort_keys=True).encode()
    return hashlib.pbkdf2_hmac("sha256", data, b"lithops-mini", _ROUNDS, 16).hex()
