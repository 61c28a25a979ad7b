"""Calls in containers of a Docker engine, beside calls in processes of this machine, `docker run`, and Lithops."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
import lithops_peer
from data_in_parts import PARTITION, our_words, text, together
from measure import DATA, ROUND, WORKERS, Row, in_turn, main, ratios, seconds, seconds_beside, side_by_side, spread
from one_call import IMPORT, run

import lithops_mini as lm
from lithops_mini.runtimes import image
from lithops_mini.runtimes.recipe import HOST, Recipe

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from docker_engine import start_docker

SETTINGS = {"config": {}, "max_workers": WORKERS, "progress": False}
# A program that makes one call in a container. It is told when it was started, by a clock all processes share, and
# prints how long the result took from there, from the import of the SDK and from the executor on.
FIRST_RESULT = f"""
import json, sys, time
import lithops_mini as lm
import lithops_mini.executor

def double(x):
    return 2 * x

if __name__ == "__main__":
    importing = time.monotonic()
    import docker
    making = time.monotonic()
    with lm.docker_executor("localhost", **{SETTINGS!r}, base="{HOST}", storage_path=sys.argv[2]) as executor:
        assert executor.submit(double, 21).result() == 42
        ended = time.monotonic()
    print(json.dumps([ended - start for start in (float(sys.argv[1]), importing, making)]))
