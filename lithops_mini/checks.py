"""The acceptance checks, by name: what the documentation promises, tried out.

Each check is a function with a sentence of what must hold; it raises when that does not. The functions they send are
defined inside of them, so that they travel by value and the workers need not be able to import this module.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lithops_mini import records
from lithops_mini.errors import CallTimeout, LithopsMiniError, SerializationError, WorkerDied
from lithops_mini.executor import FunctionExecutor, function_executor
from lithops_mini.job.future import ResponseFuture
from lithops_mini.shorten import short_repr
from lithops_mini.storage.api import CloudObject, Storage
from lithops_mini.testing.packages import temporary_package
from lithops_mini.waiting import Futures

# No check waits longer than this for its calls, in seconds: cold starts of large images take minutes.
_LIMIT = 300.0
# A call that must be stopped sleeps so long, in seconds.
_LONG = 120.0
_MB = 1_000_000


class CheckFailed(LithopsMiniError):
    """Something was not as it must be."""


@dataclass(frozen=True)
class Bench:
    """What the checks work with."""

    executor: FunctionExecutor
    prefix: str  # keys below it in the job bucket are the checks' own
    settings: Mapping[str, Any]  # for a further executor

    @property
    def storage(self) -> Storage:
        return self.executor.storage

    def values(self, futures: Futures, throw_except: bool = True) -> Any:
        """``get_result`` that does not wait for ever."""
        return self.executor.get_result(futures, throw_except, _LIMIT, show_progress=False)

    def value(self, future: ResponseFuture[Any]) -> Any:
        return self.values(future)


@dataclass(frozen=True)
class Check:
    """One named check.

    ``needs``: what the compute backend must say of itself, as ``isolates``; ``stores``: its workers reach the storage.
    """

    name: str
    run: Callable[[Bench], None]
    needs: tuple[str, ...] = ()

    @property
    def promise(self) -> str:
        """What must hold, in a sentence."""
        return (self.run.__doc__ or "").strip()


CHECKS: dict[str, Check] = {}


def _check(*needs: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    def add(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
        CHECKS[function.__name__] = Check(function.__name__, function, needs)
        return function

    return add


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CheckFailed(f"{what}: {short_repr(found)} instead of {short_repr(wanted)}")


def _expect_true(what: str, holds: object) -> None:
    if not holds:
        raise CheckFailed(what)


# -- calls


@_check()
def call_async(bench: Bench) -> None:
    """One call runs and its value comes back."""
    _expect("call_async", bench.value(bench.executor.call_async(lambda x: x + 1, 41)), 42)
    _expect("submit", bench.value(bench.executor.submit(lambda x, y=0: x - y, 3, y=1)), 2)


@_check()
def map_order(bench: Bench) -> None:
    """The results of a map come in the order of its inputs, whichever call ends first."""

    def slower_at_the_start(x: int) -> int:
        time.sleep((40 - x) / 1000)
        return x * x

    futures = bench.executor.map(slower_at_the_start, range(40))
    _expect("results", bench.values(futures), [x * x for x in range(40)])


@_check()
def map_arguments(bench: Bench) -> None:
    """A tuple is positional arguments, a dict keyword arguments, anything else one argument; extra_args follow."""

    def seen(a: Any, b: Any = None, c: Any = None) -> list[Any]:
        return [a, b, c]

    futures = bench.executor.map(seen, [(1, 2), {"a": 3, "b": 4}, [5, 6], "text"], extra_args={"c": "extra"})
    wanted = [[1, 2, "extra"], [3, 4, "extra"], [[5, 6], None, "extra"], ["text", None, "extra"]]
    _expect("arguments", bench.values(futures), wanted)


@_check()
def none_keeps_its_place(bench: Bench) -> None:
    """None is a result like any other."""
    futures = bench.executor.map(lambda x: None if x % 2 else x, range(6))
    _expect("results", bench.values(futures), [0, None, 2, None, 4, None])


@_check()
def map_reduce(bench: Bench) -> None:
    """The reducer gets the results of the map, in order."""
    futures = bench.executor.map_reduce(lambda x: x * x, range(20), list)
    _expect("reducer's results", bench.values(futures), [x * x for x in range(20)])


@_check()
def empty_input(bench: Bench) -> None:
    """A map over nothing is an empty list, and a reducer gets it."""
    _expect("map", bench.values(bench.executor.map(abs, [])), [])
    _expect("map_reduce", bench.values(bench.executor.map_reduce(abs, [], sum)), 0)


@_check()
def future_as_input(bench: Bench) -> None:
    """Futures among the inputs are replaced by their values in the worker."""
    first = bench.executor.map(lambda x: x + 1, range(4))
    futures = bench.executor.map(lambda x, more: x * 10 + sum(more), [(future, first) for future in first])
    _expect("results", bench.values(futures), [20, 30, 40, 50])


@_check()
def callables(bench: Bench) -> None:
    """Lambdas, closures, partials, bound methods and callable objects travel."""
    factor = 3

    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        def times(self, x: int) -> int:
            return x * self.by

        def __call__(self, x: int) -> int:
            return self.times(x)

    def closure(x: int) -> int:
        return x * factor

    partial = functools.partial(lambda by, x: x * by, 3)
    for kind in (closure, lambda x: 3 * x, partial, Scale(3).times, Scale(3)):
        _expect(short_repr(kind), bench.value(bench.executor.call_async(kind, 5)), 15)


@_check()
def local_module(bench: Bench) -> None:
    """A local package travels with the function: relative imports, data files and imports made late included."""
    files = {
        "__init__.py": "from .inner import answer\n",
        "number.txt": "42",
        "late.py": "UNIT = 'km'\n",
        "inner.py": (
            "from pathlib import Path\n"
            "def answer(prefix):\n"
            "    from . import late\n"
            "    return prefix + Path(__file__).with_name('number.txt').read_text() + late.UNIT\n"
        ),
    }
    with temporary_package(files) as package:
        _expect("result", bench.value(bench.executor.call_async(package.answer, "it is ")), "it is 42km")


@_check()
def extra_env(bench: Bench) -> None:
    """Calls see the environment variables of their job, and no other job does."""
    name = f"LM_VERIFY_{os.urandom(4).hex()}"

    def read(_: int) -> str | None:
        return os.environ.get(name)

    futures = bench.executor.map(read, range(3), extra_env={name: "set for this job"})
    _expect("in the job", bench.values(futures), ["set for this job"] * 3)
    _expect("in the next job", bench.values(bench.executor.map(read, range(3))), [None] * 3)


@_check("stores")
def filled_parameters(bench: Bench) -> None:
    """Parameters named id and storage are filled in."""

    def put(x: int, id: int, storage: Storage) -> int:  # noqa: A002 - the name is the point
        storage.put_object(None, f"{prefix}{id}", str(x))
        return id

    prefix = f"{bench.prefix}filled/"
    _expect("ids", bench.values(bench.executor.map(put, [10, 20, 30])), [0, 1, 2])
    stored = [bench.storage.get_object(None, f"{prefix}{number}") for number in range(3)]
    _expect("objects", stored, [b"10", b"20", b"30"])


@_check("composes")
def composition(bench: Bench) -> None:
    """A function may start an executor of its own, and return futures."""

    def outer(x: int) -> Any:
        from lithops_mini import function_executor

        with function_executor(progress=False) as executor:
            futures = executor.map(lambda y: y * 10, range(x))
        executor.clean()
        return futures

    _expect("result", bench.value(bench.executor.call_async(outer, 3)), [0, 10, 20])


# -- sizes


@_check("stores")
def large_data(bench: Bench) -> None:
    """Arguments and results larger than any message travel through storage."""
    block = random.Random(1).randbytes(3 * _MB)
    future = bench.executor.call_async(lambda data: data[::-1], block)
    _expect_true("the result is not the argument reversed", bench.value(future) == block[::-1])
    stats = future.stats
    assert stats is not None
    _expect_true("bytes_in and bytes_out are less than what travelled", min(stats.bytes_in, stats.bytes_out) > 3 * _MB)


@_check("stores")
def buffers(bench: Bench) -> None:
    """Eight megabytes of a bytearray stay a bytearray, there and back."""

    def change(data: bytearray) -> bytearray:
        data[0] ^= 0xFF
        return data

    data = bytearray(random.Random(2).randbytes(8 * _MB))
    back = bench.value(bench.executor.call_async(change, data))
    _expect("type", type(back), bytearray)
    _expect_true("the bytes changed on their way", back[0] == data[0] ^ 0xFF and back[1:] == data[1:])


# -- failures


@_check()
def exceptions(bench: Bench) -> None:
    """An exception comes back as itself, with the remote traceback, and its neighbours' results stay."""

    text = "def fail_at_two(x):\n    if x == 2:\n        raise KeyError('two', x)\n    return x\n"
    with temporary_package({"__init__.py": text}) as package:  # the frames of our own modules are not shown
        futures = bench.executor.map(package.fail_at_two, range(4), retry_exceptions=False)
        values = bench.values(futures, throw_except=False)
    error = values.pop(2)
    _expect("neighbours", values, [0, 1, 3])
    _expect("type", type(error), KeyError)
    _expect("arguments", error.args, ("two", 2))
    _expect_true("the remote traceback is not in __cause__", "raise KeyError('two', x)" in str(error.__cause__))


