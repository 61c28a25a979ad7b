"""Storage that misbehaves, and what a job asks of storage: through a proxy between client and service."""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from engines import free_ports
from proxy import (
    CORRUPT_ANSWER,
    CORRUPT_REQUEST,
    INTERNAL_ERROR,
    LATENCY,
    LOST_ANSWER,
    LOST_REQUEST,
    SLOW_DOWN,
    TRUNCATED,
    Fault,
)
from test_storage_s3 import settings_of

import lithops_mini as lm
from lithops_mini.errors import (
    AccessDenied,
    NoSuchObject,
    ObjectChanged,
    ObjectExists,
    StorageError,
    StorageUnavailable,
)
from lithops_mini.storage import s3
from lithops_mini.storage.api import Storage
from lithops_mini.testing.storage import MIB


def first(kind, *faults):
    """A script: these faults, in this order, for the first requests of one kind."""
    left, lock = list(faults), threading.Lock()

    def script(request):
        with lock:
            return left.pop(0) if left and request.kind == kind else None

    return script


# ---------------------------------------------------------------- what the SDK heals


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, LOST_REQUEST, LOST_ANSWER, LATENCY], ids=str)
def test_requests_are_repeated(backend, bucket, proxy, fault):
    for key in ("get", "head", "delete"):
        backend.put(bucket, key, b"body")
    uses = {
        "put": lambda: backend.put(bucket, "put", b"body"),
        "get": lambda: backend.get(bucket, "get"),
        "head": lambda: backend.head(bucket, "head"),
        "list": lambda: list(backend.list(bucket)),
        "delete": lambda: backend.delete(bucket, ["delete"]),
    }
    if fault is SLOW_DOWN:  # all requests of the client are slowed then, and it takes the SDK seconds to be quick again
        uses = {"get": uses["get"], "delete": uses["delete"]}
    once = {kind: first(kind, fault) for kind in uses}
    proxy.reset(lambda request: once[request.kind](request))
    with ThreadPoolExecutor(len(uses)) as pool:  # they wait for each other's pauses
        for use in [pool.submit(use) for use in uses.values()]:
            use.result()
    assert proxy.counts == dict.fromkeys(uses, 1 if fault is LATENCY else 2)
    with pytest.raises(NoSuchObject):
        backend.get(bucket, "delete")


def test_repetition_ends(backend, bucket, proxy, monkeypatch):
    monkeypatch.setattr(s3, "_ATTEMPTS", 3)
    impatient = type(backend)(backend._options)
    proxy.reset(lambda request: SLOW_DOWN)
    with pytest.raises(StorageError, match="too much to do") as caught:
        impatient.put(bucket, "key", b"body")
    impatient.close()
    assert proxy.counts["put"] == 3
    assert caught.value.__cause__ is not None


def test_an_upload_that_is_damaged_is_sent_again(backend, bucket, proxy):
    proxy.reset(first("put", CORRUPT_REQUEST, CORRUPT_REQUEST))
    backend.put(bucket, "key", b"body" * 1000)
    assert proxy.counts["put"] == 3
    assert backend.get(bucket, "key") == b"body" * 1000


def test_a_put_if_absent_knows_its_own_object(backend, bucket, proxy):
    proxy.reset(first("put", LOST_ANSWER))
    backend.put(bucket, "key", b"mine", if_absent=True, metadata={"a": "b"})
    assert proxy.counts["put"] == 2
    assert dict(backend.head(bucket, "key").metadata) == {"a": "b"}
    with pytest.raises(ObjectExists):
        backend.put(bucket, "key", b"mine", if_absent=True)
    proxy.reset(first("put", INTERNAL_ERROR))  # sent twice, and yet another's
    with pytest.raises(ObjectExists):
        backend.put(bucket, "key", b"mine", if_absent=True)
    assert proxy.counts["put"] == 2


# ---------------------------------------------------------------- bodies


