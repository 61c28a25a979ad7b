"""Pickles whose large buffers (numpy arrays, bytearrays) stand beside them, uncopied, as pickle protocol 5 allows.

A blob without such buffers is a plain pickle. One with buffers is

    b"B", 3 bytes padding, u32 number of parts, u64 size of each part, then the parts, each aligned to 64 bytes:
    the pickle first, the buffers after it.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from lithops_mini.errors import SerializationError

Buffer = bytes | bytearray | memoryview

# Below this a buffer is cheaper inside the pickle than beside it.
_OUT_OF_BAND = 1 << 16
_ALIGNMENT = 64
_PREFIX = struct.Struct("<B3xI")
_MARK = ord("B")
_PLAIN = (type(None), bool, int, float, str, bytes)


# What cloudpickle cannot do of what the decorators of functools leave behind.
_REDUCERS: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    # It holds a lock before Python 3.12.
    functools.cached_property: lambda value: (type(value), (value.func,), {"attrname": value.attrname}),
    # singledispatch has these.
    weakref.WeakKeyDictionary: lambda value: (type(value), (dict(value),)),
    types.MappingProxyType: lambda value: (type(value), (dict(value),)),
}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, and functools: caches of functions that cannot be imported travel empty."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind in _REDUCERS:
            return _REDUCERS[kind](value)
        if kind is functools._lru_cache_wrapper and not _is_importable(value):
            return _cached, (value.__wrapped__, *value.cache_parameters().values())
        return super().reducer_override(value)


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _is_importable(function: Any) -> bool:
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function and function.__module__ != "__main__"


def dumps(value: Any, pickler: Callable[..., Any] = Pickler) -> list[Buffer]:
    """Pickle ``value``; the blob is the returned parts joined. Raises whatever pickling raises."""
    if type(value) in _PLAIN:
        return [pickle.dumps(value, 5)]
    file = io.BytesIO()
    buffers: list[memoryview] = []
    pickler(file, protocol=5, buffer_callback=_collect_into(buffers)).dump(value)
    return assemble(file.getvalue(), buffers)


def fast_dumps(value: Any) -> list[Buffer]:
    """``dumps`` through the C pickler first: ten times faster, and cloudpickle only where it is needed."""
    if type(value) in _PLAIN:
        return [pickle.dumps(value, 5)]
    buffers: list[memoryview] = []
    try:
        data = pickle.dumps(value, 5, buffer_callback=_collect_into(buffers))
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do, cloudpickle is asked, and its error counts
        return dumps(value)
    return assemble(data, buffers)


def _collect_into(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: only a copy inside the pickle can represent it
            return True
        if raw.nbytes < _OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    return keep_in_band


def assemble(data: bytes, buffers: Sequence[memoryview]) -> list[Buffer]:
    """Lay out a pickle and its out-of-band buffers."""
    if not buffers:
        return [data]
    pieces: list[Buffer] = [data, *buffers]
    sizes = [memoryview(piece).nbytes for piece in pieces]
    head = _PREFIX.pack(_MARK, len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    parts: list[Buffer] = [head]
    position = len(head)
    for piece, size in zip(pieces, sizes, strict=True):
        padding = -position % _ALIGNMENT
        parts += [b"\0" * padding, piece]
        position += padding + size
    return parts


def size_of(parts: Sequence[Buffer]) -> int:
    """Bytes of the joined blob."""
    if len(parts) == 1:
        return len(parts[0])  # the pickle itself, as for nearly every blob
    return sum(memoryview(part).nbytes for part in parts)


def loads(blob: Buffer) -> Any:
    """The inverse of ``dumps``: buffers become views of ``blob``, writable if it is."""
    view = memoryview(blob)
    if view[0] != _MARK:
        return pickle.loads(view)
    _, count = _PREFIX.unpack_from(view)
    sizes = struct.unpack_from(f"<{count}Q", view, _PREFIX.size)
    position = _PREFIX.size + 8 * count
    parts = []
    for size in sizes:
        position += -position % _ALIGNMENT
        parts.append(view[position : position + size])
        position += size
    return pickle.loads(parts[0], buffers=parts[1:])


def loads_own(blob: Buffer) -> Any:
    """``loads`` of a part of a message: what views it gets views a copy, so the message itself need not be kept."""
    return loads(bytearray(blob)) if blob[0] == _MARK else pickle.loads(blob)


def explain(value: Any, what: str, error: BaseException, pickler: Callable[..., Any] = Pickler) -> SerializationError:
    """The error for a ``value`` that pickling refused, naming the innermost object to blame by its path."""
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return SerializationError(f"{what}, a {_kind(value)}, is nested too deeply to be pickled")
    path, culprit = _find_culprit(value, what, pickler)
    where = f"{path} (a {_kind(culprit)})" if path != what else f"{what}, a {_kind(culprit)},"
    return SerializationError(f"{where} cannot be pickled: {type(error).__name__}: {error}")


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _find_culprit(value: Any, path: str, pickler: Callable[..., Any]) -> tuple[str, Any]:
    seen: set[int] = set()
    while id(value) not in seen and len(seen) <= 10_000:
        seen.add(id(value))
        for name, child in _children(value):
            try:
                dumps(child, pickler)
            except (Exception, SystemExit):  # noqa: BLE001 - pickling runs user code: any error marks the culprit
                value, path = child, path + name
                break
        else:
            break
    return path, value


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    children: list[tuple[str, Any]] = []
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                children.append((f" -> closure variable {name!r}", cell.cell_contents))
            except ValueError:  # a cell that was never filled
                continue
        names = {name for inner in _codes(code) for name in inner.co_names}
        children += [
            (f" -> global {name!r}", function.__globals__[name]) for name in sorted(names & set(function.__globals__))
        ]
        if value is not function:
            children.append((" -> self", value.__self__))
        return children
    if (wrapped := getattr(value, "func", None)) is not None and hasattr(value, "keywords"):
        return [(" -> func", wrapped), (" -> args", value.args), (" -> keywords", value.keywords)]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        children += [(f".{name}", child) for name, child in attributes.items()]
    return children


def _codes(code: Any) -> list[Any]:
    return [code, *(inner for const in code.co_consts if hasattr(const, "co_names") for inner in _codes(const))]
