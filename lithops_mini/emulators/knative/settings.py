"""Numbers of the local Knative: what a cluster may use, how long things take, and what goes wrong there."""

from __future__ import annotations

from dataclasses import dataclass, field

from lithops_mini.emulators import settings
from lithops_mini.emulators.settings import check_numbers, share

REQUEST_LIMIT = 3 << 20
"""Bytes of a request to the API server."""


@dataclass(frozen=True)
class Limits:
    """What a cluster may use, and how long things take. ``ConfigError`` for what is out of range."""

    pods: int = field(default=100, metadata={"help": "Pods of a namespace at a time: its quota; 0: none."})
    idle: float = field(default=60.0, metadata={"help": "Seconds after which a pod that has no call is removed."})
    progress: float = field(
        default=600.0, metadata={"help": "Seconds after which a revision without a pod that is ready has failed."}
    )
    back_off: float = field(
        default=10.0, metadata={"help": "Seconds until a container that ends again is started; twice as many later."}
    )
    grace: float = field(
        default=600.0,
        metadata={"help": "Seconds between SIGTERM and SIGKILL of a container, if its revision's timeout is not less."},
    )
    queue: int = field(default=10_000, metadata={"help": "Calls that may wait for pods of a revision.", "ge": 1})
    history: int = field(default=1000, metadata={"help": "Changes that are kept for watches that begin in the past."})

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Faults(settings.Faults):
    """Shares are between 0 and 1. ``ConfigError`` for what is out of range."""

    pull: float = field(default=0.0, metadata={"help": "Seconds that the image of each new revision takes to come."})
    cut: float = share("Share of the calls whose connection is cut with all work done.")
    unavailable: float = share("Share of the calls that the ingress answers with 503.")
    busy: float = share("Share of the calls that the ingress answers with 429.")
    conflict: float = share("Share of the changes of objects that are refused with 409.")
    throttle: float = share("Share of the requests to the API server that are refused with 429 and Retry-After.")
    unauthorized: float = share("Share of the requests to the API server that are refused with 401.")
    end_watch: float = share("Share of the events of watches after which the watch ends.")
