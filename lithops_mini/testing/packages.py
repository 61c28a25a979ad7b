"""Local packages made for a while, to see whether they travel."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def temporary_package(files: Mapping[str, str], name: str | None = None) -> Iterator[ModuleType]:
    """A package of these files, by name, that can be imported while the context lasts."""
    name = name or f"lithops_mini_local_{os.urandom(4).hex()}"
    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory, name)
        package.mkdir()
        for file, text in files.items():
            (package / file).write_text(text)
        sys.path.insert(0, directory)
        try:
            importlib.invalidate_caches()
            yield importlib.import_module(name)
        finally:
            sys.path.remove(directory)
            for module in [module for module in sys.modules if module.partition(".")[0] == name]:
                del sys.modules[module]
