"""Where settings come from: the file, its profiles, and ``${NAME}`` in their values."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    import yaml

LOCAL_FILE = "./lithops_mini.yaml"
USER_FILE = "~/.lithops_mini/config.yaml"

DEFAULTS = "built-in defaults"

PathArgument = str | os.PathLike[str]

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|(?P<broken>\$\{)")


class Substituted(str):
    """A value that had ``${NAME}`` in it. Variables are text, so it may also stand for a number or true and false."""

    __slots__ = ()


@dataclass(frozen=True)
class Profile:
    """The contents of one profile, not checked yet."""

    values: Mapping[str, Any]
    name: str | None
    source: str  # of Config
    given: bool = False  # by the program or the client of this worker, and so before the environment's single settings

    @property
    def where(self) -> str:
        """For the beginning of an error message."""
        return self.source if self.name is None else f"{self.source}, profile {self.name!r}"


def environment(name: str) -> str | None:
    """The variable's value; set but empty counts as unset."""
    return os.environ.get(name) or None


def find_profile(profile: str | None, config: Mapping[str, Any] | None, config_file: PathArgument | None) -> Profile:
    """The profile that these arguments of ``load`` and the environment select."""
    if config is not None:
        if config_file is not None:
            raise ConfigError("config and config_file cannot both be given: each is a whole configuration")
        if not isinstance(config, Mapping):
            raise ConfigError(f"config must be a dict, not {type(config).__name__}; a file's path goes to config_file")
        if "profiles" in config:
            return _select(config, "argument config", profile, given=True)
        if profile is not None:
            raise ConfigError(f"profile {profile!r} was asked for, but config has no 'profiles'")
        return Profile(config, None, "argument config", given=True)
    if config_file is None and profile is None and (text := environment("LITHOPS_MINI_CONFIG")):
        return Profile(_parse_json(text), None, "environment variable LITHOPS_MINI_CONFIG", given=True)
    path = find_file(config_file)
    if path is None:
        wanted = profile or environment("LITHOPS_MINI_PROFILE")
        if wanted:
            raise ConfigError(
                f"profile {wanted!r} was asked for, but there is no configuration file: no {LOCAL_FILE}, no {USER_FILE}"
            )
        return Profile({}, None, DEFAULTS)
    return _select(read_file(path), path, profile)


def find_file(config_file: PathArgument | None = None) -> str | None:
    """The path of the configuration file; None if none was named and none is in the usual places."""
    if named := config_file or environment("LITHOPS_MINI_CONFIG_FILE"):
        return os.fspath(named)
    return next((path for path in (LOCAL_FILE, USER_FILE) if os.path.isfile(os.path.expanduser(path))), None)


def read_file(path: str) -> Mapping[str, Any]:
    """The document in a YAML file that has ``profiles``."""
    import yaml  # 20 ms, and most runs have no file

    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            document = yaml.load(file, _loader())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, Mapping) or "profiles" not in document:
        raise ConfigError(f"{path}: has no key 'profiles'; a configuration file has 'default_profile' and 'profiles'")
    return document


def profile_names(document: Mapping[str, Any], source: str) -> list[str]:
    """The names of a document's profiles; the document's own keys are checked on the way."""
    if unknown := [key for key in document if key not in ("default_profile", "profiles")]:
        raise ConfigError(unknown_key(source, unknown[0], ("default_profile", "profiles")))
    profiles = document["profiles"]
    if not isinstance(profiles, Mapping) or not profiles:
        raise ConfigError(f"{source}: 'profiles' must map names to profiles, as in 'profiles: {{local: {{...}}}}'")
    return [str(name) for name in profiles]


def unknown_key(where: str, key: object, known: Iterable[str]) -> str:
    """The message for a key that does not exist."""
    from difflib import get_close_matches

    known = list(known)
    close = get_close_matches(str(key), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{where}: unknown key {str(key)!r}.{hint} Known: {', '.join(known) or 'none'}."


def _select(document: Mapping[str, Any], source: str, profile: str | None, *, given: bool = False) -> Profile:
    names = profile_names(document, source)
    default = document.get("default_profile")
    only = names[0] if len(names) == 1 else None
    variable = environment("LITHOPS_MINI_PROFILE")
    name = profile or variable or default or only
    if name is None:
        raise ConfigError(
            f"{source}: which profile? It has no 'default_profile'; "
            f"name one by profile= or LITHOPS_MINI_PROFILE. Profiles: {', '.join(names)}."
        )
    if name not in names:
        asked = "" if profile else " (from LITHOPS_MINI_PROFILE)" if variable else " (its default_profile)"
        raise ConfigError(f"{source}: there is no profile {name!r}{asked}. Profiles: {', '.join(names)}.")
    values = next(values for key, values in document["profiles"].items() if str(key) == name)
    found = Profile({}, name, source, given)
    if values is None:
        return found
    if not isinstance(values, Mapping):
        raise ConfigError(f"{found.where}: must map keys to values, not {values!r}")
    return Profile(_substitute(values, found.where, ""), name, source, given)


def _substitute(value: Any, where: str, key: str) -> Any:
    """``value`` with every ``${NAME}`` and ``${NAME:-default}`` in its strings replaced; ``$${`` stands for ``${``."""
    if isinstance(value, Mapping):
        prefix = key and f"{key}."
        return {name: _substitute(item, where, f"{prefix}{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, where, f"{key}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["broken"]:
            raise ConfigError(f"{where}: {key}: '${{' must begin ${{NAME}} or ${{NAME:-default}}; '$${{' stands for it")
        if name is None:
            return "${"
        if found := os.environ.get(name, "" if default is None else default) or default:
            return found
        if default is None and name not in os.environ:
            raise ConfigError(
                f"{where}: {key} needs the environment variable {name}, which is not set; "
                f"set it, or write ${{{name}:-default}}"
            )
        return ""

    return Substituted(_REFERENCE.sub(replace, value))


def _parse_json(text: str) -> Mapping[str, Any]:
    import json

    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"environment variable LITHOPS_MINI_CONFIG: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError("environment variable LITHOPS_MINI_CONFIG: must be a JSON object, the contents of a profile")
    return values


def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML keeps the last of two equal keys and drops the first; here that is an error."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader
