"""lithops-mini logs: what the calls of a job print."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.job_store import open_storage, signing_key
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.table import count
from lithops_mini.errors import InputError, NoSuchBucket

if TYPE_CHECKING:
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
@config_options
def logs(job: str | None, only: int | None, follow: bool, as_json: bool, selection: Selection) -> None:
    """Show what the calls of a job have printed.

    JOB is the job's id, or the beginning of one; the last recorded one, if it is not given. What calls that have ended
    printed comes from the job's record, call by call. What calls print that still run can be had from the docker
    backend, from any terminal.

    \b
    Examples:
      lithops-mini logs
      lithops-mini logs 3f9c1a2b4d5e-M000 --call 7
      lithops-mini logs --follow
      lithops-mini logs --json | jq -r 'select(.line | contains("error")).call'
    """
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        job_id = manifest.find_job(storage, bucket, job) if job else _latest(storage, bucket)
        key = signing_key(job_id)
        header = manifest.read_manifest(storage, bucket, job_id, key)
        if only is not None and only >= header["calls"]:
            raise InputError(f"{job_id} has {count(header['calls'], 'call')}, counted from 0: there is no call {only}")
        if not job:
            click.echo(f"{job_id}, {header['function']}:", err=True)
        shown = _Shown(job_id, only, as_json)
        record = manifest.read_job(storage, bucket, job_id)
        if follow and record.state in _OPEN:
            with _tail(replace(selection, backend=header["backend"])) as lines:
                shown.settled(_logs(storage, bucket, job_id, key))
                record = _follow(storage, bucket, job_id, lines, shown)
        shown.settled(_logs(storage, bucket, job_id, key))
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


def _logs(storage: StorageBackend, bucket: str, job_id: str, key: bytes) -> dict[int, bytes]:
    """The output of each call that has ended, in order of the calls."""
    from lithops_mini.job import manifest

    found: dict[int, bytes] = {}
    for _, outcome in manifest.read_outcomes(storage, bucket, job_id, key):
        found.setdefault(outcome.call, bytes(outcome.log))
    return dict(sorted(found.items()))


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


def _follow(storage: StorageBackend, bucket: str, job_id: str, lines: Lines, shown: _Shown) -> JobRecord:
    """Show what comes until the job has ended; return its record."""
    from lithops_mini.job import manifest

    look = time.monotonic()
    while True:
        if time.monotonic() >= look:
            record = manifest.read_job(storage, bucket, job_id)
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

    def printed(self, job_id: str, call: int, line: str) -> None:
        """Show a line that a running call has printed."""
        if job_id == self._job_id and call not in self.ended:
            self._live[call] = self._live.get(call, (0, ""))[0] + 1, line
            self._show(call, [line])

    def settled(self, logs: dict[int, bytes]) -> None:
        """Show what calls that have ended printed, as far as it was not seen."""
        for call, log in logs.items():
            if call not in self.ended:
                self.ended.add(call)
                lines = log.decode(errors="replace").splitlines()
                seen = self._live.pop(call, None)
                self._show(call, lines if seen is None else _after(lines, *seen))

    def _show(self, call: int, lines: Sequence[str]) -> None:
        if not lines or self._only not in (None, call):
            return
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
