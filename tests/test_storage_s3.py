"""The storage backends of the S3 family against real servers: the contract, and what is theirs alone."""

from __future__ import annotations

import itertools

import pytest

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
    many = 1100
    races = False  # Swift looks first and then writes: two writers may both find nothing


class TestAwsS3OnSwift(OnSwift):
    @pytest.fixture
    def backend(self, swift):
        storage = aws(swift)
        yield storage
        storage.close()


class TestIbmCosOnSwift(OnSwift):
    @pytest.fixture
    def backend(self, swift):
        storage = cos(swift)
        yield storage
        storage.close()


@pytest.mark.parametrize("make", [aws, cos])
class TestRacesOnMoto:
    """What Swift cannot, with a server that decides conditional writes one at a time."""

    @pytest.fixture
    def backend(self, moto, make):
        storage = make(moto)
        yield storage
        storage.close()

    test_if_absent = StorageContract.test_if_absent
    races = processes = True
    _need_exact_races = StorageContract._need_exact_races
    _need_processes = StorageContract._need_processes
    test_one_of_racing_threads_wins = StorageContract.test_one_of_racing_threads_wins
    test_one_of_racing_processes_wins = StorageContract.test_one_of_racing_processes_wins