def test_a_stream_goes_on_where_it_was_cut(backend, bucket, proxy):
    body = random.Random(1).randbytes(3 * MIB)
    backend.put(bucket, "key", body)
    proxy.reset(first("get", TRUNCATED, TRUNCATED, TRUNCATED))
    with backend.open(bucket, "key", 5, 3 * MIB - 5) as stream:
        assert stream.read() == body[5:-5]
    starts = [request.start for request in proxy.requests]
    assert starts == sorted(set(starts))
    assert len(starts) == 4
    assert all("if-match" in request.headers for request in proxy.requests[1:])
    assert proxy.received < 8 * MIB
    proxy.reset(first("get", TRUNCATED, TRUNCATED))
    assert backend.get(bucket, "key") == body


def test_a_stream_does_not_mix_versions(backend, bucket, proxy):
    backend.put(bucket, "key", b"a" * MIB)

    def replace(request):
        if request.kind == "get" and request.number == 0:
            return TRUNCATED
        return None

    proxy.reset(replace)
    with backend.open(bucket, "key") as stream:
        assert stream.read(1000) == b"a" * 1000
        backend.put(bucket, "key", b"b" * MIB)
        with pytest.raises(ObjectChanged, match="replaced"):
            stream.read()


def test_resuming_ends(backend, bucket, proxy):
    backend.put(bucket, "key", b"a" * 100_000)
    proxy.reset(lambda request: Fault(truncate=0.0) if request.kind == "get" else None)
    with backend.open(bucket, "key") as stream, pytest.raises(StorageError, match="was lost"):
        stream.read()
    assert proxy.counts["get"] <= 10


def test_large_bodies_under_faults(backend, bucket, proxy, tmp_path: Path):
    body = random.Random(2).randbytes(30 * MIB)
    storage = Storage(backend, bucket)
    proxy.reset(first("part", SLOW_DOWN, LOST_REQUEST, CORRUPT_REQUEST, LOST_ANSWER))
    storage.put_object(None, "large", [body[: 7 * MIB], body[7 * MIB :]])
    assert proxy.counts["part"] == 8
    proxy.reset(first("get", TRUNCATED, SLOW_DOWN, LOST_REQUEST, TRUNCATED))
    moved = []
    storage.download_file(None, "large", tmp_path / "large", progress=moved.append)
    assert (tmp_path / "large").read_bytes() == body
    assert sum(moved) == len(body)
    assert proxy.counts["get"] >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_failed_upload_leaves_nothing(backend, bucket, proxy):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            if self.tell() > 20 * MIB:
                raise ZeroDivisionError
            return data

    with pytest.raises(ZeroDivisionError):
        backend.put(bucket, "large", Broken(bytes(30 * MIB)))
    assert proxy.counts["abort"] == 1
    proxy.reset(lambda request: Fault(status=(403, "AccessDenied")) if request.kind == "part" else None)
    with pytest.raises(AccessDenied, match="do not permit"):
        backend.put(bucket, "large", bytes(20 * MIB))
    assert proxy.counts["abort"] == 1
    assert backend._client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert list(backend.list(bucket)) == []


def test_a_completion_whose_answer_was_lost(backend, bucket, proxy):
    proxy.reset(first("complete", LOST_ANSWER))
    backend.put(bucket, "large", bytes(9 * MIB))
    assert backend.head(bucket, "large").size == 9 * MIB
    proxy.reset(first("complete", LOST_ANSWER))
    backend.put(bucket, "other", bytes(9 * MIB), if_absent=True)
    assert backend.head(bucket, "other").size == 9 * MIB
    with pytest.raises(ObjectExists):
        backend.put(bucket, "other", bytes(9 * MIB), if_absent=True)


# ---------------------------------------------------------------- jobs


@pytest.fixture
def executor(backend, bucket, proxy):
    given = {"storage": backend.name, "storage_bucket": bucket, "max_workers": 4, "progress": False}
    with lm.function_executor("localhost", **given, **settings_of(backend)) as executor:
        yield executor


