"""Files that are written where the user says, and what the system has against them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lithops_mini.errors import LithopsMiniError


@contextmanager
def writing(path: str | os.PathLike[str], way_out: str) -> Iterator[None]:
    """The system's errors in the ``with`` block, which writes ``path``, as one sentence that ends with ``way_out``."""
    try:
        yield
    except LithopsMiniError:
        raise
    except OSError as error:
        above = os.path.dirname(os.path.abspath(path))
        if isinstance(error, FileNotFoundError) and not os.path.isdir(above):
            why = f"there is no directory {above}"
        elif isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
            why = f"{error.filename} is a file, not a directory"
        else:
            why = (error.strerror or str(error)).lower()
        raise LithopsMiniError(f"cannot write {os.fspath(path)}: {why}; {way_out}") from error


def try_to_write(path: Path) -> None:
    """Make missing directories, and raise what writing this file would raise; the file is left as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.exists()
    with open(path, "ab"):
        pass
    if not there:
        path.unlink()
