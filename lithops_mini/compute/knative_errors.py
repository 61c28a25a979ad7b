"""What Knative, its proxies and the way to them say when a message could not be carried, in our words."""

from __future__ import annotations

import json
import re
from typing import Any

import requests
from requests.exceptions import ConnectTimeout, InvalidURL, MissingSchema, ProxyError, SSLError
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError, NewConnectionError

from lithops_mini.errors import InvocationError, Reason

HTTP_ERRORS = (requests.RequestException, HTTPError, OSError)
"""What sending a request, or reading its answer, raises."""

# Statuses of answers that no worker of ours has given, and whether the same message can be sent again. From 500 on
# nobody knows whether the calls run, unless Knative says so, and what is sent next must be another attempt.
_STATUSES: dict[int, tuple[Reason, bool, str]] = {
    404: (Reason.UNAVAILABLE, True, "there is no way to it yet, or it was deleted"),
    408: (Reason.UNAVAILABLE, True, "the message did not arrive in time"),
    413: (Reason.REFUSED, False, "the message is larger than what is before the cluster lets through"),
    429: (Reason.THROTTLED, True, "it has too much to do"),
    503: (Reason.UNAVAILABLE, True, "no pod takes messages now"),
    502: (Reason.DIED, True, "its container was lost"),
    504: (Reason.TIMEOUT, True, "its time was over before it answered"),
}
# Of an answer with 503: there are pods, and they have as much to do as they may.
_BUSY = re.compile(r"overload|queue full|too many|capacity", re.IGNORECASE)
_SHOWN = 300  # characters of what was said


def told(response: requests.Response) -> dict[str, Any] | None:
    """What a worker of ours says that has no reply; ``None`` if it is somebody else who answers."""
    try:
        found = json.loads(response.content)
        return found if {"text", "reason", "retryable"} <= found.keys() else None
    except (ValueError, AttributeError):
        return None


def ours(body: bytes | bytearray) -> InvocationError:
    """The error that a worker has told of, as JSON."""
    said = json.loads(body)
    return InvocationError(said["text"], reason=Reason(said["reason"]), retryable=said["retryable"])


def refused(response: requests.Response, service: str, took: float, limit: float) -> InvocationError:
    """What an answer without a reply means. ``took``: the seconds it took, of those it may take: ``limit``."""
    status = response.status_code
    worker = told(response)
    if worker is not None and status == 422:
        return ours(response.content)
    if worker is not None and status == 403:  # its secret was made again: so is what is known here
        text = f"the service {service}: {worker['text']}"
        return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)
    said = _said(response)
    unknown = (Reason.DIED, True, "its answer was lost") if status >= 500 else (Reason.REFUSED, False, "it refuses")
    reason, retryable, why = _STATUSES.get(status, unknown)
    if status == 503 and _BUSY.search(said):
        reason, why = Reason.THROTTLED, "its pods have as much to do as they may"
    if status == 504 and took < limit - 1:
        why = f"something on the way gave up after {took:.0f} s, and the service may take {limit:.0f}: raise its limit"
    if status < 300:
        why = "who answered is no worker: check knative.ingress"
    elif status < 400:
        where = response.headers.get("Location")
        why = f"it is elsewhere ({where}): let knative.ingress begin as that does, or leave it out"
    elif status in (401, 403):
        why = "something before it wants to know who asks, and the worker checks that itself: let its messages through"
    return InvocationError(
        f"the service {service} gave no reply: {why} ({status}{said and f', {said}'})",
        reason=reason,
        retryable=retryable,
    )


def not_carried(error: Exception, service: str, url: str) -> InvocationError:
    """What an error on the way means for the message that it hit."""
    text = f"the service {service} was not reached at {url}: {_problem(error)}"
    if isinstance(error, SSLError):
        hint = "set knative.ca_bundle to the file of the certificate that signed the service's"
        return InvocationError(f"{text}; {hint}", reason=Reason.REFUSED)
    if isinstance(error, MissingSchema | InvalidURL):
        return InvocationError(text, reason=Reason.REFUSED)
    if _was_not_sent(error):
        hint = "; knative.ingress says by which address it is reached from here" if _is_unknown(error) else ""
        return InvocationError(f"{text}{hint}", reason=Reason.UNAVAILABLE, retryable=True)
    # It may run, or have run.
    lost = f"the connection to the service {service} was lost: {_problem(error)}"
    return InvocationError(lost, reason=Reason.DIED, retryable=True)


def _said(response: requests.Response) -> str:
    text = " ".join(re.sub(r"<[^>]*>", " ", response.text).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _was_not_sent(error: Exception) -> bool:
    if isinstance(error, ConnectTimeout | ProxyError):
        return True
    return isinstance(error, requests.ConnectionError) and isinstance(_inner(error), NewConnectionError)


def _is_unknown(error: Exception) -> bool:
    return isinstance(_inner(error), NameResolutionError)


def _inner(error: Exception) -> Any:
    inner = error.args[0] if error.args else None
    return inner.reason if isinstance(inner, MaxRetryError) else inner


def _problem(error: Exception) -> str:
    """The innermost of what urllib3 and requests wrap, without the addresses of objects."""
    inner = _inner(error) or error
    text = re.sub(r"<[^>]*>:? ?|\w*Connection\w*\([^)]*\):? ?", "", str(inner))
    return " ".join(text.split()) or type(error).__name__