def test_a_job_of_small_calls_makes_few_requests(backend, bucket, proxy):
    given = {"storage": backend.name, "storage_bucket": bucket, "max_workers": 2, "progress": False}
    with lm.function_executor("localhost", **given, **settings_of(backend)) as executor:
        executor.map(lambda x: x + 1, range(1000))
        assert executor.get_result() == list(range(1, 1001))
    assert sum(proxy.counts.values()) <= 10, proxy.counts


def test_partitions_read_what_they_need(executor, bucket, proxy):
    lines = [b"%d," % number + b"x" * 80 + b"\n" for number in range(50_000)]
    executor.storage.put_object(None, "data/lines", b"".join(lines))
    size = sum(map(len, lines))
    proxy.reset()
    counted = executor.map(lambda obj: sum(1 for _ in obj.records()), f"{bucket}/data/", obj_chunk_number=8)
    assert sum(executor.get_result(counted)) == len(lines)
    reads = [request for request in proxy.requests if request.kind == "get" and request.key == "data/lines"]
    assert len(reads) <= 8 + 7  # the last partition ends where the object does
    assert proxy.counts["head"] <= 1
    assert proxy.received < size + 8 * 70_000 + 100_000


def test_what_jobs_store_is_read_again_when_it_came_damaged(executor, proxy):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    damaged = Counter()

    def damage(request):
        """Some answers, but none of the same bytes more than twice: that is how often they are read again."""
        if request.kind == "get" and rng.random() < 0.1 and damaged[what := (request.key, request.start)] < 2:
            damaged[what] += 1
            return CORRUPT_ANSWER
        return None

    proxy.reset(damage)
    futures = executor.map_reduce(lambda x: bytes([x]) * 300_000, range(50), lambda results: [r[0] for r in results])
    assert executor.get_result(futures) == list(range(50))
    executor.map(lambda data: (len(data), data[0]), [bytes([x]) * 300_000 for x in range(50)])
    assert executor.get_result() == [(300_000, x) for x in range(50)]
    assert proxy.counts["get"] >= 100
    assert proxy.faults


def test_a_job_under_faults_is_exact(executor, bucket, proxy):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng, lock = random.Random(seed), threading.Lock()
    rows = random.Random(3).randbytes(200_000).hex().encode()
    lines = [rows[i * 250 : i * 250 + 250] for i in range(1600)]
    body = b"\n".join(lines * 50) + b"\n"  # 20 MB
    executor.storage.put_object(None, "data/rows", body)

    def script(request):
        with lock:
            if rng.random() >= 0.15:
                return None
            faults = [SLOW_DOWN, INTERNAL_ERROR, LOST_REQUEST, LOST_ANSWER, LATENCY]
            if request.kind in ("get", "list"):
                faults.append(TRUNCATED)
            if request.kind in ("put", "part"):
                faults.append(CORRUPT_REQUEST)
            if request.kind == "get" and request.key.startswith("lithops_mini/"):
                faults.append(CORRUPT_ANSWER)
            return rng.choice(faults)

    proxy.reset(script)

    def read(obj):
        return obj.data_stream.read()

    def digest(parts):
        import hashlib

        return len(parts), hashlib.sha256(b"".join(parts)).hexdigest()

    found = executor.get_result(executor.map_reduce(read, f"{bucket}/data/", digest, obj_chunk_number=100))
    assert found == (100, hashlib.sha256(body).hexdigest())
    assert proxy.faults >= 5
    assert proxy.counts["get"] >= 100


# ---------------------------------------------------------------- what a function reads


def reading(directory):
    """A function that leaves a file for each time it is entered, and reads its partition, or an object by name."""

    def read(obj=None, storage=None, key=None):
        with tempfile.NamedTemporaryFile(dir=directory, delete=False):
            pass
        return len(obj.data_stream.read() if key is None else storage.get_object(None, key))

    def by_obj(obj):
        return read(obj=obj)

    def by_name(key, storage):
        return read(storage=storage, key=key)

    return by_obj, by_name


