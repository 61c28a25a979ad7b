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

from lithops_mini import costs
from lithops_mini.records import Platform, Requests, Usage

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
        used = Usage({MEMORY: round(1000 * self.billed)}, self.invocations)
        requests = Requests(self.puts + self.lists, self.gets)
        cost = costs.cost("", used, requests, Platform("aws_lambda", storage="aws_s3"), costs.read_prices())
        share = 1000 / calls
        for_requests = share * (cost.invocation_dollars + cost.storage_dollars)
        parts = f"requests ${for_requests:.5f}, {share * self.billed:.1f} s ${share * cost.time_dollars:.5f}"
        return f"${share * cost.dollars:.5f}: {parts}"


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
