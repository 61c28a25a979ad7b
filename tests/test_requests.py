"""Requests to storage are counted: by the backend that sends them, for each call, and in the job summary."""

from __future__ import annotations

import re

import pytest
from proxy import INTERNAL_ERROR, LOST_ANSWER, LOST_REQUEST, SLOW_DOWN, TRUNCATED, Fault
from test_report import WHERE, call
from test_storage_s3 import settings_of

import lithops_mini as lm
from lithops_mini.errors import AccessDenied
from lithops_mini.records import Requests
from lithops_mini.report import summary
from lithops_mini.testing.storage import MIB

CLASSES = {"get": "gets", "head": "gets", "delete": "deletes", "abort": "deletes"}  # all else is a put


def seen(proxy):
    """The requests that came to the proxy, in the classes they are charged for."""
    counted = dict.fromkeys(Requests._fields, 0)
    for kind, count in proxy.counts.items():
        counted[CLASSES.get(kind, "puts")] += count
    return Requests(**counted)


def by_workers(futures):
    """The requests that the workers of some calls sent."""
    total = Requests()
    for future in futures:
        total = total.plus(Requests(future.stats.storage_puts, future.stats.storage_gets, future.stats.storage_deletes))
    return total


@pytest.fixture
def executor(backend, bucket, proxy):
    given = {"storage": backend.name, "storage_bucket": bucket, "max_workers": 2, "progress": False}
    with lm.function_executor("localhost", **given, **settings_of(backend)) as executor:
        yield executor


# ---------------------------------------------------------------- by the backend


def test_every_operation_is_counted_in_its_class(backend, bucket, proxy, tmp_path):
    def cost(use):
        before = backend.requests()
        use()
        return tuple(backend.requests().since(before))

    def refused():
        with pytest.raises(AccessDenied):
            backend.put(bucket, "large", bytes(20 * MIB))

    assert cost(lambda: backend.put(bucket, "key", b"body")) == (1, 0, 0)
    assert cost(lambda: backend.get(bucket, "key")) == (0, 1, 0)
    assert cost(lambda: backend.open(bucket, "key").close()) == (0, 1, 0)
    assert cost(lambda: backend.head(bucket, "key")) == (0, 1, 0)
    assert cost(lambda: backend.head_bucket(bucket)) == (1, 0, 0)  # it lists
    assert cost(lambda: list(backend.list(bucket))) == (1, 0, 0)
    assert cost(lambda: backend.put(bucket, "large", bytes(20 * MIB))) == (1 + 3 + 1, 0, 0)
    with open(tmp_path / "large", "wb") as file:
        assert cost(lambda: backend.download(bucket, "large", file)) == (0, 3, 0)
    assert cost(lambda: backend.delete(bucket, ["key", "large"])) == (0, 0, 1)
    assert cost(lambda: backend.presigned_url(bucket, "key")) == (0, 0, 0)
    proxy.script = lambda request: Fault(status=(403, "AccessDenied")) if request.kind == "complete" else None
    assert cost(refused) == (1 + 3 + 1, 0, 1)
    assert backend.requests() == seen(proxy)


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, LOST_REQUEST, LOST_ANSWER], ids=str)
def test_what_the_sdk_repeats_counts_again(backend, bucket, proxy, fault):
    before = backend.requests()
    faults = iter([fault])
    proxy.script = lambda request: next(faults, None)
    backend.put(bucket, "key", b"body")
    assert backend.requests().since(before) == (2, 0, 0)
    faults = iter([TRUNCATED, TRUNCATED])
    assert backend.get(bucket, "key") == b"body"
    assert backend.requests() == seen(proxy)


# ---------------------------------------------------------------- for each call


def test_calls_that_need_no_storage_send_no_request(executor):
    futures = executor.map(abs, range(-50, 0))
    executor.get_result(futures)
    assert by_workers(futures) == (0, 0, 0)


def test_partitions_arguments_and_results_are_counted_with_their_call(executor, bucket, proxy):
    executor.storage.put_object(None, "data", b"line\n" * 100_000)

    def first_partition_only(obj):
        return obj.part == 0 and len(obj.data_stream.read())

    futures = executor.map(first_partition_only, f"{bucket}/data", obj_chunk_number=5, obj_newline=None)
    executor.get_result(futures)
    assert [tuple(by_workers([future])) for future in futures] == [(0, 1, 0)] + [(0, 0, 0)] * 4
    futures = executor.map(lambda data, size: bytes(size), [(bytes(size), size) for size in (1, 1 << 20)])
    executor.get_result(futures)
    assert [tuple(by_workers([future])) for future in futures] == [(0, 0, 0), (1, 1, 0)]

    def use(storage):
        storage.put_object(None, "mine", b"")
        list(storage.list_keys(None, "mine"))
        storage.delete_object(None, "mine")

    (future,) = executor.map(use, [()])
    future.result()
    assert tuple(by_workers([future])) == (2, 0, 1)


