"""lithops-mini completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options and the names of profiles and backends.

    \b
    ~/.bashrc:                    eval "$(lithops-mini completion bash)"
    ~/.zshrc:                     eval "$(lithops-mini completion zsh)"
    ~/.config/fish/config.fish:   lithops-mini completion fish | source
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    root = ctx.find_root()
    click.echo(script(root.command, {}, "lithops-mini", "_LITHOPS_MINI_COMPLETE").source())


COMMANDS = [completion]
