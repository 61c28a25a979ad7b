"""The REST API of OpenWhisk as a configuration reaches it: one namespace, and its errors in our words."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from urllib3.exceptions import InsecureRequestWarning

from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes.http import Client

PACKAGE = "lithops_mini"
"""The package of the namespace that all actions of ours are in."""

Authorize = Callable[[str], str]
"""Returns the header that says who asks. It is given the one that was refused, or nothing, and may return another.

Raises ``NoAuthorization``.
"""

_CONNECT_LIMIT = 10.0  # seconds
_ANSWER_LIMIT = 60.0  # seconds, for what runs nothing
_PAGE, _PAGE_OF_RECORDS = 200, 30  # activations in an answer, and such with all they have
_UNITS = {"B": 0, "K": 10, "M": 20, "G": 30}
_MOST = 1 << 20  # bytes of parameters, and of a result: OpenWhisk's own limit
# Texts of answers are shown as far as this, in characters.
_SHOWN = 300


class Refusal(Exception):
    """An answer that is no success, or none of an OpenWhisk: its HTTP status, and what was said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status
        self.said = said


class NoAuthorization(Exception):
    """Nothing can say who asks, so nothing was asked: why, and whether that may pass."""

    def __init__(self, why: str, *, passes: bool) -> None:
        super().__init__(why)
        self.passes = passes


SERVICE_ERRORS = (requests.RequestException, Refusal, NoAuthorization)


@dataclass(frozen=True)
class Limits:
    """What a namespace may, as far as the service tells; ``None`` where it does not."""

    concurrency: int | None  # activations at once
    per_minute: int | None  # activations begun in a minute
    payload: int  # bytes of the parameters of an activation, with those that are bound
    reply: int  # bytes of its result
    most_time: int | None  # milliseconds of an activation
    least_memory: int | None  # MiB of an action
    most_memory: int | None


