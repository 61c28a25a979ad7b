"""What becomes of an object before it is stored: names and fields checked, defaults filled in, refused if need be."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from lithops_mini.emulators.knative import kinds, schemas, status
from lithops_mini.emulators.knative.kinds import Kind, Object
from lithops_mini.emulators.knative.quantities import quantity, seconds
from lithops_mini.emulators.knative.status import Cause, Refused

SCALE = "autoscaling.knative.dev"
PROGRESS = "serving.knative.dev/progress-deadline"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NOT_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_NOT_LABEL = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SECRET_LIMIT = 1 << 20
_MOST_SECONDS = 600  # of a call
_MOST_CONCURRENCY = 1000


def admit(kind: Kind, given: Object, before: Object | None) -> list[str]:
    """Check an object that is made or changed, and fill in defaults. Returns the fields that it had and no schema has.

    ``before``: as it is stored; ``None`` if it is new. ``Refused``.
    """
    unknown = check_fields(kind, given)
    if before is None:
        name = given["metadata"].get("name") or given["metadata"].get("generateName", "").removesuffix("-")
        _check_name(kind, name)
    if kind is kinds.SECRET:
        _admit_secret(given, before)
    if kind is kinds.SERVICE:
        fill_in(given)
        _check_service(given, before)
    return unknown


def check_fields(kind: Kind, given: Object) -> list[str]:
    """Hold an object to the schema of its kind. Returns the fields that it had and the schema has not. ``Refused``."""
    _drop_nulls(given["metadata"] if kind.custom else given)
    unknown = schemas.prune(kind, given)
    causes = schemas.check(kind, given)
    for cause in causes:
        # What is not custom, and the metadata of all, is read into structures before anything is checked.
        if cause.reason == "FieldValueTypeInvalid" and (not kind.custom or cause.field.startswith("metadata")):
            what = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'
            raise status.bad_request(f"{what}: {cause.text.partition(': ')[2]}")
    if causes:
        raise status.invalid(kind, str(given["metadata"].get("name", "")), causes)
    return unknown


def fill_in(service: Object) -> None:
    """What Knative adds to a Service that does not say it."""
    spec = service.setdefault("spec", {})
    spec.setdefault("traffic", [{"latestRevision": True, "percent": 100}])
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    revision = template.setdefault("spec", {})
    revision.setdefault("containerConcurrency", 0)
    revision.setdefault("timeoutSeconds", 300)
    revision.setdefault("enableServiceLinks", False)
    for container in revision.get("containers", ()):
        container.setdefault("name", "user-container")
        container.setdefault("resources", {})
        probe = container.setdefault("readinessProbe", {})
        probe.setdefault("successThreshold", 1)
        if not {"httpGet", "tcpSocket", "exec", "grpc"} & set(probe):
            probe["tcpSocket"] = {"port": 0}


def _check_name(kind: Kind, name: str) -> None:
    if not name:
        raise status.invalid(
            kind, "", [Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")]
        )
    if kind.group == kinds.RBAC:
        return
    if len(name) > 253 or not re.fullmatch(_SUBDOMAIN, name):
        text = "must be no more than 253 characters" if len(name) > 253 else _NOT_SUBDOMAIN
        raise status.invalid(kind, name, [Cause("metadata.name", f'Invalid value: "{name}": {text}')])


def _drop_nulls(found: Any) -> None:
    """A null is a field that is not there, for kinds that are not custom ones."""
    for each in found.values() if isinstance(found, dict) else found:
        if isinstance(each, (dict, list)):
            _drop_nulls(each)
    if isinstance(found, dict):
        for name in [name for name, value in found.items() if value is None]:
            del found[name]


def _admit_secret(given: Object, before: Object | None) -> None:
    name = given["metadata"].get("name", "")
    data = given.setdefault("data", {})
    for key, text in given.pop("stringData", {}).items():
        data[key] = base64.b64encode(text.encode()).decode()
    given.setdefault("type", "Opaque")
    size = 0
    for key, value in data.items():
        try:
            size += len(base64.b64decode(value, validate=True))
        except binascii.Error as error:
            text = "illegal base64 data at input byte 0"
            raise status.bad_request(f'Secret in version "v1" cannot be handled as a Secret: {text}') from error
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key):
            text = (
                f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or"
                " '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            )
            raise status.invalid(kinds.SECRET, name, [Cause(f"data[{key}]", text)])
    if size > _SECRET_LIMIT:
        text = f"Too long: may not be more than {_SECRET_LIMIT} bytes"
        raise status.invalid(kinds.SECRET, name, [Cause("data", text, "FieldValueTooLong")])
    if before is None:
        return
    fixed = ["type", *(("data", "immutable") if before.get("immutable") else ())]
    for field in fixed:
        if given.get(field) != before.get(field):
            text = "field is immutable when `immutable` is set" if before.get("immutable") else "field is immutable"
            shown = f'Invalid value: "{given.get(field)}": ' if field == "type" else "Forbidden: "
            raise status.invalid(kinds.SECRET, name, [Cause(field, f"{shown}{text}")])


def _check_service(service: Object, before: Object | None) -> None:
    """What Knative's webhook refuses. ``Refused`` with all of it."""
    problems = [*_problems(service), *(_changed_signatures(service, before) if before else ())]
    if problems:
        webhook = "validation.webhook.serving.knative.dev"
        text = "\n".join(problems)
        raise _denied(f'admission webhook "{webhook}" denied the request: validation failed: {text}')


