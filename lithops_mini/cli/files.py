"""Files that commands read and write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from lithops_mini.shorten import printable


def files_below(directory: str) -> Iterator[tuple[str, str]]:
    """The path of every file in the directory and those below it, and that path from there on, with slashes.

    Links to directories are not followed. What is no file, and whose reading might never end, is skipped with a line.
    """
    for parent, subdirectories, names in os.walk(directory, onerror=_raise):
        subdirectories.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                yield path, os.path.relpath(path, directory).replace(os.sep, "/")
            else:
                click.echo(f"Skipped {printable(path)}: it is not a regular file.", err=True)


def _raise(error: OSError) -> None:
    raise error


def write_private(path: Path, text: str) -> None:
    """Replace the file at once; only its user may read it, since it may come to hold secrets."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
