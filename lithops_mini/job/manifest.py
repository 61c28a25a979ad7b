"""What storage knows of a job: its manifest, written once, and its progress, in a few batched objects.

    manifest := u32 header length, header (JSON), code (unless it has its own object), small inputs, signature

Everything that lets another process look at a job, wait for it or run it again is in there; nothing of it is believed
without its signature, except by listings, which show headers as they find them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pwd
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

from lithops_mini import records, wire
from lithops_mini.errors import InputError, IntegrityError, LithopsMiniError, NoSuchObject, StorageError
from lithops_mini.job.job import Call, Job
from lithops_mini.job.stage import Code
from lithops_mini.records import Attempt
from lithops_mini.storage.base import StorageBackend
from lithops_mini.version import __version__

logger = logging.getLogger("lithops_mini.job")

# What has been settled is written down when this old (seconds) or this large (bytes). How a job begins and ends waits
# only for what goes first: sending messages, and reading what came of them, those of the next short jobs too. Workers
# may wait for the end of a job that is followed.
_FLUSH_SECONDS = 2.0
_FLUSH_FOLLOWED_SECONDS = 0.1
_FLUSH_ENDS_SECONDS = 0.05
_FLUSH_FOLLOWED_END_SECONDS = 0.01
_FLUSH_BYTES = 4 << 20
# Enough of a manifest or progress object to hold the header of most, in bytes.
_GLANCE = 16 << 10
# By so much may two ways to tell a process's start differ, in seconds.
_CLOCK_ERROR = 2.0
# What of an attempt is in seconds.
_TIMES = ("dispatched", "started", "ended", "given_up")
# What a listing tells of a job from the header of its manifest.
_TOLD = {"function": str, "kind": str, "calls": int, "created": float, "client": str}


def encode_manifest(
    job: Job, calls: Sequence[Call], code: Code, *, kind: str, backend: str, storage: str, settings: dict[str, Any]
) -> bytes:
    """The signed manifest. ``calls`` are the job's, which has none any more once it has ended; ``kind`` is map, reduce
    or call.
    """
    inline_code = code.data if job.code else b""
    message = json.loads(job.header)
    header = {
        "version": wire.VERSION,
        "job": job.id,
        "function": job.name,
        "kind": kind,
        "calls": len(calls),
        "created": job.submitted,
        "backend": backend,
        "storage": storage,
        "settings": settings,
        "client": f"{_user()}@{os.uname().nodename}:{os.getpid()}",
        "python": ".".join(map(str, sys.version_info[:3])),
        "lithops_mini": __version__,
        "code": {"sha256": code.sha256, "size": len(code.data), "inline": bool(job.code)},
        # Every message's header, without what the bucket's other readers must not learn.
        "message": message | {"keys": {}, "env": wire.seal(job.key, json.dumps(message["env"]))},
        "inputs": [len(call.arguments) for call in calls],
        "stored": [call.id for call in calls if call.stored],
        "dependencies": {call.id: _runs(call) for call in calls if call.dependencies},
    }
    text = wire.encode_header(header)
    body = [struct.pack("<I", len(text)), text, inline_code, *(call.arguments for call in calls)]
    data = b"".join(body)
    return data + wire.sign(job.key, records.manifest_key(job.id), data)


def _runs(call: Call) -> list[list[Any]]:
    """The calls a call depends on, as [job, first, last]."""
    runs: list[list[Any]] = []
    for future in call.dependencies:
        if runs and runs[-1][0] == future.job_id and runs[-1][2] == future.call_id - 1:
            runs[-1][2] = future.call_id
        else:
            runs.append([future.job_id, future.call_id, future.call_id])
    return runs


@cache
def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may have numbers only
        return str(os.getuid())


@dataclass
class _Unwritten:
    """What is known of a job and not yet in storage."""

    encode: Callable[[], bytes] | None = None  # its manifest
    replies: list[bytes] = field(default_factory=list)
    moments: list[tuple[float | None, float]] = field(default_factory=list)  # of each: when sent, when settled
    attempts: list[Attempt] = field(default_factory=list)  # that another one follows
    moved: bool = False  # whether the counters are others than in the last batch
    size: int = 0
    due: float = math.inf  # monotonic: when it is to be written
    sequence: int = 0
    ended: bool = False


class Recorder:
    """Writes manifests and progress, in a thread of its own: no call waits for its record."""

    def __init__(self, storage: StorageBackend, bucket: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._condition = threading.Condition()
        self._jobs: dict[Job, _Unwritten] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._busy = False
        self._next = math.inf  # monotonic: until when the thread waits, unless it is told
        self._tell_lost: Callable[[Job], object] | None = None

    def when_lost(self, tell: Callable[[Job], object]) -> None:
        """Have ``tell(job)`` called when outcomes of a job could not be written."""
        self._tell_lost = tell

    def begin(self, job: Job, encode: Callable[[], bytes]) -> None:
        """Have the manifest encoded, and written."""
        with self._condition:
            unwritten = self._jobs.setdefault(job, _Unwritten())
            unwritten.encode = encode
            self._within(unwritten, _FLUSH_ENDS_SECONDS)

    def settled(self, job: Job, reply: bytes, *, ended: bool, dispatched: float | None = None) -> None:
        """Note outcomes that counted, as a reply to a message that left at ``dispatched``; ``ended`` says that no more
        will follow.
        """
        with self._condition:
            unwritten = self._jobs.setdefault(job, _Unwritten())
            if reply:
                unwritten.replies.append(reply)
                unwritten.moments.append((dispatched, time.time()))
                unwritten.size += len(reply)
                unwritten.moved = True
            unwritten.ended = ended
            if unwritten.size > _FLUSH_BYTES:
                self._within(unwritten, 0.0)
            elif ended:
                self._within(unwritten, _FLUSH_FOLLOWED_END_SECONDS if job.followed else _FLUSH_ENDS_SECONDS)
            elif reply:
                self._within(unwritten, _FLUSH_FOLLOWED_SECONDS if job.followed else _FLUSH_SECONDS)

    def moved(self, job: Job, attempt: Attempt | None = None) -> None:
        """Note that a job, which goes on, has other counters than before; and an attempt that another one follows."""
        with self._condition:
            unwritten = self._jobs.setdefault(job, _Unwritten())
            unwritten.moved = True
            if attempt is not None:
                unwritten.attempts.append(attempt)
            self._within(unwritten, _FLUSH_SECONDS)

    def _within(self, unwritten: _Unwritten, seconds: float) -> None:
        """Have it written so soon, if that is not to be sooner anyway."""
        due = time.monotonic() + seconds
        if due >= unwritten.due:
            return
        unwritten.due = due
        # Also after close(): a call may be cancelled, by a thread of the user's, while the executor shuts down.
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lithops_mini-recorder", daemon=True)
            self._thread.start()
        if due < self._next:
            self._condition.notify_all()

    def flush(self) -> None:
        """Return when everything noted so far is in storage."""
        with self._condition:
            for unwritten in self._jobs.values():
                if unwritten.due < math.inf:
                    unwritten.due = 0.0
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._busy and self._next_due() > 0.0)

    def close(self) -> None:
        """Write what is left and stop."""
        with self._condition:
            thread, self._closed = self._thread, True
            self._condition.notify_all()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                while not (due := self._due()):
                    self._next = self._next_due()
                    if self._closed:
                        self._thread = None
                        return
                    self._condition.wait(None if self._next == math.inf else self._next - time.monotonic())
                self._next, self._busy = 0.0, True
                work = [(job, self._take(job)) for job in due]
            for job, unwritten in work:
                try:
                    self._write(job, unwritten)
                except Exception as error:
                    # The calls go on: their results do not depend on their record. Resuming them will.
                    known = isinstance(error, StorageError)
                    text = "the record of job %s could not be written, so it cannot be resumed: %s"
                    logger.warning(text, job.id, error, exc_info=not known)
                    if unwritten.replies and self._tell_lost is not None:
                        self._tell_lost(job)

    def _due(self) -> list[Job]:
        """The jobs of which something is to be written now."""
        now = math.nextafter(math.inf, 0.0) if self._closed else time.monotonic()
        return [job for job, unwritten in self._jobs.items() if unwritten.due <= now]

    def _next_due(self) -> float:
        return min((unwritten.due for unwritten in self._jobs.values()), default=math.inf)

    def _take(self, job: Job) -> _Unwritten:
        taken = self._jobs[job]
        if taken.encode is not None and not taken.replies and taken.due > 0.0 and not self._closed:
            # A manifest does not wait for what has only moved, which may be all written in one batch at the end.
            alone, taken.encode = _Unwritten(encode=taken.encode), None
            taken.due = time.monotonic() + _FLUSH_SECONDS if taken.moved else math.inf
            return alone
        del self._jobs[job]
        if not taken.ended:
            # The next batch of this job goes on counting where this one stops.
            self._jobs[job] = _Unwritten(sequence=taken.sequence + taken.moved)
        return taken

    def _write(self, job: Job, unwritten: _Unwritten) -> None:
        if unwritten.encode is not None:
            self._storage.put(self._bucket, records.manifest_key(job.id), unwritten.encode())
        if unwritten.moved:
            counters = job.counters
            header = {
                "time": time.time(),
                "total": counters.total,
                "done": counters.done,
                "failed": counters.failed,
                "retried": counters.retried,
                "cancelled": counters.cancelled,
                "running": counters.running,
                "ended": unwritten.ended,
                "moments": [[_since(job, sent), _since(job, settled)] for sent, settled in unwritten.moments],
                "attempts": [_told(job, attempt) for attempt in unwritten.attempts],
                # What is charged for: see costs.
                "usage": job.usage.as_json(),
                "platform": asdict(job.platform),
                "client_requests": self._storage.requests(),
            }
            key = records.progress_key(job.id, unwritten.sequence)
            data = wire.encode_progress(header, unwritten.replies)
            self._storage.put(self._bucket, key, [data, wire.sign(job.key, key, data)])


def _told(job: Job, attempt: Attempt) -> list[Any]:
    """An attempt with its times as ``_since`` has them: see ``read_attempt``."""
    return [_since(job, value) if name in _TIMES else value for name, value in attempt._asdict().items()]


def read_attempt(told: Sequence[Any], submitted: float) -> Attempt:
    """An attempt of a batch of a job that was submitted then."""
    named = zip(Attempt._fields, told, strict=True)
    return Attempt(*(submitted + value if name in _TIMES and value is not None else value for name, value in named))


def _since(job: Job, when: float | None) -> float | None:
    """Seconds since the job was submitted, to a tenth of a millisecond: there may be thousands in a batch."""
    return None if when is None else round(when - job.submitted, 4)


# -- reading


@dataclass(frozen=True)
class JobRecord:
    """A job as storage tells of it."""

    job_id: str
    header: dict[str, Any]  # of the manifest; empty if that cannot be read
    progress: dict[str, Any]  # of the last batch; empty while there is none

    @property
    def state(self) -> str:
        """``done``, ``failed`` (done, some calls failed), ``cancelled`` (done, none failed, some were cancelled),
        ``running``, ``lost`` (the client that ran it is gone), ``unfinished`` (its client is on another machine, so
        nobody here knows) or ``unreadable``.
        """
        if not self.header:
            return "unreadable"
        if self.progress.get("ended"):
            return next((state for state in ("failed", "cancelled") if self.progress.get(state)), "done")
        return {True: "running", False: "lost", None: "unfinished"}[self.client_lives]

    @property
    def client_lives(self) -> bool | None:
        """Whether the process that made the job is still there; ``None`` if that was on another machine."""
        where, _, pid = self.header.get("client", "").rpartition(":")
        if where.rpartition("@")[2] != os.uname().nodename or not pid.isdecimal():
            return None
        started = _process_start(int(pid))
        # A process that began after the job is another one that was given the same number.
        return started is not None and started <= self.header["created"] + _CLOCK_ERROR


def _process_start(pid: int) -> float | None:
    """When a process of this machine began, in seconds since the epoch, 0.0 if that is not told; ``None`` if it is not
    there.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:  # it is there, and another user's
        return 0.0
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat, open("/proc/uptime", "rb") as uptime:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
            return time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):  # no /proc
        return 0.0


