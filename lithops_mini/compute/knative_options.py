"""Settings of the knative compute backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lithops_mini.runtimes.knative_service import MOST_TIMEOUT, START
from lithops_mini.worker import knative as protocol

_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


@dataclass(frozen=True)
class KnativeOptions:
    """Settings of the knative compute backend."""

    kubeconfig: str | None = field(
        default=None,
        metadata={"help": "File that says how to reach the cluster; by default as kubectl finds it, or a pod's own."},
    )
    context: str | None = field(default=None, metadata={"help": "Context of the kubeconfig; by default its current."})
    namespace: str | None = field(
        default=None,
        metadata={
            "help": "Namespace of the services; by default the context's.",
            "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        },
    )
    ingress: str | None = field(
        default=None,
        metadata={
            "help": "URL of the cluster's ingress as it is reached from here, where the URLs of services are not, as in"
            " http://127.0.0.1:31080.",
            "pattern": "^https?://[^/]",
        },
    )
    cluster_local: bool = field(
        default=False, metadata={"help": "Whether services are reached from within the cluster only."}
    )
    ca_bundle: str | None = field(
        default=None, metadata={"help": "File of the certificates to trust, for a cluster with ones of its own."}
    )
    image: str | None = field(
        default=None,
        metadata={
            "help": "Repository of the images, without a tag, as in registry.example.com/team/lithops-mini: built by a"
            " Docker engine, pulled by the cluster. With a tag or a digest: an image that is used as it is."
        },
    )
    push: bool = field(
        default=True,
        metadata={"help": "Whether images are pushed; false where the cluster has those of the Docker engine."},
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "Image with Python that the images are built on; by default python:<version>-slim. `host` packs"
            " the interpreter of this machine."
        },
    )
    dockerfile: str | None = field(
        default=None, metadata={"help": "A Dockerfile whose image the images are built on, instead of base."}
    )
    requirements: str | None = field(
        default=None, metadata={"help": "A requirements.txt: packages that are installed in the images."}
    )
    max_workers: int = field(
        default=256, metadata={"help": "Requests at once; each takes a thread of the client.", "ge": 1, "le": 10_000}
    )
    min_scale: int = field(default=0, metadata={"help": "Pods that are kept while nothing runs.", "ge": 0})
    max_scale: int = field(default=100, metadata={"help": "Pods of a service, at most.", "ge": 1})
    container_concurrency: int = field(
        default=1,
        metadata={"help": "Messages that a container runs at once, each in its process.", "ge": 1, "le": 1000},
    )
    memory: int = field(
        default=2048, metadata={"help": "MiB that a call may hold, for jobs that set no runtime_memory.", "ge": 64}
    )
    cpu: float = field(default=1.0, metadata={"help": "Processors that a pod asks for, 0.5 for half of one.", "gt": 0})
    cpu_limit: float | None = field(
        default=None, metadata={"help": "Processors that a pod may use; by default as many as it asks for.", "gt": 0}
    )
    carrier: Literal["reply", "event"] = field(
        default="reply",
        metadata={
            "help": "How replies come back: as the answer to a request, or as an object in storage, for calls that last"
            " longer than connections do."
        },
    )
    max_time: int = field(
        default=570,
        metadata={
            "help": f"Seconds a call may run; the timeout of the services is {START} more, and Knative permits"
            f" {MOST_TIMEOUT} unless its operator says otherwise.",
            "ge": 1,
        },
    )
    service_timeout: int | None = field(
        default=None,
        metadata={
            "help": f"Seconds of a service's timeout, where it is not {START} more than max_time; with carrier event"
            f" at most {MOST_TIMEOUT} by default.",
            "ge": 1,
        },
    )
    service_account: str | None = field(
        default=None,
        metadata={"help": "Service account of the pods, where they have an identity of their own.", "pattern": _NAME},
    )
    pull_secret: str | None = field(
        default=None,
        metadata={"help": "Secret of the namespace that the image is pulled with.", "pattern": _NAME},
    )
    node_selector: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "Labels of the nodes that pods run on; Knative must permit it."}
    )
    environment: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata={"help": "Environment variables of the containers; not for secrets.", "hidden": True},
    )
    annotations: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Annotations of the revisions, as in autoscaling.knative.dev/scale-down-delay: 15m."},
    )
    start_timeout: int = field(
        default=300, metadata={"help": "Seconds within which a new service must be ready.", "ge": 1}
    )
    shared_files: bool = field(
        default=False,
        metadata={
            "help": "Whether pods see this machine's files at the same paths, and may write them, so that the storage"
            " localhost is theirs too."
        },
    )

    def __post_init__(self) -> None:
        if self.min_scale > self.max_scale:
            raise ValueError("min_scale is over max_scale")
        if self.cpu_limit is not None and self.cpu_limit < self.cpu:
            raise ValueError("cpu_limit is under cpu")
        if self.timeout < self.max_time + START:
            if self.carrier == "reply":
                raise ValueError(
                    f"service_timeout is under max_time and {START} s: lower max_time, or set carrier to event"
                )
            if self.min_scale < self.max_scale:
                raise ValueError(
                    f"max_time is {self.max_time} s, and a pod that has to go is given {self.timeout} s to end: set"
                    " min_scale to max_scale, so that none has to, or service_timeout to what the cluster permits"
                )
        for name in self.environment:
            if name in _RESERVED or name.startswith("K_"):
                raise ValueError(f"environment: {name} is set by Knative, or by the worker: leave it out")

    @property
    def timeout(self) -> int:
        """Seconds of a service's timeout."""
        if self.service_timeout is not None:
            return self.service_timeout
        needed = self.max_time + START
        return needed if self.carrier == "reply" else min(needed, MOST_TIMEOUT)


_RESERVED = (protocol.PORT, protocol.LANES, protocol.KEY)
