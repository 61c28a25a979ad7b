"""The worker's own files: what a runtime needs of lithops_mini, and cloudpickle, to run messages."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lithops_mini.errors import ConfigError

# The worker, the storage it reads and writes, and what these import.
_PARTS = (
    "__init__.py",
    "errors.py",
    "records.py",
    "registry.py",
    "sizes.py",
    "storage",
    "version.py",
    "wire.py",
    "worker",
)


@dataclass(frozen=True)
class Bundle:
    """Files to put into a directory that is on a worker's ``sys.path``."""

    files: Mapping[str, bytes]  # by path, with slashes, in order of the paths
    digest: str  # SHA-256 of paths and contents, in hex


@cache
def bundle() -> Bundle:
    """The bundle of this lithops_mini and of the cloudpickle installed beside it: pickles are read by what wrote them.

    The same files have the same digest on every machine.
    """
    ours = Path(__file__).parent.parent
    found = {f"lithops_mini/{path}": data for part in _PARTS for path, data in _sources(ours, part)}
    spec = importlib.util.find_spec("cloudpickle")
    if spec is None or not spec.origin:
        raise ConfigError("cloudpickle is not installed, and a worker cannot be without it: pip install cloudpickle")
    found |= {f"cloudpickle/{path}": data for path, data in _sources(Path(spec.origin).parent, "")}
    files = dict(sorted(found.items()))
    digest = hashlib.sha256()
    for path, data in files.items():
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    return Bundle(files, digest.hexdigest())


def _sources(package: Path, part: str) -> Iterator[tuple[str, bytes]]:
    """The path below ``package`` and the contents of a module, or of all modules of a directory."""
    place = package / part
    for path in [place] if place.is_file() else place.rglob("*.py"):
        yield path.relative_to(package).as_posix(), path.read_bytes()
