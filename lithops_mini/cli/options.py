"""The options that every command with a configuration has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from lithops_mini.errors import LithopsMiniError

if TYPE_CHECKING:
    from lithops_mini.config import Config
    from lithops_mini.registry import Kind

Callback = Callable[..., Any]

_DEBUG = f"{__name__}.debug"


@dataclass(frozen=True)
class Selection:
    """What the user said about the configuration; None where nothing was said."""

    config_file: str | None
    profile: str | None
    backend: str | None
    storage: str | None

    def arguments(self) -> dict[str, str | None]:
        """The arguments of these names that ``load`` and ``function_executor`` take."""
        return asdict(self)

    def load(self) -> Config:
        """The configuration selected."""
        from lithops_mini.config import load

        return load(config_file=self.config_file, profile=self.profile, backend=self.backend, storage=self.storage)


def debugging(ctx: click.Context) -> bool:
    """Whether ``--debug`` was given, before or after the command's name."""
    return bool(ctx.meta.get(_DEBUG))


def config_options(function: Callback) -> Callback:
    """Add ``--config``, ``--profile``, ``--backend``, ``--storage``; the function gets a ``selection``."""

    @functools.wraps(function)
    def select(**given: Any) -> Any:
        selection = Selection(**{field.name: given.pop(field.name) for field in fields(Selection)})
        return function(selection=selection, **given)

    decorated: Callback = select
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def debug_option(function: Callback) -> Callback:
    """Add ``--debug``."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Show the traceback of an error.",
    )(function)


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def _complete_profile(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from lithops_mini.config.source import find_file, profile_names, read_file

    try:
        path = find_file(ctx.params.get("config_file"))
        names = profile_names(read_file(path), path) if path else []
    except LithopsMiniError:  # there is no place for a message while a line is being typed
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _complete_backend(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from lithops_mini import registry

        return [CompletionItem(name) for name in registry.names(kind) if name.startswith(incomplete)]

    return complete


_OPTIONS = (
    click.option(
        "-c",
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="File. Default: $LITHOPS_MINI_CONFIG_FILE, ./lithops_mini.yaml, ~/.lithops_mini/config.yaml.",
    ),
    click.option(
        "-p",
        "--profile",
        metavar="NAME",
        shell_complete=_complete_profile,
        help="Profile of the file. Default: $LITHOPS_MINI_PROFILE, then the file's default_profile.",
    ),
    click.option(
        "-b",
        "--backend",
        metavar="NAME",
        shell_complete=_complete_backend("compute"),
        help="Compute backend, instead of the profile's.",
    ),
    click.option(
        "-s",
        "--storage",
        metavar="NAME",
        shell_complete=_complete_backend("storage"),
        help="Storage backend, instead of the profile's.",
    ),
    debug_option,
)
