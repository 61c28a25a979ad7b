"""What objects may look like: the published schemas of Kubernetes and of Knative Serving."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from cloudcoil.models.knative_serving.serving import v1
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from lithops_mini.emulators.knative.kinds import NAMESPACE, Kind, Object
from lithops_mini.emulators.knative.status import Cause

VERSION = "1.31"
"""The Kubernetes whose schemas are used."""


def check(kind: Kind, found: Object) -> list[Cause]:
    """What is wrong with an object; empty if nothing is."""
    return [_cause(error) for error in _validator(kind).iter_errors(found)]


def prune(kind: Kind, found: Object) -> list[str]:
    """Remove the fields that the schema does not have, and return their paths."""
    return list(_prune(schema(kind), found, ""))


def structural(node: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without references, without ``null`` and without words: what an API server goes by.

    ``definitions``: by their names, as references to them end.
    """
    if node is True or not node:
        return {}
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return structural(definitions[name], definitions)
    variants = [each for each in node.get("anyOf", node.get("oneOf", ())) if each.get("type") != "null"]
    if len(variants) == 1:
        return structural(variants[0], definitions)
    if variants:
        return {"anyOf": [structural(each, definitions) for each in variants]}
    kind = node.get("type")
    if isinstance(kind, list):
        given = [each for each in kind if each != "null"]
        kind = given[0] if len(given) == 1 else given
    made: dict[str, Any] = {"type": kind} if kind else {}
    if "properties" in node:
        made["properties"] = {name: structural(each, definitions) for name, each in node["properties"].items()}
    if node.get("required"):
        made["required"] = sorted(node["required"])
    if node.get("x-kubernetes-preserve-unknown-fields") and kind == "object":
        made["additionalProperties"] = True
    elif node.get("additionalProperties"):
        made["additionalProperties"] = structural(node["additionalProperties"], definitions) or True
    if "items" in node:
        made["items"] = structural(node["items"], definitions)
    made |= {name: node[name] for name in ("pattern", "const", "enum") if name in node}
    return made


@cache
def schema(kind: Kind) -> dict[str, Any]:
    """What objects of a kind are checked by."""
    if kind.custom:
        whole: dict[str, Any] = getattr(v1, kind.name).model_json_schema()
        made = structural(whole, whole["$defs"])
        made["properties"]["metadata"] = schema(NAMESPACE)["properties"]["metadata"]  # the same for all kinds
        return made
    group = f"{kind.group.partition('.')[0]}-" if kind.group else ""
    directory = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}.0-local"
    name = f"{kind.name.lower()}-{group}{kind.version}.json"
    own = json.loads((directory / name).read_text(encoding="utf-8"))
    definitions = json.loads((directory / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    return structural(own, definitions)


@cache
def _validator(kind: Kind) -> Draft202012Validator:
    return Draft202012Validator(schema(kind))


def _prune(schema: Mapping[str, Any], found: Any, path: str) -> Iterator[str]:
    if isinstance(found, list) and "items" in schema:
        for number, each in enumerate(found):
            yield from _prune(schema["items"], each, f"{path}[{number}]")
    if not isinstance(found, dict):
        return
    others = schema.get("additionalProperties")
    properties = schema.get("properties", {})
    for name in list(found):
        inner = f"{path}.{name}" if path else name
        if name in properties:
            yield from _prune(properties[name], found[name], inner)
        elif isinstance(others, dict):
            yield from _prune(others, found[name], inner)
        elif properties and not others:
            del found[name]
            yield inner


def _cause(error: ValidationError) -> Cause:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    wanted: Any = error.validator_value
    if error.validator == "required":
        found: Any = error.instance
        missing = next(name for name in wanted if name not in found)
        return Cause(f"{path}.{missing}" if path else missing, "Required value", "FieldValueRequired")
    inner = [each for each in error.context or () if each.validator == "pattern"]
    if inner or error.validator == "pattern":
        shown, pattern = json.dumps(error.instance), (inner or [error])[0].validator_value
        return Cause(path, f"Invalid value: {shown}: {path} in body should match '{pattern}'")
    if error.validator in ("type", "anyOf"):
        given = f'"{_type(error.instance)}"'
        wanted = wanted if error.validator == "type" else "integer,string"
        text = f"Invalid value: {given}: {path} in body must be of type {wanted}: {given}"
        return Cause(path, text, "FieldValueTypeInvalid")
    return Cause(path, f"Unsupported value: {json.dumps(error.instance)}", "FieldValueNotSupported")


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
