"""What a notebook shows of executors and of futures: small tables, without scripts or styles of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lithops_mini.failures import Failure, group
from lithops_mini.html.markup import table, text
from lithops_mini.progress import Counters
from lithops_mini.shorten import shorten

_GROUPS = 3  # of failures


def executor_html(name: str, facts: Mapping[str, str], jobs: Sequence[tuple[str, Counters]]) -> str:
    """An executor, with a row for each of its jobs."""
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    headings = ["job", "calls", "done", "running", "failed", "cancelled", "retried"]
    rows = [
        [
            shorten(job, 60),
            *(f"{n:,}" for n in (c.total, c.done, c.running, c.failed, c.cancelled, c.retried)),
        ]
        for job, c in jobs
    ]
    shown = table(headings, rows) if rows else "<p>No job yet.</p>"
    return f"<div><b>{text(name)}</b><br>{text(told)}{shown}</div>"


def futures_html(name: str, counters: Counters, failures: Sequence[Failure]) -> str:
    """The futures of one submission: how far they are, and the most frequent failures."""
    counts = [f"{counters.done:,} of {counters.total:,} done"]
    states = (("running", counters.running), ("failed", counters.failed), ("cancelled", counters.cancelled))
    counts += [f"{number:,} {state}" for state, number in states if number]
    bar = f'<progress max="{max(counters.total, 1)}" value="{counters.done}"></progress>'
    groups = group(failures)
    rows = [
        [shorten(f"{g.type_name}: {g.message}", 200), f"{len(g.failures):,}", g.user_line] for g in groups[:_GROUPS]
    ]
    shown = table(["failure", "calls", "at"], rows) if rows else ""
    if more := len(groups) - len(rows):
        shown += f"<p>And {more:,} more kinds of failure.</p>"
    return f"<div><b>{text(shorten(name, 60))}</b> {bar} {text(', '.join(counts))}{shown}</div>"
