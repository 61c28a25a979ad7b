"""A request to the API server, taken apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import yaml

from lithops_mini.emulators.front import Request
from lithops_mini.emulators.knative import selectors, status
from lithops_mini.emulators.knative.access import Need
from lithops_mini.emulators.knative.kinds import BY_PLACE, NAMESPACE, Kind, Object
from lithops_mini.emulators.knative.selectors import Selector
from lithops_mini.emulators.knative.settings import REQUEST_LIMIT

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_ONE = ("get", "update", "patch", "delete")
_OF_ALL = ("get", "create", "delete")
_BELOW = {"log": ("get",), "status": ("get", "update", "patch"), "token": ("create",)}
_COLLECTIVE = {"get": "list", "delete": "deletecollection"}


@dataclass(frozen=True)
class Asked:
    """What is asked for: an object, or with an empty name those of a namespace, or with none those of all."""

    request: Request
    query: dict[str, str]
    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def verb(self) -> str:
        verb = _VERBS.get(self.request.method)
        permitted = _BELOW.get(self.subresource) or (_OF_ONE if self.name else _OF_ALL)
        if verb is None or verb not in permitted:
            raise status.no_method()
        if not self.name:
            verb = _COLLECTIVE.get(verb, verb)
        return "watch" if verb == "list" and self.flag("watch") else verb

    @property
    def need(self) -> Need:
        return Need(self.verb, self.kind, self.namespace, self.name, self.subresource)

    @property
    def content_type(self) -> str:
        return content_type(self.request)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1")

    def number(self, name: str) -> int | None:
        """``None`` if it is not given. ``Refused`` if it is none."""
        text = self.query.get(name)
        if not text:
            return None
        if not text.isdecimal():
            raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text)

    def select(self) -> Selector:
        """What the query selects."""
        by_label = selectors.labels(self.query.get("labelSelector", ""))
        by_field = selectors.fields(self.query.get("fieldSelector", ""))
        return lambda found: (
            (not self.name or found["metadata"]["name"] == self.name) and (by_label(found) and by_field(found))
        )

    def body(self) -> Any:
        """What was sent. ``Refused`` if it cannot be read."""
        return decoded(self.request)

    def object(self) -> Object:
        """An object that was sent. ``Refused`` if it is not the path's."""
        return self.checked(decoded_object(self.request))

    def checked(self, found: Object) -> Object:
        """The object, if it is of the kind, the namespace and the name that the path says. ``Refused``."""
        kind, version = found.get("kind", self.kind.name), found.get("apiVersion", self.kind.api_version)
        if (kind, version) != (self.kind.name, self.kind.api_version):
            text = f"the API version in the data ({version}, Kind={kind}) does not match the expected API version"
            raise status.bad_request(f"{text} ({self.kind.api_version}, Kind={self.kind.name})")
        metadata = found["metadata"] = found.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise status.bad_request("metadata is no object")
        if self.kind.namespaced and metadata.setdefault("namespace", self.namespace) != self.namespace:
            text = "the namespace of the provided object does not match the namespace sent on the request"
            raise status.bad_request(text)
        if self.name and metadata.setdefault("name", self.name) != self.name:
            text = f"the name of the object ({metadata['name']}) does not match the name on the URL ({self.name})"
            raise status.bad_request(text)
        return found


def content_type(request: Request) -> str:
    """Without its parameters; empty if none is given."""
    return str(request.headers.get("Content-Type") or "").partition(";")[0].strip()


def decoded_object(request: Request) -> Object:
    """The same, for what must be an object."""
    found = decoded(request)
    if not isinstance(found, dict):
        raise status.bad_request("the body of the request is no object")
    return found


def decoded(request: Request) -> Any:
    """The JSON or YAML of a body; ``{}`` for none. ``Refused`` if it is neither."""
    given = content_type(request)
    if given.endswith(("protobuf", "cbor")):
        raise status.unsupported(given, ["application/json", "application/yaml"])
    try:
        if given.endswith("yaml"):
            return yaml.safe_load(request.body) or {}
        return json.loads(request.body or b"{}")
    except (ValueError, yaml.YAMLError) as error:
        raise status.bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def asked(request: Request) -> Asked:
    """What a request is about. ``Refused`` if there is no such thing."""
    if len(request.body) > REQUEST_LIMIT:
        raise status.too_large(REQUEST_LIMIT)
    parts = request.parts
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise status.no_path()
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = BY_PLACE.get((group, version, rest[0] if rest else ""))
    name, subresource = [*rest[1:], "", ""][:2]
    if kind is None or len(rest) > 3 or (subresource and subresource not in kind.subresources):
        raise status.no_path()
    if kind.namespaced != bool(namespace) and (kind is NAMESPACE or name):
        raise status.no_path()
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    return Asked(request, query, kind, namespace, name, subresource)
