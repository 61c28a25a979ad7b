"""What AWS Lambda says when a message could not be carried, or its function failed, in our words."""

from __future__ import annotations

import json
import re
from base64 import b64decode

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)

from lithops_mini.errors import InvocationError, Reason
from lithops_mini.runtimes.aws import code_of, message_of, problem, status_of

# Codes of answers to requests that no function has seen, and whether the same request can help later. Besides them,
# every answer of 500 and more is UNAVAILABLE.
_CODES: dict[str, tuple[Reason, bool]] = {
    "TooManyRequestsException": (Reason.THROTTLED, True),
    "ThrottlingException": (Reason.THROTTLED, True),
    "EC2ThrottledException": (Reason.THROTTLED, True),
    "RequestTooLargeException": (Reason.REFUSED, False),
    "ResourceConflictException": (Reason.UNAVAILABLE, True),  # it is being made, or has slept
    "ResourceNotFoundException": (Reason.UNAVAILABLE, True),  # it was deleted, and is made again
    "KMSAccessDeniedException": (Reason.REFUSED, False),
    "KMSDisabledException": (Reason.REFUSED, False),
    "KMSInvalidStateException": (Reason.REFUSED, False),
    "KMSNotFoundException": (Reason.REFUSED, False),
    "InvalidRuntimeException": (Reason.REFUSED, False),
    "InvalidSecurityGroupIDException": (Reason.REFUSED, False),
    "InvalidSubnetIDException": (Reason.REFUSED, False),
    "InvalidZipFileException": (Reason.REFUSED, False),
}
# Failures before a request has left.
_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
_LINES = 8  # of a function's log in an error
# Lines of the log that are Lambda's own, and say no more than the failure itself.
_OWN = re.compile(
    r"((START|END|REPORT) )?RequestId: .*|(INIT_START|EXTENSION|TELEMETRY|XRAY)\b.*|\S+ \S+ Task timed out after .*"
    r"|(Runtime|Extension|Sandbox)\.\w+|.*\tLAMBDA_WARNING: .*|\s*File \"<frozen .*|\s*"
)
_TRACEBACK = "Traceback (most recent call last):"
_OF_CALL = re.compile(r"\S+-[A-Z]\d+ (?=call \d+: )")
_MEMORY = re.compile(r"\tMemory Size: (\d+) MB\tMax Memory Used: (\d+) MB")
_FULL = 0.95  # of its memory that a sandbox which ran out of it has used, at least: it is measured now and then


def not_invoked(error: Exception, name: str) -> InvocationError:
    """What an error of the SDK means for the message that it hit."""
    text = f"the function {name} was not invoked: {problem(error)}"
    if isinstance(error, ClientError):
        passing = (Reason.UNAVAILABLE, True) if status_of(error) >= 500 else (Reason.REFUSED, False)
        reason, retryable = _CODES.get(code_of(error), passing)
        return InvocationError(text, reason=reason, retryable=retryable)
    if isinstance(error, SSLError):
        return InvocationError(text, reason=Reason.REFUSED)
    if isinstance(error, _NOT_SENT):
        return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)
    if is_lost(error):
        # It may run, or have run: what is sent next must be another attempt.
        lost = f"the answer of the function {name} was lost: {message_of(error)}"
        return InvocationError(lost, reason=Reason.DIED, retryable=True)
    return InvocationError(text, reason=Reason.REFUSED)


def is_lost(error: Exception) -> bool:
    """Whether the message went out, and its answer did not come back."""
    lost = isinstance(error, HTTPClientError | IncompleteReadError)
    return lost and not isinstance(error, (SSLError, *_NOT_SENT))


def lost_event(record: bytes) -> tuple[str, InvocationError] | None:
    """The key of the reply that an event was to have, and why it has none, as Lambda's record of the failure says."""
    try:
        told = json.loads(record)
        key, context = str(told["requestPayload"]["key"]), told["requestContext"]
        name = str(context["functionArn"]).split(":")[6]
        condition = str(context["condition"])
    except (ValueError, LookupError, TypeError):
        return None
    if "responsePayload" not in told:
        text = f"AWS Lambda gave up an event for the function {name} ({condition})"
        reason = Reason.THROTTLED if condition == "EventAgeExceeded" else Reason.UNAVAILABLE
        return key, InvocationError(text, reason=reason, retryable=True)
    return key, failed(json.dumps(told["responsePayload"]).encode(), "", name)  # the record has no log


def failed(said: bytes, log: str, name: str) -> InvocationError:
    """What a function's failure means: ``said`` is its body, ``log`` the end of its log in base64."""
    kind, message = _parsed(said)
    shown = b64decode(log).decode(errors="replace").replace("\xa0", " ")
    reason, retryable, text = _judged(kind, message, shown)
    if reason == Reason.OUT_OF_MEMORY and (figures := _MEMORY.search(shown)):
        text = f"{text}, with {figures[2]} of {figures[1]} MB in use"
    text = f"the function {name} {text} ({': '.join(filter(None, (kind, message)))})"
    if lines := _words(shown, f"[ERROR] {kind}: {message}"):
        text = "\n  ".join((f"{text}; the end of its log:", *lines))
    return InvocationError(text, reason=reason, retryable=retryable)


def _words(log: str, known: str) -> list[str]:
    """The last lines of a log, but for what Lambda itself has written there, and what is ``known``."""
    lines = [line for line in log.splitlines() if line != known and not _OWN.fullmatch(line)]
    if lines and lines[-1] == _TRACEBACK:  # of nothing
        lines.pop()
    return [_OF_CALL.sub("", line, count=1) for line in lines[-_LINES:]]


def _parsed(said: bytes) -> tuple[str, str]:
    try:
        body = json.loads(said)
    except ValueError:
        return "", said[:1000].decode(errors="replace")
    return str(body.get("errorType") or ""), str(body.get("errorMessage") or "")


def _judged(kind: str, message: str, log: str) -> tuple[Reason, bool, str]:
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return Reason.TIMEOUT, False, "was stopped by AWS Lambda, over its time"
    if kind == "Runtime.OutOfMemory" or ("signal: killed" in message and not _had_room(log)):
        return Reason.OUT_OF_MEMORY, False, "ran out of memory"
    if kind in ("Runtime.ExitError", "Extension.Crash") or "Runtime exited" in message:
        return Reason.DIED, True, "lost its sandbox"
    if kind == "StorageUnavailable":
        return Reason.DIED, True, "could not store its reply"
    if kind == "Function.ResponseSizeTooLarge":
        return Reason.REFUSED, False, "had an answer that is too large"
    # What is left is a runtime that cannot start, or a worker's own mistake: another attempt would go the same way.
    return Reason.REFUSED, False, "failed"


def _had_room(log: str) -> bool:
    """Whether the sandbox, when it was killed, had memory left, as its log says: then that was not why.

    Without a log nobody knows; another attempt may tell.
    """
    found = _MEMORY.search(log)
    return not log or (found is not None and int(found[2]) < _FULL * int(found[1]))