@pytest.mark.parametrize("how", ["obj", "storage"])
def test_data_that_cannot_be_had_now_is_read_in_another_attempt(executor, bucket, proxy, tmp_path, how):
    executor.storage.put_object(None, "data/key", b"line\n" * 1000)
    by_obj, by_name = reading(tmp_path)

    def run(times, **options):
        """Map over the object; the first so many answers with it are cut off. Return the future and the attempts."""
        for path in tmp_path.iterdir():
            path.unlink()
        cut = itertools.count()
        proxy.reset(
            lambda request: (
                Fault(truncate=0.0)
                if request.key == "data/key" and request.kind == "get" and next(cut) < times
                else None
            )
        )
        source = {"obj": (by_obj, f"{bucket}/data/key"), "storage": (by_name, ["data/key"])}[how]
        (future,) = executor.map(*source, **options)
        future.exception()
        return future, len(list(tmp_path.iterdir()))

    alone = 6  # requests of one stream: the first, and five that go on
    future, attempts = run(alone)
    assert (future.result(), attempts, future.stats.attempt, future.stats.status) == (5000, 2, 2, "ok")
    future, attempts = run(2 * alone)
    assert (future.result(), attempts, future.stats.attempt) == (5000, 3, 3)
    future, attempts = run(1000, retries=1)
    assert (attempts, future.stats.attempt, future.stats.status) == (2, 2, "unavailable")
    assert type(future.exception()) is StorageError
    assert "data/key" in str(future.exception())
    assert proxy.counts["get"] == 2 * alone
    _, attempts = run(1000, retries=0)
    assert attempts == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault(status=(403, "AccessDenied")), AccessDenied), (Fault(status=(404, "NoSuchKey")), NoSuchObject)],
    ids=["denied", "missing"],
)
def test_what_is_denied_or_missing_is_the_functions_own_affair(executor, bucket, proxy, tmp_path, fault, kind):
    executor.storage.put_object(None, "data/key", b"line\n" * 1000)
    proxy.reset(lambda request: fault if (request.kind, request.key) == ("get", "data/key") else None)
    (future,) = executor.map(reading(tmp_path)[0], f"{bucket}/data/key")
    assert type(future.exception()) is kind
    assert (future.stats.attempt, future.stats.status, len(list(tmp_path.iterdir()))) == (1, "error", 1)


def test_an_error_the_function_deals_with_is_no_failure(executor, bucket, proxy):
    executor.storage.put_object(None, "data/key", b"line\n" * 1000)
    proxy.reset(lambda request: Fault(truncate=0.0) if request.key == "data/key" and request.kind == "get" else None)

    def careful(obj):
        try:
            return obj.data_stream.read()
        except lm.errors.StorageUnavailable:
            return "later"

    (future,) = executor.map(careful, f"{bucket}/data/key")
    assert (future.result(), future.stats.attempt) == ("later", 1)


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, LOST_REQUEST, LOST_ANSWER], ids=str)
def test_what_the_service_goes_on_refusing_is_unavailable(backend, bucket, proxy, monkeypatch, fault):
    backend.put(bucket, "key", b"body")
    monkeypatch.setattr(s3, "_ATTEMPTS", 1)  # the SDK would take half a minute to give up
    impatient = type(backend)(backend._options)
    proxy.reset(lambda request: fault)
    for use in (
        lambda: impatient.get(bucket, "key"),
        lambda: impatient.put(bucket, "key", b""),
        impatient.list(bucket).__next__,
    ):
        with pytest.raises(StorageUnavailable):
            use()
    impatient.close()
    with pytest.raises(StorageUnavailable, match="cannot be reached"):
        type(backend)(replace(backend._options, **unreachable(backend))).get(bucket, "key")


def unreachable(backend):
    (port,) = free_ports(1)
    return {"endpoint_url" if backend.name == "aws_s3" else "endpoint": f"http://127.0.0.1:{port}"}
