"""Packages for another machine: from wheels, by the pip of this one.

So the user's index, proxy and certificates count, none of them gets into what is built, and the build needs no network.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell

# The oldest minor version of its C library that wheels of a machine are named by, and older names of some.
_OLDEST = {"x86_64": 5, "i686": 5}
_OLDEST_ELSEWHERE = 17
_QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Target:
    """A Python on Linux."""

    python: str  # "3.11"
    machine: str  # as uname has it: "x86_64", "aarch64"
    libc: str  # "glibc" or "musl"
    libc_version: tuple[int, int]

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine} with {self.libc} {self.libc_version[0]}.{self.libc_version[1]}"

    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, best first."""
        major, newest = self.libc_version
        if self.libc == "musl":
            tags = [f"musllinux_{major}_{minor}" for minor in range(newest, -1, -1)]
        else:
            tags = []
            for minor in range(newest, _OLDEST.get(self.machine, _OLDEST_ELSEWHERE) - 1, -1):
                tags.append(f"manylinux_{major}_{minor}")
                if legacy := _LEGACY.get(minor):
                    tags.append(legacy)
        return [f"{tag}_{self.machine}" for tag in (*tags, "linux")]


def install(
    directory: Path, target: Target, tell: Tell, *, requirements: str | None = None, packages: Sequence[str] = ()
) -> list[str]:
    """Install what a requirements file and ``packages`` ask for into ``directory``, which goes on the target's path.

    ``packages`` that are published without a wheel are built here, if they are Python alone. Returns what was
    installed, with dependencies: ``["numpy==2.4.1", ...]``. ``ConfigError`` if a package, or its wheel for the target,
    does not exist, or if pip fails for another reason.
    """
    if not (requirements or packages):
        return []
    from importlib.metadata import distributions  # 30 ms, and most times nothing is built

    command = [*_pip(), "install", "--target", str(directory), "--no-user", "--no-compile", "--no-warn-script-location"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.python]
    command += [option for tag in target.platforms() for option in ("--platform", tag)]
    with tempfile.TemporaryDirectory(prefix="lithops-mini-wheels-") as built:
        command += [*_QUIET, "--find-links", built, *(["--requirement", requirements] if requirements else [])]
        left = set(packages)
        while (log := _run([*command, "--", *packages], tell)) is not None:
            lacks = _lacks(log)
            if lacks not in left or not _build(lacks, built, tell):
                raise ConfigError(_why(log, target))
            left.remove(lacks)
    _make_portable(directory / "bin")
    return sorted(f"{each.name}=={each.version}" for each in distributions(path=[str(directory)]))


def _run(command: Sequence[str], tell: Tell) -> list[str] | None:
    """Run pip; return what it printed if it failed."""
    log = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        try:
            for line in pip.stdout or ():
                log.append(line.rstrip())
                if line.startswith(("Collecting ", "Processing ", "Downloading ", "Installing collected")):
                    tell(line.strip())
        except BaseException:
            pip.kill()
            raise
    return log if pip.returncode != 0 else None


def _build(package: str, directory: str, tell: Tell) -> bool:
    """Make a wheel of a package that is published without; whether it is one for every machine."""
    failed = _run([*_pip(), "wheel", "--no-deps", "--wheel-dir", directory, *_QUIET, "--", package], tell)
    return failed is None and bool(list(Path(directory).glob("*-none-any.whl")))


def _pip() -> list[str]:
    """How to run pip: the installed one, or the one that Python brings along to install it."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if ensurepip := importlib.util.find_spec("ensurepip"):
        for wheel in Path(ensurepip.origin or "").parent.glob("_bundled/pip-*.whl"):
            return [sys.executable, str(wheel / "pip")]
    raise ConfigError(f"packages are installed with pip, and {sys.executable} has none; install it there")


def _why(log: Sequence[str], target: Target) -> str:
    if lacks := _lacks(log):
        return (
            f"there is no wheel of {lacks} for {target}; check its name and version, or, if it must be built, "
            "install it in a Dockerfile of your own: -f Dockerfile"
        )
    errors = [line.removeprefix("ERROR: ") for line in log if line.startswith("ERROR: ")]
    return f"pip could not install the packages: {'; '.join(errors or log[-5:])}"


def _lacks(log: Sequence[str]) -> str:
    """What pip has found no wheel of; empty if that is not why it failed."""
    found = (re.match(r"ERROR: No matching distribution found for (.+?)(?: \(from .*)?$", line) for line in log)
    return next((match[1] for match in found if match), "")


def _make_portable(scripts: Path) -> None:
    """Have scripts started by the target's Python: pip wrote the path of this one."""
    for path in _files(scripts):
        text = path.read_bytes()
        portable = re.sub(rb"\A#!(?:/bin/sh\n'''exec' .*\n' '''|.*python.*)\n", b"#!/usr/bin/env python3\n", text)
        if portable != text:
            path.write_bytes(portable)


def _files(directory: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):  # nothing has scripts
        yield from (Path(entry.path) for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
