"""What services of Knative may look like, as the cluster itself publishes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.api_server import Object

_SHOWN = 5  # problems in an error


def check(published: Mapping[str, Any], found: Object) -> None:
    """Raise ``ConfigError`` for an object that the schema of its kind does not permit.

    ``published``: a document of OpenAPI 3, as API servers have one for each group and version.
    """
    from jsonschema import Draft202012Validator

    schemas = (published.get("components") or {}).get("schemas") or {}
    name = next((name for name, each in schemas.items() if _is_of(each, found["kind"])), None)
    if name is None:  # it publishes none, and checks by itself
        return
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    wrong = [f"{error.json_path[2:]}: {error.message}" for error in Draft202012Validator(schema).iter_errors(found)]
    wrong += [f"{path}: there is no such field" for path in _unknown(schemas[name], schemas, found, "")]
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"the service {found['metadata']['name']} would not be what the cluster's schema permits:"
            f" {'; '.join(wrong[:_SHOWN])}{more}. Check the settings of knative"
        )


def _is_of(schema: Mapping[str, Any], kind: str) -> bool:
    return any(each.get("kind") == kind for each in schema.get("x-kubernetes-group-version-kind", ()))


def _unknown(schema: Mapping[str, Any], schemas: Mapping[str, Any], found: Any, path: str) -> Iterator[str]:
    """The paths of fields that the schema does not have: servers drop them, or refuse the whole."""
    for each in schema.get("allOf", ()):
        if "$ref" in each and len(schema["allOf"]) == 1:  # so it is where words are beside a reference
            schema = each
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if isinstance(found, list):
        for number, one in enumerate(found):
            yield from _unknown(schema.get("items", {}), schemas, one, f"{path}[{number}]")
    if not isinstance(found, dict):
        return
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    closed = properties and not others and not schema.get("x-kubernetes-preserve-unknown-fields")
    for name, one in found.items():
        inner = f"{path}.{name}" if path else name
        if name in properties:
            yield from _unknown(properties[name], schemas, one, inner)
        elif isinstance(others, dict):
            yield from _unknown(others, schemas, one, inner)
        elif closed:
            yield inner
