"""Who sends a request: signature version 4, in the headers or in the query, checked with botocore's own signers."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lithops_mini.emulators.aws.account import Keys, identify
from lithops_mini.emulators.front import Request

_ALGORITHM = "AWS4-HMAC-SHA256"
_SKEW = 15 * 60  # seconds by which the clocks may differ
_FORMAT = "%Y%m%dT%H%M%SZ"


class Refused(Exception):
    """A request that is not let in: ``args`` are AWS's code for the reason, and a sentence."""


@dataclass(frozen=True)
class Signed:
    """Whose request it is, and for which service it is signed."""

    service: str
    region: str
    principal: Any  # moto's record of a user or of a session


@dataclass(frozen=True)
class _Claim:
    """What a request says of its signature."""

    access_key_id: str
    region: str
    service: str
    signed: tuple[str, ...]  # names of headers, in lower case
    signature: str
    time: str
    token: str | None


def check(request: Request) -> Signed:
    """Return who has signed the request. ``Refused`` if nobody has who is known, or not this request, or not now."""
    authorization = request.headers.get("Authorization")
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    presigned = authorization is None and "X-Amz-Signature" in query
    if not (authorization or presigned):
        raise Refused("MissingAuthenticationToken", "Missing Authentication Token")
    try:
        claim = _from_query(query) if presigned else _from_headers(request, authorization or "")
        sent = datetime.strptime(claim.time, _FORMAT).replace(tzinfo=UTC)
    except (KeyError, ValueError) as error:
        raise Refused("IncompleteSignature", f"The signature is not one of version 4: {error!r}") from error
    found = identify(claim.access_key_id, claim.token)
    if found is None:
        raise Refused("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    keys, principal = found
    if not hmac.compare_digest(_expected(request, claim, keys, presigned), claim.signature):
        raise Refused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        )
    age = (datetime.now(UTC) - sent).total_seconds()
    if presigned and age > int(query["X-Amz-Expires"]):
        raise Refused("AccessDenied", "Request has expired")
    if age < -_SKEW or (not presigned and age > _SKEW):
        text = "The difference between the request time and the current time is too large."
        raise Refused("RequestTimeTooSkewed", text)
    said = request.headers.get("X-Amz-Content-SHA256", "")
    if len(said) == 64 and said != hashlib.sha256(request.body).hexdigest():
        text = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise Refused("XAmzContentSHA256Mismatch", text)
    return Signed(claim.service, claim.region, principal)


def _from_headers(request: Request, authorization: str) -> _Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != _ALGORITHM:
        raise ValueError(algorithm)
    said = dict(part.strip().split("=", 1) for part in rest.split(","))
    key, _, region, service, _ = said["Credential"].split("/")
    token = request.headers.get("X-Amz-Security-Token")
    signed = tuple(said["SignedHeaders"].split(";"))
    return _Claim(key, region, service, signed, said["Signature"], request.headers.get("X-Amz-Date", ""), token)


def _from_query(query: dict[str, str]) -> _Claim:
    key, _, region, service, _ = query["X-Amz-Credential"].split("/")
    signed = tuple(query["X-Amz-SignedHeaders"].split(";"))
    int(query["X-Amz-Expires"])
    token = query.get("X-Amz-Security-Token")
    return _Claim(key, region, service, signed, query["X-Amz-Signature"], query["X-Amz-Date"], token)


def _expected(request: Request, claim: _Claim, keys: Keys, presigned: bool) -> str:
    """The signature that who has the keys would have given."""
    headers = {name: value for name, value in request.headers.items() if name.lower() in claim.signed}
    query = request.query
    if presigned:
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(name, value) for name, value in pairs if name != "X-Amz-Signature"])
        headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    url = f"http://{request.headers['Host']}{request.path}" + (f"?{query}" if query else "")
    again = AWSRequest(method=request.method, url=url, data=request.body, headers=headers)
    again.context["timestamp"] = claim.time
    signer = S3SigV4Auth if claim.service == "s3" else SigV4Auth
    auth = signer(Credentials(keys.access_key_id, keys.secret_access_key), claim.service, claim.region)
    canonical = auth.canonical_request(again)
    if presigned:  # the hash of the payload is no header of it
        lines = canonical.split("\n")
        canonical = "\n".join(line for line in lines if not line.startswith("x-amz-content-sha256:"))
        canonical = canonical.replace(";x-amz-content-sha256\n", "\n")
    return str(auth.signature(auth.string_to_sign(again, canonical), again))
