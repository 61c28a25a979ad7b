"""What an SDK of the S3 family raises, as errors of ours: one sentence each, with the way out.

Nothing of the SDK is imported here. The exceptions of botocore and of ibm_botocore have the same names, and a service's
own answer is a code, so both are looked up in tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lithops_mini.errors import (
    AccessDenied,
    InputError,
    NoSuchBucket,
    NoSuchObject,
    ObjectChanged,
    ObjectExists,
    StorageError,
    StorageUnavailable,
)

_WRONG_KEYS = "the secret access key does not belong to the access key: check both"
_CLOCK = "the clock of this machine is wrong by more than the service accepts: set it, best by NTP"
_EXPIRED = "the session token has expired or is wrong: get new credentials"
_REGION = "it is in {its_region}, not in {region!r}: set the region, and the endpoint if you set one, to the bucket's"
_FOREIGN = "{endpoint} does not answer as an S3 service (HTTP {status}): check the endpoint, and proxies on the way"
_BUSY = "the service has too much to do, and kept saying so: try again later, or with fewer workers"
_BROKEN = "the service failed, and kept failing: try again later"
_DAMAGED = "the data was damaged on its way, again and again: look at the network, or use https"
_TOO_LARGE = "it is larger than the service takes"

# What a service says, by its code or else by its status.
_CODES: dict[str, tuple[type[Exception], str]] = {
    "NoSuchBucket": (NoSuchBucket, "there is no such bucket: correct its name, or create it"),
    "NoSuchKey": (NoSuchObject, "there is no such object"),
    "404": (NoSuchObject, "there is no such object"),
    "PreconditionFailed": (ObjectChanged, "it was replaced meanwhile: read it again"),
    "ConditionalRequestConflict": (ObjectExists, "another writer is storing it"),
    "AccessDenied": (AccessDenied, "these credentials do not permit it: {permission}"),
    "403": (AccessDenied, "these credentials do not permit it: {permission}"),
    "AllAccessDisabled": (AccessDenied, "the bucket is closed to everybody"),
    "AccountProblem": (AccessDenied, "the account has a problem, which its owner must solve with the provider"),
    "InvalidAccessKeyId": (AccessDenied, "the service does not know the access key: check it"),
    "SignatureDoesNotMatch": (AccessDenied, _WRONG_KEYS),
    "ExpiredToken": (AccessDenied, _EXPIRED),
    "InvalidToken": (AccessDenied, _EXPIRED),
    "TokenRefreshRequired": (AccessDenied, _EXPIRED),
    "RequestTimeTooSkewed": (AccessDenied, _CLOCK),
    "RequestExpired": (AccessDenied, _CLOCK),
    "AuthorizationHeaderMalformed": (StorageError, _REGION),
    "PermanentRedirect": (StorageError, _REGION),
    "TemporaryRedirect": (StorageError, _REGION),
    "301": (StorageError, _REGION),
    "IllegalLocationConstraintException": (StorageError, _REGION),
    "InvalidLocationConstraint": (StorageError, "the service has no region {region!r}: correct it"),
    "BucketAlreadyExists": (AccessDenied, "the name is taken by another account: choose another"),
    "TooManyBuckets": (StorageError, "the account has as many buckets as it may: delete one, or use an existing one"),
    "InvalidBucketName": (InputError, "no bucket can have this name"),
    "KeyTooLongError": (InputError, "no key can be that long"),
    "EntityTooLarge": (InputError, _TOO_LARGE),
    "QuotaExceeded": (StorageError, "the quota is used up"),
    "InvalidObjectState": (AccessDenied, "it is archived: restore it first"),
    "BadDigest": (StorageUnavailable, _DAMAGED),
    "XAmzContentSHA256Mismatch": (StorageUnavailable, _DAMAGED),
    "IncompleteBody": (StorageUnavailable, _DAMAGED),
    "SlowDown": (StorageUnavailable, _BUSY),
    "RequestLimitExceeded": (StorageUnavailable, _BUSY),
    "429": (StorageUnavailable, _BUSY),
    "503": (StorageUnavailable, _BUSY),
    "ServiceUnavailable": (StorageUnavailable, _BUSY),
    "RequestTimeout": (StorageUnavailable, _BROKEN),
    "500": (StorageUnavailable, _BROKEN),
    "502": (StorageUnavailable, _BROKEN),
    "504": (StorageUnavailable, _BROKEN),
    "InternalError": (StorageUnavailable, _BROKEN),
}

# What never came to the service, or not from it, by the name of the exception or of one it inherits from.
_EXCEPTIONS: dict[str, tuple[type[Exception], str]] = {
    "NoCredentialsError": (AccessDenied, "no credentials were found: {credentials}"),
    "PartialCredentialsError": (AccessDenied, "the credentials are incomplete: {credentials}"),
    "ProfileNotFound": (AccessDenied, "{error}: {credentials}"),
    "CredentialRetrievalError": (AccessDenied, "the credentials could not be fetched ({error}): {credentials}"),
    "SSOError": (AccessDenied, "the single sign-on has ended: sign in again ({error})"),
    "TokenRetrievalError": (AccessDenied, "the single sign-on has ended: sign in again ({error})"),
    "SSLError": (
        StorageError,
        "the certificate of {endpoint} is not trusted: set ca_bundle to the file of its authority's certificate"
        " ({error})",
    ),
    "ConnectTimeoutError": (StorageUnavailable, "{endpoint} does not answer: check the endpoint and the network"),
    "EndpointConnectionError": (StorageUnavailable, "{endpoint} cannot be reached: check the endpoint and the network"),
    "ProxyConnectionError": (StorageUnavailable, "the HTTP proxy cannot be reached: check HTTPS_PROXY ({error})"),
    "InvalidProxiesConfigError": (StorageError, "the HTTP proxy's settings are wrong: {error}"),
    "ReadTimeoutError": (StorageUnavailable, "{endpoint} stopped answering, again and again: try again later"),
    "ConnectionClosedError": (StorageUnavailable, "{endpoint} closed the connection, again and again: try again later"),
    "IncompleteReadError": (StorageUnavailable, "the connection to {endpoint} was lost, again and again ({error})"),
    "FlexibleChecksumError": (StorageUnavailable, _DAMAGED),
    "ChecksumError": (StorageUnavailable, _DAMAGED),
    "ResponseParserError": (StorageUnavailable, _DAMAGED),
    "ParamValidationError": (InputError, "{error}"),
    "HTTPClientError": (StorageUnavailable, "the connection to {endpoint} was lost, again and again ({error})"),
    "HTTPError": (StorageUnavailable, "the connection to {endpoint} was lost, again and again ({error})"),
}


@dataclass(frozen=True)
class Service:
    """What error messages tell of the service, besides what it says itself."""

    endpoint: str
    region: str
    credentials: str  # where they are looked for
    permissions: Mapping[str, str]  # what each action needs, by its verb


def translated(error: Exception, action: str, where: str, service: Service) -> Exception:
    """Return the error of ours that says the same: "cannot <action> <where>: <why>"."""
    kind, text = _look_up(error)
    needed = service.permissions.get(action.partition(" ")[0])
    why = text.format(
        endpoint=service.endpoint,
        status=_status_of(error),
        region=service.region,
        its_region=repr(found) if (found := _region_of(error)) else "another region",
        credentials=service.credentials,
        permission=f"they need {needed}" if needed else "ask the bucket's owner",
        error=_one_line(error),
    )
    return kind(f"cannot {action} {where}: {why}")


def code_of(error: Exception) -> str:
    """The code of the service's answer, or its status in digits; empty if there was no answer."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: Exception) -> Mapping[str, Any]:
    """What the service said; empty if it said nothing."""
    return getattr(error, "response", None) or {}


def _status_of(error: Exception) -> str:
    return str(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def _region_of(error: Exception) -> str | None:
    """The region a service says the bucket is in."""
    headers = _answer(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = _answer(error).get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return region


def retried(error: Exception) -> bool:
    """Whether the SDK had sent the request before, so that an earlier one may have done what this one could not."""
    return bool(_answer(error).get("ResponseMetadata", {}).get("RetryAttempts"))


def _look_up(error: Exception) -> tuple[type[Exception], str]:
    code, status = code_of(error), _status_of(error)
    bare = code in ("", status) and getattr(error, "operation_name", "HeadObject") != "HeadObject"
    if bare and status.startswith("4") and status != "429":  # the answer to a HEAD alone has no code
        return StorageError, _FOREIGN
    for key in (code, status):
        if key in _CODES:
            return _CODES[key]
    if "WRONG_VERSION_NUMBER" in str(error):
        return StorageError, "{endpoint} does not speak TLS: begin it with http:, or give another port"
    for cls in type(error).__mro__:
        if cls.__name__ in _EXCEPTIONS:
            return _EXCEPTIONS[cls.__name__]
    return StorageError, "{error}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
