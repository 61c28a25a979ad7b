"""From a function and its inputs to calls: which arguments each gets, and which parameters the worker fills by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import BuiltinFunctionType, ModuleType
from typing import Any, NamedTuple, SupportsIndex

from lithops_mini.errors import InputError
from lithops_mini.job.partition import SourceText, pack, plan_partitions
from lithops_mini.job.stage import name_of
from lithops_mini.records import Partition
from lithops_mini.storage.base import StorageBackend

# Parameters of these names are filled by the worker when the caller gives them no value.
FILLED = ("id", "storage", "ibm_cos")
# A parameter of one of these names takes data: the caller gives where it lies, the worker opens it.
DATA = ("obj", "url")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
ExtraArgs = tuple[Any, ...] | list[Any] | Mapping[str, Any]


class PlannedCall(NamedTuple):
    """The arguments of one call; ``source`` numbers the object it reads, for reducing by object."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: int = 0


@dataclass(frozen=True)
class Cut:
    """The arguments of a map over data; ``partition.plan_partitions`` says what they mean."""

    obj_chunk_size: SupportsIndex | str | None = None
    obj_chunk_number: int | None = None
    obj_newline: str | bytes | None = "\n"
    obj_decompress: bool = True
    obj_pack_size: SupportsIndex | str | None = None


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """What a function takes; ``None`` if it does not tell, as some builtins."""
    builtin = isinstance(function, BuiltinFunctionType) and isinstance(function.__self__, ModuleType)
    try:
        return _signature_of_builtin(function) if builtin else inspect.signature(function)
    except (ValueError, TypeError):
        return None


# That of a builtin is parsed from a text, which takes ten times as long as to read that of a function.
_signature_of_builtin = lru_cache(maxsize=256)(inspect.signature)


