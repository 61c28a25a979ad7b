"""lithops-mini jobs watch: how far a job is that runs elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.job_store import open_storage
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.errors import InputError, NoSuchBucket
from lithops_mini.shorten import printable, shorten

if TYPE_CHECKING:
    from lithops_mini.job.manifest import JobRecord
    from lithops_mini.progress import Counters
    from lithops_mini.storage.base import StorageBackend

# Seconds between looks, each of which is two requests to storage for each job; records are written every two seconds.
_LOOK = 1.0
# What a bar has in front, in characters.
_LABEL = 32
# States of jobs that may go on.
_OPEN = ("running", "unfinished")


@click.command()
@click.argument("job", required=False)
@config_options
@click.pass_context
def watch(ctx: click.Context, selection: Selection, job: str | None) -> None:
    """Show how far a job is, from any terminal, until it ends.

    JOB is the job's id, or the beginning of one. Without it, all jobs of the program that has started the last one that
    runs. What is shown comes from the records in storage, which are some two seconds old. Ctrl-C ends the watching, not
    the job. The exit code is 0 if every call has succeeded.

    \b
    Examples:
      lithops-mini jobs watch
      lithops-mini jobs watch 3f9c1a2b4d5e-M000
    """
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        if job:
            job_id = manifest.find_job(storage, bucket, job)
            ended = _watch(lambda: [manifest.read_job(storage, bucket, job_id)])
        else:
            executor_id = _latest_running(storage, bucket).job_id.rpartition("-")[0]
            ended = _watch(
                lambda: [
                    manifest.read_job(storage, bucket, job_id)
                    for job_id in manifest.jobs_of(storage, bucket, executor_id)
                ]
            )
    for record in ended:
        click.echo(f"{record.job_id}, {printable(record.header['function'])}: {record.state}")
    if any(record.state != "done" for record in ended):
        ctx.exit(1)


def _latest_running(storage: StorageBackend, bucket: str) -> JobRecord:
    from lithops_mini.job import manifest

    try:
        for record in manifest.list_jobs(storage, bucket):
            if record.state == "running":
                return record
    except NoSuchBucket:  # nothing has ever run
        pass
    raise InputError(f"no job of this machine that is recorded in the bucket {bucket!r} is running: name one")


def _watch(read: Callable[[], Sequence[JobRecord]]) -> Sequence[JobRecord]:
    """Draw how far these jobs are until all have ended; return their last records."""
    from lithops_mini.progress import Progress

    records = read()
    if not _goes_on(records):
        return records
    counters = _add_up(records)
    names = dict.fromkeys(printable(record.header["function"]) for record in records)
    pause = threading.Event()
    with Progress(lambda: counters, label=shorten(", ".join(names), _LABEL), enabled=True) as progress:
        while True:
            progress.update()
            if not _goes_on(records):
                return records
            pause.wait(_LOOK)  # for nobody: storage says nothing by itself
            records = read()
            counters = _add_up(records)


def _goes_on(records: Sequence[JobRecord]) -> bool:
    return any(record.state in _OPEN for record in records)


def _add_up(records: Sequence[JobRecord]) -> Counters:
    from lithops_mini.progress import Counters

    told = [record.progress for record in records]
    sums = {
        name: sum(int(progress.get(name, 0)) for progress in told)
        for name in ("done", "running", "failed", "retried", "cancelled")
    }
    return Counters(total=sum(record.header["calls"] for record in records), **sums)
