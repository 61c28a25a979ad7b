"""What AWS charges for an invocation: as Lambda's last line in its log says, or as the worker has counted."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping

from lithops_mini.records import Invocation, Requests

_BEGINS = b"REPORT RequestId: "
_REPORT = re.compile(
    rb"REPORT RequestId: .*?\tBilled Duration: (\d+) ms\tMemory Size: (\d+) MB\tMax Memory Used: (\d+) MB"
    rb"(?:\tInit Duration: ([\d.]+) ms)?"
)
_END = 800  # characters of a log that have the line, in base64


def reported(log: str) -> Invocation | None:
    """``log``: the end of a log, in base64. ``None`` if it does not tell."""
    told = b64decode(log[-_END:])
    # Lambda's line comes last, but for one that tracing may add; a function may have printed others.
    if (at := told.rfind(_BEGINS)) < 0 or (found := _REPORT.match(told, at)) is None:
        return None
    billed, memory, peak, start = found.groups()
    return Invocation(int(billed), int(memory), int(peak), round(float(start or 0)))


def counted(spent: Mapping[str, int], most: int, memory: int) -> Invocation:
    """What a worker has told of an invocation that might take ``most`` seconds: see ``worker.aws_lambda``."""
    took = 1000 * most - spent["left"] + spent["stored"] + spent["start"]
    return Invocation(max(1, took), memory, start=spent["start"], requests=Requests(puts=1))
