"""lithops-mini hello, test and verify: whether what is configured works, from one call to all that is promised."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from lithops_mini.cli.options import Selection, config_options, debugging
from lithops_mini.cli.table import count
from lithops_mini.durations import format_duration
from lithops_mini.errors import InputError, LithopsMiniError
from lithops_mini.records import VERIFY_PREFIX
from lithops_mini.shorten import printable

if TYPE_CHECKING:
    from lithops_mini.executor import FunctionExecutor
    from lithops_mini.verify import Verdict

_WARM_CALLS = 20
_LARGE = 4 << 20  # bytes: more than any message holds
_LIMIT = 300.0  # seconds a step may take: cold starts of large images take minutes
_STATES = {"ok": ("ok", "green"), "failed": ("FAILED", "red"), "skipped": ("skipped", "yellow")}


@click.command()
@click.argument("name", default="world")
@config_options
def hello(name: str, selection: Selection) -> None:
    """Run one function, which greets NAME.

    \b
    Examples:
      lithops-mini hello
      lithops-mini hello Ada -p prod
    """
    from lithops_mini.executor import function_executor

    def greet(name: str) -> tuple[str, str, int, str]:
        return f"Hello {name}!", os.uname().nodename, os.getpid(), ".".join(map(str, sys.version_info[:3]))

    began = time.perf_counter()
    with function_executor(**_arguments(selection)) as executor:
        future = executor.submit(greet, name)
        greeting, host, pid, python = executor.get_result(future, timeout=_LIMIT)
    executor.clean()
    worker = future.stats.worker_id if future.stats else ""
    click.echo(greeting)
    click.echo(f"from worker {worker} of the backend {executor.config.backend}:")
    click.echo(f"process {pid} on {host}, Python {python}, in {format_duration(time.perf_counter() - began)}")


@click.command()
@config_options
def test(selection: Selection) -> None:
    """Try the configured backend and storage, step by step.

    Says what was used and how long each step took. When one does not work, says which, with exit code 1.

    \b
    Examples:
      lithops-mini test
      lithops-mini test -p prod
      lithops-mini test -b inline --debug
    """
    from lithops_mini import __version__, registry
    from lithops_mini.executor import function_executor

    with _step("configuration"):
        config = selection.load()
    _say("from", f"profile {config.profile} of {config.source}" if config.profile else config.source)
    _say("backend", config.backend)
    _say("storage", f"{config.storage}, bucket {config.job.storage_bucket}")
    _say("versions", f"lithops_mini {__version__}, Python {'.'.join(map(str, sys.version_info[:3]))}")
    bucket = config.job.storage_bucket
    with _step("storage ready"):
        storage = registry.find("storage", config.storage)(config.storage_options)
        storage.create_bucket(bucket)
    with _step("storage put, get"):
        _round_trip(storage, bucket)
    storage.close()
    with _step("backend ready"):
        executor = function_executor(**_arguments(selection))
    try:
        _try_calls(executor)
    finally:
        executor.shutdown(cancel_futures=True)
        executor.clean()
    click.echo("Everything works.")


def _arguments(selection: Selection) -> dict[str, Any]:
    return {**selection.arguments(), "progress": False}


def _try_calls(executor: FunctionExecutor) -> None:
    def python() -> str:
        return ".".join(map(str, sys.version_info[:3]))

    def reverse(data: bytes) -> bytes:
        return data[::-1]

    began = time.perf_counter()
    with _step("first call", show=False):
        future = executor.submit(python)
        version = executor.get_result(future, timeout=_LIMIT)
    state = "cold" if future.stats and future.stats.cold else "warm"
    _say(f"first call, {state}", format_duration(time.perf_counter() - began))
    times = []
    with _step("warm calls", show=False):
        for _ in range(_WARM_CALLS):
            began = time.perf_counter()
            executor.get_result(executor.submit(python), timeout=_LIMIT)
            times.append(time.perf_counter() - began)
    _say("warm call", f"{format_duration(statistics.median(times))} (median of {_WARM_CALLS})")
    large, data = f"{_LARGE >> 20} MiB there and back", os.urandom(_LARGE)
    try:
        sent = executor.submit(reverse, data)
    except InputError as error:  # workers that do not reach the storage take what messages hold
        _say(large, f"not tried: {error}")
    else:
        with _step(large):
            if executor.get_result(sent, timeout=_LIMIT) != data[::-1]:
                raise LithopsMiniError("the bytes that came back are not those that were sent")
    worker = future.stats.worker_id if future.stats else ""
    _say("worker", f"{worker}, Python {version}")


def _round_trip(storage: Any, bucket: str) -> None:
    key, body = f"{VERIFY_PREFIX}{os.urandom(6).hex()}", os.urandom(1000)
    storage.put(bucket, key, body)
    try:
        if storage.get(bucket, key) != body:
            raise LithopsMiniError(f"the object {key!r} has not the bytes it was put with")
    finally:
        storage.delete(bucket, [key])


@contextmanager
def _step(name: str, *, show: bool = True) -> Iterator[None]:
    """Time a step; an error in it names the step."""
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        known = isinstance(error, LithopsMiniError | OSError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise LithopsMiniError(f"{name}: {reason}") from error
    if show:
        _say(name, format_duration(time.perf_counter() - began))


def _say(name: str, value: str) -> None:
    click.echo(f"{name:<20} {printable(value)}")


def _complete_check(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from lithops_mini.checks import CHECKS

    return [CompletionItem(name, help=check.promise) for name, check in CHECKS.items() if name.startswith(incomplete)]


@click.command()
@click.option(
    "-t",
    "--test",
    "patterns",
    metavar="NAME",
    multiple=True,
    shell_complete=_complete_check,
    help="Only this check, or those a pattern like 'map*' matches. May be repeated.",
)
@click.option("--list", "list_only", is_flag=True, help="Say which checks there are, and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@config_options
def verify(patterns: tuple[str, ...], list_only: bool, as_json: bool, selection: Selection) -> None:
    """Check that the configured backend and storage do all that is promised.

    A line for each check: ok, FAILED and why, or skipped where the backend cannot do it. Exit code 1 if one failed.
    Everything the checks store is removed.

    \b
    Examples:
      lithops-mini verify
      lithops-mini verify -t timeout -t 'map*'
      lithops-mini verify -c team.yaml -p prod --json
      lithops-mini verify --list
    """
    from lithops_mini.checks import CHECKS

    names = _chosen(list(CHECKS), patterns)
    if list_only:
        for name in names:
            promise = CHECKS[name].promise
            click.echo(json.dumps({"name": name, "promise": promise}) if as_json else f"{name:<22} {promise}")
        return
    from lithops_mini.verify import verify as run_checks

    began = time.perf_counter()
    verdicts = []
    for verdict in run_checks(names, **selection.arguments()):
        verdicts.append(verdict)
        _report(verdict, as_json)
    counts = {state: sum(verdict.outcome == state for verdict in verdicts) for state in _STATES}
    if not as_json:
        told = ", ".join(f"{number} {state}" for state, number in counts.items())
        click.echo(f"{count(len(verdicts), 'check')}: {told}, in {format_duration(time.perf_counter() - began)}")
    if counts["failed"]:
        click.get_current_context().exit(1)


def _chosen(known: list[str], patterns: tuple[str, ...]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise click.UsageError(f"there is no check {pattern!r}; there are {', '.join(known)}")
    return [name for name in known if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def _report(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        row = {field.name: getattr(verdict, field.name) for field in dataclasses.fields(verdict)}
        del row["error"]
        click.echo(json.dumps(row))
    else:
        word, color = _STATES[verdict.outcome]
        text = f"{click.style(f'{word:<7}', fg=color)}  {verdict.name:<22} {format_duration(verdict.seconds):>8}"
        click.echo(f"{text}  {printable(verdict.reason)}".rstrip())
    if verdict.error is not None and debugging(click.get_current_context()):
        traceback.print_exception(verdict.error)


COMMANDS = [hello, test, verify]
