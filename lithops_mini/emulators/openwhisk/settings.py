"""Numbers of the local OpenWhisk: what a namespace may use, and what goes wrong there."""

from __future__ import annotations

from dataclasses import dataclass, field

from lithops_mini.emulators import settings
from lithops_mini.emulators.settings import check_numbers, share

CODE_LIMIT = 48 << 20
"""Bytes of an action's code, as it is written in the request."""
PAYLOAD_LIMIT = 1 << 20
"""Bytes of the parameters of an action, of those of an invocation, and of a result."""
REQUEST_LIMIT = 50 << 20
"""Bytes of any request."""


@dataclass(frozen=True)
class Limits:
    """What a namespace may use, and how long things take. ``ConfigError`` for what is out of range."""

    per_minute: int = field(default=120, metadata={"help": "Invocations in a minute; 0 throttles all.", "ge": 0})
    concurrent: int = field(default=100, metadata={"help": "Invocations at a time; 0 throttles all.", "ge": 0})
    wait: float = field(
        default=60.0, metadata={"help": "Seconds after which a blocking invocation is answered with 202."}
    )
    idle: float = field(default=600.0, metadata={"help": "Seconds after which a sandbox that is not used is removed."})
    min_memory: int = field(
        default=128, metadata={"help": "MB that an action must have at least.", "ge": 1, "up_to": "max_memory"}
    )
    max_memory: int = field(default=512, metadata={"help": "MB that an action may have at most."})
    min_timeout: int = field(
        default=100,
        metadata={"help": "Milliseconds of the shortest time limit of an action.", "ge": 1, "up_to": "max_timeout"},
    )
    max_timeout: int = field(default=300_000, metadata={"help": "Milliseconds of the longest one."})
    max_logs: int = field(default=10, metadata={"help": "MB of logs of an activation, at most."})
    records: int = field(default=10_000, metadata={"help": "Activation records that are kept.", "ge": 1})
    token_life: float = field(default=3600.0, metadata={"help": "Seconds for which a bearer token is good."})
    patience: float = field(
        default=30.0, metadata={"help": "Seconds in which the body of a request must have come.", "ge": 0.01}
    )

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Faults(settings.Faults):
    """Shares are between 0 and 1. ``ConfigError`` for what is out of range."""

    lose: float = share("Share of the invocations that are accepted and never run.")
    throttle_rate: float = share("Share of the invocations that are refused as too many in a minute.")
    throttle_concurrency: float = share("Share of the invocations that are refused as too many at a time.")
