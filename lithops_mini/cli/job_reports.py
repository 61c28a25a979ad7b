"""lithops-mini jobs report and export: what recorded jobs did, as a page and as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.job_store import open_storage, signing_key
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.errors import InputError

if TYPE_CHECKING:
    from lithops_mini.costs import Bill, Prices
    from lithops_mini.job.history import History


@click.command()
@click.argument("chosen", metavar="JOB...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", default=".", help="The file, or its directory. Default: here.")
@config_options
def report(chosen: tuple[str, ...], output: str, selection: Selection) -> None:
    """Write what jobs did as one HTML file, with pictures.

    JOB is a job's id or the beginning of one; an executor's whole id stands for all of its jobs. Several jobs are the
    stages of one report. Signatures are checked. The path of the file is printed.

    \b
    Examples:
      lithops-mini jobs report 3f9c1a2b4d5e-M000
      lithops-mini jobs report 3f9c1a2b4d5e -o out/report.html
    """
    from lithops_mini import costs
    from lithops_mini.html import page

    found = _read(chosen, selection)
    headers = [each.record.header for each in found]
    facts = {
        "jobs": ", ".join(f"{each.record.job_id} ({each.record.state})" for each in found),
        "backend": ", ".join(dict.fromkeys(header["backend"] for header in headers)),
        "storage": ", ".join(dict.fromkeys(header["storage"] for header in headers)),
        "client": ", ".join(dict.fromkeys(f"{header['client']}, Python {header['python']}" for header in headers)),
    }
    bill = bill_of(found, costs.read_prices(selection.load().job.prices))
    executors = {each.record.job_id.rpartition("-")[0] for each in found}
    name = executors.pop() if len(found) > 1 and len(executors) == 1 else found[0].record.job_id
    stages = [page.Stage(each.stage, each.calls, each.failures, each.attempts) for each in found]
    told = page.Report(name, facts, stages, sections=[page.bill_section(bill)] if bill is not None else [])
    click.echo(page.write(told, output))


@click.command()
@click.argument("chosen", metavar="JOB...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), help="Default: csv, or what FILE ends in.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Default: stdout."
)
@config_options
def export(chosen: tuple[str, ...], form: str | None, output: Path | None, selection: Selection) -> None:
    """Write the stats of every call of jobs as a table, CSV or JSON Lines.

    JOB as for jobs report. Times are seconds since the epoch.

    \b
    Examples:
      lithops-mini jobs export 3f9c1a2b4d5e-M000 > calls.csv
      lithops-mini jobs export 3f9c1a2b4d5e -o calls.jsonl
      lithops-mini jobs export 3f9c --format jsonl | jq .function_time
    """
    from lithops_mini import export as tables

    if output is not None and form is not None and output.suffix != f".{form}":
        raise click.UsageError(f"{str(output)!r} does not end in .{form}")
    stages = [(each.stage, each.calls) for each in _read(chosen, selection)]
    if output is None:
        tables.write(stages, sys.stdout, form or "csv")
    else:
        tables.write_file(stages, output)


def bill_of(found: Sequence[History], prices: Prices) -> Bill | None:
    """What recorded jobs have cost, as far as that is recorded; ``None`` as long as nothing is."""
    from lithops_mini import costs
    from lithops_mini.records import Platform, Requests, Usage

    told = [(each, each.record.progress) for each in found if "usage" in each.record.progress]
    if not told:
        return None
    last = max(told, key=lambda one: float(one[1]["time"]))[1]  # its client's requests are those of all before it
    sent = last["client_requests"]
    return costs.bill(
        [costs.Stage(each.stage, each.calls, Usage.from_json(progress["usage"])) for each, progress in told],
        Platform.of(last["platform"]),
        prices,
        backend=told[-1][0].record.header["backend"],
        client_requests=None if sent is None else Requests(*sent),
    )


def _read(chosen: Sequence[str], selection: Selection) -> list[History]:
    from lithops_mini.job import history, manifest

    with open_storage(selection) as (storage, bucket):
        ids: dict[str, None] = {}
        for name in chosen:
            jobs = manifest.jobs_of(storage, bucket, name) or [manifest.find_job(storage, bucket, name)]
            ids |= dict.fromkeys(jobs)
        found = [history.read_history(storage, bucket, job_id, signing_key(job_id)) for job_id in ids]
    if not any(each.calls for each in found):
        raise InputError(f"no call of {', '.join(ids)} has been settled yet")
    return found
