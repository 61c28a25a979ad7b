"""What requests that make and change packages and actions may say."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from lithops_mini.emulators.front import compact
from lithops_mini.emulators.openwhisk.entities import BLACKBOX, KIND, Action, ActionLimits, Exec, Package, Parameter
from lithops_mini.emulators.openwhisk.refusals import Refused, malformed, too_large
from lithops_mini.emulators.openwhisk.settings import CODE_LIMIT, PAYLOAD_LIMIT, Limits

_KINDS = {KIND: KIND, "python:default": KIND, BLACKBOX: BLACKBOX}
_NAME = re.compile(r"\w|\w[\w@ .&-]{0,254}[\w@.&-]", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def check_name(name: str) -> str:
    """The name of a namespace, package or action, if it can be one. ``Refused`` otherwise."""
    if len(name) > 256:
        raise Refused(400, f"Name segement longer than allowed: {len(name)} > 256.")
    if not _NAME.fullmatch(name):
        raise Refused(400, "The name of the entity contains illegal characters.")
    return name


def new_package(namespace: str, name: str, body: Mapping[str, Any], old: Package | None) -> Package:
    """The package that a request makes, or makes of ``old``. ``Refused`` for what cannot be one."""
    if body.get("binding"):
        raise Refused(400, "The emulator has no package bindings.")
    given, kept = _given(body), old
    return Package(
        namespace,
        name,
        given.get("parameters", kept.parameters if kept else {}),
        given.get("annotations", kept.annotations if kept else {}),
        given.get("version", _next(kept.version) if kept else "0.0.1"),
        given.get("publish", kept.publish if kept else False),
    )


def new_action(namespace: str, name: str, body: Mapping[str, Any], old: Action | None, limits: Limits) -> Action:
    """The action that a request makes, or makes of ``old``. ``Refused`` for what cannot be one."""
    given = _given(body)
    given_exec = body.get("exec")
    code = None if given_exec is None else _exec(given_exec)
    if code is None and old is None:
        raise Refused(400, "exec undefined")
    chosen = code or (old.exec if old else Exec(KIND))
    annotations = dict(old.annotations if old else {"provide-api-key": False})
    for unwanted in body.get("delAnnotations") or ():
        annotations.pop(unwanted, None)
    return Action(
        namespace,
        name,
        chosen,
        _limits(body.get("limits") or {}, old.limits if old else ActionLimits(), limits),
        given.get("parameters", old.parameters if old else {}),
        {**annotations, **given.get("annotations", {}), "exec": chosen.kind},
        given.get("version", _next(old.version) if old else "0.0.1"),
        given.get("publish", old.publish if old else False),
    )


def check_sizes(body: Any) -> None:
    """``Refused`` if a body of a PUT is no object, or something in it is too large."""
    if not isinstance(body, dict):
        raise malformed("Object expected")
    code = body.get("exec")
    if isinstance(code, dict) and isinstance(code.get("code"), str):
        size = len(code["code"].encode()) + len(str(code.get("main", "")).encode())
        if size > CODE_LIMIT:
            raise too_large("exec", size, CODE_LIMIT)
    for name in ("parameters", "annotations"):
        size = sum(_size(each) for each in body.get(name) or () if isinstance(each, dict))
        if size > PAYLOAD_LIMIT:
            raise too_large(name, size, PAYLOAD_LIMIT)


def _size(pair: Mapping[str, Any]) -> int:
    return len(str(pair.get("key")).encode()) + len(compact(pair.get("value")))


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields that packages and actions have alike, as far as they are there."""
    found: dict[str, Any] = {}
    if body.get("parameters") is not None:
        found["parameters"] = _pairs(body["parameters"])
    if body.get("annotations") is not None:
        found["annotations"] = {name: each.value for name, each in _pairs(body["annotations"]).items()}
    if body.get("version") is not None:
        if not (isinstance(body["version"], str) and _VERSION.fullmatch(body["version"])):
            raise malformed("semantic version malformed")
        found["version"] = body["version"]
    if body.get("publish") is not None:
        if not isinstance(body["publish"], bool):
            raise malformed("Expected JsBoolean, but got " + repr(body["publish"]))
        found["publish"] = body["publish"]
    return found


def _pairs(given: Any) -> dict[str, Parameter]:
    if not isinstance(given, list) or not all(
        isinstance(each, dict) and isinstance(each.get("key"), str) and "value" in each for each in given
    ):
        raise malformed("parameters malformed!")
    return {each["key"]: Parameter(each["value"], each.get("init") is True) for each in given}


def _exec(given: Any) -> Exec:
    kind = given.get("kind") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        raise malformed("'kind' must be a string defined in 'exec'")
    kind = kind.strip().lower()
    if kind not in _KINDS:
        known = "', '".join((KIND, BLACKBOX))
        raise malformed(
            f"The specified runtime '{kind}' is not supported by this platform. Valid values are: '{known}'."
        )
    for name in ("code", "image", "main"):
        if name in given and not isinstance(given[name], str):
            raise malformed(f"'{name}' must be a string in 'exec' for '{kind}' actions")
    needed = "image" if kind == BLACKBOX else "code"
    if needed not in given:
        raise malformed(f"'{needed}' must be a string defined in 'exec' for '{kind}' actions")
    code = given.get("code", "")
    return Exec(_KINDS[kind], code, _is_base64(code), given.get("image", ""), given.get("main", ""))


def _is_base64(code: str) -> bool:
    try:
        return bool(binascii.a2b_base64(code.strip(), strict_mode=True))
    except ValueError:
        return False


def _limits(given: Any, kept: ActionLimits, allowed: Limits) -> ActionLimits:
    if not isinstance(given, dict) or not all(
        isinstance(value, int) and not isinstance(value, bool) for value in given.values()
    ):
        raise malformed("limit must be whole number")
    known = {name: given[name] for name in vars(kept) if name in given}
    found = ActionLimits(**{**vars(kept), **known})
    _check("memory", "size", found.memory, "MB", allowed.min_memory, allowed.max_memory)
    _check("duration", "", found.timeout, "milliseconds", allowed.min_timeout, allowed.max_timeout)
    _check("log", "size", found.logs, "MB", 0, allowed.max_logs)
    _check("concurrency", "", found.concurrency, "", 1, 1)
    return found


def _check(name: str, word: str, value: int, unit: str, least: int, most: int) -> None:
    what = " ".join(filter(None, (name, word, str(value), unit)))
    if value > most:
        raise Refused(400, " ".join(filter(None, (f"{what} exceeds allowed threshold of {most}", unit))))
    if value < least:
        raise Refused(400, " ".join(filter(None, (f"{what} below allowed threshold of {least}", unit))))


def _next(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"
