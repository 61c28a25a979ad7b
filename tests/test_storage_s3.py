"""The storage backends of the S3 family against real servers: the contract, and what is theirs alone."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import islice

import pytest
from aws_emulator import start_aws
from engines import Engine
from proxy import Proxy

import lithops_mini as lm
from lithops_mini.storage.aws_s3 import AwsS3Options, AwsS3Storage
from lithops_mini.storage.ibm_cos import IbmCosOptions, IbmCosStorage
from lithops_mini.testing.storage import MIB, StorageContract

_numbers = itertools.count()


def aws(engine, **settings):
    settings = {
        "endpoint_url": engine.url,
        "region": engine.region,
        "access_key_id": engine.access_key_id,
        "secret_access_key": engine.secret_access_key,
    } | settings
    return AwsS3Storage(AwsS3Options(**settings))


def cos(engine, **settings):
    settings = {
        "endpoint": engine.url,
        "region": engine.region,
        "access_key_id": engine.access_key_id,
        "secret_access_key": engine.secret_access_key,
    } | settings
    return IbmCosStorage(IbmCosOptions(**settings))


@pytest.fixture
def bucket(backend):
    name = f"bucket-{next(_numbers)}"
    backend.create_bucket(name)
    return name


class OnSwift(StorageContract):
    large = 256 * MIB
    many = 220  # a page has 100
    turns = 8
    races = False  # Swift looks first and then writes: two writers may both find nothing


class TestAwsS3OnSwift(OnSwift):
    @pytest.fixture(scope="class")  # a client of its own for each test would take as long as most of them
    @classmethod
    def backend(cls, swift):
        storage = aws(swift)
        yield storage
        storage.close()


class TestIbmCosOnSwift(OnSwift):
    @pytest.fixture(scope="class")  # a client of its own for each test would take as long as most of them
    @classmethod
    def backend(cls, swift):
        storage = cos(swift)
        yield storage
        storage.close()

    # Long ones, of what it shares with AwsS3Storage
    test_large_bodies_are_streamed = test_readers_see_whole_objects = test_many_threads = None
    test_list_while_objects_are_deleted = test_the_etag_changes_with_the_content = None


def test_more_objects_than_a_request_takes(moto):
    """A page of the service's, and a batch to delete, are 1,000."""
    with Proxy(moto) as proxy:
        storage = aws(proxy.engine)
        storage.create_bucket("many")
        keys = [f"{number:04d}" for number in range(1100)]
        direct = aws(moto)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: direct.put("many", key, b""), keys))
        proxy.reset()
        assert [info.key for info in islice(storage.list("many"), 1000)] == keys[:1000]
        assert proxy.counts == {"list": 1}
        assert [info.key for info in storage.list("many")] == keys
        storage.delete("many", iter(keys))
        assert proxy.counts == {"list": 3, "delete": 2}
        assert list(storage.list("many")) == []


@pytest.fixture(scope="module")
def local_s3(tmp_path_factory):
    with start_aws(tmp_path_factory.mktemp("aws"), "--sandbox", "process") as aws:
        account = aws.account
        yield Engine(aws.url, account["region"], account["access_key_id"], account["secret_access_key"])


@pytest.mark.parametrize("make", [aws, cos])
class TestRacesOnTheLocalAws:
    """What Swift cannot, with a server that decides conditional writes one at a time."""

    @pytest.fixture
    def backend(self, local_s3, make):
        storage = make(local_s3)
        yield storage
        storage.close()

    test_if_absent = StorageContract.test_if_absent
    races = processes = True
    _need_exact_races = StorageContract._need_exact_races
    _need_processes = StorageContract._need_processes
    test_one_of_racing_threads_wins = StorageContract.test_one_of_racing_threads_wins
    test_one_of_racing_processes_wins = StorageContract.test_one_of_racing_processes_wins


# ---------------------------------------------------------------- jobs


def settings_of(storage):
    """The arguments of an executor whose storage is as this one."""
    return {f.name: value for f in fields(storage._options) if (value := getattr(storage._options, f.name)) is not None}


@pytest.fixture(params=[aws, cos], ids=["aws_s3", "ibm_cos"])
def settings(request, swift, tmp_path):
    """A bucket for jobs, with the keys in the settings."""
    storage = request.param(swift)
    name = f"jobs-{next(_numbers)}"
    storage.create_bucket(name)
    storage.close()
    return {"storage": storage.name, "storage_bucket": name, "max_workers": 2, "progress": False} | settings_of(storage)


def test_jobs_of_every_kind(settings):
    with lm.function_executor("localhost", **settings) as executor:
        bucket = settings["storage_bucket"]
        body = b"".join(b"%d\n" % number for number in range(100_000))
        executor.storage.put_object(bucket, "numbers", body)
        total = executor.map_reduce(
            lambda obj: sum(map(int, obj.records())), f"{bucket}/numbers", sum, obj_chunk_size="100KiB"
        )
        assert executor.get_result(total) == sum(range(100_000))
        large = executor.map(lambda size: bytes(size), [1, 1 << 20, 9 << 20])
        assert [len(value) for value in executor.get_result(large)] == [1, 1 << 20, 9 << 20]
        executor.map(lambda storage, key: storage.get_object(None, key), [{"key": "numbers"}])
        assert executor.get_result() == [body]


def test_keys_reach_workers_and_nothing_else(settings, caplog):
    secret = settings["secret_access_key"]
    caplog.set_level("DEBUG", "lithops_mini")

    def nested():
        with lm.function_executor() as executor:
            return executor.config.storage, executor.call_async(abs, -3).result()

    with lm.function_executor("localhost", **settings, log_level="DEBUG") as executor:
        assert executor.submit(nested).result() == (settings["storage"], 3)
        executor.map(len, [bytes(200_000)] * 3)
        executor.get_result()
        objects = [executor.storage.get_object(None, key) for key in executor.storage.list_keys(None)]
        assert objects
        assert not any(secret.encode() in data for data in objects)
        told = [repr(executor.config), str(executor.config.as_profile()), repr(executor.storage.backend._options)]
        assert not any(secret in text for text in (*told, caplog.text, executor.job_summary()))
        assert secret not in str(executor.storage.backend.worker_options())
        assert secret not in str({name: os.environ[name] for name in os.environ})


def test_inline_calls_have_the_keys_too(settings):
    settings.pop("max_workers")
    with lm.function_executor("inline", **settings) as executor:
        executor.map(lambda storage, key: storage.put_object(None, key, key), [{"key": "x"}])
        executor.get_result()
        assert executor.storage.get_object(None, "x") == b"x"
