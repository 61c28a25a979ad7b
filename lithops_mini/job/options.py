"""How the calls of one job are run: as ``map``, ``map_reduce`` or ``call_async`` is told, and the settings say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lithops_mini.config.model import JobSettings
from lithops_mini.errors import InputError
from lithops_mini.job.budget import Budget
from lithops_mini.job.job import Policy


@dataclass(frozen=True)
class CallOptions:
    """The arguments ``map``, ``map_reduce`` and ``call_async`` share."""

    extra_env: Mapping[str, str]
    runtime_memory: int | Literal["auto"] | None
    timeout: float | None
    include_modules: tuple[str, ...]
    exclude_modules: tuple[str, ...]
    policy: Policy
    budget: Budget | None = None


def read(
    settings: JobSettings,
    backend: str,
    max_time: float | None,
    most_time: float | None,
    extra_env: Mapping[str, str] | None = None,
    runtime_memory: int | Literal["auto"] | None = None,
    timeout: float | None = None,
    include_modules: Iterable[str] = (),
    exclude_modules: Iterable[str] = (),
    retries: int | None = None,
    retry_exceptions: bool | type[BaseException] | tuple[type[BaseException], ...] | None = None,
    chunksize: int | None = None,
) -> CallOptions:
    """The options of one job, from the ``settings`` of all and those given. Raises ``InputError``.

    ``max_time``, ``most_time``: seconds that a call may run on this backend, and that it could be given.
    """
    chosen = settings.runtime_memory if runtime_memory is None else runtime_memory
    if isinstance(include_modules, str) or isinstance(exclude_modules, str):
        raise InputError("include_modules and exclude_modules are lists of module names, not one text")
    for name, value, least in (
        ("runtime_memory", None if runtime_memory == "auto" else runtime_memory, 64),
        ("retries", retries, 0),
        ("chunksize", chunksize, 1),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            other = ', or "auto"' if name == "runtime_memory" else ""
            raise InputError(f"{name} is {value!r}: give a whole number of at least {least}{other}")
    check_amount("timeout", timeout, "seconds")
    timeout = settings.timeout if timeout is None else timeout
    if timeout is not None and most_time is not None and timeout > most_time:
        raise InputError(f"timeout is {timeout:g} s, and the service of {backend} permits {most_time:g} s at most")
    if timeout is not None and max_time is not None and timeout > max_time:
        raise InputError(f"timeout is {timeout:g} s, and a call may run for {max_time:g} s: raise {backend}.max_time")
    if isinstance(retry_exceptions, type):
        retry_exceptions = (retry_exceptions,)
    _check_exceptions(retry_exceptions)
    return CallOptions(
        extra_env={**settings.extra_env, **_environment(extra_env or {})},
        runtime_memory=chosen,
        timeout=timeout,
        include_modules=(*settings.include_modules, *include_modules),
        exclude_modules=(*settings.exclude_modules, *exclude_modules),
        policy=Policy(
            retries=settings.retries if retries is None else retries,
            retry_exceptions=settings.retry_exceptions if retry_exceptions is None else retry_exceptions,
            chunksize=chunksize,
            on_oom="double" if chosen == "auto" else settings.on_oom,
            show_inputs=settings.show_inputs,
        ),
    )


def check_amount(name: str, amount: float | None, unit: str) -> None:
    """``InputError`` if an amount is given and is not a number over 0."""
    numeric = isinstance(amount, int | float) and not isinstance(amount, bool)
    if amount is not None and not (numeric and 0 < amount < math.inf):
        raise InputError(f"{name} is {amount!r}: give a number of {unit} over 0")


def check_names(name: str, given: Iterable[str], like: Callable[..., object]) -> None:
    """``InputError`` if ``name`` was given an option that ``like``, after its function and inputs, does not have."""
    from inspect import signature

    _, _, *options = signature(like).parameters
    for each in given:
        if each not in options:
            raise InputError(f"{name} has no option {each!r}; there are {', '.join(options)}")


def _check_exceptions(wanted: object) -> None:
    classes = wanted if isinstance(wanted, tuple) else ()
    if not (isinstance(wanted, bool | tuple | None) and all(map(_is_exception, classes))):
        raise InputError(f"retry_exceptions is {wanted!r}: give True, False, an exception class or a tuple of them")


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _environment(given: object) -> dict[str, str]:
    """The environment variables as text, or ``InputError`` if an environment cannot hold them."""
    if not isinstance(given, Mapping):
        raise InputError(f"extra_env is {given!r}: give a dict of names and values")
    texts = {str(name): str(value) for name, value in given.items()}
    for name, value in texts.items():
        if not name or "=" in name or "\0" in name + value:
            raise InputError(f"extra_env: {name!r} cannot be set: no name is empty or has '=', nothing has a NUL")
    return texts