def test_attempts_before_the_one_that_counted_are_counted_too(executor, bucket, proxy, tmp_path):
    executor.storage.put_object(None, "data", b"line\n" * 1000)

    def read(obj):
        data = obj.data_stream.read()
        with open(tmp_path / "attempts", "ab") as file:
            file.write(b".")
        if (tmp_path / "attempts").stat().st_size < 3:
            raise ValueError("not yet")
        return len(data)

    (future,) = executor.map(read, f"{bucket}/data", retries=2, retry_exceptions=True)
    assert (future.result(), future.stats.attempt) == (5000, 3)
    assert tuple(by_workers([future])) == (0, 3, 0)
    (tmp_path / "attempts").unlink()
    (future,) = executor.map(read, f"{bucket}/data", retries=1, retry_exceptions=True)
    assert type(future.exception()) is ValueError
    assert tuple(by_workers([future])) == (0, 2, 0)


# ---------------------------------------------------------------- for all of them


def told(text):
    """The requests of workers in each column of a summary, and those of the client."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    cells = {
        row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows if "/" in row[0] or row[0] == "delete"
    }
    columns = [Requests(*each) for each in zip(cells["put/post/list"], cells["get/head"], cells["delete"], strict=True)]
    (sums,) = [row[1:] for row in rows if row[0] == "storage requests"]
    assert [f"{sum(column):,}" for column in columns] == sums
    (sentence,) = [line for line in text.splitlines() if line.startswith("The client itself")]
    total, *client = map(int, re.findall(r"\d+", sentence))
    assert total == sum(client)
    return columns, Requests(*client)


@pytest.mark.parametrize("faulty", [False, True])
def test_the_summary_has_every_request_the_service_saw(backend, bucket, proxy, faulty):
    backend.put(bucket, "data", b"line\n" * 100_000)
    proxy.reset((lambda request: TRUNCATED if request.number % 7 == 3 else None) if faulty else lambda _: None)
    given = {"storage": backend.name, "storage_bucket": bucket, "max_workers": 2, "progress": False}
    executor = lm.function_executor("localhost", **given, **settings_of(backend))
    mapped = executor.map_reduce(
        lambda obj: obj.data_stream.read() * 10, f"{bucket}/data", b"".join, obj_chunk_number=3
    )
    assert executor.get_result(mapped) == b"line\n" * 1_000_000
    executor._recorder.flush()
    columns, client = told(executor.job_summary())
    assert columns[0] == by_workers(mapped.map_futures)
    assert columns[1] == by_workers(mapped)
    assert columns[0].plus(columns[1]) == columns[2]
    assert client.plus(columns[2]) == seen(proxy)
    if not faulty:
        assert columns[0] == (3, 5, 0)  # a result each; a partition each, and of two the end of the last record
        assert columns[1] == (1, 3, 0)
    executor.shutdown()
    assert executor.storage.backend.requests().plus(columns[2]) == seen(proxy)


def test_a_job_of_small_calls_tells_of_few_requests(backend, bucket, proxy):
    proxy.reset()
    given = {"storage": backend.name, "storage_bucket": bucket, "max_workers": 2, "progress": False}
    with lm.function_executor("localhost", **given, **settings_of(backend)) as executor:
        executor.get_result(executor.map(lambda x: x + 1, range(1000)))
    (workers,), client = told(executor.job_summary())
    assert workers == (0, 0, 0)
    assert client == seen(proxy)
    assert sum(client) <= 10


def test_files_of_this_machine_cost_no_requests():
    with lm.function_executor("localhost", max_workers=1, progress=False) as executor:
        executor.submit(bytes, 1 << 20).result()
        assert executor.storage.backend.requests() is None
        assert "requests" not in executor.job_summary()


def test_every_number_of_the_summary():
    first = [call(n, storage_puts=1, storage_gets=1000, storage_deletes=n) for n in range(1, 4)]
    second = [call(n) for n in range(5)]
    text = summary([("map", first), ("reduce", second)], **WHERE, client_requests=Requests(4, 2, 1))
    assert told(text) == ([(3, 3000, 6), (0, 0, 0), (3, 3000, 6)], (4, 2, 1))
    assert text.endswith("\n\nThe client itself sent 7 storage requests: 4 put/post/list, 2 get/head, 1 delete.")
    assert len(text.splitlines()) <= 32
