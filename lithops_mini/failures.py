"""Failures of calls as text a person reads: ten thousand of them are a few groups, each with one full trace."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from lithops_mini.shorten import shorten

SHOWN_GROUPS = 5
SHOWN_RANGES = 8
TRACE_LINES = 60
MESSAGE_LIMIT = 300  # characters of a message that count
DISTINCT_MESSAGES = 3  # one line of code that says more than this is taken to quote its input


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed call, as its last attempt left it."""

    call_id: int
    type_name: str  # of the exception
    message: str
    user_line: str  # the innermost line of the user's code, "file.py:12 in parse"; empty when none is known
    traceback: str  # the whole of it
    attempt: int  # from 1
    worker_id: str  # empty when no worker answered
    input: str  # shortened, see shorten.short_repr; empty when hidden


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures with the same exception type, at the same line, with the same message but for numbers."""

    type_name: str
    user_line: str
    message: str  # what differs between them is masked: # for a number, '…' for quoted text
    failures: tuple[Failure, ...]  # by call

    @property
    def example(self) -> Failure:
        """The failure of the first call."""
        return self.failures[0]


def group(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Return the groups, the largest first, then by first call.

    Numbers, hexadecimal addresses and UUIDs do not tell messages apart. Quoted text does, until one line of code has
    more than a few different messages: then it is quoting its input, and that does not tell them apart either.
    """
    places: dict[tuple[str, str], dict[str, list[Failure]]] = defaultdict(lambda: defaultdict(list))
    for failure in failures:
        place = places[failure.type_name, failure.user_line]
        place[mask_numbers(failure.message)].append(failure)
    groups = []
    for (type_name, user_line), messages in places.items():
        if len(messages) > DISTINCT_MESSAGES:
            messages = _merged_without_quotes(messages)
        for message, members in messages.items():
            members.sort(key=lambda failure: failure.call_id)
            first = members[0].message
            if all(member.message == first for member in members):
                message = shorten(first, MESSAGE_LIMIT)
            groups.append(FailureGroup(type_name, user_line, message, tuple(members)))
    groups.sort(key=lambda group: (-len(group.failures), group.example.call_id))
    return groups


def describe(failures: Iterable[Failure], total: int) -> str:
    """Return a page about these failures of a job with ``total`` calls; empty when there are none.

    It says how many failed, in which calls, and shows one whole trace for each of the largest groups.
    """
    groups = group(failures)
    if not groups:
        return ""
    count = sum(len(group.failures) for group in groups)
    kinds = f", in {len(groups):,} groups" if len(groups) > 1 else ""
    parts = [f"{count:,} of {total:,} {_plural('call', total)} failed{kinds}."]
    parts += [_describe_group(group) for group in groups[:SHOWN_GROUPS]]
    if rest := groups[SHOWN_GROUPS:]:
        ids = [failure.call_id for group in rest for failure in group.failures]
        what = f"{len(ids):,} more {_plural('failure', len(ids))} in {len(rest):,} {_plural('group', len(rest))}"
        types = ", ".join(islice(dict.fromkeys(group.type_name for group in rest), SHOWN_GROUPS))
        parts.append(f"And {what} ({types}): {_plural('call', len(ids))} {call_ranges(ids)}")
    return "\n\n".join(parts)


def call_ranges(ids: Iterable[int], limit: int | None = SHOWN_RANGES) -> str:
    """Return call numbers as ``0-3, 7, 9-120``, in order, each once; after ``limit`` ranges how many calls are left."""
    numbers = sorted(set(ids))
    starts = [i for i, number in enumerate(numbers) if i == 0 or number != numbers[i - 1] + 1]
    stops = [*starts[1:], len(numbers)]
    shown = list(islice(zip(starts, stops, strict=False), limit))
    parts = [
        str(numbers[start]) if stop - start == 1 else f"{numbers[start]}-{numbers[stop - 1]}" for start, stop in shown
    ]
    if left := len(numbers) - (shown[-1][1] if shown else 0):
        parts.append(f"and {left:,} more")
    return ", ".join(parts)


def _describe_group(group: FailureGroup) -> str:
    example, count = group.example, len(group.failures)
    calls = f"{_plural('call', count)} {call_ranges(failure.call_id for failure in group.failures)}"
    headline = f"{group.type_name}: {group.message}" if group.message else group.type_name
    place = f" at {group.user_line}" if group.user_line else ""
    lines = [headline, f"  {count:,} {_plural('time', count)}{place}, {calls}"]
    facts = [f"call {example.call_id}"] if count > 1 else []
    facts += [f"attempt {example.attempt}"]
    facts += [f"worker {example.worker_id}"] if example.worker_id else []
    facts += [f"input {example.input}"] if example.input else []
    lines.append("  " + ("For example " if count > 1 else "") + ", ".join(facts))
    if trace := example.traceback.strip("\n"):
        lines.append(textwrap.indent(_cut_trace(trace), "    "))
    return "\n".join(lines)


def _cut_trace(trace: str) -> str:
    lines = [shorten(line, 1000) for line in trace.splitlines()]
    if len(lines) > TRACE_LINES:
        half = TRACE_LINES // 2
        lines[half:-half] = [f"  ... {len(lines) - 2 * half:,} lines ..."]
    return "\n".join(lines)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"


_NUMBER = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"  # UUID
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-f]*[0-9])[0-9a-f]{12,}\b"  # digests, container names
    r"|(?<![\w.])[-+]?(?:\d+(?:[_,]\d+)*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
    r"|\d+",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)(?:'[^']*(?:'|$)|\"[^\"]*(?:\"|$)|`[^`]*(?:`|$))")  # not the apostrophe of "can't"


def mask_numbers(message: str) -> str:
    """The beginning of a message on one line, with ``#`` for what does not tell it apart: numbers, addresses, ids."""
    return _NUMBER.sub("#", " ".join(message[: 2 * MESSAGE_LIMIT].split()))[:MESSAGE_LIMIT]


def _merged_without_quotes(messages: Mapping[str, list[Failure]]) -> dict[str, list[Failure]]:
    merged: dict[str, list[Failure]] = {}
    for message, members in messages.items():
        merged.setdefault(_QUOTED.sub("'…'", message), []).extend(members)
    return merged
