"""lithops-mini jobs and clean: what storage knows of the jobs, and how to be rid of it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lithops_mini.cli import job_text
from lithops_mini.cli.job_reports import bill_of, export, report
from lithops_mini.cli.job_store import open_storage, signing_key
from lithops_mini.cli.job_watch import watch
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.table import count, table
from lithops_mini.errors import LithopsMiniError, NoSuchBucket
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from lithops_mini.job.manifest import JobRecord
    from lithops_mini.storage.base import StorageBackend
    from lithops_mini.wire import Outcome

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group()
def jobs() -> None:
    """List jobs, look at one, watch one, tell what they did, remove what they stored.

    \b
    Examples:
      lithops-mini jobs list
      lithops-mini jobs show 3f9c1a2b4d5e-M000 --calls
      lithops-mini jobs cost 3f9c1a2b4d5e-M000
      lithops-mini jobs clean --older-than 7d
    """


@jobs.command("list")
@click.option(
    "-n", "newest", metavar="N", type=click.IntRange(0), default=20, show_default=True, help="The last N; 0 for all."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@config_options
def list_(newest: int, as_json: bool, selection: Selection) -> None:
    """List the jobs, the last one first.

    A job is done, failed (done, and some calls failed), running, lost (the program that ran it is gone), unfinished
    (that program is on another machine), or unreadable.

    \b
    Examples:
      lithops-mini jobs list
      lithops-mini jobs list -n 5
      lithops-mini jobs list -n 0 --json | jq 'select(.state == "failed").job'
    """
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        try:
            found = list(manifest.list_jobs(storage, bucket, newest + 1 if newest else None))
        except NoSuchBucket:  # nothing has ever run
            found = []
    shown = found[:newest] if newest else found
    if as_json:
        for record in shown:
            click.echo(json.dumps(job_text.summary(record)))
    elif not shown:
        click.echo(f"There are no jobs in the bucket {bucket!r} yet.")
    else:
        for line in table(job_text.HEADINGS, [job_text.row(record) for record in shown]):
            click.echo(line)
    if len(shown) < len(found) and not as_json:
        these = "This is the last one" if newest == 1 else f"These are the last {newest}"
        click.echo(f"{these}; -n 0 lists all.", err=True)


@jobs.command()
@click.argument("job")
@click.option("--calls", is_flag=True, help="Show every call.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_options
def show(job: str, calls: bool, as_json: bool, selection: Selection) -> None:
    """Show a job: what ran, how far it got, what became of its calls.

    JOB is the job's id, or the beginning of one. Signatures are checked: records that somebody else wrote or changed
    are an error.

    \b
    Examples:
      lithops-mini jobs show 3f9c1a2b4d5e-M000
      lithops-mini jobs show 3f9c --calls
      lithops-mini jobs show 3f9c --calls --json | jq '.outcomes[].status'
    """
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        job_id = manifest.find_job(storage, bucket, job)
        key = signing_key(job_id)
        header = manifest.read_manifest(storage, bucket, job_id, key)
        record = manifest.read_job(storage, bucket, job_id)
        settled: dict[int, tuple[str, Outcome]] = {}
        for worker_id, outcome in manifest.read_outcomes(storage, bucket, job_id, key):
            settled.setdefault(outcome.call, (worker_id, outcome))
    rows = [job_text.call(*settled[call]) if call in settled else {"call": call} for call in range(header["calls"])]
    if as_json:
        keys = ("python", "lithops_mini", "backend", "storage", "settings", "code", "dependencies")
        told = {**job_text.summary(record), "bucket": bucket, **{name: header[name] for name in keys}}
        click.echo(json.dumps(told | {"by_status": job_text.by_status(rows)} | ({"outcomes": rows} if calls else {})))
        return
    for line in (*job_text.description(record, header, bucket), "", *job_text.calls_by_status(rows)):
        click.echo(line)
    if calls:
        click.echo("")
        for line in job_text.table_of_calls(rows):
            click.echo(line)


@jobs.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_options
def cost(job: str, as_json: bool, selection: Selection) -> None:
    """Show what a job has cost, at the prices of the configuration.

    JOB is the job's id, or the beginning of one. The figures are those of the record, which is complete when the job
    has ended. The client's requests are those of its program until then, for other jobs too.

    \b
    Examples:
      lithops-mini jobs cost 3f9c1a2b4d5e-M000
      lithops-mini jobs cost 3f9c --json | jq .total.dollars
    """
    from lithops_mini import costs
    from lithops_mini.job import history, manifest

    prices = costs.read_prices(selection.load().job.prices)
    with open_storage(selection) as (storage, bucket):
        job_id = manifest.find_job(storage, bucket, job)
        found = history.read_history(storage, bucket, job_id, signing_key(job_id))
    bill = bill_of([found], prices)
    if bill is None:
        raise LithopsMiniError(f"nothing of {job_id} has been settled yet, so its record tells no cost")
    click.echo(json.dumps({"job": job_id, **bill.as_dict()}) if as_json else str(bill))
    if not found.record.progress["ended"]:
        click.echo(f"The job is {found.record.state}: this is what it had cost when that was recorded.", err=True)


@jobs.command("clean")
@click.argument("chosen", metavar="[JOB]...", nargs=-1)
@click.option("--older-than", metavar="AGE", help="Those made longer ago: 30m, 12h, 7d, 2w.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@config_options
def clean_jobs(chosen: tuple[str, ...], older_than: str | None, every: bool, yes: bool, selection: Selection) -> None:
    """Remove jobs with their records, results and cloud objects.

    Asks first. JOB is a job's id or the beginning of one. A job that runs is never removed; with --all and
    --older-than, neither are those of programs that still run on this machine, which may yet read their results.

    \b
    Examples:
      lithops-mini jobs clean 3f9c1a2b4d5e-M000
      lithops-mini jobs clean --older-than 7d --yes
      lithops-mini jobs clean --all
    """
    from lithops_mini.job import manifest

    if bool(chosen) + bool(older_than) + every != 1:
        raise click.UsageError("give job ids, or --older-than, or --all")
    with open_storage(selection) as (storage, bucket):
        if chosen:
            ids = dict.fromkeys(manifest.find_job(storage, bucket, job) for job in chosen)
            doomed = [manifest.read_job(storage, bucket, job_id) for job_id in ids]
            if running := [record.job_id for record in doomed if record.state == "running"]:
                raise LithopsMiniError(f"{running[0]} is running: end its program first")
            left = 0
        else:
            doomed, left = _removable(storage, bucket, time.time() - _seconds(older_than) if older_than else None)
        if doomed:
            _confirm(f"Remove {count(len(doomed), 'job')}, {_states(doomed)}?", yes)
            objects = sum(manifest.delete_job(storage, bucket, record) for record in doomed)
            click.echo(f"Removed {count(len(doomed), 'job')}, {count(objects, 'object')}.")
        else:
            click.echo("There is nothing to remove.")
    _tell_left(left)


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@config_options
def clean(yes: bool, selection: Selection) -> None:
    """Remove all job data in the bucket: jobs and cloud objects.

    Asks first. What programs still use that run on this machine is left. Other objects are not touched.

    \b
    Examples:
      lithops-mini clean
      lithops-mini clean --yes -p prod
    """
    from lithops_mini import records
    from lithops_mini.job import manifest

    with open_storage(selection) as (storage, bucket):
        try:
            known = list(manifest.list_jobs(storage, bucket))
            kept = {record.job_id.rpartition("-")[0] for record in known if record.client_lives}
            infos = [
                info
                for prefix in (records.JOBS_PREFIX, records.CLOUDOBJECTS_PREFIX)
                for info in storage.list(bucket, prefix)
                if info.key.removeprefix(prefix).partition("/")[0].partition("-")[0] not in kept
            ]
        except NoSuchBucket:  # nothing has ever run
            known, infos = [], []
        left = sum(bool(record.client_lives) for record in known)
        what = f"{count(len(known) - left, 'job')}, {count(len(infos), 'object')}"
        what += f", {format_size(sum(info.size for info in infos))}"
        if infos:
            _confirm(f"Remove all job data in the bucket {bucket!r}: {what}?", yes)
            storage.delete(bucket, [info.key for info in infos])
            click.echo(f"Removed {what}.")
        else:
            click.echo("There is nothing to remove.")
    _tell_left(left)


# -- removing


def _removable(storage: StorageBackend, bucket: str, before: float | None) -> tuple[list[JobRecord], int]:
    """The jobs made before a time, or all, and how many more are left because their programs still run."""
    from lithops_mini.job import manifest

    try:
        found = list(manifest.list_jobs(storage, bucket))
    except NoSuchBucket:  # nothing has ever run
        found = []
    if before is not None:
        found = [record for record in found if record.header and record.header["created"] < before]
    return [record for record in found if not record.client_lives], sum(bool(record.client_lives) for record in found)


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", age.strip())
    if not match:
        raise click.BadParameter(f"{age!r} is not an age: write a number and s, m, h, d or w, as in 7d")
    return float(match[1]) * _UNITS[match[2]]


def _states(found: Sequence[JobRecord]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in Counter(record.state for record in found).items())


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: add --yes")
    if not click.confirm(question, err=True):
        click.echo("Nothing was removed.")
        click.get_current_context().exit(1)


def _tell_left(left: int) -> None:
    if left:
        click.echo(f"Left: {count(left, 'job')} of programs that still run.", err=True)


for command in (report, export, watch):
    jobs.add_command(command)

COMMANDS = [jobs, clean]
