"""From a function and its inputs to bytes: pickles, the local modules they need, and digests of what is unpickled."""

from __future__ import annotations

import dis
import hashlib
import io
import linecache
import os
import pickle
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from lithops_mini.job import modules
from lithops_mini.job.future import ResponseFuture
from lithops_mini.worker import code, dependencies, serialize

_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
# A container this short is looked through before it is pickled, a longer one is simply pickled with care.
_SHORT = 16
# And this many containers deep: one may contain itself.
_SHALLOW = 8
# Sources sent along for tracebacks, in characters altogether.
_SOURCES_LIMIT = 256 << 10


@dataclass(frozen=True)
class Code:
    """A function with its modules, ready to travel."""

    data: bytes
    sha256: str
    modules: dict[str, str]  # top-level name -> digest


class MapResults:
    """Stands for the results of other calls in a reducer's arguments; the worker puts an iterable in its place."""

    def __init__(self, futures: Sequence[ResponseFuture[Any]]) -> None:
        self.futures = futures


class Stage:
    """Pickles one job: its function and all its inputs, noting what they refer to."""

    def __init__(self) -> None:
        self._references: set[str] = set()
        self._sources: dict[str, str] = {}

    def function(self, function: Any) -> bytes:
        """Pickle the function. Raises ``SerializationError`` naming what cannot be."""
        try:
            # A future it closes over stays one, with its value: only inputs are filled in.
            parts = serialize.dumps(function, partial(_Pickler, self, None))
        except Exception as error:
            raise serialize.explain(function, f"the function {name_of(function)}", error) from error
        return b"".join(parts)

    def arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
    ) -> tuple[Sequence[serialize.Buffer], Sequence[ResponseFuture[Any]]]:
        """Pickle the arguments of one call; return the parts of the blob, and the futures it refers to by position."""
        if _all_plain(args) and (not kwargs or _all_plain(kwargs.values())):
            return (pickle.dumps((args, kwargs), 5),), ()
        futures: list[ResponseFuture[Any]] = []
        pickler = partial(_Pickler, self, futures)
        try:
            parts = serialize.dumps((args, kwargs), pickler)
        except Exception as error:
            given: Any = args[0] if len(args) == 1 and not kwargs else {**dict(enumerate(args)), **kwargs}
            raise serialize.explain(given, what, error, pickler) from error
        return parts, futures

    def code(self, function: bytes, include: Iterable[str], exclude: Iterable[str]) -> Code:
        """Put the function and the local modules that anything pickled so far refers to together."""
        local = modules.collect(self._references, include, exclude)
        data = code.encode(function, self._sources, local.archive)
        return Code(data, hashlib.sha256(data).hexdigest(), local.digests)

    def note(self, value: Any) -> None:
        """Take note of a class, function, module or code object that is being pickled."""
        if isinstance(value, ModuleType):
            self._references.add(value.__name__)
        elif isinstance(value, CodeType):
            self._note_code(value)
        elif isinstance(value, type | FunctionType | MethodType):
            if isinstance(module := getattr(value, "__module__", None), str):
                self._references.add(module)
            if isinstance(package := getattr(value, "__globals__", {}).get("__package__"), str) and package:
                self._references.add(package)

    def _note_code(self, value: CodeType) -> None:
        self._references |= _imported(value)
        name = value.co_filename
        if name not in self._sources:
            text = "".join(linecache.getlines(name))
            if text and len(text) + sum(map(len, self._sources.values())) <= _SOURCES_LIMIT:
                self._sources[name] = text


class _Pickler(serialize.Pickler):
    """Watches what passes, and leaves futures, if it gets a list to note them in, to be filled in by the worker."""

    def __init__(
        self, stage: Stage, futures: list[ResponseFuture[Any]] | None, file: io.BytesIO, **options: Any
    ) -> None:
        super().__init__(file, **options)
        self._stage = stage
        self._futures = futures

    def reducer_override(self, value: Any) -> Any:
        if self._futures is not None and isinstance(value, ResponseFuture):
            self._futures.append(value)
            return dependencies.dependency, (len(self._futures) - 1,)
        if self._futures is not None and isinstance(value, MapResults):
            first = len(self._futures)
            self._futures += value.futures
            return dependencies.results, (range(first, len(self._futures)),)
        self._stage.note(value)
        return super().reducer_override(value)


@lru_cache(1000)
def _imported(value: CodeType) -> frozenset[str]:
    """The modules that the code itself imports."""
    instructions = dis.get_instructions(value)
    return frozenset(each.argval for each in instructions if each.opname == "IMPORT_NAME" and each.argval)


def _all_plain(values: Collection[Any]) -> bool:
    return _PLAIN.issuperset(map(type, values)) or all(map(_is_plain, values))


def _is_plain(value: Any, depth: int = _SHALLOW) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if not depth or kind not in (tuple, list, dict) or len(value) > _SHORT:
        return False
    if kind is dict:
        return all(type(key) in _PLAIN and _is_plain(item, depth - 1) for key, item in value.items())
    return all(type(item) in _PLAIN or _is_plain(item, depth - 1) for item in value)


def name_of(function: Any) -> str:
    """What to call a callable in messages."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return os.path.basename(str(name).replace("<locals>.", ""))
