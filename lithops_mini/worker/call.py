"""Running calls: from the bytes of a message to one outcome per call. Used by every worker, whatever carries it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lithops_mini import records, registry, wire
from lithops_mini.errors import ConfigError, LithopsMiniError, StorageError, StorageUnavailable
from lithops_mini.records import NO_REQUESTS, Requests
from lithops_mini.storage.base import StorageBackend
from lithops_mini.worker import code, dependencies, serialize
from lithops_mini.worker.pipe import ENDLESS, LOG_HEAD, LOG_TAIL, unstarted

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# A call shorter than this is not worth asking the kernel for its memory peak, in seconds.
_MEASURED = 0.005
# Bytes in a unit of ru_maxrss.
_MAXRSS = 1 if sys.platform == "darwin" else 1024
# What is told of an exception in words, in characters: some quote their data.
_LONGEST_TEXT = 64 << 10
# Jobs whose function stays loaded.
_REMEMBERED = 16

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Job:
    """What the calls of one job share in this process: settings, function, storage."""

    def __init__(self, header: dict[str, Any], directory: str | None, opening: Callable[[bool], object]) -> None:
        self.id: str = header["job"]
        self.bucket: str = header["bucket"]
        self.inline: int = header["inline"]
        self.env: dict[str, str] = header["env"]
        self.inject: list[str] = header["inject"]
        self.code: dict[str, Any] = header["code"]
        self.keys = {job: bytes.fromhex(key) for job, key in header["keys"].items()}
        self._storage_name: str = header["storage"]
        self._storage_options: dict[str, Any] = header["storage_options"]
        self._storage: StorageBackend | None = None
        self._directory = directory
        self._opening = opening
        self._function: Callable[..., Any] | None = None
        self._sources: dict[str, str] = {}
        self.used = (0.0, 0.0, 0)  # what _used() said when the last call ended
        self._requests = NO_REQUESTS  # sent by the storage then

    def share(self, other: Job) -> None:
        """Take over what a job with the same function has loaded already."""
        self._function, self._sources = other._function, other._sources

    def storage(self, what: str = "this") -> StorageBackend:
        """The job's storage, opened when first needed. ``ConfigError`` if it is out of this worker's reach, which says
        what it is needed for.
        """
        if not self._storage_name:
            raise ConfigError(
                f"{what} needs the storage, and the workers do not reach that of the client's machine: configure an"
                " object storage"
            )
        if self._storage is None:
            self._opening(True)
            try:
                kind = registry.find("storage", self._storage_name)
                storage: StorageBackend = kind(kind.Options(**self._storage_options))
                storage.prepare()
                self._storage = storage
            finally:
                self._opening(False)
        return self._storage

    def function(self, inline_code: memoryview) -> Callable[..., Any]:
        """The job's function, unpickled once, after its digest was checked."""
        if self._function is None:
            data: memoryview | bytearray = inline_code
            if not len(inline_code):
                at = wire.Stored(self.code["key"], 0, self.code["size"])
                digest, what = self.code["sha256"], "the function of this job"
                data = dependencies.load_digested(self.storage(), self.bucket, at, digest, what)
            else:
                wire.check_digest(self.code["sha256"], "the function of this job", data)
            self._function, self._sources = code.load(data, self._directory)
        return self._function

    def arguments(self, call: wire.Call) -> tuple[tuple[Any, ...], dict[str, Any], int]:
        """Return args, kwargs and how many bytes they were."""
        data = memoryview(call.arguments)
        if call.stored & wire.STORED_ARGUMENTS:
            at = wire.Stored.decode(data)
            what = f"the input of call {call.id}"
            data = memoryview(dependencies.load_digested(self.storage(), self.bucket, at, at.sha256, what))
        table = None
        if call.dependencies:
            table_data = memoryview(call.dependencies)
            if call.stored & wire.STORED_DEPENDENCIES:
                at = wire.Stored.decode(table_data)
                what = f"the dependencies of call {call.id}"
                table_data = memoryview(dependencies.load_digested(self.storage(), self.bucket, at, at.sha256, what))
            table = dependencies.Table(table_data, self.storage, self.bucket, self.keys)
        args, kwargs = dependencies.load_arguments(data, table)
        return args, kwargs, len(data)

    def inject_into(self, kwargs: dict[str, Any], call: wire.Call) -> list[Any]:
        """Fill the parameters the function asks for by name; return what must be closed after the call."""
        opened: list[Any] = []
        for name in self.inject:
            if name in ("obj", "url"):
                from lithops_mini.worker.data import open_partition

                planned = kwargs[name]
                pieces = planned if isinstance(planned, list) else [planned]
                objects = [
                    open_partition(piece, self.storage() if piece.kind == "object" else None) for piece in pieces
                ]
                opened += objects
                kwargs[name] = objects if isinstance(planned, list) else objects[0]
            elif name in kwargs:
                continue  # the caller gave it a value of its own
            elif name == "id":
                kwargs[name] = call.id
            else:
                from lithops_mini.storage.api import Storage

                prefix = records.cloudobjects_prefix(self.id, call.id)
                kwargs[name] = Storage(self.storage(), self.bucket, cloudobject_prefix=prefix)
        return opened

    def describe(self, error: BaseException) -> bytes:
        """What the client learns of an exception: plain strings, and the exception itself if it can be rebuilt."""
        import traceback

        code.show_sources(self._sources)
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        user_line = ""
        for frame in traceback.extract_tb(frames):
            if not frame.filename.startswith((sys.prefix, sys.base_prefix, _PACKAGE)) or not user_line:
                user_line = f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}"
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        try:
            message = str(error)
        except Exception as broken:  # noqa: BLE001 - __str__ is the user's code
            message = f"<its __str__ raised {type(broken).__name__}>"
        return encode_failure(name, _cut(message), _cut(text), user_line, _rebuildable(error))

    def run(
        self, call: wire.Call, inline_code: memoryview, *, cold: bool, take_log: Callable[[], bytes]
    ) -> wire.Outcome:
        """Run one call to its end, whatever that is."""
        started = time.time()
        bytes_in, opened = 0, []
        try:
            function = self.function(inline_code)
            args, kwargs, bytes_in = self.arguments(call)
            opened = self.inject_into(kwargs, call) if self.inject else []
        except (StorageError, ConnectionError) as error:
            ended, place = time.time(), wire.INLINE
            status, data = wire.Status.UNAVAILABLE, _told(error)
        except BaseException as error:  # noqa: BLE001 - unpickling and importing run the user's code
            ended, place = time.time(), wire.INLINE
            status, data = wire.Status.ERROR, self.describe(error)
        else:
            started = time.time()
            ended, status, place, data = self._apply(call, function, args, kwargs)
            for item in opened:
                with contextlib.suppress(OSError):  # its value is there: what closing a source says does not change it
                    item.close()
        size = wire.Stored.decode(data).stop if place == wire.STORED else len(data)
        peak = _peak_memory(ended - started >= _MEASURED)
        log = take_log()
        (user, system, largest), self.used = self.used, _used()
        if self.used[2] > largest:  # else nobody knows which call it was in
            peak = max(peak, self.used[2])
        sent, self._requests = self._requests, self._sent()
        return wire.Outcome(
            call.id,
            call.attempt,
            status,
            place,
            cold,
            started,
            ended,
            self.used[0] - user,
            self.used[1] - system,
            peak,
            bytes_in,
            size,
            sum(item.bytes_read for item in opened),
            *self._requests.since(sent),
            log,
            data,
        )

    def _sent(self) -> Requests:
        requests = None if self._storage is None else self._storage.requests()
        return NO_REQUESTS if requests is None else requests

    def _apply(
        self, call: wire.Call, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[float, wire.Status, int, bytes]:
        worker = os.getpid()
        try:
            value = function(*args, **kwargs)
        except StorageUnavailable as error:  # no fault of the function's
            _end_if_forked(worker, failed=True)
            return time.time(), wire.Status.UNAVAILABLE, wire.INLINE, _told(error)
        except BaseException as error:  # noqa: BLE001 - whatever a call raises is that call's outcome
            _end_if_forked(worker, failed=True)
            return time.time(), wire.Status.ERROR, wire.INLINE, self.describe(error)
        _end_if_forked(worker, failed=False)
        return time.time(), *self._answer(call, value)

    def _answer(self, call: wire.Call, value: Any) -> tuple[wire.Status, int, bytes]:
        try:
            parts = serialize.fast_dumps(value)
        except StorageUnavailable as error:  # it holds a future, whose result lies there
            return wire.Status.UNAVAILABLE, wire.INLINE, _told(error)
        except BaseException as error:  # noqa: BLE001 - pickling runs the user's code
            return wire.Status.ERROR, wire.INLINE, self.describe(serialize.explain(value, "the result", error))
        size = serialize.size_of(parts)
        if size <= self.inline:
            return wire.Status.OK, wire.INLINE, parts[0] if len(parts) == 1 else b"".join(parts)  # type: ignore[return-value]
        key = records.outcome_key(self.id, call.id, call.attempt)
        signature = wire.sign(self.keys[self.id], key, *parts)
        try:
            what = f"a result of {size:,} bytes, more than the {self.inline:,} that travel in a reply,"
            self.storage(what).put(self.bucket, key, [*parts, signature])
        except (StorageError, ConnectionError) as error:
            return wire.Status.UNAVAILABLE, wire.INLINE, b"the result could not be stored: " + _told(error)
        except ConfigError as error:
            return wire.Status.ERROR, wire.INLINE, self.describe(error)
        return wire.Status.OK, wire.STORED, wire.Stored(key, 0, size + wire.SIGNATURE_SIZE).encode()


def _told(error: Exception) -> bytes:
    return _cut(f"{type(error).__name__}: {error}").encode()


def _cut(text: str) -> str:
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


def _rebuildable(error: BaseException) -> bytes | None:
    # SystemExit and KeyboardInterrupt would end the client, so they never come back as themselves.
    if not isinstance(error, Exception):
        return None
    try:
        blob = b"".join(serialize.fast_dumps(error))
        return blob if type(serialize.loads(blob)) is type(error) else None
    except BaseException:  # noqa: BLE001 - one that cannot make the journey, or ends who opens it, travels as text
        return None


def _end_if_forked(worker: int, *, failed: bool) -> None:
    """A child that the function has forked and that returns from it is not the worker: it must not answer."""
    if os.getpid() != worker:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError, AttributeError):  # closed or replaced by the function
                stream.flush()
        os._exit(failed)