class Service:
    """One namespace of an OpenWhisk. May be used from several threads. Its methods raise ``SERVICE_ERRORS``."""

    def __init__(
        self,
        endpoint: str,
        namespace: str,
        authorize: Authorize,
        *,
        section: str,
        key: str,
        place: str,
        verify: bool | str = True,
        connections: int = 1,
    ) -> None:
        """``section``, ``key`` and ``place``: of the configuration, for errors: where the endpoint is set, who one is,
        and which namespace it is.

        ``verify``: whether certificates are checked, or the file of those to trust. ``connections``: how many are kept.
        """
        self.endpoint = endpoint.rstrip("/")
        self.section = section
        self.key = key
        self.place = place
        self._base = f"{self.endpoint}/api/v1/namespaces/{quote(namespace, safe='')}"
        self._authorize = authorize
        self._client = Client(connections, verify)
        if verify is False:  # somebody has said so, and need not be told with each connection
            warnings.simplefilter("ignore", InsecureRequestWarning)

    # -- limits

    def limits(self) -> Limits:
        response = self._answer("GET", "limits")
        told = _object(response)
        complete = {"maxActionTimeout", "maxActionMemory"} <= told.keys()
        general = {} if complete else self.about().get("limits")
        limits = _limits(told, general if isinstance(general, dict) else {})
        if limits == _limits({}, {}):  # no OpenWhisk tells nothing
            raise refusal(response)
        return limits

    def kinds(self) -> set[str]:
        """The kinds of actions that the service has; empty if it does not tell."""
        runtimes = self.about().get("runtimes")
        families = runtimes.values() if isinstance(runtimes, dict) else ()
        return {each["kind"] for family in families for each in family if not each.get("deprecated")}

    def about(self) -> dict[str, Any]:
        """What the service tells everybody of itself; empty if there is something else before it."""
        response = self._request("GET", f"{self.endpoint}/", None, _ANSWER_LIMIT, self._authorize(""))
        told = parsed(response)
        return told if response.ok and isinstance(told, dict) else {}

    # -- actions

    def actions(self) -> list[dict[str, Any]]:
        """The actions of our package, with name, version and annotations."""
        found = self._find(f"packages/{PACKAGE}", "actions")
        return [] if found is None else list(found["actions"])

    def find_action(self, name: str, *, code: bool = False) -> dict[str, Any] | None:
        """An action, with ``code`` also what it is made of; ``None`` if there is none of this name."""
        return self._find(f"actions/{PACKAGE}/{name}?code={'true' if code else 'false'}", "exec" if code else "name")

    def make_action(self, name: str, action: Mapping[str, Any]) -> bool:
        """Make an action, and our package if that is missing; ``False`` if the action is there."""
        self._make(f"packages/{PACKAGE}", {})
        return self._make(f"actions/{PACKAGE}/{name}", action)

    def delete_action(self, name: str) -> None:
        """Delete an action, if it is there."""
        self._answer("DELETE", f"actions/{PACKAGE}/{name}", also=(404,))

    def has_package(self) -> bool:
        return self._find(f"packages/{PACKAGE}", "name") is not None

    def delete_package(self) -> None:
        """Delete our package, unless it has actions."""
        self._answer("DELETE", f"packages/{PACKAGE}", also=(404, 409))

    # -- activations

    def invoke(self, action: str, params: Mapping[str, Any], limit: float, *, blocking: bool = True) -> dict[str, Any]:
        """The record of the activation, which may have failed; without its ``response`` while it still runs.

        ``limit``: seconds until it has certainly ended. ``blocking``: whether to wait for that, while OpenWhisk does.
        """
        how = "blocking=true&result=false" if blocking else "blocking=false"
        response = self._send("POST", f"actions/{PACKAGE}/{action}?{how}", params, limit)
        told = parsed(response)
        if response.status_code in (200, 202, 500, 502) and isinstance(told, dict) and "activationId" in told:
            return told
        raise refusal(response)

    def activation(self, activation: str) -> dict[str, Any] | None:
        """The record of an activation; ``None`` as long as there is none."""
        return self._find(f"activations/{activation}", "response")

    def activations(self, action: str, since: float, *, docs: bool) -> Iterator[dict[str, Any]]:
        """Yield the activations of an action that have ended, the newest first.

        ``since``: seconds since the epoch; ``docs``: the whole records, and not only id, times and status.
        """
        skip, limit = 0, _PAGE_OF_RECORDS if docs else _PAGE
        while True:
            which = f"name={quote(f'{PACKAGE}/{action}', safe='')}&since={int(since * 1000)}"
            which += f"&docs={'true' if docs else 'false'}&limit={limit}&skip={skip}"
            response = self._answer("GET", f"activations?{which}")
            page = parsed(response)
            if not isinstance(page, list):
                raise refusal(response)
            yield from page
            skip += len(page)
            if len(page) < limit:
                return

    def end(self) -> None:
        """Break off what is under way. The service is not used afterwards."""
        self._client.end()

    # -- requests

    def _find(self, path: str, key: str) -> dict[str, Any] | None:
        """What is there, which has this key; ``None`` if there is nothing."""
        response = self._answer("GET", path, also=(404,))
        return None if response.status_code == 404 else _object(response, key)

    def _make(self, path: str, body: Mapping[str, Any]) -> bool:
        return self._answer("PUT", f"{path}?overwrite=false", body, also=(409,)).status_code != 409

    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, also: tuple[int, ...] = ()
    ) -> requests.Response:
        """The answer, if it is a success, or has one of these statuses too."""
        response = self._send(method, path, body, _ANSWER_LIMIT)
        if response.status_code == 200 or response.status_code in also:
            return response
        raise refusal(response)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, limit: float) -> requests.Response:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        url, authorization = f"{self._base}/{path}", self._authorize("")
        response = self._request(method, url, data, limit, authorization)
        if response.status_code == 401 and (other := self._authorize(authorization)) != authorization:
            response = self._request(method, url, data, limit, other)
        return response

    def _request(
        self, method: str, url: str, data: bytes | None, limit: float, authorization: str
    ) -> requests.Response:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        with self._client.send(method, url, headers, data, (_CONNECT_LIMIT, limit)) as response:
            _ = response.content  # all of it, or an error
        return response


def _limits(told: Mapping[str, Any], general: Mapping[str, Any]) -> Limits:
    """``told`` of the namespace; ``general``: what the service tells of all of them."""

    def first(name: str, other: str, per: int = 1) -> int | None:
        if isinstance(own := told.get(name), int):
            return own
        return theirs // per if isinstance(theirs := general.get(other), int) else None

    both = told.get("maxPayloadSize")
    payload = _bytes(told.get("maxParameterSize") if both is None else both)
    return Limits(
        concurrency=first("concurrentInvocations", "concurrent_actions"),
        per_minute=first("invocationsPerMinute", "actions_per_minute"),
        payload=payload,
        reply=payload if both is not None else min(payload, _MOST),
        most_time=first("maxActionTimeout", "max_action_duration"),
        least_memory=first("minActionMemory", "min_action_memory", 1 << 20),
        most_memory=first("maxActionMemory", "max_action_memory", 1 << 20),
    )


