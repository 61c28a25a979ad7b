"""What OpenWhisk says when a message could not be carried, or its action failed, in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from requests.exceptions import ConnectTimeout, ProxyError, SSLError
from urllib3.exceptions import MaxRetryError, NewConnectionError

from lithops_mini.errors import InvocationError, Reason
from lithops_mini.runtimes.openwhisk_service import NoAuthorization, Refusal, Service, passes, problem, shown

# Statuses of answers to requests that no action has seen, and whether the same request can help later. Of other ones
# from 500 on nobody knows whether the message runs, so what is sent next must be another attempt.
_STATUSES: dict[int, tuple[Reason, bool]] = {
    404: (Reason.UNAVAILABLE, True),  # it was deleted, and is made again
    408: (Reason.UNAVAILABLE, True),  # the message did not arrive in time
    429: (Reason.THROTTLED, True),
    503: (Reason.UNAVAILABLE, True),
}
# What the texts of failures mean, as OpenWhisk's controller, invokers and runtimes write them.
_FAILURES: Sequence[tuple[str, Reason, bool, str]] = (
    (r"exceeded its time limits of .* during initialization", Reason.DIED, True, "took too long to start"),
    (r"exceeded its time limits", Reason.TIMEOUT, False, "was stopped by OpenWhisk, over its time"),
    (r"exhausted its memory", Reason.OUT_OF_MEMORY, False, "ran out of memory"),
    (r"did not initialize and exited unexpectedly", Reason.DIED, True, "lost its container as it started"),
    (r"did not produce a valid response and exited|\bcommand exited", Reason.DIED, True, "lost its container"),
    (r"exceeded the allowed length", Reason.REFUSED, False, "had a result that is too large"),
    (
        r"Failed to pull container image",
        Reason.REFUSED,
        False,
        "has an image that OpenWhisk cannot pull: it must be in a registry that OpenWhisk reaches, and may read",
    ),
    (r"overloaded|Failed to provision resources|could not be fetched", Reason.UNAVAILABLE, True, "was not started"),
    (r"could not be found or may have been deleted", Reason.UNAVAILABLE, True, "was deleted before it ran"),
)
_INTERNAL = "whisk internal error"
_NO_ANSWER = "timely response"  # what a controller says that has waited too long for its own parts
_RATE = re.compile(r"requests in the last minute(?:.*allowed: (\d+))?", re.IGNORECASE)
_CONCURRENCY = re.compile(r"concurrent requests(?:.*allowed: (\d+))?", re.IGNORECASE)
_LINES = 8  # of an activation's log in an error
# What lines of logs begin with: the time and the stream; and whose call has printed them.
_STAMP = re.compile(r"\S+\s+(?:stdout|stderr): ?")
_OF_CALL = re.compile(r"\S+-[A-Z]\d+ (?=call \d+: )")


def not_invoked(error: Exception, action: str, service: Service) -> InvocationError:
    """What an error of the service, or of the way to it, means for the message that it hit."""
    text = f"the action {action} was not invoked: {problem(error, service)}"
    if isinstance(error, Refusal):
        unknown = (Reason.DIED, True) if error.status >= 500 else (Reason.REFUSED, False)
        reason, retryable = unknown if _NO_ANSWER in error.said else _STATUSES.get(error.status, unknown)
        if reason == Reason.THROTTLED and _RATE.search(error.said):
            reason = Reason.PACED
        return InvocationError(_told(error, action) or text, reason=reason, retryable=retryable)
    if isinstance(error, SSLError):
        return InvocationError(text, reason=Reason.REFUSED)
    if _was_not_sent(error):
        return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)
    if is_lost(error):
        # It may run, or have run.
        lost = f"the answer of the action {action} was lost: {problem(error, service)}"
        return InvocationError(lost, reason=Reason.DIED, retryable=True)
    return InvocationError(text, reason=Reason.REFUSED)


def is_lost(error: Exception) -> bool:
    """Whether the message may have gone out, and its answer did not come back."""
    if isinstance(error, Refusal):
        return error.status >= 500 and (error.status not in _STATUSES or _NO_ANSWER in error.said)
    lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, lost) and not isinstance(error, SSLError) and not _was_not_sent(error)


def failed(record: Mapping[str, Any], action: str) -> InvocationError:
    """What the failure of an activation means, as its record tells."""
    response = record.get("response") or {}
    result = response.get("result")
    said = shown(result.get("error", "") if isinstance(result, dict) else result or "")
    status = str(response.get("status", ""))
    reason, retryable, text = _judged(said, status)
    text = f"the action {action} {text} ({': '.join(filter(None, (status, said)))})"
    if lines := words(record.get("logs") or ()):
        text = "\n  ".join((f"{text}; the end of its log:", *lines))
    return InvocationError(text, reason=reason, retryable=retryable)


def words(log: Sequence[str]) -> list[str]:
    """The last lines of an activation's log, as they were printed."""
    lines = [_STAMP.sub("", line, count=1) for line in log]
    return [_OF_CALL.sub("", line, count=1) for line in lines if line.strip()][-_LINES:]


def printed(log: Sequence[str]) -> list[str]:
    """The lines of an activation's log without what OpenWhisk writes before each."""
    return [_STAMP.sub("", line, count=1) for line in log]


def _judged(said: str, status: str) -> tuple[Reason, bool, str]:
    for pattern, reason, retryable, text in _FAILURES:
        if re.search(pattern, said):
            return reason, retryable, text
    if status == _INTERNAL:
        return Reason.DIED, True, "was lost by OpenWhisk"
    # What is left is a runtime that cannot start, or a worker's own mistake: another attempt would go the same way.
    return Reason.REFUSED, False, "failed"


def _told(error: Refusal, action: str) -> str | None:
    """Our own words for an answer, where they tell more than its status."""
    if error.status == 413:
        return f"the message for the action {action} is larger than OpenWhisk takes: {error.said}"
    if error.status == 404:
        return f"the action {action} is gone, and is made again: {error.said}"
    if error.status != 429:
        return None
    if found := _RATE.search(error.said):
        allowed = f", {found[1]}," if found[1] else ""
        return (
            f"the namespace has begun as many activations in the last minute as it may{allowed} and must wait for the"
            f" next: its limit is invocationsPerMinute ({error.said})"
        )
    if found := _CONCURRENCY.search(error.said):
        allowed = f", {found[1]}," if found[1] else ""
        return (
            f"the namespace has as many activations at a time as it may{allowed} and fewer are sent: its limit is"
            f" concurrentInvocations ({error.said})"
        )
    return f"OpenWhisk has too much to do: {error.said}"


def _was_not_sent(error: Exception) -> bool:
    if isinstance(error, ConnectTimeout | ProxyError):
        return True
    if isinstance(error, NoAuthorization):
        return passes(error)
    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    return isinstance(error, requests.ConnectionError) and isinstance(reason, NewConnectionError)
