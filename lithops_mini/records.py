"""What travels between the layers, and where it lies in storage: every storage key is spelled here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple, Self

OWN_PREFIX = "lithops_mini/"
JOBS_PREFIX = OWN_PREFIX + "jobs/"
CLOUDOBJECTS_PREFIX = OWN_PREFIX + "cloudobjects/"
VERIFY_PREFIX = OWN_PREFIX + "verify/"  # data of the shipped checks
STUDY_PREFIX = OWN_PREFIX + "study/"  # and of the study and the benchmarks, where workers may write it


def executor_prefix(executor_id: str) -> str:
    """Everything one executor stores for its jobs lies below this."""
    return f"{JOBS_PREFIX}{executor_id}/"


def cloudobjects_prefix(job_or_executor_id: str, call: int | None = None) -> str:
    """Cloud objects made by one executor's client, or in its functions: those of one job, or of one call."""
    return f"{CLOUDOBJECTS_PREFIX}{job_or_executor_id}/" + ("" if call is None else f"{call:08d}/")


def code_key(executor_id: str, digest: str) -> str:
    """A function with its local modules, named by its SHA-256."""
    return f"{executor_prefix(executor_id)}code/{digest}"


def job_prefix(job_id: str) -> str:
    """``job_id`` is ``<executor id>-<stage letter><number>``, as in ``3f9c1a2b-M003``."""
    executor_id, _, stage = job_id.rpartition("-")
    return f"{executor_prefix(executor_id)}{stage}/"


def manifest_key(job_id: str) -> str:
    """The one description of a job."""
    return job_prefix(job_id) + "manifest"


def job_of_manifest(key: str) -> str | None:
    """The job whose manifest this key is; ``None`` for any other key."""
    parts = key.removeprefix(JOBS_PREFIX).split("/")
    return f"{parts[0]}-{parts[1]}" if len(parts) == 3 and parts[2] == "manifest" else None


def inputs_key(job_id: str) -> str:
    """The arguments too large to travel in messages, one after the other."""
    return job_prefix(job_id) + "inputs"


def dependencies_key(job_id: str, call: int) -> str:
    """The table of results a call needs from other calls, when it is too large for a message."""
    return f"{job_prefix(job_id)}dependencies/{call:08d}"


def outcome_key(job_id: str, call: int, attempt: int) -> str:
    """The outcome of one attempt of one call, when it is too large for a reply."""
    return f"{job_prefix(job_id)}outcomes/{call:08d}.{attempt}"


def progress_prefix(job_id: str) -> str:
    """The batched records of what has been settled."""
    return job_prefix(job_id) + "progress/"


def inbox_prefix(executor_id: str) -> str:
    """Replies that come by storage, until they are read."""
    return executor_prefix(executor_id) + "inbox/"


def inbox_closed_key(executor_id: str) -> str:
    """There once nobody waits for replies any more."""
    return inbox_prefix(executor_id) + "closed"


def is_record(key: str) -> bool:
    """Whether the key is part of what is told of a job, manifest, progress or end, and not its bulk data."""
    return job_of_manifest(key) is not None or "/progress/" in key or key.endswith("/inbox/closed")


def progress_key(job_id: str, sequence: int) -> str:
    """One batch; in key order the batches are in the order of time."""
    return f"{progress_prefix(job_id)}{sequence:08d}"


class Requests(NamedTuple):
    """Requests sent to a storage service, repeated ones too, in the classes in which services charge for them."""

    puts: int = 0  # PUT, COPY, POST and LIST
    gets: int = 0  # GET, HEAD and what is in no other class
    deletes: int = 0  # mostly free

    def plus(self, other: Requests) -> Requests:
        """Both together."""
        return Requests(self.puts + other.puts, self.gets + other.gets, self.deletes + other.deletes)

    def since(self, earlier: Requests) -> Requests:
        """Those that are not among the ``earlier`` ones."""
        return Requests(self.puts - earlier.puts, self.gets - earlier.gets, self.deletes - earlier.deletes)


NO_REQUESTS = Requests()


