"""A function with the local modules it needs: how it is laid out as bytes, and how a worker gets it back.

    code := u32 function length, u32 sources length, function, sources, modules

The function is a blob of ``serialize``, the sources are JSON, the modules a zip file or nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import struct
import sys
from collections.abc import Mapping
from typing import Any, cast

from lithops_mini.worker import serialize

_HEAD = struct.Struct("<II")


def encode(function: bytes, sources: Mapping[str, str], modules: bytes) -> bytes:
    """``sources``: file name -> text, for tracebacks of functions whose file the worker does not have."""
    text = json.dumps(sources).encode()
    return b"".join((_HEAD.pack(len(function), len(text)), function, text, modules))


def load(code: bytes | bytearray | memoryview, directory: str | None) -> tuple[Any, dict[str, str]]:
    """Make the modules importable, unpickle the function; return it and its sources.

    The modules are unpacked below ``directory``; ``None``: this process has them already.
    """
    view = memoryview(code)
    function_size, sources_size = _HEAD.unpack_from(view)
    sources_start = _HEAD.size + function_size
    modules_start = sources_start + sources_size
    if directory is not None and modules_start < len(view):
        modules = view[modules_start:]
        # Under the digest of their own, so that functions with the same modules share them.
        _install(modules, os.path.join(directory, hashlib.sha256(modules).hexdigest()))
    function = serialize.loads(view[_HEAD.size : sources_start])
    return function, cast(dict[str, str], json.loads(bytes(view[sources_start:modules_start])))


def _install(modules: memoryview, directory: str) -> None:
    if not os.path.isdir(directory):
        import io
        import zipfile

        # Another worker may unpack the same modules: each writes beside, one rename wins.
        beside = f"{directory}.{os.getpid()}"
        with zipfile.ZipFile(io.BytesIO(modules)) as archive:
            archive.extractall(beside)
        try:
            os.rename(beside, directory)
        except OSError:
            if not os.path.isdir(directory):
                raise
    if directory not in sys.path:
        sys.path.insert(0, directory)
        # A module looked for in vain before must be found now.
        importlib.invalidate_caches()


def show_sources(sources: Mapping[str, str]) -> None:
    """Let tracebacks print the lines of files that exist only where the function came from."""
    import linecache

    for name, text in sources.items():
        if name not in linecache.cache and not os.path.exists(name):
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
