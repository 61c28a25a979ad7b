"""The zip of an action of OpenWhisk: the worker, cloudpickle, and packages, each in a plain directory."""

from __future__ import annotations

import compileall
import io
import os
import shutil
import zipfile
from base64 import b64encode
from pathlib import Path
from py_compile import PycInvalidationMode

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe, this_python
from lithops_mini.runtimes.wheels import Target
from lithops_mini.sizes import format_size

PACKAGES = "packages"
"""The directory of the packages, beside the worker's."""
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

SERVICES = ("s3", "sts")
"""What botocore is to know in a worker: the storage, and who gives temporary credentials for it."""

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


def lay_out(directory: Path) -> None:
    """Write the worker into an empty directory, which then is the action's but for its packages."""
    for path, data in {ENTRY_FILE: ENTRY, **bundle().files}.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def trim(packages: Path) -> None:
    """Leave out what botocore knows of other services: every cold start would unpack it, ten times all the rest."""
    for path in packages.glob("botocore/data/*/"):
        if path.name not in SERVICES:
            shutil.rmtree(path)


def encoded(directory: Path, recipe: Recipe) -> str:
    """The zip of an action's directory, in base64. May raise ``TooLarge``."""
    if recipe.python == this_python():
        # Every cold start would compile it. What is compiled counts whatever time the source is unpacked at.
        unchecked = PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(directory, quiet=2, stripdir=directory, invalidation_mode=unchecked)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for found in sorted(path for path in directory.rglob("*") if path.is_file()):
            mode = 0o755 if os.access(found, os.X_OK) else 0o644
            archive.writestr(_entry(found.relative_to(directory).as_posix(), mode), found.read_bytes())
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
