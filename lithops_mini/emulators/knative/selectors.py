"""Which objects are meant: label selectors and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.status import bad_request

Selector = Callable[[Object], bool]

_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")
_EQUAL = re.compile(r"([^\s!=]+)\s*(==|=|!=)\s*(\S*)")
_HAS = re.compile(r"(!?)\s*([^\s!=()]+)")


def labels(text: str) -> Selector:
    """A selector as in ``a=b,c!=d,e in (f,g),h,!i``; an empty one takes all. ``Refused`` for another text."""
    wanted = [_requirement(each.strip()) for each in re.split(r",(?![^(]*\))", text) if each.strip()]
    return lambda found: all(each(found.get("metadata", {}).get("labels") or {}) for each in wanted)


def fields(text: str) -> Selector:
    """A selector as in ``metadata.name=a,status.phase!=b``; an empty one takes all. ``Refused`` for another text."""
    wanted = []
    for each in filter(None, text.split(",")):
        match = _EQUAL.fullmatch(each.strip())
        if match is None:
            raise bad_request(f"unable to parse field selector: invalid selector: {each!r}")
        wanted.append(match.groups())
    return lambda found: all((_field(found, path) == value) == (how != "!=") for path, how, value in wanted)


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.fullmatch(text):
        name, how, values = match.groups()
        given = {each.strip() for each in values.split(",")}
        return lambda found: (found.get(name) in given) == (how == "in")
    if match := _EQUAL.fullmatch(text):
        name, how, value = match.groups()
        return lambda found: (found.get(name) == value) == (how != "!=")
    if match := _HAS.fullmatch(text):
        no, name = match.groups()
        return lambda found: (name in found) != bool(no)
    raise bad_request(f"unable to parse requirement: {text!r}")


def _field(found: Any, path: str) -> str:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return "" if found is None else str(found)