@_check()
def unpicklable_result(bench: Bench) -> None:
    """A result that cannot be pickled is that call's clear failure."""
    futures = bench.executor.map(lambda x: [x, threading.Lock()] if x else x, range(2), retry_exceptions=False)
    value, error = bench.values(futures, throw_except=False)
    _expect("neighbour", value, 0)
    _expect("type", type(error), SerializationError)
    _expect_true(f"the message does not name the lock: {error}", "lock" in str(error))


@_check("isolates")
def worker_death(bench: Bench) -> None:
    """A worker that dies is noticed at once, is that call's failure, and costs its neighbours nothing."""

    def die_at_one(x: int) -> int:
        if x == 1:
            os._exit(3)
        return x

    futures = bench.executor.map(die_at_one, range(4), retries=0)
    values = bench.values(futures, throw_except=False)
    _expect("neighbours", [values[0], *values[2:]], [0, 2, 3])
    _expect("type", type(values[1]), WorkerDied)


@_check("isolates", "stores")
def retries(bench: Bench) -> None:
    """A call whose worker died is run again."""

    def die_once(key: str, storage: Storage) -> int:
        tried = len(list(storage.list_keys(None, key)))
        storage.put_object(None, f"{key}{tried}", b"")
        if not tried:
            os._exit(1)
        return tried

    future = bench.executor.call_async(die_once, f"{bench.prefix}retries/", retries=1)
    _expect("result of the second attempt", bench.value(future), 1)