def _bytes(size: object) -> int:
    """The bytes of a size as OpenWhisk writes it: ``"1 MB"``; of anything else those that are usual."""
    found = re.fullmatch(r"\s*(\d+)\s*([BKMG])?B?\s*", str(size), re.IGNORECASE)
    if found is None:
        return _MOST
    return int(found[1]) << _UNITS[(found[2] or "B").upper()]


def parsed(response: requests.Response) -> Any:
    """The JSON of an answer; ``None`` if it is none."""
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def _object(response: requests.Response, key: str | None = None) -> dict[str, Any]:
    """The object of an answer, with this key. ``Refusal`` if it is something else."""
    told = parsed(response)
    if not isinstance(told, dict) or (key is not None and key not in told):
        raise refusal(response)
    return told


def refusal(response: requests.Response) -> Refusal:
    """What an answer means that is not what was asked for."""
    told = parsed(response)
    said = told.get("error") if isinstance(told, dict) else None
    if said is None and response.is_redirect:
        said = f"it has moved to {response.headers.get('Location')}"
    return Refusal(response.status_code, shown(said or response.text or response.reason))


def shown(said: object) -> str:
    """What a service said, on one line and not endless."""
    text = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


# ---------------------------------------------------------------- errors


@contextmanager
def translated(service: Service, action: str) -> Iterator[None]:
    """Errors in the ``with`` block become ours: ``InvocationError`` for what passes, else ``ConfigError``."""
    try:
        yield
    except SERVICE_ERRORS as error:
        text = f"cannot {action}: {problem(error, service)}"
        if passes(error):
            raise InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True) from error
        raise ConfigError(text) from error


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, Refusal):
        return error.status in (408, 429) or error.status >= 500
    if isinstance(error, NoAuthorization):
        return error.passes
    lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, lost) and not isinstance(error, requests.exceptions.SSLError)


def problem(error: Exception, service: Service) -> str:
    """What is wrong, in a sentence, with the way out where there is one."""
    section = service.section
    if isinstance(error, Refusal):
        hint = {
            200: f"what answers at {service.endpoint} is no OpenWhisk: check {section}.endpoint",
            401: f"{service.endpoint} does not accept the key: check {service.key}",
            403: f"the key is not for this: check {service.place}, and {service.key}",
            404: f"{service.endpoint} has no such thing: check {section}.endpoint and {service.place}",
        }.get(error.status)
        return f"{hint} ({error.said})" if hint else f"it was answered with {error.status}, {error.said}"
    return unreached(error, service.endpoint, f"{section}.endpoint")


def unreached(error: Exception, endpoint: str, setting: str) -> str:
    """What is wrong with the way to an endpoint. ``setting``: of the configuration, which says where that is."""
    if isinstance(error, requests.exceptions.SSLError):
        return _untrusted(str(error), endpoint, setting)
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return f"{endpoint} does not answer ({_reason(error)}); {setting} says where it is"
    return " ".join(str(error).split())


def _untrusted(said: str, endpoint: str, setting: str) -> str:
    found = re.search(r"\[SSL(?:: (\w+))?\] (.*?) \(_ssl", said)
    why = found[2] if found else " ".join(said.split())
    if found is None or found[1] != "CERTIFICATE_VERIFY_FAILED":
        return f"{endpoint} does not speak TLS as it should ({why}): check {setting}"
    section = setting.partition(".")[0]
    return (
        f"the certificate of {endpoint} is not trusted ({why}): set {section}.ca_bundle to the file of the certificate"
        f" that signed it, or, if nobody else can be there, {section}.insecure to true"
    )


def _reason(error: Exception) -> str:
    """The innermost of what urllib3 and requests wrap, without the addresses of objects."""
    inner: BaseException | None = error
    while inner is not None:
        text = str(inner)
        wrapped = (getattr(inner, "reason", None), *reversed(inner.args))
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
    text = re.sub(r"<[^>]*>:? ?|\w*Connection\w*\([^)]*\):? ?", "", text)
    return " ".join(text.split()) or type(error).__name__
