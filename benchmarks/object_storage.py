"""Large and small objects in S3 storage, beside the SDK's own transfer manager and calls, and beside obstore.

The service is OpenStack Swift on this machine, with objects in memory. Times are of client and service together;
CPU time is of the client alone, and what would limit it on a faster service.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import obstore
from measure import DATA, Row, main, ratios, seconds, side_by_side, spread
from obstore.store import S3Store
from s3_service import BUCKET, Engine, config, sdk_client, start_swift

import lithops_mini as lm

PART = 8 << 20  # bytes of a part of a large object, and
PARTS_AT_ONCE = 4  # of one object: what lithops_mini does, and the others are told to do
THREADS = 8  # that work with small objects and with ranges
SMALL = bytes(1024)
RANGE = 1 << 20  # bytes

# A new process, as a worker is at a cold start, to the end of its first request.
FIRST_GET = {
    "aws_s3": f"""
import json, sys
from lithops_mini.storage.aws_s3 import AwsS3Options, AwsS3Storage
settings = json.loads(sys.argv[1])
AwsS3Storage(AwsS3Options(**settings)).get("{BUCKET}", "small/0")
""",
    "obstore": f"""
import json, sys
import obstore
from obstore.store import S3Store
settings = json.loads(sys.argv[1])
obstore.get(S3Store("{BUCKET}", **settings), "small/0").bytes()
""",
}


class Client(Protocol):
    """What every one of them can do with the objects of one bucket."""

    def upload(self, path: Path, key: str) -> object: ...
    def download(self, key: str, path: Path) -> object: ...
    def put(self, key: str, body: bytes) -> object: ...
    def get(self, key: str) -> bytes: ...
    def get_range(self, key: str, start: int, stop: int) -> bytes: ...


class Ours:
    def __init__(self, storage: lm.Storage) -> None:
        self.storage = storage

    def upload(self, path: Path, key: str) -> None:
        self.storage.upload_file(path, None, key)

    def download(self, key: str, path: Path) -> None:
        self.storage.download_file(None, key, path)

    def put(self, key: str, body: bytes) -> None:
        self.storage.put_object(None, key, body)

    def get(self, key: str) -> bytes:
        return self.storage.get_object(None, key)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return self.storage.get_object(None, key, range=(start, stop))


class Sdk:
    """boto3, or IBM's branch of it: files by its transfer manager, the rest by plain calls of its client."""

    def __init__(self, engine: Engine, boto3: str = "boto3", botocore: str = "botocore") -> None:
        self.client = sdk_client(engine, boto3, botocore)
        self.transfer = importlib.import_module(f"{boto3}.s3.transfer").TransferConfig(
            multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=PARTS_AT_ONCE
        )

    def upload(self, path: Path, key: str) -> None:
        self.client.upload_file(str(path), BUCKET, key, Config=self.transfer)

    def download(self, key: str, path: Path) -> None:
        self.client.download_file(BUCKET, key, str(path), Config=self.transfer)

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={start}-{stop - 1}")["Body"].read()