def _denied(text: str) -> Refused:
    return Refused(400, "BadRequest", text)


def _problems(service: Object) -> Iterator[str]:
    name = str(service["metadata"].get("name") or "")
    if name and (len(name) > 63 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)):
        text = "must be no more than 63 characters" if len(name) > 63 else _NOT_LABEL
        yield f"not a DNS 1035 label: [{text}]: metadata.name"
    template = service["spec"]["template"]
    revision, at = template["spec"], "spec.template.spec"
    for field, least, most in (
        ("timeoutSeconds", 1, _MOST_SECONDS),
        ("containerConcurrency", 0, _MOST_CONCURRENCY),
    ):
        if not least <= revision[field] <= most:
            yield f"expected {least} <= {revision[field]} <= {most}: {at}.{field}"
    containers = revision.get("containers", ())
    if not containers:
        yield f"missing field(s): {at}.containers"
    if len(containers) > 1:
        yield f"the emulator runs one container in a pod: {at}.containers"
    for number, container in enumerate(containers):
        yield from _container_problems(container, f"{at}.containers[{number}]")
    yield from _annotation_problems(template["metadata"].get("annotations") or {})
    own = template["metadata"].get("name")
    if own and not own.startswith(f"{name}-"):
        yield f'invalid value: "{own}" must have prefix "{name}-": spec.template.metadata.name'
    if any(each.get("percent", 100) != 100 or not each.get("latestRevision") for each in service["spec"]["traffic"]):
        yield "the emulator sends all calls to the latest revision that is ready: spec.traffic"


def _changed_signatures(service: Object, before: Object) -> Iterator[str]:
    """Who has made it stays, and who has changed it last stays if it is not changed."""
    names = ["creator", *(() if service["spec"] != before["spec"] else ("lastModifier",))]
    for name in (f"{kinds.SERVING}/{each}" for each in names):
        old, new = ((each["metadata"].get("annotations") or {}).get(name, "") for each in (before, service))
        if old != new:
            text = "annotation value is immutable" if name.endswith("creator") else f"invalid value: {new}"
            yield f"{text}: metadata.annotations.{name}"


def _container_problems(container: Object, at: str) -> Iterator[str]:
    if not container.get("image"):
        yield f"missing field(s): {at}.image"
    for variable in container.get("env", ()):
        if variable["name"] in ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"):
            yield f'"{variable["name"]}" is a reserved environment variable: {at}.env'
    resources = container["resources"]
    for name, limit in (resources.get("limits") or {}).items():
        request = (resources.get("requests") or {}).get(name)
        if request is not None and quantity(request) > quantity(limit):
            yield f"invalid value: {request}: must be less than or equal to {name} limit: {at}.resources.requests"
    if len(container.get("ports", ())) > 1:
        yield f"more than one container port is set: {at}.ports"


def _annotation_problems(annotations: Object) -> Iterator[str]:
    at = "spec.template.metadata.annotations"
    counts = {}
    for name in ("min-scale", "minScale", "max-scale", "maxScale", "initial-scale", "target"):
        value = annotations.get(f"{SCALE}/{name}")
        if value is None:
            continue
        if not re.fullmatch(r"\d{1,9}", value):
            yield f"invalid value: {value}: {at}[{SCALE}/{name}]"
        else:
            counts[name.lower().replace("-", "")] = int(value)
    if 0 < counts.get("maxscale", 0) < counts.get("minscale", 0):
        yield f"max-scale={counts['maxscale']} is less than min-scale={counts['minscale']}: {at}"
    if (deadline := annotations.get(PROGRESS)) is not None:
        try:
            seconds(deadline)
        except ValueError:
            yield f"invalid value: {deadline}: {at}[{PROGRESS}]"
