"""What functions of AWS Lambda need in an account: a role, and the policy that is all it may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lithops_mini.records import OWN_PREFIX

TRUST: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
"""Who may have the role: functions."""


def policy(bucket: str, data: Sequence[str], log_group: str) -> dict[str, Any]:
    """What the role permits: jobs' own objects in ``bucket``, reading the buckets ``data``, writing its log.

    ``log_group`` is the group's ARN. Buckets are of the same partition of AWS.
    """
    arn = f"arn:{log_group.split(':')[1]}:s3:::"
    statements = [
        _allow("ListJobs", ["s3:ListBucket"], [f"{arn}{bucket}"]),
        _allow(
            "KeepJobs",
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            [f"{arn}{bucket}/{OWN_PREFIX}*"],
        ),
        _allow("WriteLogs", ["logs:CreateLogStream", "logs:PutLogEvents"], [f"{log_group}:*"]),
    ]
    if data:
        statements += [
            _allow("ListData", ["s3:ListBucket"], [f"{arn}{each}" for each in data]),
            _allow("ReadData", ["s3:GetObject"], [f"{arn}{each}/*" for each in data]),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(sid: str, actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
