"""What a job did, as a table of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lithops_mini.durations import format_duration
from lithops_mini.measures import function_times, quantile, time_to_distribute
from lithops_mini.records import NO_ATTEMPTS, Attempt, Attempts, CallStats, Requests, Stages
from lithops_mini.shorten import shorten
from lithops_mini.sizes import format_size

_COLUMNS = 4  # of stages; with more of them the first are added up
_NAME_WIDTH = 18
_CLASSES = ("put/post/list", "get/head", "delete")  # of requests, as Requests has them


def summary(
    stages: Stages,
    *,
    backend: str,
    storage: str,
    executor_id: str = "",
    client_requests: Requests | None = None,
    attempts: Attempts = NO_ATTEMPTS,
) -> str:
    """Return the job summary: a column for each stage and one for all, at most 32 lines, without a final newline.

    ``stages`` are names with the stats of settled calls, in the order they ran; stages without calls are left out.
    Numbers of a call are those of the attempt that counted; workers are those of ``attempts`` too.
    ``client_requests`` are those of this process to a storage service; with them the table has those of the workers,
    and a last line tells of the client's.
    """
    where = f"Job summary: backend {backend}, storage {storage}" + (f", executor {executor_id}" if executor_id else "")
    rows = summary_rows(stages, attempts, with_requests=client_requests is not None)
    if not rows:
        return f"{where}\n\nNo call has been settled."
    told = f"{where}\n\n{_align(rows)}"
    return told if client_requests is None else f"{told}\n\n{client_sentence(client_requests)}"


def summary_rows(stages: Stages, attempts: Attempts = NO_ATTEMPTS, *, with_requests: bool = False) -> list[list[str]]:
    """Return the table of ``summary``: its headings, and a row for each number; empty if no call has been settled."""
    columns = [_Column(name, stats, attempts.get(name, ())) for name, stats in stages if stats]
    if not columns:
        return []
    total = _together("total", columns)
    if len(columns) > _COLUMNS:
        earlier, columns = columns[: 1 - _COLUMNS], columns[1 - _COLUMNS :]
        columns.insert(0, _together(f"{len(earlier)} earlier", earlier))
    if len(columns) > 1:
        columns.append(total)
    rows = [["", *(shorten(column.name, _NAME_WIDTH) for column in columns)]]
    rows += [[label, *(write(column.calls) for column in columns)] for label, write in _OUTCOMES]
    rows.append(["workers", *(f"{count_workers(column.calls, column.attempts):,}" for column in columns)])
    rows += [[label, *(write(column.calls) for column in columns)] for label, write in _COURSE]
    if with_requests:
        sent = [_requests(column.calls) for column in columns]
        rows.append(["storage requests", *(f"{sum(requests):,}" for requests in sent)])
        rows += [[f"  {name}", *(f"{requests[n]:,}" for requests in sent)] for n, name in enumerate(_CLASSES)]
    return rows


def count_workers(calls: Iterable[CallStats], attempts: Iterable[Attempt] = ()) -> int:
    """How many workers ran these calls and attempts, as far as it is known who did."""
    return len({one.worker_id for ones in (calls, attempts) for one in ones} - {""})


def client_sentence(requests: Requests) -> str:
    """What the client itself sent to storage, in words."""
    classes = ", ".join(f"{count:,} {name}" for count, name in zip(requests, _CLASSES, strict=True))
    return f"The client itself sent {sum(requests):,} storage requests: {classes}."


class _Column(NamedTuple):
    name: str
    calls: Sequence[CallStats]
    attempts: Sequence[Attempt]


def _together(name: str, columns: Sequence[_Column]) -> _Column:
    return _Column(
        name,
        [call for column in columns for call in column.calls],
        [attempt for column in columns for attempt in column.attempts],
    )


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _requests(stats: Sequence[CallStats]) -> Requests:
    return Requests(
        sum(call.storage_puts for call in stats),
        sum(call.storage_gets for call in stats),
        sum(call.storage_deletes for call in stats),
    )


def _quantile(times: list[float], share: float) -> str:
    return format_duration(quantile(times, share)) if times else "-"


def _wall_time(stats: Sequence[CallStats]) -> float:
    return max(call.settled for call in stats) - min(call.submitted for call in stats)


def _parallelism(stats: Sequence[CallStats]) -> str:
    wall = _wall_time(stats)
    return f"{sum(function_times(stats)) / wall:.1f}" if wall > 0 else "-"


def _start_delay(stats: Sequence[CallStats]) -> str:
    return _quantile(sorted(call.started - call.submitted for call in stats if call.started is not None), 0.5)


def _distributed(stats: Sequence[CallStats]) -> str:
    took = time_to_distribute(stats)
    return "-" if took is None else format_duration(took)


def _count(holds: Callable[[CallStats], bool]) -> Callable[[Sequence[CallStats]], str]:
    return lambda stats: f"{sum(map(holds, stats)):,}"


_Rows = list[tuple[str, Callable[[Sequence[CallStats]], str]]]
_OUTCOMES: _Rows = [
    ("calls", lambda stats: f"{len(stats):,}"),
    ("  ok", _count(lambda call: call.status == "ok")),
    ("  failed", _count(lambda call: call.status not in ("ok", "cancelled"))),
    ("  cancelled", _count(lambda call: call.status == "cancelled")),
    ("retries", lambda stats: f"{sum(max(call.attempt - 1, 0) for call in stats):,}"),
]
_COURSE: _Rows = [
    ("  cold starts", _count(lambda call: call.cold)),
    ("wall time", lambda stats: format_duration(_wall_time(stats))),
    ("calls at once, mean", _parallelism),
    ("start delay, median", _start_delay),
    ("time to distribute", _distributed),
    ("function time, sum", lambda stats: format_duration(sum(function_times(stats)))),
    ("  median", lambda stats: _quantile(function_times(stats), 0.5)),
    ("  95th percentile", lambda stats: _quantile(function_times(stats), 0.95)),
    ("  longest", lambda stats: _quantile(function_times(stats), 1.0)),
    ("CPU time, user", lambda stats: format_duration(sum(call.cpu_user for call in stats))),
    ("  system", lambda stats: format_duration(sum(call.cpu_system for call in stats))),
    ("memory, peak", lambda stats: format_size(max(call.peak_memory for call in stats))),
    ("bytes in", lambda stats: format_size(sum(call.bytes_in for call in stats))),
    ("data read", lambda stats: format_size(sum(call.data_read for call in stats))),
    ("bytes out", lambda stats: format_size(sum(call.bytes_out for call in stats))),
]
