"""What a job costs on AWS, counted by the emulator: requests, and the time of functions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from aws_emulator import Emulated

# Dollars in us-east-1, November 2026, x86_64.
GB_SECOND = 0.0000166667
INVOCATION = 0.20 / 1e6
PUT = 0.005 / 1e3  # and LIST
GET = 0.0004 / 1e3
MEMORY = 1769  # MB of functions

_REST = 2.5  # seconds: longer than a record waits to be written


@dataclass
class Bill:
    """Of what happens in the ``with`` block of ``counted``, once it has ended."""

    invocations: int = 0
    puts: int = 0
    gets: int = 0  # HEAD too
    lists: int = 0
    billed: float = 0.0  # seconds

    @property
    def requests(self) -> str:
        return f"{self.invocations:,} invocations, {self.puts:,} PUT, {self.gets:,} GET and HEAD, {self.lists:,} LIST"

    def dollars(self, calls: int) -> str:
        """For a thousand of so many calls."""
        share = 1000 / calls
        requests = share * (self.invocations * INVOCATION + (self.puts + self.lists) * PUT + self.gets * GET)
        time = share * self.billed * MEMORY / 1024 * GB_SECOND
        return f"${requests + time:.5f}: requests ${requests:.5f}, {share * self.billed:.1f} s ${time:.5f}"


@contextmanager
def counted(aws: Emulated) -> Iterator[Bill]:
    bill = Bill()
    before, began = _at_rest(aws), aws.own("state")["billed_ms"]
    yield bill
    after = _at_rest(aws)

    def made(action: str) -> int:
        return int(after.get(action, 0) - before.get(action, 0))

    bill.invocations = made("lambda:InvokeFunction")
    bill.puts, bill.gets, bill.lists = made("s3:PutObject"), made("s3:GetObject"), made("s3:ListBucket")
    bill.billed = (aws.own("state")["billed_ms"] - began) / 1000


def _at_rest(aws: Emulated) -> dict[str, int]:
    """The requests so far, once there are no more: records of jobs are written some time after their calls."""
    aws.settle()
    before, after = None, aws.own("requests")
    while before != after:
        threading.Event().wait(_REST)
        before, after = after, aws.own("requests")
    return dict(after)
