"""What the commands have in common that make what jobs need at a platform, write the profile, and remove both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lithops_mini.cli.options import Callback, debug_option
from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from lithops_mini.config import Config


def setup_options(profile: str, *others: Callback) -> Callback:
    """Add ``--config``, ``--profile`` with this default, then ``others``, ``--yes`` and ``--dry-run``."""
    file_help = "File. Default: the one in use, else ./lithops_mini.yaml."
    options: tuple[Any, ...] = (
        click.option("-c", "--config", "config_file", metavar="FILE", type=click.Path(dir_okay=False), help=file_help),
        click.option(
            "-p", "--profile", metavar="NAME", default=profile, help=f"Profile of the file. Default: {profile}."
        ),
        *others,
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Say which requests would change something, and send none."),
        debug_option,
    )

    def decorate(function: Callback) -> Callback:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def profile_path(config_file: str | None) -> Path:
    """The file that has the profile, or is to have it."""
    from lithops_mini.config.source import LOCAL_FILE, find_file

    return Path(find_file(config_file) or LOCAL_FILE).expanduser()


def check_backends(config: Config, where: str, backend: str, *storages: str) -> None:
    """``ConfigError`` if a profile is of another backend than the command's, or of none of the storages, if any."""
    if config.backend != backend or (storages and config.storage not in storages):
        wanted = f"{backend} and {' or '.join(storages)}" if storages else backend
        has = f"{config.backend} and {config.storage}" if storages else config.backend
        raise ConfigError(f"{where}: is of {has}, not of {wanted}: name another with -p")


def ask(question: str, *, yes: bool, dry_run: bool) -> None:
    """Go on if the user wants to. ``click.Abort`` otherwise."""
    if not (yes or dry_run or click.confirm(question, err=True)):
        raise click.Abort


def tell(facts: Mapping[str, str]) -> None:
    """Show what is found, a line for each."""
    for name, value in facts.items():
        click.echo(f"{name:<18} {value}")


def say(request: str, parameters: Mapping[str, Any]) -> None:
    """Show a request that changes something."""
    click.echo(f"{request} {json.dumps(parameters)}")


def try_profile(file: Path, profile: str) -> None:
    """Run `lithops-mini test`."""
    from lithops_mini.cli.run import test

    click.get_current_context().invoke(test, config_file=str(file), profile=profile, backend=None, storage=None)
