"""lithops-mini runtime: what the workers of a backend run in, built, listed and deleted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.table import count, table
from lithops_mini.errors import ConfigError, InvocationError
from lithops_mini.shorten import printable
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from lithops_mini.config import Config
    from lithops_mini.runtimes.base import Runtime, Runtimes
    from lithops_mini.runtimes.recipe import Recipe

_WIDTH = 100  # of a line of progress

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting.")


@click.group()
def runtime() -> None:
    """Build what workers run in: a Python, the worker and the packages your functions need.

    A runtime's name has a digest of what went in. So one that is there is right, and after a change of lithops_mini, of
    a requirement or of a Dockerfile another one is built, here or when the next executor starts.

    \b
    Examples:
      lithops-mini runtime build -b docker --requirements requirements.txt
      lithops-mini runtime list -b docker
      lithops-mini runtime update -b docker
    """


@runtime.command()
@click.option(
    "-f",
    "--dockerfile",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Build this Dockerfile first, in its directory, and the runtime on it.",
)
@click.option(
    "--requirements",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Install what this requirements.txt asks for, from wheels.",
)
@click.option("--base", metavar="IMAGE", help="Image to build on, or 'host': the Python of this machine.")
@click.option("--python", metavar="VERSION", help="Minor version of Python, as in 3.12. Default: the one running here.")
@click.option("--force", is_flag=True, help="Build also what is there, on a base that is pulled again.")
@config_options
def build(
    dockerfile: str | None,
    requirements: str | None,
    base: str | None,
    python: str | None,
    force: bool,
    selection: Selection,
) -> None:
    """Build and deploy the runtime that the configuration asks for.

    `build` and `deploy` are one command: what is built is put where workers find it, be that an engine, a registry, an
    account or a namespace. What is there is left as it is.

    What is given here counts instead of the configuration's. An executor finds a runtime by what went in, so it needs
    the same in its configuration, or the name as "runtime".

    \b
    Examples:
      lithops-mini runtime build -b docker
      lithops-mini runtime build -b docker --requirements requirements.txt
      lithops-mini runtime build -b docker -f docker/Dockerfile
      lithops-mini runtime build -b docker --base host
      lithops-mini runtime build -b aws_lambda --requirements requirements.txt
      lithops-mini runtime deploy -b openwhisk
    """
    with _open(selection) as opened:
        configured = opened.recipe()
        recipe = replace(
            configured,
            dockerfile=dockerfile or configured.dockerfile,
            requirements=requirements or configured.requirements,
            base=configured.base if base is None else base,
            python=python or configured.python,
        )
        _build(opened.runtimes, recipe, force=force)


runtime.add_command(build, "deploy")


@runtime.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for each runtime.")
@config_options
def list_(as_json: bool, selection: Selection) -> None:
    """List the runtimes there are, the newest first.

    One that is stale has the worker of another lithops_mini than this one.

    \b
    Examples:
      lithops-mini runtime list -b docker
      lithops-mini runtime list -b docker --json | jq -r .name
    """
    with _open(selection) as opened:
        found = opened.runtimes.list()
    if as_json:
        for each in found:
            click.echo(_json(each))
        return
    if not found:
        click.echo("There are no runtimes. lithops-mini runtime build makes one.", err=True)
        return
    rows = [(each.name, each.python or None, format_size(each.size), _when(each), _state(each)) for each in found]
    for line in table(("NAME", "PYTHON", "SIZE", "BUILT", "STATE"), rows):
        click.echo(line)


@runtime.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_options
def info(name: str | None, as_json: bool, selection: Selection) -> None:
    """Show what is in a runtime: by default in the one that the configuration asks for.

    \b
    Examples:
      lithops-mini runtime info -b docker
      lithops-mini runtime info -b docker --json
    """
    with _open(selection) as opened:
        wanted = name or opened.runtimes.name(opened.recipe())
        found = next((each for each in opened.runtimes.list() if wanted in (each.name, each.id)), None)
    if found is None:
        hint = "lithops-mini runtime list shows those there are" if name else "lithops-mini runtime build makes it"
        raise ConfigError(f"there is no runtime {wanted}; {hint}")
    if as_json:
        click.echo(_json(found))
        return
    lines = {
        "name": found.name,
        "id": found.id,
        "state": _state(found),
        "lithops_mini": found.version,
        "Python": found.python,
        "base": found.base,
        "size": format_size(found.size),
        "built": _when(found),
        "packages": ", ".join(found.packages) or "none besides those of the base",
    }
    for label, value in lines.items():
        click.echo(f"{label:<13} {printable(value)}")


@runtime.command()
@_yes
@config_options
def update(yes: bool, selection: Selection) -> None:
    """Build what the configuration asks for if it is missing, and delete runtimes that are stale.

    Stale is what has the worker of another lithops_mini, and what a build that was killed has left. Asks before it
    deletes.

    \b
    Examples:
      lithops-mini runtime update -b docker
      lithops-mini runtime update -b docker --yes
    """
    with _open(selection) as opened:
        if not yes and _stale(opened.runtimes):
            _need_terminal("delete what is stale")
        _build(opened.runtimes, opened.recipe())
        stale = _stale(opened.runtimes)
        if stale and (yes or _confirmed(stale, "stale runtime")):
            _delete(opened.runtimes, stale)


@runtime.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Delete all runtimes; asks first.")
@_yes
@config_options
def delete(names: tuple[str, ...], everything: bool, yes: bool, selection: Selection) -> None:
    """Delete runtimes.

    \b
    Examples:
      lithops-mini runtime delete -b docker lithops-mini/runtime:3.11-0f1e2d3c4b5a
      lithops-mini runtime delete -b docker --all --yes
    """
    if bool(names) == everything:
        raise click.UsageError("name the runtimes to delete, or give --all")
    if everything and not yes:
        _need_terminal("delete all runtimes")
    with _open(selection) as opened:
        if names:
            for name in names:
                opened.runtimes.delete(name)
                click.echo(f"Deleted {printable(name)}")
        elif found := opened.runtimes.list():
            if not yes and not _confirmed(found, "runtime"):
                click.get_current_context().exit(1)
            _delete(opened.runtimes, found)


@dataclass(frozen=True)
class _Opened:
    config: Config
    runtimes: Runtimes

    def recipe(self) -> Recipe:
        """What the configuration asks for."""
        from lithops_mini import registry

        return self.runtimes.recipe(registry.find("storage", self.config.storage).worker_packages)


@contextmanager
def _open(selection: Selection) -> Iterator[_Opened]:
    """The runtimes of the configured compute backend, which is closed at the end of the ``with`` block."""
    from lithops_mini import registry

    config = selection.load()
    backend = registry.find("compute", config.backend)(config.compute_options)
    try:
        yield _Opened(config, backend.runtimes(config.job.storage_bucket))
    finally:
        backend.close()


def _build(runtimes: Runtimes, recipe: Recipe, *, force: bool = False) -> None:
    began = time.monotonic()

    def tell(line: str) -> None:
        line = printable(line)
        short = line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
        click.echo(f"{time.monotonic() - began:6.1f} s  {short}", err=True)

    built = runtimes.build(recipe, tell, force=force)
    size = format_size(built.size)
    click.echo(f"Built {built.name}: {size}, {built.seconds:.1f} s" if built.new else f"{built.name} is there: {size}")


def _stale(runtimes: Runtimes) -> list[Runtime]:
    return [each for each in runtimes.list() if not each.current]


def _delete(runtimes: Runtimes, found: Sequence[Runtime]) -> None:
    """Delete each that nothing uses."""
    for each in found:
        try:
            runtimes.delete(each.name)
        except InvocationError as error:
            click.echo(f"Kept {each.name}: {error}", err=True)
        else:
            click.echo(f"Deleted {each.name}")


def _need_terminal(what: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"there is no terminal to ask on: add --yes to {what}")


def _confirmed(found: Sequence[Runtime], what: str) -> bool:
    names = ", ".join(printable(each.name) for each in found)
    if click.confirm(f"Delete {count(len(found), what)}: {names}?", err=True):
        return True
    click.echo("Nothing was deleted.")
    return False


def _state(found: Runtime) -> str:
    if not found.python:
        return "broken off"
    return "current" if found.current else "stale"


def _when(found: Runtime) -> str:
    return datetime.fromtimestamp(found.created).isoformat(sep=" ", timespec="seconds")


def _json(found: Runtime) -> str:
    return json.dumps(asdict(found) | {"current": found.current})


COMMANDS = [runtime]
