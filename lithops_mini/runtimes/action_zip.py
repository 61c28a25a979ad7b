"""The zip of an action of OpenWhisk: the worker, cloudpickle, and packages, each in a plain directory."""

from __future__ import annotations

import io
import os
import zipfile
from base64 import b64encode
from pathlib import Path

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.runtimes.wheels import Target
from lithops_mini.sizes import format_size

ENTRY_FILE = "__main__.py"
ENTRY = b"""\
import os
import sys

root = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [root, os.path.join(root, "packages")]

from lithops_mini.worker.openwhisk import Worker
from lithops_mini.worker.output import show_output

show_output()
main = Worker()
"""
"""OpenWhisk imports it once in a container, and calls ``main`` for each activation."""

# OpenWhisk's limit of an action's code, in bytes as they are sent.
_LARGEST = 48 << 20
# Of the C library of OpenWhisk's images, by minor versions of Python: Debian 10 up to 3.9, Debian 12 from there on.
_OLD_PYTHON, _OLD_GLIBC, _GLIBC = 9, (2, 28), (2, 36)
_MACHINE = "x86_64"  # of OpenWhisk's images
_MODIFIED = (1980, 1, 1, 0, 0, 0)


class TooLarge(ConfigError):
    """The packages do not fit into a zip."""


def target(recipe: Recipe) -> Target:
    """The machine that packages must be for."""
    old = int(recipe.python.partition(".")[2]) <= _OLD_PYTHON
    return Target(recipe.python, _MACHINE, "glibc", _OLD_GLIBC if old else _GLIBC)


def encoded(packages: Path) -> str:
    """The zip with the packages in a directory, in base64; the same files make the same. May raise ``TooLarge``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in {ENTRY_FILE: ENTRY, **bundle().files}.items():
            archive.writestr(_entry(path, 0o644), data)
        for found in sorted(path for path in packages.rglob("*") if path.is_file()):
            mode = 0o755 if os.access(found, os.X_OK) else 0o644
            archive.writestr(_entry(f"packages/{found.relative_to(packages).as_posix()}", mode), found.read_bytes())
    code = b64encode(file.getbuffer()).decode("ascii")
    if len(code) > _LARGEST:
        raise TooLarge(
            f"the zip with the packages is {format_size(len(code))} as it is sent, and OpenWhisk takes"
            f" {format_size(_LARGEST)}"
        )
    return code


def _entry(path: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, _MODIFIED)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    info.create_system = 3  # Unix, whatever wrote it
    return info
