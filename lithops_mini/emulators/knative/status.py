"""What an API server says when it refuses: a ``Status``, in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.knative.kinds import Kind


@dataclass(frozen=True)
class Cause:
    """What is wrong with a field."""

    field: str
    text: str
    reason: str = "FieldValueInvalid"


class Refused(Exception):
    """A request that is answered with a ``Status``."""

    def __init__(self, code: int, reason: str, text: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.text = text
        self.details = details

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body |= {"message": self.text, "reason": self.reason}
        if self.details is not None:
            body["details"] = self.details
        return {**body, "code": self.code}

    def response(self) -> Response:
        wait = (self.details or {}).get("retryAfterSeconds")
        return json_response(self.code, self.status(), (("Retry-After", str(wait)),) if wait else ())


def success(kind: Kind, name: str, uid: str) -> dict[str, Any]:
    """What is answered when an object is gone."""
    details = {"name": name, **_group(kind), "kind": kind.plural, "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def no_path() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def no_method() -> Refused:
    return Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def bad_request(text: str) -> Refused:
    return Refused(400, "BadRequest", text)


def unauthorized() -> Refused:
    return Refused(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, kind: Kind, subresource: str, namespace: str, name: str) -> Refused:
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    quoted = f' "{name}"' if name else ""
    text = f'{kind.resource}{quoted} is forbidden: User "{user}" cannot {verb} resource "{resource}"'
    text += f' in API group "{kind.group}" {where}'
    return Refused(403, "Forbidden", text, _details(kind, name))


def forbidden_because(kind: Kind, name: str, why: str) -> Refused:
    return Refused(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', _details(kind, name))


def not_found(kind: Kind, name: str) -> Refused:
    return Refused(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def exists(kind: Kind, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> Refused:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    text = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Refused(409, "Conflict", text, _details(kind, name))


def expired(version: int, oldest: int) -> Refused:
    return Refused(410, "Expired", f"too old resource version: {version} ({oldest})")


def too_large(limit: int) -> Refused:
    return Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}", {})


def unsupported(given: str, known: Sequence[str]) -> Refused:
    text = f"the body of the request was in an unknown format - accepted media types include: {', '.join(known)}"
    return Refused(415, "UnsupportedMediaType", text if given else "a Content-Type is needed")


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Refused:
    """``causes``: one at least."""
    texts = [f"{each.field}: {each.text}" for each in causes]
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(kind, name, named=kind.name)
    details["causes"] = [{"reason": each.reason, "message": each.text, "field": each.field} for each in causes]
    return Refused(422, "Invalid", f'{kind.full_name} "{name}" is invalid: {shown}', details)


def too_many_requests(seconds: int) -> Refused:
    text = "the server has received too many requests and has asked us to try again later"
    return Refused(429, "TooManyRequests", text, {"retryAfterSeconds": seconds})


def _details(kind: Kind, name: str, named: str = "") -> dict[str, Any]:
    return {**({"name": name} if name else {}), **_group(kind), "kind": named or kind.plural}


def _group(kind: Kind) -> dict[str, str]:
    return {"group": kind.group} if kind.group else {}
