"""What a request asks for, in the words of IAM, and whether the policies of who sends it permit that.

Of S3 everything counts: actions, resources, and conditions on the prefix of a listing. Of other services the actions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree

from botocore.loaders import Loader
from moto.iam.exceptions import NotFoundException
from moto.iam.models import User, iam_backends

from lithops_mini.emulators.aws.account import ACCOUNT
from lithops_mini.emulators.aws.signatures import Refused, Signed
from lithops_mini.emulators.front import Request

Need = tuple[str, str | None]
"""An action, and the ARN of the resource; ``None``: which it is does not count."""

_FORM = "application/x-www-form-urlencoded"
# Subresources of buckets and objects whose actions are not named as all others are.
_BUCKET_ACTIONS = {
    ("GET", "uploads"): "ListBucketMultipartUploads",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "lifecycle"): "GetLifecycleConfiguration",
    ("PUT", "lifecycle"): "PutLifecycleConfiguration",
    ("DELETE", "lifecycle"): "PutLifecycleConfiguration",
    ("GET", "encryption"): "GetEncryptionConfiguration",
    ("PUT", "encryption"): "PutEncryptionConfiguration",
    ("GET", "publicAccessBlock"): "GetBucketPublicAccessBlock",
    ("PUT", "publicAccessBlock"): "PutBucketPublicAccessBlock",
    ("DELETE", "tagging"): "PutBucketTagging",
}
_SUBRESOURCES = {
    "acl": "Acl",
    "cors": "CORS",
    "logging": "Logging",
    "notification": "Notification",
    "policy": "Policy",
    "tagging": "Tagging",
    "versioning": "Versioning",
    "ownershipControls": "OwnershipControls",
}
_VERBS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete"}
_RENAMED = {"lambda:Invoke": "lambda:InvokeFunction"}

# What it takes, besides, to make something that has tags.
_TAGGING = {
    "ecr:CreateRepository": "ecr:TagResource",
    "iam:CreateRole": "iam:TagRole",
    "lambda:CreateFunction": "lambda:TagResource",
    "logs:CreateLogGroup": "logs:TagResource",
}


def needs(request: Request, signed: Signed) -> list[Need]:
    """Every permission that the request takes."""
    if signed.service == "s3":
        return list(_s3_needs(request))
    operation = _operation(request, signed.service)
    action = f"{signed.service}:{operation}"
    found: list[Need] = [(_RENAMED.get(action, action), None)]
    if action in _TAGGING and _gives_tags(request):
        found.append((_TAGGING[action], None))
    if operation in ("CreateFunction", "UpdateFunctionConfiguration"):
        body = json.loads(request.body)
        found += [("iam:PassRole", body["Role"])] if "Role" in body else []
        found += [("lambda:GetLayerVersion", layer) for layer in body.get("Layers", ())]
    return found


def check(request: Request, signed: Signed, needed: Iterable[Need]) -> None:
    """Return if all of it is permitted. ``Refused`` otherwise."""
    policies = policies_of(signed.principal)
    own = getattr(signed.principal, "policy", None)  # of a session: it permits no more than this
    conditions = {"s3:prefix": dict(parse_qsl(request.query)).get("prefix", "")}
    for action, resource in needed:
        permitted = all(permits(each, action, resource, conditions) for each in (policies, [own] if own else policies))
        if not permitted and action != "sts:GetCallerIdentity":
            where = f" on resource: {resource}" if resource else ""
            raise Refused("AccessDenied", f"User: {signed.principal.arn} is not authorized to perform: {action}{where}")


def hides_absence(request: Request, signed: Signed) -> bool:
    """Whether the caller is not told that an object is absent: that is for who may list the bucket."""
    bucket, _, key = unquote(request.path.lstrip("/")).partition("/")
    if signed.service != "s3" or not key or request.method not in ("GET", "HEAD"):
        return False
    return not permits(policies_of(signed.principal), "s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": key})


def trusts_lambda(role: str) -> bool:
    """Whether Lambda may assume the role; also if there is none, which is another error."""
    try:
        document = iam_backends[ACCOUNT]["aws"].get_role_by_arn(role).assume_role_policy_document
    except NotFoundException:
        return True
    return any(
        statement["Effect"] == "Allow"
        and _matches(statement.get("Principal", {}).get("Service", ()), "lambda.amazonaws.com")
        and _matches(statement["Action"], "sts:AssumeRole")
        for statement in _statements(document)
    )


def permits_lambda(policy: str | None, action: str) -> bool:
    """Whether the policy of a resource lets Lambda itself do it."""
    return any(
        statement["Effect"] == "Allow"
        and _matches(statement.get("Principal", {}).get("Service", ()), "lambda.amazonaws.com")
        and _concerns(statement, action, None)
        for statement in (_statements(policy) if policy else ())
    )


def permits(policies: Iterable[str], action: str, resource: str | None, conditions: Mapping[str, str]) -> bool:
    """Whether a statement allows it and none denies it."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in _statements(policy)
        if _concerns(statement, action, resource) and _holds(statement, conditions)
    }
    return effects == {"Allow"}