"""


def nothing(x: int) -> None:
    pass


# -- beside localhost


@contextmanager
def executors() -> Iterator[list[lm.FunctionExecutor]]:
    """In containers and on this machine, on the same storage, with all their workers warm."""
    DATA.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=DATA) as directory,
        lm.docker_executor("localhost", **SETTINGS, base=HOST, storage_path=directory) as docker_executor,
        lm.localhost_executor("localhost", **SETTINGS, storage_path=directory) as localhost_executor,
    ):
        both = [docker_executor, localhost_executor]
        for executor in both:
            executor.get_result(executor.map(time.sleep, [1.0] * WORKERS))
        yield both


def warm(both: Sequence[lm.FunctionExecutor], quick: bool) -> list[Row]:
    rounds = 5 if quick else 20
    median, slow = in_turn(rounds, *(lambda ex=ex: ex.submit(nothing, 1).result() for ex in both))
    what = f"one warm call in a container, submit to result, of {rounds * ROUND:,}"
    return [
        Row(
            f"{what}: median; localhost",
            f"{median[0]:.2f} ms",
            f"{median[1]:.2f} ms",
            f"{median[0] / median[1]:.2f} x",
            "at most 5 ms and 2.5 x",
            median[0] <= 5 and median[0] <= 2.5 * median[1],
        ),
        Row(f"{what}: 95th percentile", f"{slow[0]:.2f} ms", f"{slow[1]:.2f} ms", f"{slow[0] / slow[1]:.2f} x"),
    ]


def many(both: Sequence[lm.FunctionExecutor], calls: int, rounds: int) -> Row:
    ours, beside = side_by_side(rounds, *(partial(seconds, partial(all_of, ex, calls)) for ex in both))
    mine, other = (spread([calls / taken for taken in column], "{:,.0f}", "/s") for column in (ours, beside))
    faster = ratios(beside, ours)
    return Row(
        f"{calls:,} calls in {WORKERS} containers, map + get_result; localhost",
        mine,
        other,
        spread(faster, "{:.2f}", " x"),
        "at least 0.5 x",
        statistics.median(faster) >= 0.5,
    )


def all_of(executor: lm.FunctionExecutor, calls: int) -> None:
    executor.get_result(executor.map(nothing, range(calls)))


def words(both: Sequence[lm.FunctionExecutor], size: int, rounds: int) -> Row:
    both[0].storage.create_bucket("text")
    both[0].storage.upload_file(text(size), "text", "words.txt")
    results: list[object] = []

    def count(ex: lm.FunctionExecutor) -> None:
        results.append(ex.get_result(ex.map_reduce(our_words, "text/words.txt", together, obj_chunk_size=PARTITION)))

    mine, other = side_by_side(rounds, *(partial(seconds, partial(count, ex)) for ex in both))
    assert all(result == results[0] for result in results)
    work = f"count the words of {size >> 20:,} MiB in {WORKERS} containers, parts of {PARTITION >> 20} MiB"
    return seconds_beside(f"{work}; localhost", mine, other, 1.15)


# -- cold starts


@dataclass(frozen=True)
class FirstResult:
    """Seconds to the first result."""

    program: float  # from the start of the program
    sdk: float  # from the import of Docker's SDK
    executor: float  # from the making of the executor


@dataclass(frozen=True)
class DockerRun:
    """Seconds of `docker run`."""

    ended: float  # until it has ended and removed its container
    line: float  # until the line that is printed there has arrived


def first_result() -> FirstResult:
    command = [sys.executable, "-c", FIRST_RESULT, str(time.monotonic()), str(DATA / "start")]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return FirstResult(*json.loads(output))


def docker_run(runtime: str) -> DockerRun:
    command = ["docker", "run", "--rm", "--entrypoint", "python3", runtime, "-c", "print(42)"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "42\n"
        line = time.perf_counter() - started
    return DockerRun(time.perf_counter() - started, line)


def cold(runtime: str, quick: bool) -> list[Row]:
    measures: list[Callable[[], FirstResult | DockerRun]] = [first_result, partial(docker_run, runtime)]
    for each in measures:
        each()  # what is compiled and cached by the first is there
    ours, theirs = side_by_side(3 if quick else 15, *measures)

    def row(what: str, mine: str, other: str, limit: float | None = None) -> Row:
        taken, beside = [getattr(each, mine) for each in ours], [getattr(each, other) for each in theirs]
        slower = ratios(taken, beside)
        target = {} if limit is None else {"target": f"at most {limit} x", "met": statistics.median(slower) <= limit}
        told = (spread(column, "{:.3f}", " s") for column in (taken, beside))
        return Row(f"cold container: {what}", *told, spread(slower, "{:.2f}", " x"), **target)

    return [
        row("executor to first result; docker run", "executor", "ended", 1.3),
        row("import docker, executor to first result; docker run", "sdk", "ended", 1.3),
        row("program to first result; docker run", "program", "ended"),
        row("executor to first result; docker run to its first line", "executor", "line"),
        import_sdk(quick),
    ]


def import_sdk(quick: bool) -> Row:
    (taken,) = side_by_side(3 if quick else 11, lambda: float(run(IMPORT.format(module="docker"))))
    return Row("import docker", spread(taken, "{:.3f}", " s"))


# -- beside Lithops


def beside_lithops(ours: lm.FunctionExecutor, quick: bool) -> Iterator[Row]:
    client = docker.from_env()
    python = lithops_peer.install()
    runtime = lithops_peer.build(client)

    def mine(calls: int) -> float:
        return seconds(lambda: ours.submit(nothing, 1).result() if calls == 1 else all_of(ours, calls))

    # Calls, and how often: version 2 takes a third of a second for each.
    amounts = {1: [(1, 3), (100, 1)], 2: [(1, 3), (10, 1)]}
    if not quick:
        amounts = {1: [(1, 11), (100, 5), (1_000, 5)], 2: [(1, 11), (100, 3)]}
    for version, tasks in amounts.items():
        name = f"Lithops {lithops_peer.VERSION}, version {version} of its backend"
        with lithops_peer.start(python, client, runtime, version) as lithops:
            lithops.seconds(1)
            for calls, rounds in tasks:
                taken, theirs = side_by_side(rounds, partial(mine, calls), partial(lithops.seconds, calls))
                what = "one warm call in a container" if calls == 1 else f"{calls:,} calls in {WORKERS} containers"
                yield compared(f"{what}; {name}", taken, theirs)
        start = partial(lithops_peer.first_result, python, client, runtime, version)
        taken, theirs = side_by_side(2 if quick else 5, lambda: first_result().program, start)
        yield compared(f"cold container: program to first result; {name}", taken, theirs)


def compared(what: str, ours: list[float], theirs: list[float]) -> Row:
    mine = spread([1000 * taken for taken in ours], "{:,.1f}", " ms")
    other = spread([1000 * taken for taken in theirs], "{:,.0f}", " ms")
    return Row(what, mine, other, spread(ratios(theirs, ours), "{:,.1f}", " x faster"))


def measure(quick: bool) -> Sequence[Row]:
    with start_docker() as environment:
        os.environ.update(environment)
        runtime = image.ensure(docker.from_env(), Recipe(base=HOST), lithops_peer.tell).name
        rows = cold(runtime, quick)
        with executors() as both:
            rows += warm(both, quick)
            rows += [many(both, calls, 3 if quick else 15) for calls in (1_000, 10_000)]
            rows.append(words(both, *(128 << 20, 2) if quick else (1 << 30, 3)))
            rows += beside_lithops(both[0], quick)
    return rows


if __name__ == "__main__":
    main(measure)
