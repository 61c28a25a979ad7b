"""load(): which of the settings given in several places counts, and to whom it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any

from lithops_mini import registry
from lithops_mini.config.check import Setting, build, check
from lithops_mini.config.model import Config, JobSettings
from lithops_mini.config.source import Profile, environment, find_profile, unknown_key
from lithops_mini.errors import ConfigError

_ARGUMENTS = "arguments"
KINDS: tuple[registry.Kind, ...] = ("compute", "storage")


def load(
    *,
    backend: str | None = None,
    storage: str | None = None,
    profile: str | None = None,
    config: Mapping[str, Any] | None = None,
    config_file: str | PathLike[str] | None = None,
    **settings: Any,
) -> Config:
    """Find, merge and check the configuration.

    ``backend`` and ``storage`` name a compute and a storage backend. ``config`` is the contents of a profile, or a
    document with ``profiles`` like a file; ``config_file`` a file's path; ``profile`` the name of one of its profiles.
    ``settings`` are fields of ``JobSettings`` or of the ``Options`` of the two backends.

    An argument counts before the environment, the environment before the file, the file before the defaults. Raises
    ``ConfigError``, which names the file, the profile and the key.
    """
    found = find_profile(profile, config, config_file)
    use = _InUse(
        _backend("compute", "backend", backend, "LITHOPS_MINI_BACKEND", found),
        _backend("storage", "storage", storage, "LITHOPS_MINI_STORAGE", found),
    )
    _fill_from_profile(use, found)
    if (level := environment("LITHOPS_MINI_LOG_LEVEL")) and not (found.given and "log_level" in use.job):
        use.job["log_level"] = Setting(level.upper(), "environment variable LITHOPS_MINI_LOG_LEVEL", "log_level")
    for key, value in settings.items():
        _fill_from_argument(use, key, value)
    return Config(
        backend=use.compute.name,
        storage=use.storage.name,
        job=build(JobSettings, use.job, found.where),
        compute_options=build(use.compute.options, use.compute.given, found.where, use.compute.name),
        storage_options=build(use.storage.options, use.storage.given, found.where, use.storage.name),
        profile=found.name,
        source=found.source,
    )


@dataclass(frozen=True)
class Backend:
    """A backend as its settings see it."""

    kind: registry.Kind
    name: str
    options: type[Any]
    shared: Mapping[str, type[Any]]  # sections read before its own, with the dataclasses of the keys they may have
    given: dict[str, Setting] = field(default_factory=dict)

    def reads(self, section: str) -> bool:
        """Whether a section with this name is for it."""
        return section == self.name or section in self.shared


@dataclass(frozen=True)
class _InUse:
    compute: Backend
    storage: Backend
    job: dict[str, Setting] = field(default_factory=dict)

    @property
    def backends(self) -> tuple[Backend, Backend]:
        return self.compute, self.storage


def find_backend(kind: registry.Kind, name: str) -> Backend:
    """The backend's settings; ``ConfigError`` if there is no such backend, ``ImportError`` if it lacks a package."""
    cls = registry.find(kind, name)
    shared = getattr(cls, "shared_sections", ())
    if not isinstance(shared, Mapping):
        shared = dict.fromkeys(shared, cls.Options)
    return Backend(kind, name, cls.Options, shared)


def _backend(kind: registry.Kind, key: str, argument: str | None, variable: str, profile: Profile) -> Backend:
    choices = [(profile.values.get(key), profile.where), (environment(variable), f"environment variable {variable}")]
    choices = [(argument, _ARGUMENTS), *(choices if profile.given else choices[::-1])]
    name, where = next((choice for choice in choices if choice[0] is not None), ("localhost", profile.where))
    if not isinstance(name, str):
        raise ConfigError(f"{where}: {key} must be the name of a {kind} backend, not {name!r}")
    try:
        return find_backend(kind, str(name))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ImportError as error:
        raise ConfigError(f"{where}: the {kind} backend {name!r} cannot be used here: {error}") from error


