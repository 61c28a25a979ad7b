"""The group of all commands: finds them, and turns what goes wrong in them into a line and an exit code.

A module of this package that has a list ``COMMANDS`` adds them; it is imported when the first command is looked up.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from typing import Any

import click

from lithops_mini import cli
from lithops_mini.cli.options import debug_option, debugging
from lithops_mini.errors import LithopsMiniError

# Of the help page.
_ORDER = (
    "hello",
    "test",
    "verify",
    "study",
    "bench",
    "config",
    "aws",
    "openwhisk",
    "storage",
    "runtime",
    "logs",
    "jobs",
    "clean",
    "emulate",
    "completion",
)

_HELP = """Run Python functions over many inputs, on this machine or in a cloud.

With no configuration everything runs on this machine.

\b
Examples:
  lithops-mini config init                    begin a configuration file
  lithops-mini config show -p prod            what the profile prod comes to
  lithops-mini storage put -r data my-bucket/raw/
  lithops-mini storage list my-bucket/raw/
  eval "$(lithops-mini completion bash)"      completion in this shell

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 pipe closed.

Every command has its own --help, with examples.
"""


class Commands(click.Group):
    """A group whose commands lie in the modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        self._load()
        return sorted(self.commands, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            for module in pkgutil.iter_modules(cli.__path__, f"{cli.__name__}."):
                for command in getattr(importlib.import_module(module.name), "COMMANDS", ()):
                    self.add_command(command)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, so that a reader that went away is noticed here
        except (KeyboardInterrupt, click.Abort):  # Abort: Ctrl-C or Ctrl-D at a question
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            # Whoever read our output has seen enough. What is still buffered must not fail once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)  # as if by SIGPIPE
        except (LithopsMiniError, OSError) as error:
            if debugging(ctx):
                traceback.print_exc()
            else:
                click.secho(f"Error: {_told(error)}", fg="red", err=True)
            ctx.exit(1)
        return result


def _told(error: LithopsMiniError | OSError) -> str:
    if isinstance(error, LithopsMiniError) or not (error.filename and error.strerror):
        return str(error)
    return f"cannot use {error.filename}: {error.strerror.lower()}"


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from lithops_mini import __version__

        click.echo(f"lithops-mini {__version__}")
        ctx.exit()


@click.group(
    cls=Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@debug_option
def app() -> None:
    pass
