"""The contract of compute backends, as tests: a backend is right when its subclass of ``ComputeContract`` passes.

class TestMyCompute(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path):  # arguments of function_executor
        return {"backend": "my_compute", "storage": "...", "storage_bucket": "...", ...}

``pytest.register_assert_rewrite("lithops_mini.testing.compute")`` before the import makes failures tell more.

The tests above the line send messages to the backend itself, those below run jobs on it. What calls do is seen through
the storage, so the workers may be anywhere. A promise that a backend does not make is skipped, with the reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lithops_mini import records, registry
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.inbox import Inbox
from lithops_mini.config import Config, load
from lithops_mini.errors import (
    CallTimeout,
    InputError,
    InvocationError,
    ObjectExists,
    OutOfMemory,
    Reason,
    RemoteError,
    WorkerDied,
)
from lithops_mini.executor import FunctionExecutor, function_executor
from lithops_mini.storage.api import Storage
from lithops_mini.storage.base import StorageBackend, WorkerNeeds
from lithops_mini.testing.messages import Messages, outcomes, statuses, worker_id
from lithops_mini.testing.packages import temporary_package

MIB = 1 << 20
LONG = 120.0
"""Seconds for which calls sleep that are to be stopped."""

Settings = dict[str, Any]


class Trace:
    """What calls leave in storage: by this they are counted and seen running."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        self.storage = storage
        self.prefix = prefix

    def left(self, below: str = "") -> list[str]:
        """The ends of the keys below a prefix."""
        start = self.prefix + below
        return [key.removeprefix(start) for key in self.storage.list_keys(None, start)]

    def attempts(self, calls: int) -> list[int]:
        """How often each of so many calls was begun."""
        begun = [int(key.partition(".")[0]) for key in self.left("attempt/")]
        assert all(call < calls for call in begun)
        return [begun.count(call) for call in range(calls)]

    def beating(self) -> int:
        """How many calls that beat have begun."""
        return len({key.partition(".")[0] for key in self.left("beat/")})

    def is_still(self) -> bool:
        """Whether no call has left anything for a while in which one that beats must have."""
        before = self.left()
        threading.Event().wait(0.5)
        return self.left() == before