class Invocation(NamedTuple):
    """What a platform charges for one message."""

    milliseconds: int  # rounded up, as they are billed
    memory: int = 0  # MiB of what it ran in; 0: nobody has set it
    peak: int = 0  # MiB of these that were used; 0: nobody says
    start: int = 0  # of the milliseconds, those of a cold start
    requests: Requests = NO_REQUESTS  # that its worker sent to storage, besides those of the calls
    told: bool = True  # by the platform, or by the worker; else it is the time that its sender has waited


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a job runs and keeps its data, as far as that has prices."""

    service: str = ""  # of the price table; "" if nobody charges for what runs the calls
    architecture: str = "x86_64"
    memory: int = 0  # MiB of what runs the calls of jobs that set none; 0: nothing limits them
    disk: int = 512  # MiB
    region: str = ""
    storage: str = ""  # the backend's name

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From what ``asdict`` makes of one."""
        return cls(**{name: told[name] for name in told if name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Usage:
    """What the messages of a job have used, added up: those of attempts that were lost too."""

    milliseconds: Mapping[int, int] = field(default_factory=dict)  # by MiB, as in Invocation
    invocations: int = 0
    untold: int = 0  # of these, those whose time nobody told but the client's clock
    starts: int = 0  # cold ones, and their share of the milliseconds
    starting: int = 0
    peak: int = 0  # MiB
    requests: Requests = NO_REQUESTS  # of workers, besides those of the calls

    @classmethod
    def of(cls, one: Invocation) -> Self:
        return cls(
            {one.memory: one.milliseconds},
            1,
            int(not one.told),
            int(one.start > 0),
            one.start,
            one.peak,
            one.requests,
        )

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        times = dict(self.milliseconds)
        for memory, milliseconds in other.milliseconds.items():
            times[memory] = times.get(memory, 0) + milliseconds
        return Usage(
            times,
            self.invocations + other.invocations,
            self.untold + other.untold,
            self.starts + other.starts,
            self.starting + other.starting,
            max(self.peak, other.peak),
            self.requests.plus(other.requests),
        )

    def as_json(self) -> dict[str, Any]:
        """For a header; ``from_json`` makes it again."""
        return asdict(self) | {"requests": list(self.requests)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        times = {int(memory): milliseconds for memory, milliseconds in told["milliseconds"].items()}
        return cls(**{**told, "milliseconds": times, "requests": Requests(*told["requests"])})


@dataclass(frozen=True, slots=True)
class CallStats:
    """What is known of one settled call. Times are seconds since the epoch, each by the clock of the machine it names.

    ``None`` where the call did not get that far.
    """

    call_id: int
    submitted: float  # client: the call was handed to the executor
    dispatched: float | None  # client: its message left
    started: float | None  # worker: its function was entered
    ended: float | None  # worker: its function returned or raised, or its process was found dead
    settled: float  # client: its future was resolved
    cpu_user: float  # seconds, with those of processes that it started and waited for
    cpu_system: float  # seconds
    # Bytes that the worker process, or it and all it had started, held at most. Of the process alone that is exact,
    # after calls of 5 ms and more. All together are looked at every 20 ms, or 100 where no memory was set; pages that
    # they share may count for each. In containers whose /tmp is memory, what is in that counts too.
    peak_memory: int
    bytes_in: int  # pickled arguments
    bytes_out: int  # pickled result
    attempt: int  # of the outcome that counted, from 1
    worker_id: str  # empty when no worker answered
    cold: bool  # the first call in its worker process
    status: str  # ok, error, died, timeout, out_of_memory, unavailable, cancelled
    storage_puts: int = 0  # requests its workers sent to storage, in all attempts that had an outcome: see Requests
    storage_gets: int = 0
    storage_deletes: int = 0
    data_read: int = 0  # bytes of objects, files and URLs that it read as its obj or url

    @property
    def function_time(self) -> float | None:
        """Seconds the function ran."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    def as_dict(self) -> dict[str, object]:
        """Every field and ``function_time``, for tables and JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"function_time": self.function_time}


class Attempt(NamedTuple):
    """One attempt of a call that was run again after it. Times as in ``CallStats``."""

    call_id: int
    attempt: int  # from 1
    dispatched: float | None
    started: float | None
    ended: float | None
    given_up: float  # client: when that was decided
    worker_id: str  # empty when no worker answered
    status: str
    why: str  # in a line


Stages = Sequence[tuple[str, Sequence[CallStats]]]
"""The settled calls of jobs, which are named."""
Attempts = Mapping[str, Sequence[Attempt]]
"""By the name of the job, those that were followed by another one."""
NO_ATTEMPTS: Attempts = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Partition:
    """A piece of a data source, as the client plans it and the worker opens it.

    ``[start, stop)`` are raw byte positions. With a delimiter the records of the piece are those that begin in it, so
    the bytes read are ``edge(start)`` to ``edge(stop)``, edge(p) being the first record start at or after p.
    """

    kind: str  # "object", "path" or "url"
    bucket: str | None  # objects only
    key: str  # the object's key, the file's absolute path, or the URL
    size: int | None  # bytes of the whole source; None if a URL's server does not say
    part: int  # from 0
    total_parts: int
    start: int
    stop: int | None  # None: to the end, whatever its size
    delimiter: bytes | None  # None: exact bytes
    compression: str | None = None  # "gzip", "bz2", "xz": decompressed as it is read
    etag: str | None = None  # the source's version when it was planned
