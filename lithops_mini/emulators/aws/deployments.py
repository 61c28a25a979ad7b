"""What Lambda refuses to deploy and moto would take."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException

from lithops_mini.emulators.aws import functions, permissions
from lithops_mini.emulators.aws.invocations import refuse
from lithops_mini.emulators.front import Request, Response

ZIP_LIMIT = 50 * 1024 * 1024
"""Bytes of a zip in a request; a larger one comes from S3."""

UNZIPPED_LIMIT = 250 * 1024 * 1024
"""Bytes of a function's code and layers together."""

ENVIRONMENT_LIMIT = 4 * 1024
"""Bytes of the names and values of a function's variables."""

CheckImage = Callable[[str], Response | None]
"""Called with the URI of an image that is to be a function: the refusal, if there is one."""


def check(request: Request, action: str, region: str, check_image: CheckImage) -> Response | None:
    """The refusal of a request that makes or changes a function or a layer; ``None`` if nothing is wrong."""
    if action not in _CHANGES:
        return None
    given = json.loads(request.body)
    code = given if action == "lambda:UpdateFunctionCode" else given.get("Code", given.get("Content", {}))
    archive = base64.b64decode(code.get("ZipFile", ""))
    if len(archive) > ZIP_LIMIT:
        return refuse(413, "RequestEntityTooLargeException", f"Request must be smaller than {ZIP_LIMIT} bytes")
    if "ImageUri" in code:
        refused = check_image(code["ImageUri"])
        if refused:
            return refused
    variables = given.get("Environment", {}).get("Variables", {})
    if sum(len(f"{name}{value}".encode()) for name, value in variables.items()) > ENVIRONMENT_LIMIT:
        return _invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided exceeded the 4KB limit."
        )
    if "Role" in given and not permissions.trusts_lambda(given["Role"]):
        return _invalid("The role defined for the function cannot be assumed by Lambda.")
    try:
        size = _unzipped(archive) + _others(request, given, region)
    except zipfile.BadZipFile:
        return _invalid("Could not unzip uploaded file. Please check your file, then try to upload again.")
    if size > UNZIPPED_LIMIT:
        return _invalid(f"Unzipped size must be smaller than {UNZIPPED_LIMIT} bytes")
    return None


_CHANGES = (
    "lambda:CreateFunction",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "lambda:PublishLayerVersion",
)


def _others(request: Request, given: dict[str, Any], region: str) -> int:
    """Bytes of what the change leaves as it is, and of the layers it names."""
    total = sum(_unzipped(layer) for layer in functions.layers(region, given.get("Layers", ())))
    try:
        function, _ = functions.find(region, request.parts[2], None)
    except (IndexError, UnknownFunctionException):  # it is only made now
        return total
    if "Layers" not in given:
        total += sum(map(_unzipped, function.layer_zips))
    return total + (0 if "ZipFile" in given else _unzipped(function.zip))


def _unzipped(archive: bytes) -> int:
    if not archive:
        return 0
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return sum(member.file_size for member in opened.infolist())


def _invalid(text: str) -> Response:
    return refuse(400, "InvalidParameterValueException", text)
