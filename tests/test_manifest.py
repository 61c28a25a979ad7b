"""What storage tells of a job: enough to list it, to read its outcomes and to run a call of it again elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting_storage import counted  # noqa: F401 - a fixture
from engines import Engine

import lithops_mini as lm
from lithops_mini import records, wire
from lithops_mini.errors import IntegrityError, NoSuchObject
from lithops_mini.job import history, manifest
from lithops_mini.job.keys import job_key
from lithops_mini.storage.base import StorageBackend
from lithops_mini.wire import Status
from lithops_mini.worker import serialize

LARGE = 400 << 10  # bytes: more than travels in a message


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[lm.FunctionExecutor]:
    """With a storage of its own, so that its jobs are the only ones."""
    with lm.localhost_executor(max_workers=2, progress=False, storage_path=str(tmp_path / "storage")) as executor:
        yield executor


def recorded(executor: lm.FunctionExecutor) -> tuple[StorageBackend, str]:
    """Storage and bucket, with everything that has ended so far written there."""
    executor._recorder.flush()
    return executor._storage, executor.config.job.storage_bucket


def fail_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"odd: {x}")
    return x


def outcomes_of(executor: lm.FunctionExecutor, job_id: str) -> dict[int, tuple[str, wire.Outcome]]:
    found = list(manifest.read_outcomes(*recorded(executor), job_id, job_key(job_id)))
    assert len({outcome.call for _, outcome in found}) == len(found), "an outcome was recorded twice"
    return {outcome.call: (worker, outcome) for worker, outcome in found}


# -- listing


def test_a_job_is_described(executor: lm.FunctionExecutor) -> None:
    before = time.time()
    futures = executor.map(
        fail_odd, range(0, 8, 2), timeout=5, runtime_memory=1000, retries=1, retry_exceptions=KeyError
    )
    executor.get_result(futures)
    job_id = futures[0].job_id
    record = manifest.read_job(*recorded(executor), job_id)
    assert record.job_id == job_id
    assert record.state == "done"
    header = record.header
    assert (header["function"], header["kind"], header["calls"]) == ("fail_odd", "map", 4)
    assert header["backend"] == header["storage"] == "localhost"
    assert header["settings"] == {
        "timeout": 5,
        "runtime_memory": 1000,
        "retries": 1,
        "retry_exceptions": ["builtins.KeyError"],
        "on_oom": "fail",
        "budget": None,
    }
    assert header["client"].endswith(f"@{os.uname().nodename}:{os.getpid()}")
    assert before <= header["created"] <= time.time()
    assert (record.progress["total"], record.progress["done"], record.progress["failed"]) == (4, 4, 0)


def test_jobs_are_listed_with_their_kind_and_state(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def wait_for(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)  # the file is made by another process

    executor.get_result(executor.map_reduce(fail_odd, [0, 2], sum))
    lm.wait(executor.map(fail_odd, [1, 2]))
    executor.call_async(fail_odd, 4).result()
    running = executor.call_async(wait_for, str(tmp_path / "gate"))
    storage, bucket = recorded(executor)
    found = {record.job_id.rpartition("-")[2]: record for record in manifest.list_jobs(storage, bucket)}
    assert {name: (record.header["kind"], record.state) for name, record in found.items()} == {
        "M000": ("map", "done"),
        "R001": ("reduce", "done"),
        "M002": ("map", "failed"),
        "C003": ("call", "done"),
        "C004": ("call", "running"),
    }
    (tmp_path / "gate").touch()
    running.result()
    assert manifest.read_job(*recorded(executor), running.job_id).state == "done"


def test_the_first_of_a_list_was_made_last_though_services_tell_seconds(moto: Engine) -> None:
    keys = {"access_key_id": moto.access_key_id, "secret_access_key": moto.secret_access_key}
    place = {"aws_s3": {"endpoint_url": moto.url, "region": moto.region, **keys}, "storage_bucket": "jobs-in-a-second"}
    made = []
    for _ in range(6):
        with lm.function_executor("inline", "aws_s3", config=place, progress=False) as executor:
            made.append(executor.submit(abs, -1).job_id)
    storage, bucket = recorded(executor)
    assert [record.job_id for record in manifest.list_jobs(storage, bucket)] == made[::-1]
    assert [record.job_id for record in manifest.list_jobs(storage, bucket, 2)] == made[:-3:-1]


def test_a_job_that_is_not_there(executor: lm.FunctionExecutor) -> None:
    with pytest.raises(NoSuchObject):
        manifest.read_job(*recorded(executor), "0123456789ab-M000")


def test_a_job_of_no_calls_leaves_no_record(executor: lm.FunctionExecutor) -> None:
    assert executor.get_result(executor.map(fail_odd, [])) == []
    assert list(manifest.list_jobs(*recorded(executor))) == []


# -- outcomes


def test_every_settled_call_is_recorded_once(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(fail_odd, range(100))
    values = executor.get_result(futures, throw_except=False)
    found = outcomes_of(executor, futures[0].job_id)
    assert found.keys() == set(range(100))
    for call, (worker, outcome) in found.items():
        stats = futures[call].stats
        assert stats is not None
        assert (outcome.attempt, outcome.started, outcome.ended, worker) == (
            1,
            stats.started,
            stats.ended,
            stats.worker_id,
        )
        if call % 2:
            assert outcome.status == Status.ERROR
        else:
            assert outcome.status == Status.OK
            assert serialize.loads(outcome.data) == values[call]


def test_large_results_are_recorded_by_reference(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(bytes, [LARGE, 10])
    lm.wait(futures)
    found = outcomes_of(executor, futures[0].job_id)
    assert [found[n][1].place for n in (0, 1)] == [wire.STORED, wire.INLINE]
    at = wire.Stored.decode(found[0][1].data)
    assert at.key == records.outcome_key(futures[0].job_id, 0, 1)
    storage, bucket = recorded(executor)
    signed = storage.get(bucket, at.key, at.start, at.stop)
    assert serialize.loads(wire.verify(job_key(futures[0].job_id), at.key, signed)) == bytes(LARGE)


def test_retried_lost_cancelled_and_dependent_calls_are_recorded(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def act(x: int, marks: str) -> int:
        if x == 1:
            os.close(os.open(f"{marks}/once", os.O_CREAT | os.O_EXCL))  # raises the second time
            os._exit(3)
        while x == 2 and not os.path.exists(f"{marks}/gate"):
            time.sleep(0.01)  # the file is made by another process
        return x

    futures = executor.map(act, range(3), extra_args=(str(tmp_path),), chunksize=1)
    lm.wait(futures, return_when=60)
    futures[2].cancel()
    (after,) = executor.map(act, [(futures[1],)], extra_args=(str(tmp_path),))
    lm.wait([*futures, after])
    found = outcomes_of(executor, futures[0].job_id)
    assert [(found[n][1].status, found[n][1].attempt) for n in range(3)] == [
        (Status.OK, 1),
        (Status.ERROR, 2),
        (Status.CANCELLED, 1),
    ]
    assert outcomes_of(executor, after.job_id)[0][1].status == Status.ERROR


def test_attempts_that_were_followed_by_another_are_recorded(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def die_at_first(x: int, marks: str) -> int:
        try:
            os.close(os.open(f"{marks}/{x}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os._exit(3)

    futures = executor.map(die_at_first, range(3), extra_args=(str(tmp_path),), chunksize=1)
    assert executor.get_result(futures) == [0, 1, 2]
    (job,) = executor._jobs
    found = history.read_history(*recorded(executor), job.id, job_key(job.id))
    assert [call.attempt for call in found.calls] == [2, 2, 2]
    assert sorted(attempt.call_id for attempt in found.attempts) == [0, 1, 2]
    for there, here in zip(found.attempts, job.attempts, strict=True):
        assert there.why == here.why
        assert "exit code 3" in there.why
        for name in ("dispatched", "started", "ended", "given_up"):
            assert getattr(there, name) == pytest.approx(getattr(here, name), abs=1e-3)


def test_what_runs_is_recorded_before_anything_has_ended(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def hold(gate: str) -> None:
        Path(gate, "began").touch()
        while not Path(gate, "open").exists():
            time.sleep(0.01)  # the file is made by another process

    (future,) = executor.map(hold, [str(tmp_path)])
    until = time.monotonic() + 30
    while not (tmp_path / "began").exists():
        assert time.monotonic() < until
        threading.Event().wait(0.01)
    progress = manifest.read_job(*recorded(executor), future.job_id).progress
    assert [progress[name] for name in ("total", "running", "done", "ended")] == [1, 1, 0, False]
    (tmp_path / "open").touch()
    executor.get_result(future)
    progress = manifest.read_job(*recorded(executor), future.job_id).progress
    assert [progress[name] for name in ("total", "done", "ended")] == [1, 1, True]


def test_a_record_that_was_changed_is_found_out(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(fail_odd, [0, 2])
    executor.get_result(futures)
    job_id, key = futures[0].job_id, job_key(futures[0].job_id)
    storage, bucket = recorded(executor)
    for name, read in (
        (records.progress_key(job_id, 0), lambda: list(manifest.read_outcomes(storage, bucket, job_id, key))),
        (records.manifest_key(job_id), lambda: manifest.read_manifest(storage, bucket, job_id, key)),
    ):
        read()
        original = storage.get(bucket, name)
        for place in (5, len(original) // 2, -1):
            changed = bytearray(original)
            changed[place] ^= 1
            storage.put(bucket, name, bytes(changed))
            with pytest.raises(IntegrityError):
                read()
        storage.put(bucket, name, original)
        with pytest.raises(IntegrityError):
            list(manifest.read_outcomes(storage, bucket, job_id, job_key("another-M000")))


# -- what it costs


def test_a_job_of_small_calls_takes_a_handful_of_requests(counted: list[tuple[str, str]], tmp_path: Path) -> None:  # noqa: F811
    with lm.localhost_executor(max_workers=2, progress=False, storage_path=str(tmp_path)) as executor:
        assert executor.get_result(executor.map(abs, range(1000))) == list(range(1000))
    assert len(counted) <= 10, Counter(name for name, _ in counted)


def test_a_map_reduce_does_too(counted: list[tuple[str, str]], tmp_path: Path) -> None:  # noqa: F811
    with lm.localhost_executor(max_workers=2, progress=False, storage_path=str(tmp_path)) as executor:
        assert executor.get_result(executor.map_reduce(abs, range(1000), sum)) == sum(range(1000))
    assert len(counted) <= 10, Counter(name for name, _ in counted)


# -- running a call again


REPLAY = """
import json, struct, sys, tempfile
from lithops_mini import records, wire
from lithops_mini.job.keys import job_key
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.job import history, manifest
from lithops_mini.worker import dependencies, serialize
from lithops_mini.worker.call import Jobs

