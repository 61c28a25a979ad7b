"""Which local modules a function needs, and how they are packed: files and packages travel as they are, data included.

Local is what no installer put where it is: neither the standard library nor anything under a site-packages directory.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import os
import site
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lithops_mini.errors import InputError
from lithops_mini.sizes import format_size

# More than this is a data set, or a virtual environment, that a package directory happens to contain; in bytes.
_LIMIT = 64 << 20
_SKIPPED = {"__pycache__", ".git", ".hg", ".venv", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
# The runtime has its own.
_PROVIDED = {"__main__", "lithops_mini", "cloudpickle"}


@dataclass(frozen=True)
class LocalModules:
    """Local modules as one zip file; ``digests`` tells, for each top-level name, whether two jobs have the same."""

    archive: bytes
    digests: dict[str, str]


def collect(references: Iterable[str], include: Iterable[str] = (), exclude: Iterable[str] = ()) -> LocalModules:
    """Pack the local ones of the referenced modules, and all local modules that those import.

    ``include`` adds modules by name, ``exclude`` leaves out modules, or submodules by their dotted name. Raises
    ``InputError`` for an included module that does not exist or is installed, and when there is too much to send.
    """
    left_out = set(exclude)
    found: dict[str, Path] = {}
    waiting = [name.partition(".")[0] for name in references]
    for name in include:
        top = name.partition(".")[0]
        if _locate(top) is None:
            raise InputError(f"include_modules: there is no local module named {top!r} on sys.path")
        waiting.append(top)
    while waiting:
        name = waiting.pop()
        if name in found or name in _PROVIDED or name in left_out or (path := _locate(name)) is None:
            continue
        found[name] = path
        for file in _files(path):
            if file.suffix == ".py":
                waiting += _imports(file, file.stat().st_mtime_ns)
    if not found:
        return LocalModules(b"", {})
    return _pack(found, left_out)


def _pack(found: dict[str, Path], left_out: set[str]) -> LocalModules:
    digests, total = {}, 0
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(found.items()):
            digest = hashlib.sha256()
            for file in _files(path):
                inside = str(file.relative_to(path.parent))
                if _dotted(inside) & left_out:
                    continue
                data = file.read_bytes()
                total += len(data)
                if total > _LIMIT:
                    raise InputError(
                        f"the local modules of this function are over {format_size(_LIMIT)}, {name!r} at {path} among"
                        " them: keep data out of it, install it, or name what to leave out in exclude_modules"
                    )
                digest.update(f"{inside}\0{len(data)}\0".encode() + data)
                # A fixed date, so that equal files make an equal archive.
                archive.writestr(zipfile.ZipInfo(inside), data, zipfile.ZIP_DEFLATED)
            digests[name] = digest.hexdigest()
    return LocalModules(buffer.getvalue(), digests)


def _dotted(inside: str) -> set[str]:
    """The names of the module a file belongs to and of all packages around it."""
    parts = inside.removesuffix(".py").removesuffix("/__init__").split(os.sep)
    return {".".join(parts[: end + 1]) for end in range(len(parts))}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for directory, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name not in _SKIPPED)
        for file in sorted(files):
            if not file.endswith((".pyc", ".pyo")) and os.path.isfile(os.path.join(directory, file)):
                yield Path(directory, file)


def _locate(name: str) -> Path | None:
    """The file or directory of a local top-level module; ``None`` for what is installed, built in or not there."""
    module = sys.modules.get(name)
    if module is None and name in sys.stdlib_module_names:  # what is loaded may be a local module of that name
        return None
    try:
        spec = importlib.util.find_spec(name) if module is None else module.__spec__
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    for location in spec.submodule_search_locations or ():
        path = Path(location)
        if not _is_installed(path) and path.is_dir():
            return path
    if spec.submodule_search_locations is not None or not spec.origin:
        return None
    path = Path(spec.origin)
    return path if not _is_installed(path) and path.is_file() else None


@cache
def _is_installed(path: Path) -> bool:
    resolved = os.path.realpath(path)
    return any(resolved.startswith(root) for root in _installed_roots()) or "dist-packages" in Path(resolved).parts


@cache
def _installed_roots() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = [sysconfig.get_path(name) for name in names] + [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({os.path.realpath(place) + os.sep for place in places})


@cache
def _imports(file: Path, _changed: int) -> tuple[str, ...]:
    """The top-level names a source file imports absolutely, wherever in it; relative imports stay in the package."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # a template or a test case, not a module that anybody imports
        return ()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return tuple(sorted(names))
