"""What goes into a runtime, and the digest that names it: what has the name already is already right."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.sizes import format_size

REPOSITORY = "lithops-mini/runtime"
HOST = "host"
"""The base that is made of the interpreter running here."""

_CONTEXT_LIMIT = 500 << 20  # bytes; more than this is a mistake: a Dockerfile beside data that it does not use


def this_python() -> str:
    """The minor version that runs here, which is the one whose pickled functions can be read: ``"3.11"``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a runtime is. ``ConfigError`` for files that are not there."""

    python: str = field(default_factory=this_python)
    base: str = ""  # an image, "host", or empty: the official slim image of this Python
    dockerfile: str | None = None  # the path of one to build first, in its directory
    requirements: str | None = None  # the path of a file for pip
    packages: tuple[str, ...] = ()  # requirements besides those in the file

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d+", self.python):
            raise ConfigError(f"{self.python!r} is not a minor version of Python: write one like {this_python()!r}")
        for path in (self.dockerfile, self.requirements):
            if path is not None and not os.path.isfile(path):
                raise ConfigError(f"there is no file {path}")
        if self.dockerfile and self.base and not self.takes_base:
            raise ConfigError(
                f"{self.dockerfile} names its own base, so {self.base!r} would not be used; begin it with the lines "
                "'ARG BASE' and 'FROM ${BASE}', or leave the base out"
            )

    @property
    def base_name(self) -> str:
        """The base, by the name that ``FROM`` knows, or ``"host"``."""
        return self.base or f"python:{self.python}-slim"

    @cached_property
    def takes_base(self) -> bool:
        """Whether the user's Dockerfile, if there is one, is built on our base."""
        if self.dockerfile is None:
            return True
        return bool(re.search(r"^\s*ARG\s+BASE\b", Path(self.dockerfile).read_text("utf-8"), re.MULTILINE | re.I))

    @cached_property
    def context(self) -> dict[str, str]:
        """What the user's Dockerfile is built from: paths below its directory, each with its file.

        Without what ``.dockerignore`` leaves out. Empty if there is no Dockerfile.
        """
        return dict(_context(self.dockerfile)) if self.dockerfile else {}

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of everything that goes in."""
        from lithops_mini.runtimes import host

        parts = {
            "python": self.python,
            "base": host.name() if self.base == HOST else self.base_name if self.takes_base else "",
            "bundle": bundle().digest,
            "ours": hashlib.sha256(dockerfile()).hexdigest(),
            "context": {path: _digest(file) for path, file in self.context.items()},
            "dockerfile": os.path.basename(self.dockerfile or ""),
            "requirements": requirement_lines(self.requirements) if self.requirements else [],
            "packages": sorted(self.packages),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The name of the image."""
        return f"{REPOSITORY}:{self.python}-{self.digest[:12]}"


def pinned(packages: Iterable[str]) -> tuple[str, ...]:
    """The distributions in the versions that are installed here; those that say their version, or are not, as they are.

    What the client has been used with is what its workers get, and another version here makes another runtime.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in packages:
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            found.append(package)
    return tuple(found)


def dockerfile() -> bytes:
    """The Dockerfile of every runtime image."""
    return resources.files(__package__).joinpath("Dockerfile").read_bytes()


def _context(path: str) -> Iterator[tuple[str, str]]:
    try:
        from docker.utils.build import exclude_paths
    except ImportError as error:
        raise ConfigError(f"{path} is built with the Docker SDK: pip install 'lithops_mini[docker]'") from error
    root, name = os.path.split(os.path.abspath(path))
    ignore = Path(root, ".dockerignore")
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    total = 0
    for relative in sorted(exclude_paths(root, patterns, dockerfile=name)):
        file = os.path.join(root, relative)
        if os.path.isfile(file) and not os.path.islink(file):
            total += os.path.getsize(file)
            if total > _CONTEXT_LIMIT:
                raise ConfigError(
                    f"{root} has more than {format_size(_CONTEXT_LIMIT)} in it, and all of it would be sent to the "
                    "engine; put the Dockerfile into a directory of its own, or name what it does not need in "
                    f"{ignore}"
                )
        yield relative, file


def _digest(path: str) -> str:
    """What a build sees of a file, a link or a directory."""
    if os.path.islink(path):
        return f"link {os.readlink(path)}"
    mode = f"{os.stat(path).st_mode & 0o111:o}"
    if not os.path.isfile(path):
        return f"other {mode}"
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {mode}"


def requirement_lines(path: str, seen: frozenset[str] = frozenset()) -> list[str]:
    """The lines of a requirements file that count, and those of the files they name; files among them by digest."""
    lines = []
    directory = os.path.dirname(os.path.abspath(path))
    for line in Path(path).read_text("utf-8").splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if not line:
            continue
        lines.append(line)
        other = re.fullmatch(r"(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", line)
        named = os.path.join(directory, other[1]) if other else line.removeprefix("file://")
        if other and os.path.isfile(named) and named not in seen:
            lines += requirement_lines(named, seen | {named})
        elif os.path.isfile(named):
            lines.append(_digest(named))
    return lines
