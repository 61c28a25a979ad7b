"""lithops-mini logs: what the calls of a job print."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lithops_mini.cli.job_store import open_storage, signing_key
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.table import count
from lithops_mini.errors import ConfigError, InputError, NoSuchBucket

if TYPE_CHECKING:
    from lithops_mini.compute.base import ComputeBackend
    from lithops_mini.job.manifest import JobRecord
    from lithops_mini.storage.base import StorageBackend

Lines = queue.SimpleQueue[tuple[str, int, str]]  # job, call, line

# How often one who follows looks whether the job has ended, in seconds: each time is three requests to storage.
_LOOK = 1.0
# States of jobs that may go on.
_OPEN = ("running", "unfinished")


@click.command()
@click.argument("job", required=False)
@click.option("--call", "only", metavar="N", type=click.IntRange(0), help="What this call prints, and nothing else.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what running calls print, until the job ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line: job, call, line.")
@click.option("--url", "only_url", is_flag=True, help="Print the address of the log's web page, and nothing else.")
@config_options
def logs(job: str | None, only: int | None, follow: bool, as_json: bool, only_url: bool, selection: Selection) -> None:
    """Show what the calls of a job have printed.

    JOB is the job's id, or the beginning of one; the last recorded one, if it is not given. What calls that have ended
    printed comes from the job's record, call by call. What calls print that still run can be had from the backends
    docker, aws_lambda and knative, from any terminal. With --call, what the record lacks comes from where the platform
    keeps it: CloudWatch, records of activations, pods.

    \b
    Examples:
      lithops-mini logs
      lithops-mini logs 3f9c1a2b4d5e-M000 --call 7
      lithops-mini logs --follow
      lithops-mini logs 3f9c --call 7 --url
      lithops-mini logs --json | jq -r 'select(.line | contains("error")).call'
    """
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        job_id = manifest.find_job(storage, bucket, job) if job else _latest(storage, bucket)
        recorded = _Recorded.find(storage, bucket, job_id)
        header = recorded.header
        if only is not None and only >= header["calls"]:
            raise InputError(f"{job_id} has {count(header['calls'], 'call')}, counted from 0: there is no call {only}")
        selection = replace(selection, backend=header["backend"])
        with _keeper(selection) as keeper:
            record, ended = recorded.now(), recorded.ended()
            url = keeper.log_url(ended[only].worker if only in ended else "") if keeper is not None else None
            if only_url:
                if url is None:
                    raise InputError(f"what {job_id} has printed is on no web page: it is of {header['backend']}")
                click.echo(url)
                return
            if not job:
                click.echo(f"{job_id}, {header['function']}:", err=True)
            if url is not None:
                click.echo(f"All that was logged: {url}", err=True)
            shown = _Shown(job_id, only, as_json)
            if follow and record.state in _OPEN:
                with _tail(selection) as lines:
                    shown.settled(recorded.ended())
                    record = _follow(recorded, lines, shown)
                ended = recorded.ended()
            shown.settled(ended)
            if keeper is not None and only is not None and _lacks_output(ended.get(only)) and only not in shown.calls:
                shown.kept(only, keeper.read_log(job_id, only, header["created"]))
    asked = set(range(header["calls"]) if only is None else [only])
    if left := len(asked - shown.ended):
        hint = ", and --follow shows what is printed" if record.state in _OPEN else ""
        click.echo(f"Not ended: {count(left, 'call')} of {job_id}; the job is {record.state}{hint}.", err=True)


def _latest(storage: StorageBackend, bucket: str) -> str:
    from lithops_mini.job import manifest

    try:
        return next(manifest.list_jobs(storage, bucket, 1)).job_id
    except (StopIteration, NoSuchBucket):  # nothing has ever run
        raise InputError(f"there are no jobs in the bucket {bucket!r} yet") from None


class _Ended(NamedTuple):
    """What is recorded of a call that has ended."""

    worker: str  # its id; empty if none has answered
    status: int
    log: bytes


def _lacks_output(ended: _Ended | None) -> bool:
    """Whether a call may have printed more than its record says: it has none, or nobody lived to tell."""
    from lithops_mini.wire import Status

    return ended is None or not (ended.log or ended.status in (Status.OK, Status.ERROR))


@dataclass(frozen=True)
class _Recorded:
    """A job in storage."""

    storage: StorageBackend
    bucket: str
    job_id: str
    key: bytes
    header: dict[str, Any]

    @staticmethod
    def find(storage: StorageBackend, bucket: str, job_id: str) -> _Recorded:
        from lithops_mini.job import manifest

        key = signing_key(job_id)
        return _Recorded(storage, bucket, job_id, key, manifest.read_manifest(storage, bucket, job_id, key))

    def now(self) -> JobRecord:
        from lithops_mini.job import manifest

        return manifest.read_job(self.storage, self.bucket, self.job_id)

    def ended(self) -> dict[int, _Ended]:
        """The calls that have ended, in order."""
        from lithops_mini.job import manifest

        found: dict[int, _Ended] = {}
        for worker, outcome in manifest.read_outcomes(self.storage, self.bucket, self.job_id, self.key):
            found.setdefault(outcome.call, _Ended(worker, outcome.status, bytes(outcome.log)))
        return dict(sorted(found.items()))


@contextmanager
def _keeper(selection: Selection) -> Iterator[ComputeBackend | None]:
    """The backend, if it keeps what calls print, and can be used here: a job's record is shown without it too."""
    from lithops_mini import registry

    try:
        config = selection.load()
        found = registry.find("compute", config.backend)
        keeper: ComputeBackend | None = found(config.compute_options) if found.keeps_log else None
    except ConfigError:
        keeper = None
    try:
        yield keeper
    finally:
        if keeper is not None:
            keeper.close()


