"""An account of the local AWS for tests of aws_lambda: with a role as ``lithops-mini aws setup`` makes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aws_emulator import Emulated, start_aws

from lithops_mini.runtimes.aws_account import policy

BUCKET = "lithops-mini-jobs"
LOG_GROUP = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/lithops-mini"


class Account:
    """A running emulator with a role for functions, which may use the bucket of the jobs and nothing else."""

    def __init__(self, aws: Emulated) -> None:
        self.aws = aws
        self.role = aws.role("functions", json.dumps(policy(BUCKET, [], LOG_GROUP)))
        aws.client("logs").create_log_group(logGroupName=LOG_GROUP.rpartition(":")[2])

    def executor(self, **more: Any) -> dict[str, Any]:
        """Arguments of ``function_executor``."""
        place = {"backend": "aws_lambda", "storage": "aws_s3", "storage_bucket": BUCKET, "role": self.role}
        return {**place, **self.aws.account, "progress": False, **more}


@contextmanager
def start_account(directory: Path, *flags: str) -> Iterator[Account]:
    """An emulator with these flags; functions run in processes."""
    with start_aws(directory, "--sandbox", "process", *flags) as aws:
        yield Account(aws)