def list_jobs(storage: StorageBackend, bucket: str, newest: int | None = None) -> Iterator[JobRecord]:
    """Yield the jobs recorded in the bucket, the last recorded first, and no more than the ``newest``."""
    manifests: dict[str, float] = {}
    latest: dict[str, str] = {}
    job_id = ""
    for info in storage.list(bucket, records.JOBS_PREFIX):
        if (found := records.job_of_manifest(info.key)) is not None:
            job_id, manifests[found] = found, info.modified
        elif job_id and info.key.startswith(records.progress_prefix(job_id)):
            latest[job_id] = info.key
    ordered = sorted(manifests, key=lambda job_id: (manifests[job_id], job_id), reverse=True)
    left = len(ordered) if newest is None else newest
    # Services tell the time to the second: of jobs of the same one the records themselves say which was later.
    for _, group in groupby(ordered, key=manifests.__getitem__):
        glanced = [each for job_id in group if (each := _glance(storage, bucket, job_id, latest.get(job_id, "")))]
        glanced.sort(key=lambda record: record.header.get("created", 0.0), reverse=True)
        yield from glanced[:left]
        left -= len(glanced)
        if left <= 0:
            return


def _glance(storage: StorageBackend, bucket: str, job_id: str, latest: str) -> JobRecord | None:
    """A job as far as it can be read; ``None`` if it was deleted meanwhile."""
    try:
        return _read(storage, bucket, job_id, latest)
    except NoSuchObject:
        return None
    except IntegrityError as error:
        logger.debug("%s", error)
        return JobRecord(job_id, {}, {})


