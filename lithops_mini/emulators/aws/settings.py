"""Numbers of the local AWS: what an account may use, and what goes wrong there."""

from __future__ import annotations

from dataclasses import dataclass, field

from lithops_mini.emulators import settings
from lithops_mini.emulators.settings import check_numbers, share


@dataclass(frozen=True)
class Limits:
    """What an account may use in a region, and how long things take. ``ConfigError`` for what is out of range."""

    concurrency: int = field(
        default=1000, metadata={"help": "Invocations at a time, of all functions of a region; 0: all are throttled."}
    )
    scaling: int = field(default=1000, metadata={"help": "New sandboxes of a function in ten seconds.", "ge": 1})
    idle: float = field(default=300.0, metadata={"help": "Seconds after which a sandbox that is not used is removed."})
    retry_wait: float = field(
        default=60.0, metadata={"help": "Seconds until an event that failed is tried again; twice as many later."}
    )
    s3_latency: float = field(default=0.0, metadata={"help": "Seconds by which each answer of S3 comes later."})
    s3_bandwidth: float = field(
        default=0.0,
        metadata={"help": "Bytes a second of each request to S3 and its answer; 0: as it comes.", "le": 1e12},
    )

    def __post_init__(self) -> None:
        check_numbers(self)

    def way(self, size: int) -> float:
        """Seconds by which a request to S3 and its answer, of so many bytes together, take longer."""
        return self.s3_latency + (size / self.s3_bandwidth if self.s3_bandwidth else 0.0)


@dataclass(frozen=True)
class Faults(settings.Faults):
    """Shares are between 0 and 1. ``ConfigError`` for what is out of range."""

    duplicate: float = share("Share of the asynchronous events that are delivered twice.")
    lose: float = share("Share of the asynchronous events that are never delivered.")