def policies_of(principal: Any) -> list[str]:
    """The policy documents of a user or of a session of a role."""
    if isinstance(principal, User):
        groups = iam_backends[ACCOUNT]["aws"].get_groups_for_user(principal.name)
        return [policy for each in (principal, *groups) for policy in _attached(each)]
    return role_policies(principal.role_arn)


def role_policies(arn: str) -> list[str]:
    """The policy documents of a role; none if there is no such role."""
    try:
        return list(_attached(iam_backends[ACCOUNT]["aws"].get_role_by_arn(arn)))
    except NotFoundException:
        return []


def _attached(owner: Any) -> Iterator[str]:
    yield from owner.policies.values()
    for policy in owner.managed_policies.values():
        yield next(version.document for version in policy.versions if version.is_default)


@cache
def _statements(policy: str) -> list[dict[str, Any]]:
    found = json.loads(policy)["Statement"]
    return found if isinstance(found, list) else [found]


def _concerns(statement: Mapping[str, Any], action: str, resource: str | None) -> bool:
    if "NotAction" in statement:
        named = not _matches(statement["NotAction"], action.lower(), str.lower)
    else:
        named = _matches(statement["Action"], action.lower(), str.lower)
    return named and (resource is None or _matches(statement.get("Resource", ()), resource))


def _holds(statement: Mapping[str, Any], conditions: Mapping[str, str]) -> bool:
    """Whether the statement's conditions hold; those that are not understood do where they deny, and only there."""
    for operator, values in statement.get("Condition", {}).items():
        for key, patterns in values.items():
            if key not in conditions or operator not in ("StringEquals", "StringLike"):
                return bool(statement["Effect"] == "Deny")
            if operator == "StringEquals":
                holds = conditions[key] in ([patterns] if isinstance(patterns, str) else patterns)
            else:
                holds = _matches(patterns, conditions[key])
            if not holds:
                return False
    return True


def _matches(patterns: str | Iterable[str], text: str, change: Any = str) -> bool:
    each = [patterns] if isinstance(patterns, str) else patterns
    return any(_pattern(change(pattern)).fullmatch(text) for pattern in each)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _s3_needs(request: Request) -> Iterator[Need]:
    bucket, _, key = unquote(request.path.lstrip("/")).partition("/")
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if not bucket:
        yield "s3:ListAllMyBuckets", "*"
        return
    arn = f"arn:aws:s3:::{bucket}"
    if not key:
        if request.method == "POST" and "delete" in query:
            for element in ElementTree.fromstring(request.body).iter():
                if element.tag.rpartition("}")[2] == "Key":
                    yield "s3:DeleteObject", f"{arn}/{element.text}"
        else:
            yield f"s3:{_bucket_action(request.method, query)}", arn
        return
    yield f"s3:{_object_action(request.method, query)}", f"{arn}/{key}"
    if source := request.headers.get("x-amz-copy-source"):
        yield "s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/').partition('?')[0]}"


def _bucket_action(method: str, query: Mapping[str, str]) -> str:
    for name in query:
        if action := _BUCKET_ACTIONS.get((method, name)):
            return action
        if subresource := _SUBRESOURCES.get(name):
            return f"{_VERBS[method]}Bucket{subresource}"
    return {"PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(method, "ListBucket")


def _object_action(method: str, query: Mapping[str, str]) -> str:
    if "uploadId" in query and method == "DELETE":
        return "AbortMultipartUpload"
    if "uploadId" in query and method == "GET":
        return "ListMultipartUploadParts"
    for name in query:
        if name in ("acl", "tagging"):
            return f"{_VERBS[method]}Object{_SUBRESOURCES[name]}"
    return {"GET": "GetObject", "HEAD": "GetObject", "DELETE": "DeleteObject"}.get(method, "PutObject")


def _gives_tags(request: Request) -> bool:
    if request.headers.get("Content-Type", "").startswith(_FORM):
        return any(name.startswith("Tags.member.") for name, _ in parse_qsl(request.body.decode()))
    given = json.loads(request.body)
    return bool(given.get("Tags") or given.get("tags"))


def _operation(request: Request, service: str) -> str:
    """The name of the operation in the service's model."""
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if request.headers.get("Content-Type", "").startswith(_FORM):
        return dict(parse_qsl(request.body.decode())).get("Action", "")
    for method, pattern, name in _routes(service):
        if method == request.method and pattern.fullmatch(request.path.rstrip("/")):
            return name
    raise Refused("UnknownOperationException", f"{service} has no operation for {request.method} {request.path}")


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Method and path of each operation, those with fewer variables first."""
    model = Loader().load_service_model(service, "service-2")
    routes = []
    for name, operation in model["operations"].items():
        path = operation["http"]["requestUri"].partition("?")[0].rstrip("/")
        pattern = re.sub(r"\\\{[^{}]+?\\\}", "[^/]+", re.escape(path).replace(r"\+", ""))
        routes.append((path.count("{"), operation["http"]["method"], re.compile(pattern), name))
    return [route[1:] for route in sorted(routes, key=lambda route: route[0])]