@_check("isolates")
def timeout(bench: Bench) -> None:
    """A call that runs longer than its timeout is stopped."""
    began = time.monotonic()
    future = bench.executor.call_async(time.sleep, _LONG, timeout=1)
    (error,) = bench.values([future], throw_except=False)
    _expect("type", type(error), CallTimeout)
    _expect_true("it was not stopped but ran to its end", time.monotonic() - began < _LONG)


@_check("stops", "stores")
def cancel(bench: Bench) -> None:
    """A running call that is cancelled is stopped, and its worker does the next one."""
    prefix = f"{bench.prefix}cancel/"

    def beat(prefix: str, storage: Storage) -> None:
        ends = time.monotonic() + _LONG
        while time.monotonic() < ends:
            storage.put_object(None, f"{prefix}{time.time_ns():x}", b"")
            time.sleep(0.02)

    def beats() -> int:
        return len(list(bench.storage.list_keys(None, prefix)))

    future = bench.executor.call_async(beat, prefix)
    _wait_until("the call did not start", beats)
    _expect_true("cancel() says it came too late", future.cancel() and future.cancelled())
    _expect("the next call", bench.value(bench.executor.call_async(abs, -1)), 1)

    def still() -> bool:
        before = beats()
        time.sleep(0.5)
        return beats() == before

    _wait_until("the call goes on", still)


# -- data