def find_job(storage: StorageBackend, bucket: str, beginning: str) -> str:
    """Return the id of the one job whose id begins so; raise ``InputError`` if there is none, or more than one."""
    keys = (info.key for info in storage.list(bucket, records.JOBS_PREFIX + beginning.replace("-", "/", 1)))
    found = [job_id for key in keys if (job_id := records.job_of_manifest(key)) is not None]
    if beginning in found or len(found) == 1:
        return beginning if beginning in found else found[0]
    if not found:
        raise InputError(f"the bucket {bucket!r} has no job whose id begins with {beginning!r}")
    names = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    raise InputError(f"{len(found)} jobs have ids that begin with {beginning!r}: {names}")


def jobs_of(storage: StorageBackend, bucket: str, executor_id: str) -> list[str]:
    """Return the ids of an executor's recorded jobs, in the order they were made."""
    if re.fullmatch("[0-9a-f]{12}", executor_id) is None:
        return []
    keys = (info.key for info in storage.list(bucket, records.executor_prefix(executor_id)))
    found = [job_id for key in keys if (job_id := records.job_of_manifest(key)) is not None]
    return sorted(found, key=lambda job_id: int(job_id.rpartition("-")[2][1:]))


def read_job(storage: StorageBackend, bucket: str, job_id: str) -> JobRecord:
    """Read the headers of a job's manifest and of its latest progress. Raises ``NoSuchObject``."""
    latest = ""
    for info in storage.list(bucket, records.progress_prefix(job_id)):
        latest = info.key
    return _read(storage, bucket, job_id, latest)


