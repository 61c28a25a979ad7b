"""Local files as data sources: a file, a directory, a pattern."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from lithops_mini.errors import AccessDenied, InputError, NoSuchObject
from lithops_mini.job.globs import is_glob
from lithops_mini.worker.data import file_version


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file."""

    path: str  # absolute
    size: int  # bytes
    version: str  # changes when the file does


def find_files(path: str, text: str) -> list[LocalFile]:
    """Return the file at the absolute ``path``, the files below it if it is a directory, or those that match it if it
    is a pattern (``**`` crosses directories), sorted. ``text`` is what the user wrote, for messages.

    Hidden files and directories are left out of directories and patterns unless the pattern names them. Links are
    followed, each directory is read once. ``NoSuchObject`` if there is nothing, ``InputError`` for what is not a file.
    """
    if os.path.isdir(path):
        paths = sorted(_walk(path))
    elif is_glob(path) and not os.path.lexists(path):
        import glob

        paths = sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match))
    else:
        return [_describe(path, text)]
    if not paths:
        raise NoSuchObject(f"{text!r}: there is no file")
    return [_describe(path, text) for path in paths]


def _describe(path: str, text: str) -> LocalFile:
    where = f"{text!r}" if path == text else f"{text!r} ({path})"
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        what = "is a link to nothing" if os.path.islink(path) else "does not exist"
        raise NoSuchObject(f"{where} {what}") from error
    except OSError as error:
        _refuse(error)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where} is not a regular file")
    return LocalFile(path, status.st_size, file_version(status))


def _walk(top: str) -> Iterator[str]:
    seen = set()
    for directory, names, files in os.walk(top, followlinks=True, onerror=_refuse):
        status = os.stat(directory)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # a link back, or a second link to the same place
            names.clear()
            continue
        seen.add(identity)
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (os.path.join(directory, name) for name in files if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    kind = AccessDenied if isinstance(error, PermissionError) else InputError
    raise kind(f"{error.filename!r} cannot be read: {error.strerror}") from error
