"""The services of AWS as a configuration reaches them: their clients, and their errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's, of which ours is no base
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes.connections import Connections
from lithops_mini.storage.aws_s3 import AwsOptions
from lithops_mini.storage.s3_session import new_session

AWS_ERRORS = (BotoCoreError, ClientError)

_EXPIRED = "the credentials have expired: fetch new ones, with 'aws sso login' if they come from there"
_UNKNOWN = "AWS does not know the access key, or its secret is another: check both"
_CREDENTIALS = (
    "no AWS credentials were found: run 'aws configure', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
    " aws.profile"
)
_CODES = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": "the clock of this machine is wrong: set it",
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "InvalidAccessKeyId": _UNKNOWN,
    "SignatureDoesNotMatch": _UNKNOWN,
    "InvalidSignatureException": _UNKNOWN,
}
_EXCEPTIONS = {
    NoCredentialsError: _CREDENTIALS,
    PartialCredentialsError: _CREDENTIALS,
    NoRegionError: "no region is set: set aws.region, as in eu-central-1, or AWS_REGION",
}
# Codes of what passes, besides every answer of 500 and more.
_THROTTLES = ("TooManyRequestsException", "ThrottlingException", "Throttling", "RequestLimitExceeded", "SlowDown")


class Aws:
    """One account in one region, with the credentials of the options, or else those that AWS's SDK finds."""

    def __init__(self, options: AwsOptions) -> None:
        """Raises ``ConfigError`` for a profile that AWS's own configuration does not have."""
        self._options = options
        try:
            # Who is given keys needs no profile.
            self._session = new_session("botocore", None if options.access_key_id else options.profile)
            self.region: str | None = options.region or self._session.get_config_variable("region")
        except ProfileNotFound as error:
            raise ConfigError(f"{error}: set aws.profile to one of AWS's own configuration (~/.aws)") from error

    def credentials(self) -> Credentials | None:
        """What requests are signed with; ``None`` if nothing was found. They may expire, and renew themselves."""
        options = self._options
        if options.access_key_id and options.secret_access_key:
            return Credentials(options.access_key_id, options.secret_access_key, options.session_token)
        found: Credentials | None = self._session.get_credentials()
        return found

    def client(self, service: str, **settings: Any) -> Any:
        """A client of botocore; ``settings`` are those of botocore's ``Config``. Raises ``ConfigError``."""
        options = self._options
        try:
            return self._session.create_client(
                service,
                region_name=self.region,
                endpoint_url=options.endpoint_url,
                aws_access_key_id=options.access_key_id,
                aws_secret_access_key=options.secret_access_key,
                aws_session_token=options.session_token,
                config=Config(**settings),
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"AWS cannot be used so: {problem(error)}") from error


def connections(client: Any) -> Connections:
    """Those that a client opens from now on."""
    return Connections(client._endpoint.http_session._pool_classes_by_scheme)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """AWS's errors in the ``with`` block become ours: ``InvocationError`` for what passes, else ``ConfigError``."""
    try:
        yield
    except AWS_ERRORS as error:
        text = f"cannot {action}: {problem(error)}"
        if passes(error):
            raise InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True) from error
        raise ConfigError(text) from error


def problem(error: Exception) -> str:
    """What is wrong, in a sentence."""
    code = code_of(error)
    if code in _CODES:
        return f"{_CODES[code]} ({message_of(error)})"
    for kind, text in _EXCEPTIONS.items():
        if isinstance(error, kind):
            return text
    if code.startswith("AccessDenied"):
        return denied(message_of(error))
    return f"{code}: {message_of(error)}" if code else " ".join(str(error).split())


def denied(said: str) -> str:
    """That the credentials are too weak, in a sentence with AWS's own, which names the action."""
    return f"these credentials do not permit it: {said}"


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ClientError):
        return code_of(error) in _THROTTLES or status_of(error) >= 500
    return isinstance(error, HTTPClientError | ConnectionError)


def code_of(error: Exception) -> str:
    """The code of the service's answer; empty if there was none."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: ClientError) -> int:
    """The HTTP status of the service's answer."""
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))


def message_of(error: Exception) -> str:
    """What the service said."""
    said = error.response["Error"].get("Message", "") if isinstance(error, ClientError) else str(error)
    return " ".join(str(said).split())