def _read(storage: StorageBackend, bucket: str, job_id: str, latest: str) -> JobRecord:
    name = records.manifest_key(job_id)
    header = _read_header(storage, bucket, name)
    if not all(isinstance(header.get(key), kind) for key, kind in _TOLD.items()):
        raise IntegrityError(f"{name!r} is not a record of a job")
    return JobRecord(job_id, header, _read_header(storage, bucket, latest) if latest else {})


def _read_header(storage: StorageBackend, bucket: str, key: str) -> dict[str, Any]:
    data = storage.get(bucket, key, 0, _GLANCE)
    try:
        (size,) = struct.unpack_from("<I", data)
        if 4 + size > len(data):
            data = storage.get(bucket, key, 0, 4 + size)
        header = json.loads(data[4 : 4 + size])
    except (struct.error, ValueError, RecursionError) as error:
        raise IntegrityError(f"{key!r} is not a record of a job") from error
    if not isinstance(header, dict):
        raise IntegrityError(f"{key!r} is not a record of a job")
    return header


def read_manifest(storage: StorageBackend, bucket: str, job_id: str, key: bytes) -> dict[str, Any]:
    """Return the header of a job's manifest, after checking the signature of all of it.

    ``LithopsMiniError`` if another version of the package has written it, whose outcomes look different.
    """
    name = records.manifest_key(job_id)
    data = wire.verify(key, name, storage.get(bucket, name))
    (size,) = struct.unpack_from("<I", data)
    header: dict[str, Any] = json.loads(bytes(data[4 : 4 + size]))
    if header["version"] != wire.VERSION:
        written = f"lithops_mini {header['lithops_mini']}, record version {header['version']}"
        raise LithopsMiniError(f"{job_id} was recorded by {written}: this one reads version {wire.VERSION}")
    return header


def read_outcomes(storage: StorageBackend, bucket: str, job_id: str, key: bytes) -> Iterator[tuple[str, wire.Outcome]]:
    """Yield (worker id, outcome) of every settled call, after checking the signature of each batch."""
    for info in storage.list(bucket, records.progress_prefix(job_id)):
        batch = wire.verify(key, info.key, storage.get(bucket, info.key))
        for worker_id, outcomes in wire.split_progress(batch)[1]:
            for outcome in wire.iter_outcomes(outcomes):
                yield worker_id, outcome


def delete_jobs(storage: StorageBackend, bucket: str, prefix: str) -> int:
    """Delete everything below a prefix of ``records``; return how many objects that were."""
    keys = [info.key for info in storage.list(bucket, prefix)]
    storage.delete(bucket, keys)
    return len(keys)


def delete_job(storage: StorageBackend, bucket: str, record: JobRecord) -> int:
    """Delete a job and its cloud objects; return how many objects that were.

    With the last job of an executor that is gone, everything else it stored goes too.
    """
    job_id = record.job_id
    executor_id = job_id.rpartition("-")[0]
    count = delete_jobs(storage, bucket, records.job_prefix(job_id))
    count += delete_jobs(storage, bucket, records.cloudobjects_prefix(job_id))
    rest = [info.key for info in storage.list(bucket, records.executor_prefix(executor_id))]
    if record.client_lives is False and not any(map(records.job_of_manifest, rest)):
        storage.delete(bucket, rest)
        count += len(rest) + delete_jobs(storage, bucket, records.cloudobjects_prefix(executor_id))
    return count


def bulk_keys(storage: StorageBackend, bucket: str, executor_id: str) -> list[str]:
    """What of an executor's data is not needed to tell what happened: code, large inputs, large results."""
    return [
        info.key
        for info in storage.list(bucket, records.executor_prefix(executor_id))
        if not records.is_record(info.key)
    ]
