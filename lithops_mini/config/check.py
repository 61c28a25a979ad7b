"""Values into frozen dataclasses, each checked against the type and the limits its field declares."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import reduce
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lithops_mini.config.source import Substituted
from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_LIMITS = ("gt", "ge", "lt", "le", "min_length", "pattern", "allow_inf_nan")

# What a value is seen to be, and its limits, without pydantic.
_PLAIN = (bool, int, str)
_COMPARED = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "string_too_short": "text of {min_length} or more characters",
    "string_pattern_mismatch": "text that matches {pattern}",
}


@dataclass(frozen=True)
class Setting:
    """A value that somebody gave, and the words for it in an error message."""

    value: Any
    where: str
    key: str  # with its section, as in "localhost.max_workers"


def build(cls: type[T], given: Mapping[str, Setting], where: str, section: str = "") -> T:
    """An instance of the dataclass ``cls``; ``ConfigError`` names the setting that is missing or wrong.

    ``where`` and ``section`` tell where a missing one belongs. Every key of ``given`` is a field of ``cls``.
    """
    prefix = section and f"{section}."
    for f in fields(cls):  # type: ignore[arg-type]
        required = f.default is MISSING and f.default_factory is MISSING
        if required and f.name not in given:
            raise ConfigError(f"{where}: {prefix}{f.name} is missing{_help(f)}")
        if f.metadata.get("secret") and f.repr:
            raise ConfigError(f"{cls.__qualname__}.{f.name} is a secret and must be declared with repr=False")
    values = {f.name: check(cls, f, given[f.name]) for f in fields(cls) if f.name in given}  # type: ignore[arg-type]
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:  # from a __post_init__ that looks at fields together
        raise ConfigError(f"{where}: {section or 'job settings'}: {error}") from error


def check(cls: type[Any], field: Field[Any], setting: Setting) -> Any:
    """The setting's value as the field's type; ``ConfigError`` if it is not one."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    value = list(setting.value) if isinstance(setting.value, tuple) else setting.value
    plain_default = list(default) if isinstance(default, tuple) else default
    # Most values are plainly right, and pydantic's import takes longer than all the rest of load().
    if type(value) is type(plain_default) and value == plain_default:
        return default
    if _plainly_right(cls, field, value):
        return value
    from pydantic import ValidationError

    try:
        # JSON's rules are what a file needs: a list is a tuple, and text is never a number.
        return adapter(cls, field.name).validate_json(_json(value, setting), strict=not _substituted(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parts = first["loc"] if isinstance(value, Mapping | list) else ()  # else they name members of a union
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        if expected := _EXPECTED.get(first["type"], ""):
            expected = expected.format_map(first.get("ctx", {}))
        else:
            expected = first["msg"].removeprefix("Input should be ")
        unquoted = first["type"] == "string_type" and isinstance(first["input"], bool | int | float)
        private = field.metadata.get("secret") or field.metadata.get("hidden")
        found = type(first["input"]).__name__ if private else _short(first["input"])
        # from None: the original's text has the value in it
        raise ConfigError(
            f"{setting.where}: {setting.key}{path} must be {expected}, not {found}"
            f"{'; put it in quotes' if unquoted else ''}{_help(field)}"
        ) from None


def _plainly_right(cls: type[Any], field: Field[Any], value: Any) -> bool:
    """Whether the value is of a simple type and that of the field, within its limits; ``False`` where unclear."""
    limits = {limit: field.metadata[limit] for limit in _LIMITS if limit in field.metadata}
    if type(value) not in _PLAIN or limits.keys() - _COMPARED:
        return False
    hint = get_type_hints(cls, include_extras=True)[field.name]
    types = _members(hint) or (hint,)
    return type(value) in types and all(_COMPARED[name](value, limit) for name, limit in limits.items())


def adapter(cls: type[Any], name: str) -> TypeAdapter[Any]:
    """The validator of one field, with its limits and its description."""
    from pydantic import Field as Limits
    from pydantic import TypeAdapter

    metadata = next(f.metadata for f in fields(cls) if f.name == name)
    limits = {limit: metadata[limit] for limit in _LIMITS if limit in metadata}
    hint: Any = get_type_hints(cls, include_extras=True)[name]
    members = _members(hint)
    if limits and any(get_origin(member) is Literal for member in members):  # words have none
        numbers: Any = Annotated[int, Limits(**limits)]
        hint, limits = reduce(operator.or_, (numbers if member is int else member for member in members)), {}
    limited: Any = Annotated[hint, Limits(**limits, description=metadata.get("help"))]
    return TypeAdapter(limited)


def _members(hint: Any) -> tuple[Any, ...]:
    """What the type is one of; empty if it is no union."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else ()


def _json(value: Any, setting: Setting) -> str:
    import json

    def plain(other: Any) -> Any:
        if isinstance(other, os.PathLike):
            return os.fspath(other)
        if isinstance(other, Mapping):
            return dict(other)
        raise TypeError(f"{_short(other)} ({type(other).__name__}) is not a value a setting can have")

    _check_keys(value, setting)
    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:  # ValueError: it contains itself
        raise ConfigError(f"{setting.where}: {setting.key}: {error}") from error


def _check_keys(value: Any, setting: Setting) -> None:
    """JSON would make text of a key that is none, and YAML reads a bare ``on`` or ``yes`` as true."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{setting.where}: {setting.key}: the key {key!r} must be text; put it in quotes")


def _substituted(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_substituted(item) for item in value.values())
    if isinstance(value, list):
        return any(_substituted(item) for item in value)
    return isinstance(value, Substituted)


def _help(field: Field[Any]) -> str:
    text = field.metadata.get("help")
    return f" ({text.rstrip('.')})" if text else ""


def _short(value: Any) -> str:
    text = repr(str(value) if isinstance(value, Substituted) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
