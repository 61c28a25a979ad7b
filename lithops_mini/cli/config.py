"""lithops-mini config: begin a configuration file, see what it comes to, check it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lithops_mini.cli.files import write_private
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.destination import writing
from lithops_mini.errors import ConfigError


@click.group()
def config() -> None:
    """Begin, show and check the configuration.

    \b
    Examples:
      lithops-mini config init
      lithops-mini config validate
      lithops-mini config show -p prod
    """


@config.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), required=False)
@click.option("--user", is_flag=True, help="Write ~/.lithops_mini/config.yaml, for every directory.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(file: str | None, user: bool, force: bool) -> None:
    """Write a commented file to begin with.

    FILE is ./lithops_mini.yaml if it is not given. The file has every key with its meaning and default, and configures
    what runs without any file. Beside it goes its JSON Schema, by which editors complete and check keys. "-" prints
    the configuration and writes nothing.

    \b
    Examples:
      lithops-mini config init
      lithops-mini config init --user
      lithops-mini config init - | less
    """
    from lithops_mini.config.schema import SCHEMA_NAME, schema_text, template
    from lithops_mini.config.source import LOCAL_FILE, USER_FILE

    if file and user:
        raise click.UsageError("give FILE or --user, not both")
    if file == "-":
        click.echo(template(), nl=False)
        return
    path = Path(file or (USER_FILE if user else LOCAL_FILE)).expanduser()
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; --force replaces it")
    with writing(path, "name another FILE" if not user else "name a FILE instead, and it by LITHOPS_MINI_CONFIG_FILE"):
        if user:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, template())
        write_private(path.with_name(SCHEMA_NAME), schema_text())
    click.echo(f"Wrote {path} and its schema, {SCHEMA_NAME}.")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_options
def show(selection: Selection, as_json: bool) -> None:
    """Print the configuration that counts.

    It comes from arguments, environment, file and defaults, in this order of precedence. Secrets are left out; the
    values of extra_env are asterisks.

    \b
    Examples:
      lithops-mini config show
      lithops-mini config show -p prod -b localhost
      lithops-mini config show --json | jq .storage_bucket
    """
    found = selection.load()
    if as_json:
        origin = {"profile": found.profile, "source": found.source, "secrets": found.secrets()}
        click.echo(json.dumps({**found.as_shown(), **origin}, indent=2))
        return
    import yaml

    click.echo(f"# profile {found.profile} of {found.source}" if found.profile else f"# {found.source}")
    click.echo(yaml.safe_dump(found.as_shown(), sort_keys=False), nl=False)
    if secrets := found.secrets():
        click.echo(f"# set, and not shown: {', '.join(secrets)}")


@config.command()
@config_options
def validate(selection: Selection) -> None:
    """Check every profile of the file.

    And that default_profile is one of them. With -p only that profile is checked. Exit code 1 if something could not be
    used.

    \b
    Examples:
      lithops-mini config validate
      lithops-mini config validate -c config/team.yaml -p prod
    """
    from lithops_mini.config.source import DEFAULTS, LOCAL_FILE, USER_FILE, find_file, profile_names, read_file

    path = find_file(selection.config_file)
    if path is None:
        selection.load()
        click.echo(f"No {LOCAL_FILE} and no {USER_FILE}: {DEFAULTS} apply.")
        return
    document = read_file(path)
    every = profile_names(document, path)
    default = document.get("default_profile")
    names = [selection.profile] if selection.profile else every
    wrong = 0
    if default is not None and default not in every:
        wrong += 1
        known = ", ".join(every)
        click.secho(
            f"Error: {path}: default_profile names no profile: {default!r}. Profiles: {known}.", fg="red", err=True
        )
    for name in names:
        try:
            found = Selection(path, name, selection.backend, selection.storage).load()
        except ConfigError as error:
            wrong += 1
            click.secho(f"Error: {error}", fg="red", err=True)
        else:
            click.echo(f"{path}, profile {name!r}: good (backend {found.backend}, storage {found.storage})")
    if default is None and len(every) > 1:
        click.echo(
            f"Warning: {path}: has no default_profile, so one must be named each time, as in -p {every[0]}.", err=True
        )
    if wrong:
        click.get_current_context().exit(1)


COMMANDS = [config]
