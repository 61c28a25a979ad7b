"""The table of all calls, as values that the page's script sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lithops_mini.failures import Failure
from lithops_mini.measures import straggler_limit
from lithops_mini.records import CallStats
from lithops_mini.shorten import printable, shorten

# Key, heading, kind and explanation of each column. Kinds: text, count, seconds, bytes.
COLUMNS = (
    ("stage", "Stage", "text", "the function, and the job"),
    ("call", "Call", "count", "its number, from 0"),
    ("status", "Status", "text", "what became of it"),
    ("marks", "Marks", "text", "cold: the first call of its worker; slow: a straggler; retried"),
    ("error", "Error", "text", "why it failed"),
    ("attempt", "Attempt", "count", "the one that counted, from 1"),
    ("worker", "Worker", "text", "that ran it"),
    ("start", "Start", "seconds", "when its function was entered, after the first submit of all"),
    ("queued", "Queued", "seconds", "from submit until its message left"),
    ("delay", "Way there", "seconds", "from then until its function was entered"),
    ("function", "Function", "seconds", "how long that ran"),
    ("back", "Way back", "seconds", "from its end until the result was here"),
    ("cpu", "CPU", "seconds", "user and system"),
    ("memory", "Memory", "bytes", "that its worker held at most"),
    ("in", "In", "bytes", "pickled arguments"),
    ("data", "Data", "bytes", "that it read as its obj"),
    ("out", "Out", "bytes", "pickled result"),
    ("requests", "Requests", "count", "to storage"),
)

_ERROR = 160  # characters


def table_data(
    stages: Sequence[tuple[str, Sequence[CallStats]]], failures: Mapping[str, Mapping[int, Failure]]
) -> dict[str, Any]:
    """Return the columns and rows of all calls. ``failures``: of each stage, by call."""
    origin = min((call.submitted for _, calls in stages for call in calls), default=0.0)
    rows = []
    for name, calls in stages:
        limit = straggler_limit(calls)
        failed = failures.get(name, {})
        for call in calls:
            rows.append(_row(name, call, origin, limit, failed.get(call.call_id)))
    return {"columns": [{"key": k, "title": t, "kind": kind, "help": h} for k, t, kind, h in COLUMNS], "rows": rows}


def _row(stage: str, call: CallStats, origin: float, limit: float | None, failure: Failure | None) -> list[Any]:
    slow = limit is not None and (call.function_time or 0.0) > limit
    marks = [name for name, holds in (("cold", call.cold), ("slow", slow), ("retried", call.attempt > 1)) if holds]
    return [
        printable(stage),
        call.call_id,
        call.status,
        " ".join(marks),
        shorten(printable(f"{failure.type_name}: {failure.message}"), _ERROR) if failure else "",
        call.attempt,
        printable(call.worker_id),
        _between(origin, call.started),
        _between(call.submitted, call.dispatched),
        _between(call.dispatched, call.started),
        _between(call.started, call.ended),
        _between(call.ended, call.settled),
        round(call.cpu_user + call.cpu_system, 6),
        call.peak_memory,
        call.bytes_in,
        call.data_read,
        call.bytes_out,
        call.storage_puts + call.storage_gets + call.storage_deletes,
    ]


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 6)