@_check("stores")
def partitions(bench: Bench) -> None:
    """The records of all partitions of an object, in order, are the records of the object, each once."""
    rng = random.Random(3)
    wanted = [rng.randbytes(rng.choice((0, 1, 20, 3000))).replace(b"\n", b" ") + b"\n" for _ in range(300)]
    wanted.append(b"no delimiter at the end")
    body = b"".join(wanted)
    bench.storage.put_object(None, f"{bench.prefix}lines/data.csv", body)

    def read(obj: Any) -> tuple[int, list[bytes]]:
        return obj.part, list(obj.data_stream)

    where = f"{bench.storage.bucket}/{bench.prefix}lines/"
    found = bench.values(bench.executor.map(read, where, obj_chunk_size=10_000))
    _expect("partitions", [part for part, _ in found], list(range(-(-len(body) // 10_000))))
    lines = [line for _, lines in found for line in lines]
    _expect_true("the lines are not those of the object", lines == wanted)


@_check("stores")
def packing(bench: Bench) -> None:
    """Many small objects below a prefix are read by a few calls, each object once."""
    contents = {f"{bench.prefix}small/{number:02}": b"%d" % number * 50 for number in range(24)}
    for key, body in contents.items():
        bench.storage.put_object(None, key, body)

    def read(obj: Any) -> list[tuple[str, bytes]]:
        return [(one.key, one.data_stream.read()) for one in obj]

    where = f"{bench.storage.bucket}/{bench.prefix}small/*"
    futures = bench.executor.map(read, where, obj_pack_size=1000)
    found = [pair for pairs in bench.values(futures) for pair in pairs]
    _expect_true(f"{len(futures)} calls for 24 objects", len(futures) <= 6)
    _expect_true("the objects are not those that were put", found == list(contents.items()))


@_check("stores")
def cloud_objects(bench: Bench) -> None:
    """What a function stores as a cloud object, the client and other functions can fetch."""

    def put(x: int, storage: Storage) -> CloudObject:
        return storage.put_cloudobject(b"body %d" % x)

    def get(name: CloudObject, storage: Storage) -> bytes:
        return storage.get_cloudobject(name)

    names = bench.values(bench.executor.map(put, range(3)))
    wanted = [b"body 0", b"body 1", b"body 2"]
    _expect("in the client", [bench.storage.get_cloudobject(name) for name in names], wanted)
    _expect("in functions", bench.values(bench.executor.map(get, names)), wanted)
    bench.storage.delete_cloudobjects(names)
    _expect("left", [key for name in names for key in bench.storage.list_keys(name.bucket, name.key)], [])


# -- what is told of calls


@_check("isolates")
def logs(bench: Bench) -> None:
    """What a call prints is kept with its future."""

    def speak(x: int) -> None:
        print(f"out {x}")  # noqa: T201 - what this is about
        print(f"err {x}", file=sys.stderr)  # noqa: T201

    futures = bench.executor.map(speak, range(2))
    bench.values(futures)
    for number, future in enumerate(futures):
        _expect(f"lines of call {number}", sorted(future.logs.split("\n")), ["", f"err {number}", f"out {number}"])


@_check()
def stats(bench: Bench) -> None:
    """Every settled call has its times, its attempt and its worker, in a possible order."""

    def work(x: int) -> int:
        ends = time.process_time() + 0.02
        while time.process_time() < ends:
            x += 1
        return x

    future = bench.executor.call_async(work, 0)
    bench.value(future)
    told = future.stats
    assert told is not None
    _expect("status", told.status, "ok")
    _expect_true(f"attempt {told.attempt}", told.attempt >= 1)
    _expect_true("no worker id", told.worker_id)
    _expect_true(f"function_time {told.function_time}", told.function_time is not None and told.function_time > 0.01)
    _expect_true(f"{told.cpu_user + told.cpu_system} s of CPU time", told.cpu_user + told.cpu_system > 0.01)
    _expect_true(f"peak memory {told.peak_memory}", told.peak_memory > _MB)
    _expect_true("bytes_in or bytes_out is 0", told.bytes_in and told.bytes_out)
    dispatched = told.dispatched or 0.0
    _expect_true("the client's times are not in order", told.submitted <= dispatched <= told.settled)


@_check("stores")
def cleaning(bench: Bench) -> None:
    """An executor that was cleaned leaves nothing in storage."""

    def put(data: bytes, storage: Storage) -> bytes:
        storage.put_cloudobject(data)
        return data

    def left() -> list[str]:
        prefixes = (
            records.executor_prefix(executor.executor_id),
            f"{records.CLOUDOBJECTS_PREFIX}{executor.executor_id}",
        )
        return [key for prefix in prefixes for key in bench.storage.list_keys(None, prefix)]

    with function_executor(**{**bench.settings, "data_cleaner": True}) as executor:
        future = executor.call_async(put, bytes(2 * _MB))
        executor.get_result(future, timeout=_LIMIT)
        _expect_true("nothing was stored in the first place", left())
    bulk = [key for key in left() if "/inputs" in key or "/outcomes/" in key]
    _expect("bulk data after shutdown", bulk, [])
    executor.clean()
    _expect("objects after clean()", left(), [])


def _wait_until(problem: str, holds: Callable[[], object]) -> None:
    ends = time.monotonic() + _LIMIT
    while not holds():
        _expect_true(problem, time.monotonic() < ends)
        time.sleep(0.02)
