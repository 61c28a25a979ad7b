"""One job as values, for JSON, and as lines, for people."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lithops_mini.cli.table import Cell, count, table
from lithops_mini.durations import format_duration
from lithops_mini.shorten import printable, shorten
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from lithops_mini.job.manifest import JobRecord
    from lithops_mini.wire import Outcome

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


HEADINGS = ("JOB", "FUNCTION", "KIND", "CALLS", "DONE", "FAILED", "STATE", "CREATED", "AGE", "CLIENT")


def summary(record: JobRecord) -> dict[str, Any]:
    header, progress = record.header, record.progress
    told: dict[str, Any] = {"job": record.job_id, "state": record.state}
    told |= {key: header.get(key) for key in ("function", "kind", "calls", "created", "client")}
    return told | {key: progress.get(key, 0) for key in ("done", "failed", "cancelled", "retried")}


def row(record: JobRecord) -> list[Cell]:
    """What stands under ``HEADINGS``."""
    told = summary(record)
    if not record.header:
        return [told["job"], "", "", None, None, None, told["state"], "", "", ""]
    return [
        told["job"],
        shorten(told["function"], 24),
        told["kind"],
        told["calls"],
        told["done"],
        told["failed"],
        told["state"],
        _time(told["created"]),
        _age(told["created"]),
        told["client"],
    ]


def description(record: JobRecord, header: Mapping[str, Any], bucket: str) -> Iterator[str]:
    given = {key: value for key, value in header["settings"].items() if value is not None and value is not False}
    code = header["code"]
    needs = {run[0] for runs in header["dependencies"].values() for run in runs}
    rows = {
        "job": record.job_id,
        "function": f"{header['function']}, {format_size(code['size'])} with its modules, SHA-256 {code['sha256']}",
        "calls": f"{header['calls']:,}, of a {header['kind']}",
        "state": record.state,
        "created": f"{_time(header['created'])}, {_age(header['created'])} ago",
        "client": f"{header['client']}, Python {header['python']}, lithops_mini {header['lithops_mini']}",
        "ran on": f"{header['backend']}, storage {header['storage']}, bucket {bucket}",
        "settings": ", ".join(f"{key} {value}" for key, value in given.items()) or "none",
        "needs": ", ".join(sorted(needs)),
        "run again": f"{count(record.progress.get('retried', 0), 'time')}",
    }
    for name, value in rows.items():
        if value:
            yield f"{name:<9} {printable(value)}"


def call(worker_id: str, outcome: Outcome) -> dict[str, Any]:
    from lithops_mini.wire import Status

    return {
        "call": outcome.call,
        "status": Status(outcome.status).name.lower(),
        "attempt": outcome.attempt,
        "worker": worker_id,
        "cold": bool(outcome.cold),
        "started": outcome.started or None,
        "seconds": outcome.ended - outcome.started if outcome.started else None,
        "cpu_seconds": outcome.cpu_user + outcome.cpu_system,
        "peak_memory": outcome.peak_memory,
        "bytes_in": outcome.bytes_in,
        "bytes_out": outcome.bytes_out,
        "error": _error(outcome),
    }


def _error(outcome: Outcome) -> str | None:
    """Why the call failed, in a line. The outcome's signature has been checked."""
    from lithops_mini.wire import Status

    if outcome.status == Status.OK:
        return None
    data = bytes(outcome.data)
    if outcome.status != Status.ERROR:
        return data.decode(errors="replace")
    name, message, *_ = pickle.loads(data)
    return f"{name}: {message}"


def by_status(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(row.get("status", "unsettled") for row in rows))


def calls_by_status(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines: list[list[Cell]] = []
    for status, number in by_status(rows).items():
        same = [row for row in rows if row.get("status", "unsettled") == status]
        times = sorted(row["seconds"] for row in same if row.get("seconds") is not None)
        shown = [format_duration(times[i]) for i in (0, len(times) // 2, -1)] if times else ["", "", ""]
        error = next((row["error"] for row in same if row.get("error")), "")
        lines.append([status, number, *shown, shorten(printable(error), 60)])
    yield from table(("STATUS", "CALLS", "SHORTEST", "MEDIAN", "LONGEST", "FIRST ERROR"), lines)


def table_of_calls(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    lines: list[list[Cell]] = []
    for row in rows:
        if "status" not in row:
            lines.append([row["call"], "unsettled", None, "", "", "", "", "", "", ""])
            continue
        lines.append(
            [
                row["call"],
                row["status"],
                row["attempt"],
                row["worker"] + (" (cold)" if row["cold"] else ""),
                "" if row["seconds"] is None else format_duration(row["seconds"]),
                format_duration(row["cpu_seconds"]),
                format_size(row["peak_memory"]),
                format_size(row["bytes_in"]),
                format_size(row["bytes_out"]),
                shorten(printable(row["error"] or ""), 60),
            ]
        )
    yield from table(("CALL", "STATUS", "ATTEMPT", "WORKER", "TIME", "CPU", "MEMORY", "IN", "OUT", "ERROR"), lines)


def _time(created: float) -> str:
    return datetime.fromtimestamp(created).isoformat(sep=" ", timespec="seconds")


def _age(created: float) -> str:
    seconds = max(0, int(time.time() - created))
    length, unit = next((unit for unit in _UNITS if seconds >= 2 * unit[0]), (1, "s"))
    return f"{seconds // length} {unit}"
