"""The control plane of the registry: what moto's lacks, and what Lambda asks of an image that is to be a function."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from moto.ecr.models import Repository

from lithops_mini.emulators.aws import permissions
from lithops_mini.emulators.aws.invocations import refuse
from lithops_mini.emulators.aws.registry import USER, Registry
from lithops_mini.emulators.aws.signatures import Signed
from lithops_mini.emulators.front import Request, Response

IMAGE_LIMIT = 10 * 1024 * 1024 * 1024
"""Bytes of an image."""

PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
"""What Lambda itself must be permitted by the policy of a repository."""

_TOKEN_LIFE = 12 * 3600  # seconds
_KINDS = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json")
_TAKES = ("ecr:GetRepositoryPolicy", "ecr:SetRepositoryPolicy")


def address_repositories(address: str) -> None:
    """Have moto's records of repositories tell this address of the registry."""

    def uri(repository: Repository) -> str:
        return f"{address}/{repository.region_name}/{repository.name}"

    # moto sets it to a host of AWS's.
    Repository.uri = property(uri, lambda _repository, _value: None)  # type: ignore[assignment]


def is_login(request: Request) -> bool:
    return request.headers.get("X-Amz-Target", "").endswith(".GetAuthorizationToken")


def log_in(signed: Signed, registry: Registry) -> Response:
    """A password for the registry, for who asks."""
    given = {
        "authorizationToken": b64encode(f"{USER}:{registry.token(signed.principal)}".encode()).decode(),
        "expiresAt": time.time() + _TOKEN_LIFE,
        "proxyEndpoint": f"http://{registry.address}",
    }
    headers = (("Content-Type", "application/x-amz-json-1.1"),)
    return Response(200, headers, json.dumps({"authorizationData": [given]}).encode())


def check_image(
    uri: str, registry: Registry, may: Callable[[str], bool], size_of: Callable[[str], int]
) -> Response | None:
    """Lambda's refusal to make a function of an image; ``None`` if nothing is wrong.

    ``may``: whether who makes it is permitted an action. ``size_of``: the bytes of an image when it is unpacked.
    """
    if uri.partition("/")[0] != registry.address:
        return None  # an image of the engine, which has no repository
    found = registry.find(uri)
    repository, image = found or (None, None)
    if repository is None or image is None:
        return _invalid(f"Source image {uri} does not exist. Provide a valid source image.")
    if not lets_lambda_pull(repository):
        if not all(map(may, _TAKES)):
            text = "Lambda does not have permission to access the ECR image. Check the ECR permissions."
            return refuse(403, "AccessDeniedException", text)
        _let_lambda_pull(repository)
    if image.image_manifest_media_type not in _KINDS:
        return _invalid(f"The image manifest, config or layer media type for the source image {uri} is not supported.")
    if (image.get_image_size_in_bytes() or 0) > IMAGE_LIMIT or size_of(uri) > IMAGE_LIMIT:
        return _invalid(f"The size of the source image {uri} must be smaller than {IMAGE_LIMIT} bytes")
    return None


def lets_lambda_pull(repository: Repository) -> bool:
    return all(permissions.permits_lambda(repository.policy, action) for action in PULL)


def _let_lambda_pull(repository: Repository) -> None:
    """As Lambda does in the name of who makes a function and may change the policy."""
    policy: dict[str, Any] = json.loads(repository.policy or '{"Version": "2012-10-17", "Statement": []}')
    statement = {"Sid": "LambdaECRImageRetrievalPolicy", "Effect": "Allow", "Action": list(PULL)}
    policy["Statement"].append(statement | {"Principal": {"Service": "lambda.amazonaws.com"}})
    repository.policy = json.dumps(policy)


def _invalid(text: str) -> Response:
    return refuse(400, "InvalidParameterValueException", text)