class ComputeContract:
    """Every promise of ``lithops_mini.compute.base``, and what jobs promise that a backend takes part in."""

    limits_memory: ClassVar[bool] = True
    """Whether a worker that holds more than ``runtime_memory`` is stopped."""

    reuses_workers: ClassVar[bool] = True
    """Whether messages that follow each other are run by the same, warm worker."""

    lends: ClassVar[bool] = True
    """Whether workers have what ``deploy`` was given; ``False`` where they have an identity of their own."""

    together: ClassVar[int] = 4
    """How many messages at once are tried, if the backend takes so many."""

    many: ClassVar[int] = 60
    """How many jobs are run one after the other; where workers die at random, there are five times as many calls."""

    left_running: ClassVar[float] = 5.0
    """The timeout of calls that run on when they should be stopped, where ``stops`` of the backend is false."""

    promptly: ClassVar[float] = 15.0
    """Seconds in which what is stopped, or has died, must be over."""

    # ---------------------------------------------------------------- fixtures

    @pytest.fixture
    def config(self, executor_settings: Settings) -> Config:
        return load(**executor_settings)

    @pytest.fixture
    def kind(self, config: Config) -> type[ComputeBackend]:
        found: type[ComputeBackend] = registry.find("compute", config.backend)
        return found

    @pytest.fixture
    def make_backend(
        self, kind: type[ComputeBackend], config: Config, trace: Trace, needs: WorkerNeeds
    ) -> Iterator[Callable[[], ComputeBackend]]:
        """Makes instances of the backend, which are closed after the test."""
        made: list[ComputeBackend] = []

        def make() -> ComputeBackend:
            made.append(kind(config.compute_options))  # type: ignore[call-arg]  # as the seam says
            if needs.remote:
                bucket, number = config.job.storage_bucket, os.urandom(6).hex()
                made[-1].use_inbox(Inbox(config.storage, trace.storage.backend, bucket, number))
            return made[-1]

        yield make
        for backend in made:
            backend.close()

    @pytest.fixture
    def needs(self, trace: Trace, config: Config) -> WorkerNeeds:
        return trace.storage.backend.worker_needs(config.job.storage_bucket)

    @pytest.fixture
    def backend(self, make_backend: Callable[[], ComputeBackend], needs: WorkerNeeds) -> ComputeBackend:
        backend = make_backend()
        backend.deploy(needs)
        return backend

    @pytest.fixture
    def trace(self, config: Config) -> Iterator[Trace]:
        backend = registry.find("storage", config.storage)(config.storage_options)
        with Storage(backend, config.job.storage_bucket) as storage:
            storage.create_bucket()
            trace = Trace(storage, f"lithops_mini/contract/{os.urandom(6).hex()}/")
            yield trace
            storage.delete_objects(None, [trace.prefix + key for key in trace.left()])

    @pytest.fixture
    def messages(self, config: Config, trace: Trace) -> Messages:
        return Messages(config, trace.storage.backend)

    @pytest.fixture
    def executor(self, executor_settings: Settings) -> Iterator[FunctionExecutor]:
        executor = function_executor(**{"progress": False, **executor_settings})
        yield executor
        executor.shutdown(cancel_futures=True)
        executor.clean()

    @pytest.fixture
    def isolated(self, kind: type[ComputeBackend]) -> None:
        if not kind.isolates:
            pytest.skip("the backend says that its calls run in this process (isolates = False)")

    @pytest.fixture
    def stoppable(self, kind: type[ComputeBackend]) -> None:
        if not kind.stops:
            pytest.skip("the backend says that it cannot stop a call that runs (stops = False)")

    # ---------------------------------------------------------------- messages

    def test_it_says_what_it_takes(self, backend: ComputeBackend, kind: type[ComputeBackend]) -> None:
        assert dataclasses.is_dataclass(kind.Options)
        assert kind.Options.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert all(field.metadata.get("help") for field in dataclasses.fields(kind.Options))
        assert backend.concurrency >= 1
        assert min(backend.max_payload, backend.max_reply) >= 64 << 10

    def test_a_reply_has_the_outcome_of_every_call(self, backend: ComputeBackend, messages: Messages) -> None:
        began = time.time()
        reply = backend.invoke(messages.payload(lambda x: x * x, range(20)), Activation())
        assert messages.values(reply) == [x * x for x in range(20)]
        assert [(outcome.call, outcome.attempt) for outcome in outcomes(reply)] == [(x, 1) for x in range(20)]
        assert worker_id(reply)
        for outcome in outcomes(reply):
            assert began - 60 < outcome.started <= outcome.ended < time.time() + 60  # the worker's clock may be off
            assert outcome.bytes_in > 0
            assert outcome.bytes_out > 0

    def test_a_payload_may_be_as_long_as_it_says(self, backend: ComputeBackend, messages: Messages) -> None:
        def sums(data: bytes) -> tuple[int, int]:
            return len(data), sum(data[:: 1 << 10])

        size = backend.max_payload - (16 << 10)
        size += backend.max_payload - len(messages.payload(sums, [bytes(size)]))
        data = random.Random(1).randbytes(size)
        payload = messages.payload(sums, [data])
        assert len(payload) == backend.max_payload
        assert messages.values(backend.invoke(payload, Activation())) == [(size, sum(data[:: 1 << 10]))]

    def test_a_reply_may_be_as_long_as_it_says(self, backend: ComputeBackend, messages: Messages) -> None:
        size = backend.max_reply - 1024
        payload = messages.payload(lambda size: b"r" * size, [size], inline=backend.max_reply)
        reply = backend.invoke(payload, Activation())
        assert size < len(reply) <= backend.max_reply
        assert messages.values(reply) == [b"r" * size]

    def test_what_is_too_large_for_a_reply_is_stored(self, backend: ComputeBackend, messages: Messages) -> None:
        size = 2 * backend.max_reply
        reply = backend.invoke(messages.payload(lambda size: b"r" * size, [1, size]), Activation())
        assert len(reply) < 64 << 10
        assert messages.values(reply) == [b"r", b"r" * size]

    def test_an_exception_is_an_outcome(self, backend: ComputeBackend, messages: Messages) -> None:
        reply = backend.invoke(messages.payload(lambda x: 1 // x, [1, 0, 1]), Activation())
        assert statuses(reply) == ["OK", "ERROR", "OK"]
        assert b"ZeroDivisionError" in bytes(outcomes(reply)[1].data)

    def test_so_many_messages_run_at_once(self, backend: ComputeBackend, messages: Messages, trace: Trace) -> None:
        count = min(backend.concurrency, self.together)
        if count == 1:
            pytest.skip("the backend says that it takes one message at a time (concurrency = 1)")
        meet = _meeting(trace.prefix, count)
        payloads = [messages.payload(meet, [str(number)], inject=["storage"]) for number in range(count)]
        with ThreadPoolExecutor(count) as pool:
            replies = list(pool.map(lambda payload: backend.invoke(payload, Activation()), payloads))
        assert [messages.values(reply) for reply in replies] == [[True]] * count
        assert len({worker_id(reply) for reply in replies}) == count

    def test_more_messages_than_it_takes(self, backend: ComputeBackend, messages: Messages) -> None:
        count = backend.concurrency + 3
        if count > 64:
            pytest.skip(f"the backend takes {backend.concurrency} messages at a time: too many to exceed in a test")
        payload = messages.payload(time.sleep, [0.2])
        with ThreadPoolExecutor(count) as pool:
            sent = [pool.submit(backend.invoke, payload, Activation()) for _ in range(count)]
        refused = [error for future in sent if isinstance(error := future.exception(), InvocationError)]
        assert all(error.reason == Reason.THROTTLED and error.retryable for error in refused)
        assert [statuses(future.result()) for future in sent if future.exception() is None] == [["OK"]] * (
            count - len(refused)
        )
        assert len(refused) <= 3

    def test_many_threads(self, backend: ComputeBackend, messages: Messages) -> None:
        count = min(backend.concurrency, 8)

        def send(thread: int) -> None:
            for turn in range(15):
                inputs = [thread * 1000 + turn * 10 + number for number in range(turn % 4 + 1)]
                reply = backend.invoke(messages.payload(lambda x: x, inputs), Activation())
                assert messages.values(reply) == inputs

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(send, range(count)))

    def test_a_worker_is_used_again(self, backend: ComputeBackend, messages: Messages) -> None:
        if not self.reuses_workers:
            pytest.skip("the backend does not keep its workers (reuses_workers = False)")
        replies = [backend.invoke(messages.payload(lambda _: os.getpid(), [0, 1]), Activation()) for _ in range(5)]
        assert len({worker_id(reply) for reply in replies}) == 1
        assert len({pid for reply in replies for pid in messages.values(reply)}) == 1
        assert [outcome.cold for reply in replies for outcome in outcomes(reply)] == [1] + [0] * 9

    def test_the_environment_is_that_of_the_message(self, backend: ComputeBackend, messages: Messages) -> None:
        name = f"LM_CONTRACT_{os.urandom(4).hex()}"

        def read(_: int) -> tuple[str | None, bool]:
            return os.environ.get(name), "HOME" in os.environ or "PATH" in os.environ

        seen = []
        for env in ({}, {name: "first"}, {name: "é =\n", "HOME": "/nowhere"}, {}):
            seen += messages.values(backend.invoke(messages.payload(read, [0, 1], env=env), Activation()))
        assert [value for value, _ in seen] == [None, None, "first", "first", "é =\n", "é =\n", None, None]
        assert all(rest for _, rest in seen)
        assert name not in os.environ

    def test_workers_have_what_was_lent(
        self,
        make_backend: Callable[[], ComputeBackend],
        kind: type[ComputeBackend],
        needs: WorkerNeeds,
        messages: Messages,
    ) -> None:
        self._need_lending()
        name, secret = _secret()
        backend, other = make_backend(), make_backend()
        backend.deploy(_with(needs, name, secret))
        other.deploy(needs)

        def read(_: int) -> str:
            return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest()

        def die(_: int) -> None:
            os._exit(5)

        for env in ({}, {f"{name}_OTHER": "other"}, {}):
            reply = backend.invoke(messages.payload(read, [0], env=env), Activation())
            assert messages.values(reply) == [_digest(secret)]
        if kind.isolates:
            assert statuses(backend.invoke(messages.payload(die, [0]), Activation())) == ["DIED"]
        assert messages.values(backend.invoke(messages.payload(read, [0]), Activation())) == [_digest(secret)]
        assert messages.values(other.invoke(messages.payload(read, [0]), Activation())) == [_digest("")]
        assert name not in os.environ

    def _need_lending(self) -> None:
        if not self.lends:
            pytest.skip("the backend's workers have an identity of their own (lends = False)")

    @pytest.mark.usefixtures("isolated")
    def test_output_is_kept(self, backend: ComputeBackend, messages: Messages) -> None:
        def speak(x: int) -> None:
            print(f"print {x}")  # noqa: T201 - what this is about
            print(f"error {x}", file=sys.stderr)  # noqa: T201
            os.write(1, b"descriptor %d\n" % x)
            subprocess.run([sys.executable, "-c", f"print('child {x}')"], check=True)

        for number in (0, 1):
            (outcome,) = outcomes(backend.invoke(messages.payload(speak, [number]), Activation()))
            lines = bytes(outcome.log).decode().splitlines()
            assert sorted(lines) == [f"{what} {number}" for what in ("child", "descriptor", "error", "print")]

    @pytest.mark.usefixtures("isolated")
    def test_of_much_output_both_ends_are_kept(self, backend: ComputeBackend, messages: Messages) -> None:
        def speak(count: int) -> None:
            print("the beginning")  # noqa: T201 - what this is about
            for _ in range(count):
                print("x" * 99)  # noqa: T201
            print("the end")  # noqa: T201

        (outcome,) = outcomes(backend.invoke(messages.payload(speak, [30_000]), Activation()))
        log = bytes(outcome.log)
        assert len(log) < 128 << 10
        assert log.startswith(b"the beginning\n")
        assert log.endswith(b"the end\n")

    # ---------------------------------------------------------------- messages: deaths and limits

    @pytest.mark.usefixtures("isolated")
    @pytest.mark.parametrize("how", ["exit", "kill"])
    def test_a_death_is_one_outcome(self, backend: ComputeBackend, messages: Messages, how: str) -> None:
        def die_at_two(x: int) -> int:
            if x == 2:
                os.write(2, b"last words\n")
                if how == "exit":
                    os._exit(5)
                os.kill(os.getpid(), 9)
            return x

        began = time.monotonic()
        reply = backend.invoke(messages.payload(die_at_two, range(5)), Activation())
        assert time.monotonic() - began < self.promptly
        assert statuses(reply) == ["OK", "OK", "DIED", "UNSTARTED", "UNSTARTED"]
        victim = outcomes(reply)[2]
        assert (b"exit code 5" if how == "exit" else b"SIGKILL") in bytes(victim.data)
        assert bytes(victim.log) == b"last words\n"
        after = backend.invoke(messages.payload(die_at_two, [1]), Activation())
        assert messages.values(after) == [1]
        assert worker_id(after) != worker_id(reply)

    @pytest.mark.usefixtures("isolated")
    def test_a_timeout_is_one_outcome(self, backend: ComputeBackend, messages: Messages) -> None:
        def sleep_at_one(x: int) -> int:
            if x == 1:
                time.sleep(LONG)
            return x

        backend.invoke(messages.payload(abs, [1]), Activation())  # starting is no part of a call's time
        began = time.monotonic()
        reply = backend.invoke(messages.payload(sleep_at_one, range(3), timeout=1.0), Activation())
        took = time.monotonic() - began
        assert statuses(reply) == ["OK", "TIMEOUT", "UNSTARTED"]
        assert 1.0 <= took < 1.0 + self.promptly
        victim = outcomes(reply)[1]
        assert 0.9 <= victim.ended - victim.started < 1.0 + self.promptly
        assert b"1 s" in bytes(victim.data)

    def test_calls_within_their_timeout_are_left_alone(self, backend: ComputeBackend, messages: Messages) -> None:
        backend.invoke(messages.payload(abs, [1]), Activation())
        payload = messages.payload(time.sleep, [0.4] * 4, timeout=1.0)
        assert set(statuses(backend.invoke(payload, Activation()))) <= {"OK", "UNSTARTED"}

    @pytest.mark.usefixtures("isolated")
    def test_too_much_memory_is_one_outcome(self, backend: ComputeBackend, messages: Messages) -> None:
        if not self.limits_memory:
            pytest.skip("the backend does not limit the memory of its workers (limits_memory = False)")
        reply = backend.invoke(messages.payload(_filling(), [10, 600, 10], memory=200 * MIB), Activation())
        assert statuses(reply) == ["OK", "OUT_OF_MEMORY", "UNSTARTED"]
        assert b"200 MiB" in bytes(outcomes(reply)[1].data)
        assert messages.values(backend.invoke(messages.payload(_filling(), [10]), Activation())) == [10]

    # ---------------------------------------------------------------- messages: stop

    @pytest.mark.usefixtures("stoppable")
    def test_a_running_call_is_stopped(self, backend: ComputeBackend, messages: Messages, trace: Trace) -> None:
        activation = Activation()
        payload = messages.payload(_beating(trace.prefix, at=1), range(3), inject=["storage"])
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(backend.invoke, payload, activation)
            _until(lambda: trace.left("beat/"), "the call runs", sent)
            began = time.monotonic()
            activation.stop(frozenset((1,)))
            reply = sent.result(LONG)
        activation.end()
        assert time.monotonic() - began < self.promptly
        first, stopped, last = statuses(reply)
        assert (first, stopped) == ("OK", "CANCELLED")
        assert last in ("OK", "UNSTARTED")
        assert trace.is_still()
        assert messages.values(backend.invoke(messages.payload(abs, [-1, -2]), Activation())) == [1, 2]

    @pytest.mark.usefixtures("stoppable")
    def test_a_call_stopped_before_it_was_sent(self, backend: ComputeBackend, messages: Messages) -> None:
        activation = Activation()
        activation.stop(frozenset((0,)))
        began = time.monotonic()
        reply = backend.invoke(messages.payload(time.sleep, [LONG]), activation)
        assert time.monotonic() - began < self.promptly
        assert statuses(reply) == ["CANCELLED"]

    def test_a_stop_means_the_calls_it_names(self, backend: ComputeBackend, messages: Messages) -> None:
        """... of this message, and none of the message after it, however late it comes."""

        class Late(Activation):
            def end(self) -> None:
                self.stop(frozenset((0, 1, 2)))
                super().end()

        activation = Late()
        activation.stop(frozenset((99,)))
        assert messages.values(backend.invoke(messages.payload(abs, [-1, -2]), activation)) == [1, 2]
        activation.end()
        activation.stop(frozenset((0,)))
        after = messages.payload(time.sleep, [0.1, 0.1])
        for _ in range(min(backend.concurrency, 8)):
            assert set(statuses(backend.invoke(after, Activation()))) <= {"OK", "UNSTARTED"}

    # ---------------------------------------------------------------- deploy, close

    def test_deploying_again_changes_nothing(
        self, make_backend: Callable[[], ComputeBackend], needs: WorkerNeeds, messages: Messages
    ) -> None:
        backend = make_backend()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: backend.deploy(needs), range(8)))
        before = messages.values(backend.invoke(messages.payload(lambda _: os.getpid(), [0]), Activation()))
        backend.deploy(needs)
        after = messages.values(backend.invoke(messages.payload(lambda _: os.getpid(), [0]), Activation()))
        assert before == after or not self.reuses_workers

    def test_closing_leaves_nothing(
        self,
        make_backend: Callable[[], ComputeBackend],
        needs: WorkerNeeds,
        messages: Messages,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        children, threads = _children(), set(threading.enumerate())
        unused, deployed, used = make_backend(), make_backend(), make_backend()
        deployed.deploy(needs)
        used.deploy(needs)
        with temporary_package({"__init__.py": "first = 1\n"}) as package:
            payload = messages.payload(lambda _: package.first, [0])
            assert messages.values(used.invoke(payload, Activation())) == [1]
        for backend in (unused, deployed, used):
            backend.close()
            backend.close()
        assert _children() <= children
        assert set(threading.enumerate()) <= threads
        assert list(temporary.iterdir()) == []

    def test_a_closed_backend_takes_no_message(self, backend: ComputeBackend, messages: Messages) -> None:
        backend.close()
        with pytest.raises(InvocationError) as caught:
            backend.invoke(messages.payload(abs, [1]), Activation())
        assert caught.value.reason == Reason.CANCELLED

    @pytest.mark.usefixtures("isolated")
    def test_closing_ends_what_runs(
        self, make_backend: Callable[[], ComputeBackend], needs: WorkerNeeds, messages: Messages, trace: Trace
    ) -> None:
        children = _children()
        backend, other = make_backend(), make_backend()
        backend.deploy(needs)
        other.deploy(needs)
        count = min(backend.concurrency, self.together)
        timeout = None if backend.stops else self.left_running
        payload = messages.payload(_beating(trace.prefix), [0, 1], inject=["storage"], timeout=timeout)
        with ThreadPoolExecutor(count) as pool:
            sent = [pool.submit(backend.invoke, payload, Activation()) for _ in range(count)]
            _until(lambda: trace.beating() == count, "all run", *sent)
            began = time.monotonic()
            backend.close()
            for future in sent:
                with pytest.raises(InvocationError):
                    future.result(LONG)
        assert time.monotonic() - began < self.promptly
        self._see_the_end(backend, trace, began)
        assert trace.beating() == count
        assert messages.values(other.invoke(messages.payload(abs, [-1]), Activation())) == [1]
        other.close()
        assert _children() <= children

    def _see_the_end(self, backend: ComputeBackend, trace: Trace, closed: float) -> None:
        """What ran when the backend was closed has ended; where nothing can stop it, by its timeout."""
        while not (still := trace.is_still()) and not backend.stops:
            assert time.monotonic() - closed < self.left_running + self.promptly
        assert still

    # ================================================================ jobs: exact attempts

    def test_results_have_their_order(self, executor: FunctionExecutor) -> None:
        assert executor.get_result(executor.map(lambda x: x * x, range(500))) == [x * x for x in range(500)]

    def test_large_arguments_and_results(self, executor: FunctionExecutor) -> None:
        blocks = [random.Random(number).randbytes(3 * MIB) for number in range(3)]
        futures = executor.map(lambda data, more: data[::-1] + more, [(block, b"end") for block in blocks])
        assert executor.get_result(futures) == [block[::-1] + b"end" for block in blocks]
        back = executor.get_result(executor.submit(lambda data: data, bytearray(blocks[0])))
        assert type(back) is bytearray
        assert back == blocks[0]

    def test_a_map_and_its_reducers(self, executor: FunctionExecutor) -> None:
        def flatten(lists: Any) -> list[Any]:
            return [item for items in lists for item in items]

        for spawn in (0, 50, 100):
            executor.map_reduce(lambda x: [x] * 1000, range(30), flatten, spawn_reducer=spawn)
            assert executor.get_result() == [x for x in range(30) for _ in range(1000)]

    def test_an_exception_is_one_calls_failure(self, executor: FunctionExecutor, trace: Trace) -> None:
        function = _planned(trace.prefix, {1: ["fail"], 3: ["leave"], 4: ["interrupt"]})
        values = executor.get_result(executor.map(function, range(6)), throw_except=False)
        assert [values[number] for number in (0, 2, 5)] == [0, 20, 50]
        assert type(values[1]) is ValueError
        assert values[1].args == ("as planned", 1)
        assert [type(values[number]) for number in (3, 4)] == [RemoteError, RemoteError]
        assert [values[number].type_name for number in (3, 4)] == ["SystemExit", "KeyboardInterrupt"]
        assert trace.attempts(6) == [1] * 6

    def test_exceptions_are_tried_again_when_asked(self, executor: FunctionExecutor, trace: Trace) -> None:
        function = _planned(trace.prefix, {1: ["fail"] * 2, 2: ["fail"] * 9})
        futures = executor.map(function, range(4), retries=2, retry_exceptions=ValueError)
        values = executor.get_result(futures, throw_except=False)
        assert values[:2] + values[3:] == [0, 10, 30]
        assert type(values[2]) is ValueError
        assert trace.attempts(4) == [1, 3, 3, 1]

    @pytest.mark.usefixtures("isolated")
    def test_a_lost_call_has_exactly_its_attempts(self, executor: FunctionExecutor, trace: Trace) -> None:
        function = _planned(trace.prefix, {2: ["die"] * 9, 4: ["die"] * 2})
        futures = executor.map(function, range(8), retries=2)
        values = executor.get_result(futures, throw_except=False)
        assert type(values[2]) is WorkerDied
        assert values[:2] + values[3:] == [0, 10, 30, 40, 50, 60, 70]
        assert trace.attempts(8) == [1, 1, 3, 1, 3, 1, 1, 1]
        assert [future.stats.attempt for future in futures if future.stats] == trace.attempts(8)

    @pytest.mark.usefixtures("isolated")
    def test_deaths_at_random_cost_no_result(self, executor: FunctionExecutor, trace: Trace) -> None:
        seed = random.randrange(1 << 30)
        print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
        rng, count = random.Random(seed), 5 * self.many
        plan = {call: ["die"] * rng.choice((1, 1, 1, 2, 3)) for call in range(count) if rng.random() < 0.1}
        futures = executor.map(_planned(trace.prefix, plan), range(count), retries=3)
        assert executor.get_result(futures) == [10 * call for call in range(count)]
        assert trace.attempts(count) == [1 + len(plan.get(call, ())) for call in range(count)]

    @pytest.mark.usefixtures("isolated")
    def test_a_timeout_is_one_calls_failure(self, executor: FunctionExecutor, trace: Trace) -> None:
        function = _planned(trace.prefix, {1: ["sleep"] * 9})
        began = time.monotonic()
        values = executor.get_result(executor.map(function, range(4), timeout=1.0), throw_except=False)
        assert time.monotonic() - began < 1.0 + 2 * self.promptly
        assert type(values[1]) is CallTimeout
        assert values[:1] + values[2:] == [0, 20, 30]
        assert trace.attempts(4) == [1] * 4

    @pytest.mark.usefixtures("isolated")
    def test_too_much_memory_is_one_calls_failure(self, executor: FunctionExecutor) -> None:
        if not self.limits_memory:
            pytest.skip("the backend does not limit the memory of its workers (limits_memory = False)")
        futures = executor.map(_filling(), [10, 600, 10], runtime_memory=200)
        values = executor.get_result(futures, throw_except=False)
        assert type(values[1]) is OutOfMemory
        assert [values[0], values[2]] == [10, 10]

    # ---------------------------------------------------------------- jobs: cancel, shut down

    @pytest.mark.usefixtures("stoppable")
    def test_cancelled_calls_stop_or_never_start(
        self, executor: FunctionExecutor, backend: ComputeBackend, trace: Trace
    ) -> None:
        running = min(backend.concurrency, 16)
        waiting = 3 if backend.concurrency <= 16 else 0
        futures = executor.map(_beating(trace.prefix), range(running + waiting), chunksize=1)
        _until(lambda: trace.beating() == running, "they run")
        began = time.monotonic()
        for future in reversed(futures):
            assert future.cancel()
        assert all(future.cancelled() for future in futures)
        assert executor.get_result(executor.map(abs, [-1, -2])) == [1, 2]
        assert time.monotonic() - began < self.promptly
        assert trace.is_still()
        assert trace.beating() == running

    @pytest.mark.usefixtures("isolated")
    def test_shutting_down_ends_what_runs(
        self, executor: FunctionExecutor, backend: ComputeBackend, trace: Trace
    ) -> None:
        children = _children()
        running = min(backend.concurrency, self.together)
        timeout = None if backend.stops else self.left_running
        futures = executor.map(_beating(trace.prefix), range(running + 3), chunksize=1, timeout=timeout)
        _until(lambda: trace.beating() >= running, "they run")
        began = time.monotonic()
        executor.shutdown(wait=False)
        assert time.monotonic() - began < self.promptly
        assert all(future.cancelled() for future in futures)
        self._see_the_end(backend, trace, began)
        assert backend.concurrency > running or trace.beating() == running
        assert _children() <= children

    # ---------------------------------------------------------------- jobs: many, and what travels

    def test_many_jobs_one_after_the_other(self, executor: FunctionExecutor) -> None:
        for number in range(self.many):
            assert executor.get_result(executor.map(lambda x, y: x + y, [(1, number), (2, number)])) == [
                1 + number,
                2 + number,
            ]

    def test_executors_in_several_threads(self, executor_settings: Settings) -> None:
        def use(number: int) -> None:
            with function_executor(**{"progress": False, **executor_settings}) as executor:
                for turn in range(5):
                    assert executor.get_result(executor.map(lambda x: x * number, range(turn))) == [
                        x * number for x in range(turn)
                    ]
            executor.clean()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(use, range(3)))

    def test_an_executor_used_by_several_threads(self, executor: FunctionExecutor) -> None:
        def use(number: int) -> None:
            for turn in range(self.many // 10):
                assert executor.submit(lambda x, y: (x, y), number, turn).result(LONG) == (number, turn)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(use, range(6)))

    def test_a_package_travels_in_the_version_of_its_job(self, executor: FunctionExecutor) -> None:
        name = f"contract_{os.urandom(4).hex()}"
        for version in (1, 2):
            with temporary_package({"__init__.py": f"first = {version}\n"}, name) as package:
                assert executor.get_result(executor.map(lambda _: package.first, range(4))) == [version] * 4

    def test_what_was_lent_is_in_no_message_and_no_record(
        self,
        executor_settings: Settings,
        config: Config,
        kind: type[ComputeBackend],
        trace: Trace,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._need_lending()
        name, secret = _secret()
        storage = registry.find("storage", config.storage)
        needed, invoke, carried = storage.worker_needs, kind.invoke, list[bytes]()

        def carry(self: ComputeBackend, payload: bytes, activation: Activation) -> bytes:
            reply = invoke(self, payload, activation)
            carried.extend((bytes(payload), bytes(reply)))
            return reply

        def read(size: int) -> tuple[str, bytes]:
            return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest(), bytes(size)

        def need(self: StorageBackend, bucket: str) -> WorkerNeeds:
            return _with(needed(self, bucket), name, secret)

        monkeypatch.setattr(storage, "worker_needs", need)
        monkeypatch.setattr(kind, "invoke", carry)
        with function_executor(**{"progress": False, "data_cleaner": False, **executor_settings}) as executor:
            found = executor.get_result(executor.map(read, [1, MIB], extra_env={f"{name}_OTHER": "other"}))
        prefix = records.executor_prefix(executor.executor_id)
        stored = [trace.storage.get_object(None, key) for key in trace.storage.list_keys(None, prefix)]
        executor.clean()
        assert [digest for digest, _ in found] == [_digest(secret)] * 2
        assert len(carried) >= 2
        assert len(stored) >= 3  # the manifest, a large result, what was settled
        assert not any(secret.encode() in data for data in (*carried, *stored))

    def test_local_files_are_data_where_files_are_shared(
        self, executor: FunctionExecutor, kind: type[ComputeBackend], tmp_path: Path
    ) -> None:
        def lines(obj: Any) -> bytes:
            return b"".join(obj.data_stream)

        (tmp_path / "data.txt").write_bytes(b"one\ntwo\nthree\n" * 100)
        if not kind.shares_files:
            with pytest.raises(InputError):
                executor.map(lines, f"{tmp_path}/data.txt")
            pytest.skip("the workers do not see this machine's files (shares_files = False)")
        futures = executor.map(lines, f"{tmp_path}/data.txt", obj_chunk_number=5)
        assert b"".join(executor.get_result(futures)) == b"one\ntwo\nthree\n" * 100


# ---------------------------------------------------------------- functions for calls: made in functions, sent by value


def _planned(prefix: str, ends: dict[int, list[str]]) -> Callable[..., int]:
    """A function that counts its attempts in storage and ends each as planned, else returns ten times its input."""

    def run(call: int, storage: Storage) -> int:
        attempt = 1
        while True:
            try:
                storage.put_object(None, f"{prefix}attempt/{call}.{attempt}", b"", if_absent=True)
                break
            except ObjectExists:
                attempt += 1
        end = "".join(ends.get(call, [])[attempt - 1 : attempt])
        if end == "fail":
            raise ValueError("as planned", call)
        if end == "leave":
            sys.exit("as planned")
        if end == "interrupt":
            raise KeyboardInterrupt("as planned")
        if end == "die":
            os._exit(9)
        if end == "sleep":
            time.sleep(LONG)
        return 10 * call

    return run


def _beating(prefix: str, at: int | None = None) -> Callable[..., None]:
    """A function that puts an object every few hundredths of a second, for long, and says so if it returns."""

    def beat(call: int, storage: Storage) -> None:
        if at is not None and call != at:
            return
        name = os.urandom(6).hex()
        ends = time.monotonic() + LONG
        number = 0
        while time.monotonic() < ends:
            storage.put_object(None, f"{prefix}beat/{name}.{number:06}", b"")
            number += 1
            time.sleep(0.05)

    return beat


def _meeting(prefix: str, count: int) -> Callable[..., bool]:
    """A function that returns whether so many of its calls were there at the same time."""

    def meet(name: str, storage: Storage) -> bool:
        storage.put_object(None, f"{prefix}here/{name}", b"")
        ends = time.monotonic() + 60
        while len(list(storage.list_keys(None, f"{prefix}here/"))) < count:
            if time.monotonic() > ends:
                return False
            time.sleep(0.01)
        return True

    return meet


def _filling() -> Callable[[int], int]:
    """A function that holds so many MiB of memory, and returns their number."""

    def fill(mebibytes: int) -> int:
        return len([bytearray(os.urandom(1 << 10) * (1 << 10)) for _ in range(mebibytes)])

    return fill


# ---------------------------------------------------------------- looking and waiting


def _with(needs: WorkerNeeds, name: str, secret: str) -> WorkerNeeds:
    return dataclasses.replace(needs, environment={**needs.environment, name: secret})


def _secret() -> tuple[str, str]:
    """The name of an environment variable and a secret for it."""
    return f"LM_CONTRACT_{os.urandom(4).hex()}", os.urandom(16).hex()


def _digest(text: str) -> str:
    """By this a call can tell what it has without telling it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _children() -> set[int]:
    """The processes this one has started and not waited for; none where the system does not tell."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        found.update(map(int, task.read_text().split()))
    return found


def _until(holds: Callable[[], object], what: str, *sent: Future[Any]) -> None:
    """Wait until the condition holds; fail when that takes too long, or what was sent has ended."""
    ends = time.monotonic() + 60
    pause = threading.Event()
    while not holds():
        for future in sent:
            assert not future.done(), future.result()
        assert time.monotonic() < ends, f"not in a minute: {what}"
        pause.wait(0.01)
