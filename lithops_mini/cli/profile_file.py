"""One profile of a configuration file, written or taken out; the rest of the file stays, with its comments."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lithops_mini.cli.files import write_private
from lithops_mini.config.source import read_file
from lithops_mini.errors import ConfigError

_NOTE = "# lithops-mini: "


def read_profile(path: Path, name: str) -> dict[str, Any] | None:
    """The profile as it is written, variables not replaced; ``None`` if there is none, or no file."""
    if _is_new(path):
        return None
    profiles = read_file(str(path))["profiles"] or {}
    return dict(profiles[name] or {}) if name in profiles else None


def read_note(path: Path, name: str) -> str:
    """What was noted in the profile when it was written here; empty if there is nothing, or no profile."""
    if read_profile(path, name) is None:
        return ""
    lines = path.read_text(encoding="utf-8").splitlines(True)
    column, places = _places("".join(lines))
    block = lines[places[name] : _end(lines, places[name], column)]
    return next((line.strip().removeprefix(_NOTE) for line in block if line.strip().startswith(_NOTE)), "")


def write_profile(path: Path, name: str, values: Mapping[str, Any] | None, note: str = "") -> None:
    """Write the profile in place of the one with this name, or at the end; ``None`` takes it out.

    ``note``: what ``read_note`` is to find in it, a line.
    A new file has it as its default, and in one with a single profile that stays the default; one without any profile
    left is removed. ``ConfigError`` for a file whose profiles are not written one below the other.
    """
    if _is_new(path):
        if values is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            head = yaml.safe_dump({"default_profile": name})
            write_private(path, f"{head}profiles:\n{_block(name, values, 2, note)}")
        return
    document = dict(read_file(str(path)))
    profiles = dict(document["profiles"] or {})
    only = next(iter(profiles), None) if len(profiles) == 1 and "default_profile" not in document else None
    if values is None:
        profiles.pop(name, None)
        if document.get("default_profile") == name:
            del document["default_profile"]
    else:
        profiles[name] = dict(values)
    if not profiles:
        path.unlink()
        return
    text = path.read_text(encoding="utf-8")
    changed = _changed(text, name, values, note)
    if values is None and "default_profile" not in document:
        changed = "".join(line for line in changed.splitlines(True) if not line.startswith("default_profile:"))
    if only is not None and len(profiles) > 1:
        document["default_profile"] = only
        changed += yaml.safe_dump({"default_profile": only})
    if _loaded(changed) != {**document, "profiles": profiles}:
        raise ConfigError(f"{path}: cannot write the profile {name!r} there: write profiles one below the other")
    if changed != path.read_text(encoding="utf-8"):
        write_private(path, changed)


def _is_new(path: Path) -> bool:
    return not path.exists() or (path.is_file() and not path.stat().st_size)


def _loaded(text: str) -> Any:
    """The document; ``None`` if it is none any more."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _places(text: str) -> tuple[int, dict[str, int]]:
    """Where profiles begin: the column, and the line of each."""
    root = yaml.compose(text)
    entries = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    profiles = entries["profiles"].value if isinstance(entries.get("profiles"), yaml.MappingNode) else []
    column = profiles[0][0].start_mark.column if profiles else 2
    return column, {key.value: key.start_mark.line for key, _ in profiles}


def _changed(text: str, name: str, values: Mapping[str, Any] | None, note: str) -> str:
    lines = text.splitlines(True)
    column, places = _places(text)
    block = [] if values is None else [_block(name, values, column, note)]
    if not places:
        return "".join([f"{text.rstrip()}\n", *block]) if block else text
    start = places.get(name)
    if start is None:
        at = _end(lines, max(places.values()), column)
        return "".join([*lines[:at], *block, *lines[at:]])
    return "".join([*lines[:start], *block, *lines[_end(lines, start, column) :]])


def _end(lines: list[str], start: int, column: int) -> int:
    """The line after the last one of the entry that begins at ``start``."""
    end = start + 1
    for number in range(start + 1, len(lines)):
        stripped = lines[number].lstrip(" ")
        if stripped.strip() and len(lines[number]) - len(stripped) <= column:
            break
        if stripped.strip():
            end = number + 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return end


def _block(name: str, values: Mapping[str, Any], column: int, note: str) -> str:
    head, _, rest = yaml.safe_dump({name: dict(values)}, sort_keys=False).partition("\n")
    comment = f"  {_NOTE}{note}\n" if note else ""
    return textwrap.indent(f"{head}\n{comment}{rest}", " " * column)
