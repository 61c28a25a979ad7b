"""Lambda's Invoke, by HTTP."""

from __future__ import annotations

import base64
import json
import uuid

from moto.awslambda.exceptions import UnknownFunctionException

from lithops_mini.emulators.aws import functions
from lithops_mini.emulators.aws.events import Event, EventQueue
from lithops_mini.emulators.aws.lambda_data_plane import DataPlane, Throttled
from lithops_mini.emulators.aws.sandbox import NoRuntime
from lithops_mini.emulators.front import Request, Response

LIMITS = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024, "DryRun": 6 * 1024 * 1024}
"""Bytes of an event, by the type of its invocation."""


def is_invocation(request: Request) -> bool:
    parts = request.parts
    return request.method == "POST" and parts[1:2] == ["functions"] and parts[-1] == "invocations"


def invoke(request: Request, region: str, plane: DataPlane, queue: EventQueue) -> Response:
    """Run a function, or take the event for it."""
    name = request.parts[2]
    qualifier = dict(part.partition("=")[::2] for part in request.query.split("&")).get("Qualifier")
    how = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
    request_id = str(uuid.uuid4())
    try:
        function, _ = functions.find(region, name, qualifier)
    except UnknownFunctionException as error:
        return refuse(404, "ResourceNotFoundException", error.message)
    if how not in LIMITS:
        return refuse(400, "InvalidParameterValueException", f"there is no invocation type {how!r}")
    if len(request.body) > LIMITS[how]:
        text = f"Request must be smaller than {LIMITS[how]} bytes for the InvokeFunction operation"
        return refuse(413, "RequestTooLargeException", text)
    event = request.body or b"{}"
    try:
        json.loads(event)
    except ValueError as error:
        return refuse(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")
    if how == "DryRun":
        return _answer(204, request_id, b"")
    if how == "Event":
        queue.put(Event(region, name, qualifier, event, request_id))
        return _answer(202, request_id, b"")
    try:
        reply = plane.invoke(function, event, request_id)
    except Throttled as error:
        return refuse(429, "TooManyRequestsException", "Rate Exceeded.", Reason=error.args[0])
    except NoRuntime as error:
        return refuse(502, "InvalidRuntimeException", str(error))
    headers = {"Content-Type": "application/json", "X-Amz-Executed-Version": reply.version}
    if reply.error:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if request.headers.get("X-Amz-Log-Type") == "Tail":
        headers["X-Amz-Log-Result"] = base64.b64encode(reply.log).decode()
    return _answer(200, request_id, reply.payload, headers)


def _answer(status: int, request_id: str, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(status, (("x-amzn-RequestId", request_id), *(headers or {}).items()), body)


def refuse(status: int, kind: str, text: str, **more: str) -> Response:
    """An error of Lambda's."""
    body = json.dumps({"Type": "User", "message": text, "Message": text, **more}).encode()
    return _answer(status, str(uuid.uuid4()), body, {"Content-Type": "application/json", "x-amzn-ErrorType": kind})
