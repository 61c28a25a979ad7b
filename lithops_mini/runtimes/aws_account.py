"""What functions of AWS Lambda need in an account: a bucket, a group for logs, and a role with all that it may do.

Each is made if it is missing, and has a tag; only what has the tag is removed. So either may be done again, and goes on
where it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore import xform_name

from lithops_mini.errors import ConfigError
from lithops_mini.records import OWN_PREFIX
from lithops_mini.runtimes.aws import Aws, code_of, translated
from lithops_mini.runtimes.function import LOSSES_PREFIX

Say = Callable[[str, Mapping[str, Any]], object]
"""Called with each request that changes something, as ``iam:CreateRole``, and its parameters."""

TRUST: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
"""Who may have the role: functions."""

POLICY = "lithops-mini"  # the name of the role's one policy
_OWN = (OWN_PREFIX, f"{LOSSES_PREFIX}lithops-mini-")  # what keys of jobs begin with
_TAG, _VALUE = "lithops-mini", "setup"
_TAGS = [{"Key": _TAG, "Value": _VALUE}]
_KEPT_DAYS = 14  # of logs
_PARTS_DAYS = 2  # of uploads that were never completed
_LOSSES_DAYS = 2  # of records of events that came to nothing
_RETRIES = {"mode": "standard", "total_max_attempts": 6}


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
        _allow("TellLosses", ["s3:PutObject"], [f"{arn}{bucket}/{LOSSES_PREFIX}lithops-mini-*"]),
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


class Account:
    """An account in one region, as its owner sees it. Methods raise ``ConfigError`` and ``InvocationError``."""

    def __init__(self, aws: Aws, say: Say, *, dry: bool = False) -> None:
        """``dry``: what would be changed is only said. Raises ``ConfigError`` if AWS does not take the credentials."""
        self._say = say
        self._dry = dry
        self._s3 = aws.client("s3", retries=_RETRIES)
        self._iam = aws.client("iam", retries=_RETRIES)
        self._logs = aws.client("logs", retries=_RETRIES)
        self.region: str = self._s3.meta.region_name
        with translated("find out whose credentials these are"):
            caller = aws.client("sts", retries=_RETRIES).get_caller_identity()
        self.number: str = caller["Account"]
        self.caller: str = caller["Arn"]
        self._partition = self.caller.split(":")[1]

    @property
    def default_bucket(self) -> str:
        """A name for the bucket of the jobs that nobody else has."""
        return f"lithops-mini-{self.number}-{self.region}"

    def bucket_arn(self, name: str) -> str:
        return f"arn:{self._partition}:s3:::{name}"

    def role_arn(self, name: str) -> str:
        return f"arn:{self._partition}:iam::{self.number}:role/{name}"

    def log_group_arn(self, name: str) -> str:
        return f"arn:{self._partition}:logs:{self.region}:{self.number}:log-group:{name}"

    def data_buckets(self, role: str) -> list[str]:
        """The buckets whose data the role may read by the policy it has."""
        with translated(f"read the policy of the role {role}"):
            statements = (self._policy(role) or {}).get("Statement", ())
        found = next((each["Resource"] for each in statements if each.get("Sid") == "ListData"), ())
        return [str(arn).rpartition(":")[2] for arn in found]

    def has_bucket(self, name: str) -> bool:
        """Whether the bucket is there. ``ConfigError`` if it is another account's, or of another region."""
        with translated(f"look for the bucket {name}"):
            return self._has_bucket(name)

    def has_log_group(self, name: str) -> bool:
        with translated(f"look for the log group {name}"):
            return self._log_group(name) is not None

    def has_role(self, name: str) -> bool:
        with translated(f"look for the role {name}"):
            return self._role(name) is not None

    # -- making

    def make_bucket(self, name: str) -> None:
        """Make the bucket of the jobs, unless it is there."""
        with translated(f"make the bucket {name}"):
            if self._has_bucket(name):
                # Nobody else gives a bucket this name: without a tag it was left half made.
                if name != self.default_bucket or self._bucket_is_ours(name):
                    return
            else:
                place = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
                self._do(self._s3, "CreateBucket", Bucket=name, **(place if self.region != "us-east-1" else {}))
            rule = {"ID": "parts", "Status": "Enabled", "Filter": {"Prefix": ""}}
            rule |= {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _PARTS_DAYS}}
            told = {"ID": "losses", "Status": "Enabled", "Filter": {"Prefix": LOSSES_PREFIX}}
            told |= {"Expiration": {"Days": _LOSSES_DAYS}}
            rules = {"Rules": [rule, told]}
            self._do(self._s3, "PutBucketLifecycleConfiguration", Bucket=name, LifecycleConfiguration=rules)
            self._do(self._s3, "PutBucketTagging", Bucket=name, Tagging={"TagSet": _TAGS})

    def make_log_group(self, name: str) -> None:
        """Make the group, which keeps logs for two weeks, unless it is there."""
        with translated(f"make the log group {name}"):
            found = self._log_group(name)
            if found is None:
                self._do(self._logs, "CreateLogGroup", logGroupName=name, tags={_TAG: _VALUE})
            if found is None or "retentionInDays" not in found:
                self._do(self._logs, "PutRetentionPolicy", logGroupName=name, retentionInDays=_KEPT_DAYS)

    def make_role(self, name: str, document: Mapping[str, Any]) -> None:
        """Make the role, unless it is there, and have it permit what the policy ``document`` says, and no more."""
        with translated(f"make the role {name}"):
            found = self._role(name)
            if found is None:
                trust = json.dumps(TRUST)
                self._do(self._iam, "CreateRole", RoleName=name, AssumeRolePolicyDocument=trust, Tags=_TAGS)
            elif not _tagged(found.get("Tags", ())):
                raise ConfigError(f"there is a role {name} that setup did not make: name another with --role")
            if found is None or self._policy(name) != document:
                text = json.dumps(document)
                self._do(self._iam, "PutRolePolicy", RoleName=name, PolicyName=POLICY, PolicyDocument=text)

    # -- removing

    def remove_role(self, name: str) -> bool:
        """Remove the role if it was made here; return whether it is gone."""
        with translated(f"remove the role {name}"):
            found = self._role(name)
            if found is None:
                return True
            if not _tagged(found.get("Tags", ())):
                return False
            if self._policy(name) is not None:
                self._do(self._iam, "DeleteRolePolicy", RoleName=name, PolicyName=POLICY)
            self._do(self._iam, "DeleteRole", RoleName=name)
            return True

    def remove_log_group(self, name: str) -> bool:
        """Remove the group and its logs if it was made here; return whether it is gone."""
        with translated(f"remove the log group {name}"):
            if self._log_group(name) is None:
                return True
            tags = self._logs.list_tags_for_resource(resourceArn=self.log_group_arn(name))["tags"]
            if tags.get(_TAG) != _VALUE:
                return False
            self._do(self._logs, "DeleteLogGroup", logGroupName=name)
            return True

    def remove_bucket(self, name: str) -> bool:
        """Remove the bucket if it was made here, with jobs' own objects; return whether it is gone.

        One with other objects stays, without jobs' own.
        """
        with translated(f"remove the bucket {name}"):
            if not self._has_bucket(name):
                return True
            if not self._bucket_is_ours(name):
                return False
            for upload in self._s3.list_multipart_uploads(Bucket=name, Prefix=OWN_PREFIX).get("Uploads", ()):
                target = {"Bucket": name, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._do(self._s3, "AbortMultipartUpload", **target)
            for keys in self._own_objects(name):
                self._do(self._s3, "DeleteObjects", Bucket=name, Delete={"Objects": keys, "Quiet": True})
            if self._others(name):
                return False
            self._do(self._s3, "DeleteBucket", Bucket=name)
            return True

    # -- looking

    def _has_bucket(self, name: str) -> bool:
        try:
            self._s3.head_bucket(Bucket=name)
        except self._s3.exceptions.ClientError as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                return False
            if code_of(error) in ("403", "301"):
                text = f"the bucket {name} is another account's, or of another region: name another with --bucket"
                raise ConfigError(text) from error
            raise
        return True

    def _bucket_is_ours(self, name: str) -> bool:
        try:
            return _tagged(self._s3.get_bucket_tagging(Bucket=name)["TagSet"])
        except self._s3.exceptions.ClientError as error:
            if code_of(error) == "NoSuchTagSet":
                return False
            raise

    def _own_objects(self, bucket: str) -> Iterator[list[dict[str, str]]]:
        for prefix in _OWN:
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                if found := page.get("Contents"):
                    yield [{"Key": each["Key"]} for each in found]

    def _others(self, bucket: str) -> bool:
        """Whether there are objects that are not jobs' own."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return any(not each["Key"].startswith(_OWN) for page in pages for each in page.get("Contents", ()))

    def _log_group(self, name: str) -> Mapping[str, Any] | None:
        pages = self._logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
        return next((each for page in pages for each in page["logGroups"] if each["logGroupName"] == name), None)

    def _role(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._iam.get_role(RoleName=name)["Role"]
        except self._iam.exceptions.NoSuchEntityException:
            return None
        return found

    def _policy(self, role: str) -> Mapping[str, Any] | None:
        try:
            document = self._iam.get_role_policy(RoleName=role, PolicyName=POLICY)["PolicyDocument"]
        except self._iam.exceptions.NoSuchEntityException:
            return None
        parsed: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
        return parsed

    def _do(self, client: Any, operation: str, **parameters: Any) -> None:
        """Send a request that changes something."""
        service = client.meta.service_model.signing_name
        self._say(f"{service}:{operation}", parameters)
        if not self._dry:
            getattr(client, xform_name(operation))(**parameters)


def _tagged(tags: Sequence[Mapping[str, str]]) -> bool:
    return any((tag["Key"], tag["Value"]) == (_TAG, _VALUE) for tag in tags)
