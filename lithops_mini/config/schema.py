"""The file's JSON Schema, for editors, and the commented template users start from: both made from the fields."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from lithops_mini import registry
from lithops_mini.config.check import adapter
from lithops_mini.config.model import JobSettings
from lithops_mini.config.resolve import KINDS, Backend, find_backend, names, section_classes

SCHEMA_NAME = "lithops_mini.schema.json"

_REFERENCE = {"type": "string", "pattern": r"\$\{"}

_BACKEND_HELP = "Where the calls run."
_STORAGE_HELP = "Where inputs, results and the jobs' own data lie."


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, with the sections of every backend that can be imported."""
    definitions: dict[str, Any] = {}
    profile = {
        "backend": _name("compute", _BACKEND_HELP),
        "storage": _name("storage", _STORAGE_HELP),
        **_properties(JobSettings, definitions),
        **{name: _section(name, readers, definitions) for name, readers in _sections().items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of lithops_mini",
        "type": "object",
        "properties": {
            "default_profile": {"type": "string", "description": "The profile to use when none is named."},
            "profiles": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/profile"}},
        },
        "required": ["profiles"],
        "additionalProperties": False,
        "$defs": {
            "profile": {
                "type": ["object", "null"],
                "properties": profile,
                # the sections of backends that are not installed where the schema was made
                "additionalProperties": {"type": ["object", "null"]},
            },
            **definitions,
        },
    }


def schema_text() -> str:
    """``schema()`` as the file that is committed and written."""
    return json.dumps(schema(), indent=2) + "\n"


def template() -> str:
    """A configuration file with every key, its meaning and its default; it configures what no file at all does."""
    return "\n".join(line.rstrip() for line in _template_lines()) + "\n"


def _template_lines() -> Iterator[str]:
    compute, storage = registry.names("compute"), registry.names("storage")
    yield f"# yaml-language-server: $schema={SCHEMA_NAME}"
    yield from _comment(
        "Configuration of lithops_mini. It is looked for as config_file= or --config, LITHOPS_MINI_CONFIG_FILE, "
        "./lithops_mini.yaml and ~/.lithops_mini/config.yaml. Keys that are commented out show their defaults. A value "
        "may have ${NAME} or ${NAME:-default} in it, an environment variable: keep secrets there. Check the file with "
        "'lithops-mini config validate'.",
        0,
    )
    yield ""
    yield "default_profile: local"
    yield ""
    yield "profiles:"
    yield "  local:"
    yield from _comment(f"{_BACKEND_HELP} One of: {', '.join(compute)}.", 4)
    yield "    backend: localhost"
    yield from _comment(f"{_STORAGE_HELP} One of: {', '.join(storage)}.", 4)
    yield "    storage: localhost"
    for f in fields(JobSettings):
        yield ""
        yield from _template_field(f, 4)
    shown: set[tuple[str, str]] = set()  # what a shared section has shown, a backend's own does not repeat
    for name, readers in sorted(_sections().items(), key=lambda item: _is_own(*item)):
        declared = ((r, f) for r in readers for f in fields(section_classes(r, name)[0]))
        options = {f.name: f for r, f in declared if (r.name, f.name) not in shown}
        if not _is_own(name, readers):  # there is sense in sharing what all of them have
            options = {key: f for key, f in options.items() if all(key in names(r.options) for r in readers)}
            shown |= {(reader.name, key) for reader in readers for key in options}
        if options:
            yield ""
            yield from _comment(f"Only for {' and '.join(_described(name, readers))}.", 4)
            yield f"    # {name}:"
        for f in options.values():
            yield from _template_field(f, 6)


def _is_own(name: str, readers: list[Backend]) -> bool:
    return all(reader.name == name for reader in readers)


def _described(name: str, readers: list[Backend]) -> list[str]:
    if not _is_own(name, readers):
        return [f"the {reader.kind} backend {reader.name}" for reader in readers]
    return [f"{name} {' and '.join(reader.kind for reader in readers)}"]


def _template_field(f: Field[Any], indent: int) -> Iterator[str]:
    required = f.default is MISSING and f.default_factory is MISSING
    secret = bool(f.metadata.get("secret"))
    marks = [mark for mark, true in (("required", required), ("secret: write ${NAME}", secret)) if true]
    text = f.metadata.get("help", "") + (f" ({', '.join(marks)})" if marks else "")
    yield from _comment(text, indent)
    value = "" if required else json.dumps(_default(f))
    yield f"    # {' ' * (indent - 4)}{f.name}: {value}"


def _comment(text: str, indent: int) -> Iterator[str]:
    """Comment lines; inside a section that is commented out itself, a second mark keeps them comments."""
    prefix = " " * indent + "# " if indent <= 4 else "    # " + " " * (indent - 4) + "# "
    yield from textwrap.wrap(text, 116, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)


def _sections() -> dict[str, list[Backend]]:
    """Every section there can be, with its readers."""
    sections: dict[str, list[Backend]] = {}
    for kind in KINDS:
        for name in registry.names(kind):
            try:
                backend = find_backend(kind, name)
            except ImportError:  # a backend whose packages are not installed describes itself where they are
                continue
            for section in (*backend.shared, name):
                sections.setdefault(section, []).append(backend)
    return sections


def _section(name: str, readers: list[Backend], definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for reader in readers:
        for cls in section_classes(reader, name):
            properties = _properties(cls, definitions) | properties
    described = " and ".join(_described(name, readers))
    return {
        "type": ["object", "null"],
        "description": f"Settings of {described}.",
        "properties": properties,
        "additionalProperties": False,
    }


def _name(kind: registry.Kind, text: str) -> dict[str, Any]:
    known = {"enum": registry.names(kind)}
    return {"description": text, "default": "localhost", "anyOf": [known, {"type": "string"}]}


def _properties(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    return {f.name: _property(cls, f, definitions) for f in fields(cls)}


def _property(cls: type[Any], f: Field[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found = adapter(cls, f.name).json_schema()
    definitions |= found.pop("$defs", {})
    described = {"description": found.pop("description")} if "description" in found else {}
    if f.metadata.get("secret"):
        described["writeOnly"] = True
    elif f.default is not MISSING or f.default_factory is not MISSING:
        described["default"] = _default(f)
    alternatives = found["anyOf"] if set(found) == {"anyOf"} else [found]
    return {**described, "anyOf": [*alternatives, _REFERENCE]}


def _default(f: Field[Any]) -> Any:
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    return list(value) if isinstance(value, tuple) else value
