"""What a configuration is once it has been checked.

The metadata of a field, here and in the ``Options`` of a backend:

    help      one sentence; goes into the template, the JSON Schema and error messages
    secret    True: the value appears in no repr, error, listing or message to a worker (declare it ``repr=False`` too)
    hidden    True: as ``secret``, except that workers do get it
    gt, ge, lt, le, min_length, pattern, allow_inf_nan
              what pydantic's ``Field`` takes under these names
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@dataclass(frozen=True)
class JobSettings:
    """How jobs run, whatever the backend: the keys of a profile besides its backends and their sections."""

    storage_bucket: str = field(
        default="lithops-mini",
        metadata={
            "help": "Bucket of the jobs' own data: code, arguments and large results.",
            "min_length": 1,
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        },
    )
    runtime_memory: int | Literal["auto"] | None = field(
        default=None,
        metadata={
            "help": "Memory of a worker in MiB; auto: by the size of the inputs; null sets no limit of ours.",
            "ge": 64,
        },
    )
    timeout: float | None = field(
        default=None,
        metadata={
            "help": "Seconds a call may run before it is stopped; null for no limit.",
            "gt": 0,
            "allow_inf_nan": False,
        },
    )
    retries: int = field(
        default=2,
        metadata={"help": "How often a call whose worker or message was lost is run again.", "ge": 0},
    )
    retry_exceptions: bool = field(
        default=False,
        metadata={"help": "Whether a call is also run again when the function itself raised."},
    )
    on_oom: Literal["fail", "double"] = field(
        default="fail",
        metadata={
            "help": "What becomes of a call that passes its runtime_memory: fail, or double: it is run again with twice"
            " as much, up to retries times."
        },
    )
    budget: float | None = field(
        default=None,
        metadata={
            "help": "Dollars that a job may cost; what could pass them is not run. null for no limit.",
            "gt": 0,
            "allow_inf_nan": False,
        },
    )
    prices: Mapping[str, float] = field(
        default_factory=dict,
        metadata={"help": "Prices in dollars that replace shipped ones, as in {aws_lambda.request: 0.0000002}."},
    )
    extra_env: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata={"help": "Environment variables of the calls.", "hidden": True},
    )
    include_modules: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Modules that travel with the function although it is not seen to need them."},
    )
    exclude_modules: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Modules that do not travel, because the workers have them."},
    )
    log_level: LogLevel | None = field(
        default=None,
        metadata={"help": "Level of the logger lithops_mini; null leaves logging as the program set it."},
    )
    progress: bool | None = field(
        default=None,
        metadata={"help": "Show progress on stderr: a bar on a terminal, else lines; null decides by itself."},
    )
    show_inputs: bool = field(
        default=True,
        metadata={"help": "Whether the errors of failed calls show their inputs, shortened."},
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata={
            "help": "URL of an OpenTelemetry collector that gets a trace of each job, as http://localhost:4318; null"
            " takes OTEL_EXPORTER_OTLP_ENDPOINT, if that is set.",
            "pattern": "^https?://[^\\s]+$",
        },
    )
    data_cleaner: bool = field(
        default=True,
        metadata={"help": "Whether an executor removes its jobs' bulk data from storage when it closes."},
    )


@dataclass(frozen=True, repr=False)
class Config:
    """A checked configuration. ``source`` says in words where it comes from; ``profile`` is None if it has no name."""

    backend: str
    storage: str
    job: JobSettings
    compute_options: Any  # the Options of the compute backend's class
    storage_options: Any  # the Options of the storage backend's class
    profile: str | None
    source: str

    def as_profile(self) -> dict[str, Any]:
        """The contents of a profile from which ``load(config=...)`` makes this configuration again, secrets excepted.

        JSON can carry it: this is how a function that starts an executor of its own gets the same settings.
        """
        profile: dict[str, Any] = {"backend": self.backend, "storage": self.storage, **_plain(self.job)}
        profile[self.backend] = _plain(self.compute_options)
        profile[self.storage] = profile.get(self.storage, {}) | _plain(self.storage_options)
        return profile

    def as_shown(self) -> dict[str, Any]:
        """``as_profile`` for human eyes: hidden values are asterisks."""
        return self.as_profile() | {"extra_env": dict.fromkeys(self.job.extra_env, "***")}

    def secrets(self) -> list[str]:
        """The keys, as ``section.key``, of the secrets that are set and that ``as_profile`` leaves out."""
        sections = ((self.backend, self.compute_options), (self.storage, self.storage_options))
        return [
            f"{section}.{f.name}"
            for section, options in sections
            for f in fields(options)
            if f.metadata.get("secret") and getattr(options, f.name) is not None
        ]

    def __repr__(self) -> str:
        return f"Config({self.as_shown()!r}, profile={self.profile!r}, source={self.source!r})"


def _plain(settings: Any) -> dict[str, Any]:
    return {f.name: _jsonable(getattr(settings, f.name)) for f in fields(settings) if not f.metadata.get("secret")}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value