def _fill_from_profile(use: _InUse, profile: Profile) -> None:
    job_keys = names(JobSettings)
    sections: dict[str, Mapping[str, Any]] = {}
    for key, value in profile.values.items():
        if key in job_keys:
            use.job[key] = Setting(value, profile.where, key)
        elif key not in ("backend", "storage"):
            sections[key] = _section(use, profile, key, value)
    for backend in use.backends:
        for name in (*backend.shared, backend.name):
            for key, value in sections.get(name, {}).items():
                setting = Setting(value, profile.where, f"{name}.{key}")
                if key in names(backend.options):
                    backend.given[key] = setting
                elif key in job_keys and JobSettings in section_classes(backend, name):
                    use.job[key] = setting


def _section(use: _InUse, profile: Profile, name: str, value: Any) -> Mapping[str, Any]:
    """The contents of a section, after a look at its keys; those for backends not in use are checked here."""
    readers = [backend for backend in use.backends if backend.reads(name)]
    contents = value if isinstance(value, Mapping) else {}
    rest = [key for key in contents if key not in _keys(readers, name)]
    if rest or not readers:
        others, complete = _others(name, readers)
        if not readers and not others and complete:
            raise ConfigError(_unknown_in_profile(use, profile, name))
        _check_unused(profile, name, {key: contents[key] for key in rest}, others)
        keys = _keys([*readers, *others], name)
        for key in rest:
            if key not in keys and complete:
                raise ConfigError(unknown_key(f"{profile.where}, section {name!r}", key, keys))
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{profile.where}: {name} must be a section of keys and values, not {value!r}")
    return contents


def section_classes(reader: Backend, section: str) -> list[type[Any]]:
    """The dataclasses whose fields may stand in the section: a compute backend's own may also set how its jobs run."""
    if section != reader.name:
        return [reader.shared[section]]
    return [reader.options, JobSettings] if reader.kind == "compute" else [reader.options]


def _keys(readers: list[Backend], section: str) -> list[str]:
    declared = [cls for reader in readers for cls in section_classes(reader, section)]
    declared.sort(key=lambda cls: cls is JobSettings)  # the section's own keys first, as messages list them
    return list(dict.fromkeys(key for cls in declared for key in names(cls)))


def _others(section: str, besides: list[Backend]) -> tuple[list[Backend], bool]:
    """Further backends that read the section, and whether every backend of this name could be looked at."""
    every = [(kind, name) for kind in KINDS for name in registry.names(kind)]
    seen = [(backend.kind, backend.name) for backend in besides]
    others, complete = [], True
    for kind, name in every:
        if (kind, name) in seen:
            continue
        try:
            backend = find_backend(kind, name)
        except ImportError:  # its packages are not installed here, and this run does not use it
            complete = complete and name != section
            continue
        if backend.reads(section):
            others.append(backend)
    return others, complete


def _check_unused(profile: Profile, section: str, values: Mapping[str, Any], readers: list[Backend]) -> None:
    for reader in readers:
        for cls in section_classes(reader, section):
            for f in fields(cls):
                if f.name in values:
                    check(cls, f, Setting(values[f.name], profile.where, f"{section}.{f.name}"))


def _unknown_in_profile(use: _InUse, profile: Profile, key: str) -> str:
    for name in (backend.name for backend in use.backends if key in names(backend.options)):
        return f"{profile.where}: {key!r} belongs in the section {name!r}, as in '{name}: {{{key}: ...}}'"
    sections = dict.fromkeys([*registry.names("compute"), *registry.names("storage")])
    return unknown_key(profile.where, key, ["backend", "storage", *names(JobSettings), *sections])


def _fill_from_argument(use: _InUse, key: str, value: Any) -> None:
    setting = Setting(value, _ARGUMENTS, key)
    targets = [(names(JobSettings), use.job), *((names(backend.options), backend.given) for backend in use.backends)]
    takers = [given for keys, given in targets if key in keys]
    if not takers:
        known = dict.fromkeys(name for keys, _ in targets for name in keys)
        raise ConfigError(unknown_key(_ARGUMENTS, key, known))
    for given in takers:
        given[key] = setting


def names(cls: type[Any]) -> list[str]:
    """The names of a dataclass's fields."""
    return [f.name for f in fields(cls)]