path, bucket, job_id, call_id = sys.argv[1:]
call_id = int(call_id)
storage = LocalhostStorage(LocalhostStorage.Options(storage_path=path))
key = job_key(job_id)
name = records.manifest_key(job_id)
body = wire.verify(key, name, storage.get(bucket, name))
(size,) = struct.unpack_from("<I", body)
header = json.loads(bytes(body[4 : 4 + size]))
position = 4 + size
code = b""
if header["code"]["inline"]:
    code = body[position : position + header["code"]["size"]]
    position += len(code)
start = position + sum(header["inputs"][:call_id])
arguments = body[start : start + header["inputs"][call_id]]

entries, keys = [], {job_id: key.hex()}
for other, first, last in header["dependencies"].get(str(call_id), []):
    keys[other] = job_key(other).hex()
    outcomes = {o.call: o for _, o in manifest.read_outcomes(storage, bucket, other, job_key(other))}
    for number in range(first, last + 1):
        data = bytes(outcomes[number].data)
        if outcomes[number].place == wire.STORED:
            at = wire.Stored.decode(data)
            entries.append((["stored", other, at.key, at.stop], b""))
        else:
            entries.append((["inline", len(data)], data))
table = dependencies.encode_table(entries) if entries else b""

env = json.loads(wire.unseal(key, header["message"]["env"]))
message = wire.encode_header(header["message"] | {"keys": keys, "env": env})
stored = wire.STORED_ARGUMENTS if call_id in header["stored"] else 0
call = wire.Call(call_id, 1, stored, table, bytes(arguments))
with tempfile.TemporaryDirectory() as directory:
    payload = wire.encode_payload(message, bytes(code), [call])
    [outcome] = Jobs(directory).run(bytearray(payload), lambda: b"")
    if outcome.status == wire.Status.ERROR:
        print(serialize.loads(outcome.data)[:2])
    else:
        assert outcome.place == wire.INLINE
        print(repr(serialize.loads(outcome.data)))