class Parameters:
    """What a function takes, and how the items of ``iterdata`` become its arguments."""

    def __init__(self, function: Callable[..., Any], storage_name: str) -> None:
        """Raises ``InputError`` for what cannot be called, and for parameters that this storage cannot fill."""
        if not callable(function):
            raise InputError(f"the function to run is {function!r}, which cannot be called")
        self._function = function
        self.function_name = name_of(function)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise InputError(
                f"{self.function_name} is an async function, and calling it runs nothing yet: give a function that"
                " calls asyncio.run"
            )
        self._signature = _signature_of(function)
        names = self._signature.parameters if self._signature else {}
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        named = [name for name, parameter in names.items() if parameter.kind in kinds]
        self._filled = [name for name in FILLED if name in named]
        self._variadic = next((n for n, p in names.items() if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
        if "ibm_cos" in named and storage_name != "ibm_cos":
            raise InputError(
                f"{self.function_name} has a parameter ibm_cos, which is the client of the storage ibm_cos, and the"
                f" configured storage is {storage_name!r}: name it storage, which every storage has"
            )
        self.data = next((name for name in DATA if name in named), None)
        if "obj" in named and "url" in named:
            raise InputError(f"{self.function_name} has the parameters obj and url: a call reads one source of data")
        self._known_shapes: dict[tuple[int, tuple[str, ...]], tuple[list[str], tuple[str, ...]]] = {}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> tuple[PlannedCall, tuple[str, ...]]:
        """Return the call, and the names the worker fills; ``InputError`` if the function does not take these.

        ``number``: of the input, for that error.
        """
        shape = (len(args), tuple(kwargs))
        known = self._known_shapes.get(shape)
        if known is None:
            known = self._known_shapes[shape] = self._fit(args, kwargs, number)
        by_name, filled = known
        if not by_name:
            return PlannedCall(args, kwargs), filled
        keep = len(args) - len(by_name)
        return PlannedCall(args[:keep], dict(zip(by_name, args[keep:], strict=True)) | kwargs), filled

    def _fit(self, args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> tuple[list[str], tuple[str, ...]]:
        """How many of the positional arguments must go by name, so that filled parameters do not shift them."""
        if self._signature is None:
            return [], ()
        filled = tuple(name for name in self._filled if name not in kwargs)
        problem = ""
        for left_out in (filled, ()) if filled else ((),):
            parameters = [p for name, p in self._signature.parameters.items() if name not in left_out]
            try:
                bound = inspect.Signature(parameters).bind(*args, **kwargs)
            except TypeError as error:
                problem = problem or str(error)
                continue
            names = list(self._signature.parameters)
            special = [*self._filled, *([self.data] if self.data else [])]
            first = min(map(names.index, special), default=len(names))
            positional = [name for name in bound.arguments if name not in kwargs][: len(args)]
            by_name = [name for name in positional if names.index(name) >= first]
            if self._variadic in by_name:
                raise InputError(
                    f"{self.function_name}{self._signature} has {names[first]} before *{self._variadic}, where it"
                    " cannot be filled in by name: put it behind"
                )
            return by_name, left_out
        if self.data is None and self._decorator_takes(args, kwargs):
            return [], ()
        raise InputError(
            f"input {number} does not fit {self.function_name}{self._signature}: {problem}. A tuple is positional"
            " arguments, a dict keyword arguments, anything else one argument"
        )

    def _decorator_takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether what a decorator has put in the function's place takes these: it may add arguments of its own."""
        try:
            inspect.signature(self._function, follow_wrapped=False).bind(*args, **kwargs)
        except (TypeError, ValueError):
            return False
        return True


def _parameter_names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (ValueError, TypeError):  # some builtins do not tell, and what is no function is refused later
        return []


def check_extra(name: str, extra: ExtraArgs | None) -> None:
    """Raise ``InputError`` for arguments for every call that are neither positional nor keyword arguments."""
    if extra is not None and not isinstance(extra, tuple | list | Mapping):
        raise InputError(f"{name} is {extra!r}: give a tuple of positional or a dict of keyword arguments")


def arguments(item: Any, extra: ExtraArgs | None) -> Arguments:
    """What an item of ``iterdata`` is to the function, followed by ``extra_args``."""
    if type(item) is tuple:
        args, kwargs = item, {}
    elif type(item) is dict:
        args, kwargs = (), item
    else:
        args, kwargs = (item,), {}
    if not extra:
        return args, kwargs
    if isinstance(extra, Mapping):
        return args, {**kwargs, **extra}
    return args + tuple(extra), kwargs


@dataclass(frozen=True)
class Surroundings:
    """What planning must know of the executor."""

    storage: StorageBackend
    storage_name: str
    readable: Container[str]  # the kinds of ``Partition`` that workers can read


def items(function: Callable[..., Any], iterdata: Iterable[Any], extra_args: ExtraArgs | None) -> Iterator[Arguments]:
    """The arguments of each call that ``iterdata`` and ``extra_args`` stand for. Raises ``InputError``."""
    check_extra("extra_args", extra_args)
    takes_data = any(name in DATA for name in _parameter_names(function))
    if isinstance(iterdata, str | bytes | os.PathLike) or (takes_data and isinstance(iterdata, Mapping)):
        if not takes_data:
            raise InputError(
                f"iterdata is the text {str(iterdata)[:60]!r}: give a list of inputs, or, to map over stored data, give"
                f" {name_of(function)} a parameter named obj"
            )
        iterdata = [iterdata]
    elif not isinstance(iterdata, Iterable):
        raise InputError(f"iterdata is {iterdata!r}: give something that can be iterated, such as a list of inputs")
    return (arguments(item, extra_args) for item in _with_position(iterdata))


def plan(
    function: Callable[..., Any],
    inputs: Iterable[Arguments],
    cut: Cut,
    where: Surroundings,
) -> tuple[list[PlannedCall], tuple[str, ...]]:
    """Return one call for each of the inputs, or for each partition of the data it names, and the names to be filled.

    Everything that can be wrong with the inputs is found here: ``InputError``, ``NoSuchBucket``, ``NoSuchObject``.
    """
    parameters = Parameters(function, where.storage_name)
    planned: list[PlannedCall] = []
    filled: dict[str, None] = {}
    shape = None
    for index, (args, kwargs) in enumerate(inputs):
        call, names = parameters.bind(args, kwargs, index)
        planned.append(call)
        if names is not shape:
            filled |= dict.fromkeys(names)
            shape = names
    if parameters.data is not None:
        return _expand(planned, parameters.data, cut, where), (*filled, parameters.data)
    if cut != Cut():
        raise InputError(
            "the obj_ arguments are for functions that read data, and"
            f" {parameters.function_name} has no parameter named obj"
        )
    return planned, tuple(filled)


def _with_position(iterdata: Iterable[Any]) -> Iterator[Any]:
    """The items; an error that the iterable itself raises says where it did."""
    count = 0
    try:
        for count, item in enumerate(iterdata, 1):  # noqa: B007 - used when it raises
            yield item
    except Exception as error:
        error.add_note(f"raised by iterdata itself, after {count} items; no call has been made")
        raise


def _expand(planned: list[PlannedCall], name: str, cut: Cut, where: Surroundings) -> list[PlannedCall]:
    """Put the partitions of the data each call names in its place."""
    sources: list[SourceText] = []
    owners: list[int] = []
    for index, call in enumerate(planned):
        if name not in call.kwargs:
            raise InputError(f"input {index} names no data: the parameter {name} is given no value")
        given = call.kwargs[name]
        for text in given if isinstance(given, list | tuple) else [given]:
            if name == "url" and not str(text).startswith(("http://", "https://")):
                raise InputError(f"the parameter url takes http(s) addresses, not {text!r}; call it obj for other data")
            sources.append(text)
            owners.append(index)
    found = plan_partitions(
        sources,
        storage=where.storage,
        storage_name=where.storage_name,
        readable=where.readable,
        obj_chunk_size=cut.obj_chunk_size,
        obj_chunk_number=cut.obj_chunk_number,
        obj_newline=cut.obj_newline,
        obj_decompress=cut.obj_decompress,
        obj_pack_size=cut.obj_pack_size,
    )
    calls: list[PlannedCall] = []
    number = 0
    if cut.obj_pack_size is None:
        for owner, objects in zip(owners, found, strict=True):
            for partitions in objects:
                calls += [_with(planned[owner], name, partition, number) for partition in partitions]
                number += 1
        return calls
    # Objects of items that differ in nothing but the data they name may share a call.
    alike: list[tuple[PlannedCall, list[list[Partition]]]] = []
    for owner, objects in zip(owners, found, strict=True):
        if alike and _same_but(name, alike[-1][0], planned[owner]):
            alike[-1][1].extend(objects)
        else:
            alike.append((planned[owner], list(objects)))
    packs = [(call, together) for call, objects in alike for together in pack(objects, cut.obj_pack_size)]
    return [_with(call, name, together, number) for number, (call, together) in enumerate(packs)]


def _same_but(name: str, one: PlannedCall, other: PlannedCall) -> bool:
    """Whether two calls have the very same arguments, apart from the one of this name."""
    if len(one.args) != len(other.args) or one.kwargs.keys() != other.kwargs.keys():
        return False
    positional = all(a is b for a, b in zip(one.args, other.args, strict=True))
    return positional and all(value is other.kwargs[key] for key, value in one.kwargs.items() if key != name)


def _with(call: PlannedCall, name: str, value: Partition | list[Partition], source: int) -> PlannedCall:
    return PlannedCall(call.args, {**call.kwargs, name: value}, source)
