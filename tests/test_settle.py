"""Replies that are not what they should be: every call ends, once, and is counted and recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from attempts import until

import lithops_mini as lm
from lithops_mini import records, wire
from lithops_mini.compute.base import Activation
from lithops_mini.compute.inline import InlineCompute
from lithops_mini.errors import InvocationError, Reason, WorkerDied
from lithops_mini.executor import FunctionExecutor
from lithops_mini.job.job import Job
from lithops_mini.job.manifest import Recorder, read_job, read_outcomes

Change = Callable[[int, list[wire.Outcome]], list[wire.Outcome]]


@contextmanager
def executor_whose_replies(
    change: Change, monkeypatch: pytest.MonkeyPatch, retries: int = 0
) -> Iterator[FunctionExecutor]:
    """An executor on a backend that changes the outcomes of each reply; ``change`` gets the number of the message."""
    numbers = iter(range(1_000_000))
    lock = threading.Lock()
    original = InlineCompute.invoke

    def invoke(self: InlineCompute, payload: bytes, activation: Activation) -> bytes:
        with lock:
            number = next(numbers)
        name, outcomes = wire.split_reply(original(self, payload, activation))
        changed = change(number, list(wire.iter_outcomes(outcomes)))
        return wire.encode_reply(name, b"".join(map(wire.encode_outcome, changed)))

    monkeypatch.setattr(InlineCompute, "invoke", invoke)
    with lm.function_executor("inline", progress=False, retries=retries) as executor:
        yield executor


def check_record(executor: FunctionExecutor, futures: list[lm.ResponseFuture[int]]) -> None:
    """The job has ended for everybody: its counters, its stats and its record agree with its futures."""
    job = futures[0].job
    assert job is not None
    assert job.over.wait(20)  # a moment after its futures
    assert job.ended
    assert len(job.stats()) == len(futures)
    executor._recorder.flush()
    backend, bucket = executor.storage.backend, executor.storage.bucket
    assert read_job(backend, bucket, job.id).progress["done"] == len(futures)
    recorded = [(outcome.call, outcome.status) for _, outcome in read_outcomes(backend, bucket, job.id, job.key)]
    assert sorted(recorded) == [(f.call_id, wire.Status[f.stats.status.upper()]) for f in futures if f.stats]


CHANGES: dict[str, Change] = {
    "left out": lambda _, outcomes: [o for o in outcomes if o.call != 1],
    "of another attempt": lambda _, outcomes: [o._replace(attempt=o.attempt + (o.call == 1)) for o in outcomes],
    "of another call": lambda _, outcomes: [o._replace(call=o.call + 70 * (o.call == 1)) for o in outcomes],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_call_without_its_outcome_is_lost(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    with executor_whose_replies(change, monkeypatch) as executor:
        futures = executor.map(abs, range(4), chunksize=4)
        found = executor.get_result(futures, throw_except=False, timeout=20)
        assert (found[0], found[2:]) == (0, [2, 3])
        assert isinstance(found[1], WorkerDied)
        check_record(executor, futures)


def test_a_lost_call_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_reply_is_empty(number: int, outcomes: list[wire.Outcome]) -> list[wire.Outcome]:
        return outcomes if number else []

    with executor_whose_replies(first_reply_is_empty, monkeypatch, retries=1) as executor:
        futures = executor.map(abs, range(4), chunksize=4)
        assert executor.get_result(futures, timeout=20) == [0, 1, 2, 3]
        assert [future.stats.attempt for future in futures if future.stats] == [2, 2, 2, 2]
        check_record(executor, futures)


def test_an_outcome_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with executor_whose_replies(lambda _, outcomes: outcomes * 2, monkeypatch) as executor:
        futures = executor.map(abs, range(4), chunksize=4)
        assert executor.get_result(futures, timeout=20) == [0, 1, 2, 3]
        check_record(executor, futures)


def test_a_call_stopped_in_place_of_another_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops_call_1_at_first(number: int, outcomes: list[wire.Outcome]) -> list[wire.Outcome]:
        stopped = wire.Status.CANCELLED
        return [o._replace(status=stopped, data=b"") if o.call == 1 and not number else o for o in outcomes]

    with executor_whose_replies(stops_call_1_at_first, monkeypatch) as executor:
        futures = executor.map(abs, range(4), chunksize=4)
        assert executor.get_result(futures, timeout=20) == [0, 1, 2, 3]
        check_record(executor, futures)


def test_what_cannot_be_sent_is_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, outcomes: list[wire.Outcome]) -> list[wire.Outcome]:
        raise InvocationError("not today", reason=Reason.REFUSED)

    with executor_whose_replies(refuse, monkeypatch) as executor:
        futures = executor.map(abs, range(3), chunksize=3)
        found = executor.get_result(futures, throw_except=False, timeout=20)
        assert [type(error) for error in found] == [InvocationError] * 3
        check_record(executor, futures)


def test_no_batch_is_recorded_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    last = threading.Event()
    original = Recorder.settled

    def settled(self: Recorder, job: Job, reply: bytes, *, ended: bool, dispatched: float | None) -> None:
        if ended:
            last.set()
        else:
            last.wait(0.3)  # if the last can overtake this one, it does
        original(self, job, reply, ended=ended, dispatched=dispatched)

    monkeypatch.setattr(Recorder, "settled", settled)
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        futures = executor.map(abs, range(2), chunksize=1)
        executor.get_result(futures, timeout=20)
        until(lambda: futures[0].job is not None and futures[0].job.ended, "the end of the job")
        executor._recorder.flush()
        job = futures[0].job
        assert job is not None
        assert read_job(executor.storage.backend, executor.storage.bucket, job.id).state == "done"
        check_record(executor, futures)


def test_what_ends_after_the_shutdown_is_recorded() -> None:
    with lm.function_executor("inline", progress=False) as executor:
        future = executor.submit(abs, -1)
        assert future.result(timeout=20) == 1
    assert future.job is not None
    # As a thread does that was submitting, or cancelling, meanwhile.
    executor._recorder.begin(future.job, lambda: b"late")
    flush = threading.Thread(target=executor._recorder.flush, daemon=True)
    flush.start()
    flush.join(20)
    assert not flush.is_alive()
    assert executor.storage.backend.get(executor.storage.bucket, records.manifest_key(future.job.id)) == b"late"