class Obstore:
    """It has no download in parts, so here it does what ours does: ranges in threads, each written to its place."""

    def __init__(self, engine: Engine) -> None:
        self.store = S3Store(BUCKET, **obstore_settings(engine))

    def upload(self, path: Path, key: str) -> None:
        obstore.put(self.store, key, path, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def download(self, key: str, path: Path) -> None:
        size = obstore.head(self.store, key)["size"]
        with open(path, "wb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:

            def fetch(start: int) -> None:
                os.pwrite(file.fileno(), self.get_range(key, start, min(start + PART, size)), start)

            list(pool.map(fetch, range(0, size, PART)))

    def put(self, key: str, body: bytes) -> None:
        obstore.put(self.store, key, body)

    def get(self, key: str) -> bytes:
        return obstore.get(self.store, key).bytes().to_bytes()

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        return obstore.get_range(self.store, key, start=start, end=stop).to_bytes()


def obstore_settings(engine: Engine) -> dict[str, Any]:
    return {
        "endpoint": engine.url,
        "region": engine.region,
        "access_key_id": engine.access_key_id,
        "secret_access_key": engine.secret_access_key,
        "client_options": {"allow_http": True},
    }


# -- what is measured


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu: float  # seconds, of this process with all its threads


@dataclass(frozen=True)
class Task:
    """What every client does."""

    name: str
    do: Callable[[Client], object]
    amount: int
    unit: str
    after: Callable[[], object] = lambda: None  # is not timed

    def cost(self, client: Client) -> Cost:
        started, spent = time.perf_counter(), time.process_time()
        self.do(client)
        cost = Cost(time.perf_counter() - started, time.process_time() - spent)
        self.after()
        return cost

    def told(self, costs: Sequence[Cost]) -> str:
        rates = spread([self.amount / cost.seconds for cost in costs], "{:.0f}", f"{self.unit}/s")
        return f"{rates}; CPU {1000 * statistics.median(cost.cpu for cost in costs) / self.amount:.2f} ms each"


def at_once(function: Callable[[Any], object], arguments: Iterable[Any]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(function, arguments):
            pass


def tasks(storage: lm.Storage, source: Path, target: Path, objects: int) -> list[Task]:
    """They read the object ``source``, which is the file, and leave small objects behind."""
    size = source.stat().st_size
    mib = size >> 20
    keys = [f"small/{number}" for number in range(objects)]
    starts = range(0, size, RANGE)

    def put(client: Client) -> None:
        at_once(lambda key: client.put(key, SMALL), keys)

    def get_ranges(client: Client) -> None:
        at_once(lambda start: client.get_range("source", start, start + RANGE), starts)

    def forget() -> None:
        storage.delete_object(None, "uploaded")

    return [
        Task(f"upload {mib} MiB", lambda client: client.upload(source, "uploaded"), mib, " MiB", forget),
        Task(f"download {mib} MiB", lambda client: client.download("source", target), mib, " MiB", target.unlink),
        Task(f"put 1 KiB, {THREADS} threads", put, objects, ""),
        Task(f"get 1 KiB, {THREADS} threads", lambda client: at_once(client.get, keys), objects, ""),
        Task(f"get ranges of 1 MiB, {THREADS} threads", get_ranges, len(starts), ""),
    ]


def check(client: Client, source: Path, target: Path) -> None:
    """That it does what is going to be measured; its connections are open afterwards."""
    data = source.read_bytes()
    client.upload(source, "uploaded")
    client.download("uploaded", target)
    assert target.read_bytes() == data
    target.unlink()
    assert client.get_range("uploaded", 100, 200) == data[100:200]
    client.put("small/0", SMALL)
    assert client.get("small/0") == SMALL


def beside(storage: str, engine: Engine, others: Mapping[str, Client], source: Path, quick: bool) -> Iterator[Row]:
    """The first of the others is the one that must be matched."""
    rounds, objects = (2, 100) if quick else (9, 500)
    target = source.with_name("downloaded")
    with lm.Storage(config=config(storage, engine)) as store:
        store.create_bucket()
        clients: list[Client] = [Ours(store), *others.values()]
        for client in clients:
            check(client, source, target)
            store.delete_object(None, "uploaded")  # or the service would keep the parts of what is overwritten
        store.upload_file(source, None, "source")
        for task in tasks(store, source, target, objects):
            ours, *theirs = side_by_side(rounds, *(partial(task.cost, client) for client in clients))
            for name, costs in zip(others, theirs, strict=True):
                faster = ratios([cost.seconds for cost in costs], [cost.seconds for cost in ours])
                row = Row(
                    f"{storage}: {task.name}; {name}", task.told(ours), task.told(costs), spread(faster, "{:.2f}", " x")
                )
                goal = {"target": "at least 0.9 x", "met": statistics.median(faster) >= 0.9}
                yield replace(row, **goal) if name == next(iter(others)) else row


def first_get(engine: Engine, quick: bool) -> Row:
    def seconds_of(name: str, settings: dict[str, Any]) -> float:
        command = [sys.executable, "-c", FIRST_GET[name], json.dumps(settings)]
        return seconds(lambda: subprocess.run(command, check=True))

    ours, peer = side_by_side(
        3 if quick else 11,
        lambda: seconds_of("aws_s3", config("aws_s3", engine)["aws"]),
        lambda: seconds_of("obstore", obstore_settings(engine)),
    )
    return Row(
        "aws_s3: a process that gets one object; obstore",
        spread(ours, "{:.3f}", " s"),
        spread(peer, "{:.3f}", " s"),
        spread(ratios(peer, ours), "{:.2f}", " x"),
    )


def measure(quick: bool) -> Sequence[Row]:
    DATA.mkdir(exist_ok=True)
    with start_swift() as engine, tempfile.TemporaryDirectory(dir=DATA) as directory:
        source = Path(directory, "source")
        source.write_bytes(os.urandom((32 if quick else 256) << 20))
        aws = {"boto3": Sdk(engine), "obstore": Obstore(engine)}
        ibm = {"ibm_boto3": Sdk(engine, "ibm_boto3", "ibm_botocore")}
        return [
            *beside("aws_s3", engine, aws, source, quick),
            *beside("ibm_cos", engine, ibm, source, quick),
            first_get(engine, quick),
        ]


if __name__ == "__main__":
    main(measure)
