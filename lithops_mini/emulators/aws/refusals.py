"""Refusals in the format of the service that was asked."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from xml.sax.saxutils import escape

from lithops_mini.emulators.aws.signatures import Refused
from lithops_mini.emulators.front import Request, Response

# What S3 and the older services call by the first name, services that speak JSON call by the second.
_JSON_CODES = {
    "AccessDenied": "AccessDeniedException",
    "InvalidAccessKeyId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "RequestTimeTooSkewed": "InvalidSignatureException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "IncompleteSignature": "IncompleteSignatureException",
}
_S3_CODES = {"MissingAuthenticationToken": "AccessDenied"}  # who is nobody may do nothing
_QUERY_CODES = {"InvalidAccessKeyId": "InvalidClientTokenId"}
_STATUS = {
    "XAmzContentSHA256Mismatch": 400,
    "IncompleteSignature": 400,
    "InsufficientCapabilitiesException": 400,
    "UnknownOperationException": 404,
}


def response(request: Request, error: Refused) -> Response:
    """The answer to a request that is refused."""
    code, text = error.args
    status = _STATUS.get(code, 403)
    number = str(uuid.uuid4())
    kind = request.headers.get("Content-Type", "")
    if "X-Amz-Target" in request.headers:
        body = json.dumps({"__type": _JSON_CODES.get(code, code), "message": text})
        return _answer(status, "application/x-amz-json-1.1", body, number)
    if kind.startswith("application/x-www-form-urlencoded"):
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{_QUERY_CODES.get(code, code)}</Code>"
            f"<Message>{escape(text)}</Message></Error><RequestId>{number}</RequestId></ErrorResponse>"
        )
        return _answer(status, "text/xml", body, number)
    if request.path.startswith("/20"):  # Lambda's version, and other services' that have one in the path
        code = _JSON_CODES.get(code, code)
        body = json.dumps({"Type": "User", "Message": text})
        return _answer(status, "application/json", body, number, code)
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{_S3_CODES.get(code, code)}</Code>'
        f"<Message>{escape(text)}</Message><RequestId>{number}</RequestId></Error>"
    )
    return _answer(status, "application/xml", body, number)


def without_tags(response: Response, error: Refused) -> Response:
    """What Lambda says of a function to who may not list its tags."""
    told = json.loads(response.body)
    told.pop("Tags", None)
    told["TagsError"] = {"ErrorCode": "AccessDeniedException", "Message": error.args[1]}
    return replace(response, body=json.dumps(told).encode())


def _answer(status: int, kind: str, body: str, number: str, code: str = "") -> Response:
    headers = [("Content-Type", kind), ("x-amz-request-id", number), ("x-amzn-RequestId", number)]
    if code:
        headers.append(("x-amzn-ErrorType", code))
    return Response(status, tuple(headers), body.encode())