def _used() -> tuple[float, float, int]:
    """User and system seconds of this process and of those it started and has waited for, and of these the most bytes
    that one has held.
    """
    if resource is None:
        times = os.times()
        return times.user, times.system, 0
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + ended.ru_utime, own.ru_stime + ended.ru_stime, ended.ru_maxrss * _MAXRSS


_last_peak = 0


def _peak_memory(measure: bool) -> int:
    """Bytes of this process's resident memory at its highest since the last measured call."""
    global _last_peak
    if measure or not _last_peak:
        try:
            with open("/proc/self/status", "rb") as status:
                line = next(line for line in status if line.startswith(b"VmHWM"))
            _last_peak = int(line.split()[1]) * 1024
            with open("/proc/self/clear_refs", "wb") as clear:
                clear.write(b"5")
        except OSError:  # no /proc: the kernel's own high-water mark, never reset
            if resource is not None:
                _last_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
    return _last_peak


def encode_failure(name: str, message: str, text: str = "", user_line: str = "", blob: bytes | None = None) -> bytes:
    """The data of an ERROR: the exception's type, message, traceback, line in the user's code, and itself pickled."""
    return pickle.dumps((name, message, text, user_line, blob), 5)


class Jobs:
    """The jobs this process has seen: messages of one job have one header, so it is read once."""

    def __init__(self, directory: str | None, opening: Callable[[bool], object] = lambda _: None) -> None:
        """``directory`` takes unpacked modules; ``None`` in the client's process, which has them. ``opening`` is called
        with ``True`` before a storage is opened and with ``False`` after: that is no part of a call's time.
        """
        self._directory = directory
        self._opening = opening
        self._jobs: OrderedDict[bytes, Job] = OrderedDict()
        self._cold = True

    def run(
        self,
        payload: bytes | bytearray,
        take_log: Callable[[], bytes],
        deadline: float = math.inf,
        room: int = ENDLESS,
    ) -> Iterator[wire.Outcome]:
        """Yield one outcome per call of the message, each as soon as it is known.

        What has not begun by ``deadline``, in seconds of the monotonic clock, is given back, as is what might not fit
        into a reply of ``room`` bytes, but the first call runs.
        """
        header, inline_code, calls = wire.split_payload(payload)
        job = self._job(header)
        restore = set_environment(job.env) if job.env else None
        job.used = _used()
        first = True
        room -= wire.count_calls(payload) * wire.OUTCOME_OVERHEAD + job.inline + LOG_HEAD + LOG_TAIL
        try:
            for call in wire.iter_calls(calls):
                if not first and (room < 0 or time.monotonic() > deadline):
                    yield unstarted(call)
                    continue
                outcome = job.run(call, inline_code, cold=self._cold, take_log=take_log)
                room -= len(outcome.log) + len(outcome.data)
                yield outcome
                first = self._cold = False
        finally:
            if restore is not None:
                restore()

    def _job(self, header: bytes) -> Job:
        job = self._jobs.get(header)
        if job is None:
            fields = json.loads(header)
            if fields["version"] != wire.VERSION:
                raise LithopsMiniError(
                    f"this worker speaks version {wire.VERSION} of the messages, the client {fields['version']}:"
                    " rebuild the runtime with the client's lithops_mini"
                )
            job = self._jobs[header] = Job(fields, self._directory, self._opening)
            # A function used by the job before is kept warm; what was used long ago must not hold memory for ever.
            for other in self._jobs.values():
                if other.code["sha256"] == job.code["sha256"]:
                    job.share(other)
                    break
            while len(self._jobs) > _REMEMBERED:
                self._jobs.popitem(last=False)
        return job


def set_environment(env: Mapping[str, str]) -> Callable[[], None]:
    """Set environment variables; what is returned puts everything back.

    Whoever set a variable last is seen. Those who set it may end in any order: an inline call can outlive the call it
    was started from, and must not put back what that one had set.
    """
    with _environments_lock:
        before = {name: os.environ.get(name) for name in env}
        _environments.append(before)
        os.environ.update(env)

    def restore() -> None:
        with _environments_lock:
            mine = next(n for n, other in enumerate(_environments) if other is before)
            later = _environments[mine + 1 :]
            del _environments[mine]
            for name, value in before.items():
                covering = next((other for other in later if name in other), None)
                if covering is not None:
                    covering[name] = value
                elif value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    return restore


# Of each environment set now, oldest first, what its variables were before it.
_environments: list[dict[str, str | None]] = []
_environments_lock = threading.Lock()