"""


def replay(executor: lm.FunctionExecutor, future: lm.ResponseFuture[Any], directory: Path) -> str:
    """Run the call again in a process that knows nothing but where the storage is; return what it prints."""
    recorded(executor)
    path = executor.config.as_profile()["localhost"]["storage_path"]
    arguments = [path, executor.config.job.storage_bucket, future.job_id, str(future.call_id)]
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, *arguments], capture_output=True, text=True, cwd=directory, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_call_can_be_run_again_from_its_record(
    executor: lm.FunctionExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "replayed.py").write_text("def total(x, factor, id): return sum(x) * factor + id\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import replayed  # type: ignore[import-not-found]

    futures = executor.map(replayed.total, [([1, 2], 3), (list(range(100_000)), 2)])
    values = executor.get_result(futures)
    (tmp_path / "elsewhere").mkdir()
    for future, value in zip(futures, values, strict=True):
        assert replay(executor, future, tmp_path / "elsewhere") == repr(value)


def test_a_failed_call_fails_again_the_same_way(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    failed = executor.map(fail_odd, [0, 5])[1]
    lm.wait(failed)
    assert replay(executor, failed, tmp_path) == "('ValueError', 'odd: 5')"


def test_a_reducer_can_be_run_again(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    futures = executor.map_reduce(bytes, [3, LARGE, 4], lambda results: [len(result) for result in results])
    assert executor.get_result(futures) == [3, LARGE, 4]
    assert replay(executor, futures[0], tmp_path) == f"[3, {LARGE}, 4]"


def test_a_function_too_large_for_messages_can_be_run_again(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    future = executor.call_async(lambda x: (x, len(data)), 5)
    assert future.result() == (5, LARGE)
    assert replay(executor, future, tmp_path) == repr((5, LARGE))


def test_a_call_over_data_can_be_run_again(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    executor.storage.create_bucket("replayed")
    executor.storage.put_object("replayed", "lines", b"".join(b"%d\n" % n for n in range(1000)))
    futures = executor.map(lambda obj: sum(map(int, obj.data_stream)), "replayed/lines", obj_chunk_number=3)
    values = executor.get_result(futures)
    assert [replay(executor, future, tmp_path) for future in futures] == list(map(repr, values))


def test_environment_and_executors_of_its_own_are_there_again(executor: lm.FunctionExecutor, tmp_path: Path) -> None:
    def function(x: int) -> Any:
        with lm.function_executor(progress=False) as inner:
            return os.environ["COLOUR"], inner.get_result(inner.map(abs, [-x])), inner.config.job.retries

    secret = os.urandom(8).hex()
    future = executor.map(function, [4], extra_env={"COLOUR": secret})[0]
    value = future.result()
    assert value == (secret, [4], 2)
    assert replay(executor, future, tmp_path) == repr(value)
    storage, bucket = recorded(executor)
    assert secret.encode() not in storage.get(bucket, records.manifest_key(future.job_id))


def test_records_are_json_for_other_programs(executor: lm.FunctionExecutor) -> None:
    executor.call_async(abs, -1).result()
    storage, bucket = recorded(executor)
    for record in manifest.list_jobs(storage, bucket):
        json.dumps(record.header)
        json.dumps(record.progress)