@contextmanager
def _tail(selection: Selection) -> Iterator[Lines]:
    """What the workers print from now on, and a little of what they have printed before."""
    from lithops_mini import registry

    config = selection.load()
    backend = registry.find("compute", config.backend)(config.compute_options)
    try:
        lines: Lines = queue.SimpleQueue()
        with backend.tail(lambda *line: lines.put(line)):
            yield lines
    finally:
        backend.close()


def _follow(recorded: _Recorded, lines: Lines, shown: _Shown) -> JobRecord:
    """Show what comes until the job has ended; return its record."""
    look = time.monotonic()
    while True:
        if time.monotonic() >= look:
            record = recorded.now()
            if record.state not in _OPEN:
                return record
            look = time.monotonic() + _LOOK
        with suppress(queue.Empty):
            shown.printed(*lines.get(timeout=max(0.0, look - time.monotonic())))


class _Shown:
    """What has been shown of a job, so that nothing is shown twice."""

    def __init__(self, job_id: str, only: int | None, as_json: bool) -> None:
        self._job_id = job_id
        self._only = only
        self._as_json = as_json
        self._live: dict[int, tuple[int, str]] = {}  # of a call: how many lines were seen as it ran, and the last
        self.ended: set[int] = set()
        self.calls: set[int] = set()  # of which something was shown

    def printed(self, job_id: str, call: int, line: str) -> None:
        """Show a line that a running call has printed."""
        if job_id == self._job_id and call not in self.ended:
            self._live[call] = self._live.get(call, (0, ""))[0] + 1, line
            self._show(call, [line])

    def kept(self, call: int, lines: Iterable[str]) -> None:
        """Show lines that the platform has kept of a call."""
        self._show(call, list(lines))

    def settled(self, ended: Mapping[int, _Ended]) -> None:
        """Show what calls that have ended printed, as far as it was not seen."""
        for call, its in ended.items():
            if call not in self.ended:
                self.ended.add(call)
                lines = its.log.decode(errors="replace").splitlines()
                seen = self._live.pop(call, None)
                self._show(call, lines if seen is None else _after(lines, *seen))

    def _show(self, call: int, lines: Sequence[str]) -> None:
        if not lines or self._only not in (None, call):
            return
        self.calls.add(call)
        if self._as_json:
            lines = [json.dumps({"job": self._job_id, "call": call, "line": line}) for line in lines]
        elif self._only is None:
            lines = [f"call {call}: {line}" for line in lines]
        click.echo("\n".join(lines))


def _after(lines: list[str], seen: int, last: str) -> list[str]:
    """Those of a call's lines that come after the ``seen`` ones, the ``last`` of which is known.

    Not all of its lines may have been seen, and some of them may be an earlier attempt's.
    """
    if seen <= len(lines) and lines[seen - 1] == last:
        return lines[seen:]
    return lines[len(lines) - lines[::-1].index(last) :] if last in lines else lines


COMMANDS = [logs]
