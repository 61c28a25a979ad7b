"""The report of jobs: one HTML file that needs nothing beside it, neither files nor a network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median

from lithops_mini.costs import Bill
from lithops_mini.destination import try_to_write, writing
from lithops_mini.durations import format_duration
from lithops_mini.errors import ConfigError, InputError
from lithops_mini.failures import Failure, call_ranges, group, mask_numbers
from lithops_mini.html.calls import table_data
from lithops_mini.html.document import document
from lithops_mini.html.markup import data, table, text
from lithops_mini.measures import straggler_limit, stragglers, time_to_distribute
from lithops_mini.plots.files import KINDS, data_url
from lithops_mini.records import NO_REQUESTS, Attempt, CallStats, Requests
from lithops_mini.report import client_sentence, count_workers, summary_rows
from lithops_mini.shorten import shorten
from lithops_mini.sizes import format_size

MOST_GROUPS = 30  # of failures, of which each shows a traceback
MOST_STRAGGLERS = 25
MOST_ATTEMPTS = 100

_CAPTIONS = {
    "timeline": "Each call from submit to settled.",
    "histogram": "How many calls ran, and each from its function's start to its end.",
    "stages": "How far each stage was at each moment, and how long its functions took.",
    "utilisation": "Processors, memory and network of all calls together.",
    "workers": "Each worker from its first call to the end of its last.",
}


@dataclass(frozen=True)
class Stage:
    """A job, as far as it has got."""

    name: str
    calls: Sequence[CallStats]  # that are settled
    failures: Sequence[Failure] = ()
    attempts: Sequence[Attempt] = ()  # that were followed by another one, where that is known


@dataclass(frozen=True)
class Section:
    """A part of the report that the caller has written: a table, and sentences below it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What a report is of."""

    name: str  # an executor's or a job's id
    facts: Mapping[str, str]  # where it ran, by what that is called
    stages: Sequence[Stage]  # in the order they ran
    # Of the client to storage; NO_REQUESTS: which of them were for these jobs is not known.
    client_requests: Requests | None = None
    sections: Sequence[Section] = ()  # shown after the summary: what it cost


def bill_section(bill: Bill) -> Section:
    """What jobs have cost, as a section."""
    headings, *rows = bill.rows()
    return Section("Cost", headings, rows, [f"{bill.title}.", *map(str, bill.advice), *bill.notes])


def write(report: Report, dst: str | Path | None = None) -> str:
    """Write the report, and return its path.

    ``dst`` is a directory (one that exists, or ends in ``/``), where it is ``<name>.html``; or the file, whose name
    gets ``.html`` if it does not end so. Default: the current directory. Missing directories are made, a file that
    exists is replaced. ``InputError`` when no call has been settled, ``LithopsMiniError`` when the file cannot be
    written: that is tried before anything is drawn.
    """
    if not any(stage.calls for stage in report.stages):
        raise InputError("there is nothing to report: no call has been settled")
    path = Path("" if dst is None else dst)
    if path.is_dir() or str(dst).endswith("/"):
        path /= f"{report.name}.html"
    elif path.suffix.lower() not in (".html", ".htm"):
        path = path.with_name(f"{path.name}.html")
    way_out = "name another file"
    with writing(path, way_out):
        try_to_write(path)
    page = render(report)
    with writing(path, way_out):
        path.write_text(page, encoding="utf-8")
    return str(path)


def render(report: Report) -> str:
    """Return the page, without pictures when matplotlib is not installed.

    All text in it that comes from jobs is escaped, and its policy lets only its own script run.
    """
    failures = {stage.name: {failure.call_id: failure for failure in stage.failures} for stage in report.stages}
    rows = data(table_data(_named(report), failures))
    return document(
        report.name,
        report.facts,
        [
            ("Summary", _summary(report)),
            *((section.title, _section(section)) for section in report.sections),
            ("Pictures", "".join(_pictures(report))),
            ("Failures", "".join(_failures(report))),
            ("Stragglers", "".join(_stragglers(report))),
            ("Cold starts and distribution", _starts(report)),
            ("Retries", "".join(_retries(report))),
            ("Calls", _CALLS),
        ],
        head=_tiles(report),
        foot=f'<script type="application/json" id="data">{rows}</script>\n',
        script=resources.files("lithops_mini.html").joinpath("report.js").read_text(encoding="utf-8"),
    )


def _named(report: Report) -> list[tuple[str, Sequence[CallStats]]]:
    return [(stage.name, stage.calls) for stage in report.stages]


def _attempts(report: Report) -> dict[str, Sequence[Attempt]]:
    return {stage.name: stage.attempts for stage in report.stages}


def _tiles(report: Report) -> str:
    calls = [call for stage in report.stages for call in stage.calls]
    attempts = [attempt for stage in report.stages for attempt in stage.attempts]
    failed = sum(call.status not in ("ok", "cancelled") for call in calls)
    slow = sum(len(stragglers(stage.calls)) for stage in report.stages)
    distributed = time_to_distribute(calls)
    moved = sum(call.bytes_in + call.data_read + call.bytes_out for call in calls)
    took = max(call.settled for call in calls) - min(call.submitted for call in calls) if calls else 0.0
    tiles = [
        ("calls", f"{len(calls):,}", ""),
        ("failed", f"{failed:,}", "bad" if failed else ""),
        ("retries", f"{sum(max(call.attempt - 1, 0) for call in calls):,}", ""),
        ("stragglers", f"{slow:,}", ""),
        ("workers", f"{count_workers(calls, attempts):,}", ""),
        ("cold starts", f"{sum(call.cold for call in calls):,}", ""),
        ("wall time", format_duration(took), ""),
        ("to distribute", "-" if distributed is None else format_duration(distributed), ""),
        ("bytes moved", format_size(moved), ""),
    ]
    shown = "".join(
        f'<div class="tile {kind}"><b>{text(value)}</b><span>{text(name)}</span></div>' for name, value, kind in tiles
    )
    return f"<div class=tiles>{shown}</div>"


def _summary(report: Report) -> str:
    counted = report.client_requests is not None
    told = summary_rows(_named(report), _attempts(report), with_requests=counted)
    headings, *rows = told or [["", "no call has been settled"]]
    shown = table(headings, rows, kind="numbers")
    if report.client_requests is None:
        return shown
    sent = (
        "What the client itself sent to storage is known for all jobs of its executor together only: it is not in this."
        if report.client_requests == NO_REQUESTS
        else client_sentence(report.client_requests)
    )
    return f"{shown}<p>{text(sent)}</p>"


def _section(section: Section) -> str:
    notes = "".join(f"<p>{text(note)}</p>" for note in section.notes)
    return table(section.headings, section.rows, kind="numbers") + notes


def _pictures(report: Report) -> Iterator[str]:
    stages = _named(report)
    for kind, draw in KINDS.items():
        try:
            figure = draw(stages, _attempts(report))
        except ConfigError as error:
            yield f"<p>{text(f'There are none: {error}')}</p>"
            return
        source = data_url(figure, "svg")
        yield f'<figure><img src="{source}" alt="{kind}"><figcaption>{_CAPTIONS[kind]}</figcaption></figure>\n'


def _failures(report: Report) -> Iterator[str]:
    count = 0
    for stage in report.stages:
        groups = group(stage.failures)
        count += len(groups)
        for number, each in enumerate(groups[:MOST_GROUPS]):
            numbers = call_ranges((failure.call_id for failure in each.failures), 30)
            calls = f"Call {numbers}" if len(each.failures) == 1 else f"Calls {numbers}"
            example = each.example
            facts = [f"call {example.call_id}", f"attempt {example.attempt}"]
            facts += [f"worker {example.worker_id}"] if example.worker_id else []
            facts += [f"input {example.input}"] if example.input else []
            place = f" at {each.user_line}" if each.user_line else ""
            trace = example.traceback.strip("\n")
            yield (
                f"<details{'' if number else ' open'}><summary><b>{text(each.type_name)}</b>"
                f" &times; {len(each.failures):,} <span>{text(stage.name)}</span><br>{text(each.message)}</summary>"
                f"<p>{text(f'{calls}{place}.')}</p><p>{text('For example ' + ', '.join(facts))}:</p>"
                f"<pre>{text(trace or f'{example.type_name}: {example.message}')}</pre></details>\n"
            )
        if rest := groups[MOST_GROUPS:]:
            left = sum(len(each.failures) for each in rest)
            yield f"<p>{text(f'And {left:,} more failures of {stage.name}, in {len(rest):,} groups.')}</p>"
    if not count:
        yield "<p>No call has failed.</p>"


def _stragglers(report: Report) -> Iterator[str]:
    yield ("<p>Calls whose function ran for more than twice the median of their stage, and at least 0.1 s over it.</p>")
    rows = []
    for stage in report.stages:
        found = stragglers(stage.calls)
        if not found:
            continue
        slow = {call.call_id for call in found}
        end = max(call.settled for call in stage.calls)
        others = max((call.settled for call in stage.calls if call.call_id not in slow), default=end)
        limit = format_duration(straggler_limit(stage.calls) or 0.0)
        later = format_duration(max(0.0, end - others))
        told = f"{stage.name}: {len(found):,} of {len(stage.calls):,} calls ran for more than {limit}"
        yield f"<p>{text(told)}. The stage ended {later} later than without them.</p>"
        rows += [(stage.name, call) for call in found[:MOST_STRAGGLERS]]
    if not rows:
        yield "<p>There are none.</p>"
        return
    yield table(
        ["stage", "call", "function", "CPU", "memory", "in", "out", "worker", "attempt"],
        [
            [
                name,
                f"{call.call_id}",
                format_duration(call.function_time or 0.0),
                format_duration(call.cpu_user + call.cpu_system),
                format_size(call.peak_memory),
                format_size(call.bytes_in),
                format_size(call.bytes_out),
                call.worker_id + (" (cold)" if call.cold else ""),
                f"{call.attempt}",
            ]
            for name, call in rows
        ],
        kind="numbers",
    )


def _starts(report: Report) -> str:
    rows = []
    for stage in report.stages:
        begun = [call for call in stage.calls if call.started is not None]
        distributed = time_to_distribute(stage.calls)
        rows.append(
            [
                stage.name,
                f"{count_workers(stage.calls, stage.attempts):,}",
                f"{sum(call.cold for call in begun):,}",
                _median_way([call for call in begun if call.cold]),
                _median_way([call for call in begun if not call.cold]),
                "-" if distributed is None else format_duration(distributed),
                format_size(sum(call.bytes_in for call in stage.calls)),
                format_size(sum(call.data_read for call in stage.calls)),
                format_size(sum(call.bytes_out for call in stage.calls)),
            ]
        )
    headings = ["stage", "workers", "cold starts", "way to a cold worker", "to a warm one", "to distribute"]
    again = any(call.attempt > 1 for stage in report.stages for call in stage.calls)
    counted = (
        " Of calls that were run again, workers are those of every attempt that is known, and everything else is of the"
        " attempt that counted: cold starts too."
    )
    return (
        "<p>The way to a worker is from when a message left until its function was entered, the median of the calls."
        " To distribute: from submit until as many workers had begun a call as calls ever ran at once."
        f"{counted if again else ''}</p>"
        + table([*headings, "bytes in", "data read", "bytes out"], rows, kind="numbers")
    )


def _median_way(calls: Sequence[CallStats]) -> str:
    ways = [
        call.started - call.dispatched for call in calls if call.started is not None and call.dispatched is not None
    ]
    return format_duration(max(0.0, median(ways))) if ways else "-"


def _retries(report: Report) -> Iterator[str]:
    again = {stage.name: [call for call in stage.calls if call.attempt > 1] for stage in report.stages}
    if not any(again.values()):
        yield "<p>No call was run again.</p>"
        return
    rows = [
        [name, f"{len(calls):,}", f"{sum(call.attempt - 1 for call in calls):,}", _statuses(calls)]
        for name, calls in again.items()
        if calls
    ]
    yield table(["stage", "calls run again", "further attempts", "in the end"], rows)
    attempts = [(stage.name, attempt) for stage in report.stages for attempt in stage.attempts]
    reasons: dict[tuple[str, str, str], list[Attempt]] = defaultdict(list)
    for name, attempt in attempts:
        reasons[name, attempt.status, mask_numbers(attempt.why)].append(attempt)
    if reasons:
        yield "<p>Why, as far as it is known:</p>"
        most = sorted(reasons.items(), key=lambda reason: -len(reason[1]))[:MOST_ATTEMPTS]
        yield table(
            ["stage", "attempts", "calls", "status", "why"],
            [
                [
                    name,
                    f"{len(same):,}",
                    call_ranges(attempt.call_id for attempt in same),
                    status,
                    _reason(masked, [attempt.why for attempt in same]),
                ]
                for (name, status, masked), same in most
            ],
        )


def _reason(masked: str, all_of_it: Sequence[str]) -> str:
    """What made calls run again, with one example where that is not the same for all but what is masked."""
    example = shorten(all_of_it[0], 300)
    return example if len(set(all_of_it)) == 1 else f"{masked}, for example: {example}"


def _statuses(calls: Sequence[CallStats]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in Counter(call.status for call in calls).most_common())


_CALLS = """<noscript><p>This table needs JavaScript. <code>lithops-mini jobs export</code> writes it as CSV.</p>
</noscript>
<div id=calls class=controls hidden>
<label>Filter <input id=filter type=search placeholder="text in any column" autocomplete=off></label>
<label>Stage <select id=stage></select></label>
<label>Show <select id=show></select></label>
<label>Rows <select id=size></select></label>
<span class=pages><button id=previous type=button>Previous</button>
<output id=where></output>
<button id=next type=button>Next</button></span>
</div>
<div class=wide><table id=table><thead></thead><tbody></tbody></table></div>
"""
