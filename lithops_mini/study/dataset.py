"""The data of the study in object storage: made by workers, checked by checksums, with the truth beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import cloudpickle

import lithops_mini.study
from lithops_mini.errors import NoSuchObject, StorageError
from lithops_mini.progress import Counters, Progress
from lithops_mini.records import STUDY_PREFIX
from lithops_mini.study import analysis
from lithops_mini.study.generator import SIZE, lines
from lithops_mini.study.stations import STATIONS

if TYPE_CHECKING:
    from lithops_mini.executor import FunctionExecutor
    from lithops_mini.storage.api import Storage

# Workers elsewhere have of lithops_mini what runs calls, and no more.
cloudpickle.register_pickle_by_value(lithops_mini.study)


class File(NamedTuple):
    """A file of the data, as it is in storage."""

    number: int
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """Files of one seed and so many stations, of which a study takes the first, as many as it needs."""

    bucket: str
    seed: int = 1
    stations: int = STATIONS  # a file has 3,331 bytes for each

    @property
    def prefix(self) -> str:
        return f"{STUDY_PREFIX}openaq/{self.seed}-{self.stations}/"

    @property
    def manifest(self) -> str:
        """The key of sizes and checksums."""
        return f"{self.prefix}manifest.json"

    def key(self, number: int) -> str:
        return f"{self.prefix}files/{number:06}.ndjson"

    def truth(self, count: int) -> str:
        """The key of the averages of the first so many files."""
        return f"{self.prefix}truth/{count:06}.tsv"

    def count(self, size: float) -> int:
        """How many files have about so many bytes; at least one."""
        return max(1, round(size / (SIZE * self.stations)))


def provide(executor: FunctionExecutor, data: DataSet, count: int) -> list[File]:
    """Return the first so many files, once they are there: workers make those that are missing, or not as they were.

    The manifest is what was made so far, also when this is interrupted.
    """
    storage = executor.storage
    storage.create_bucket(data.bucket)
    known = read_manifest(storage, data)
    calls = [
        {"key": data.key(number), "number": number, "sha256": known[number].sha256 if number in known else ""}
        for number in range(count)
    ]
    shared = {"bucket": data.bucket, "seed": data.seed, "stations": data.stations}
    futures = executor.map(make_file, calls, extra_args=shared)
    try:
        executor.get_result(futures)
    finally:
        ended = [future for future in futures if future.done() and not future.cancelled()]
        made = [File(*future.result()) for future in ended if future.exception() is None]
        found = known | {file.number: file for file in made}
        if found != known:
            told = {str(file.number): [file.size, file.sha256] for file in sorted(found.values())}
            storage.put_object(data.bucket, data.manifest, json.dumps({"files": told}, indent=0))
    return [found[number] for number in range(count)]


def read_manifest(storage: Storage, data: DataSet) -> dict[int, File]:
    """The files that were made, by their numbers."""
    try:
        told = json.loads(storage.get_object(data.bucket, data.manifest))
    except NoSuchObject:
        return {}
    return {int(number): File(int(number), *file) for number, file in told["files"].items()}


def make_file(
    storage: Storage, bucket: str, key: str, number: int, sha256: str, seed: int, stations: int
) -> tuple[int, int, str]:
    """In a worker: see to it that the file is there; return its number, size and SHA-256."""
    if sha256:
        digest, size = hashlib.sha256(), 0
        try:
            with storage.get_object(bucket, key, stream=True) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
        except NoSuchObject:
            size = 0
        if digest.hexdigest() == sha256:
            return number, size, sha256
    digest, size = hashlib.sha256(), 0
    with storage.open(bucket, key, "wb") as file:
        for block in lines(seed, number, stations):
            file.write(block)
            digest.update(block)
            size += len(block)
    if sha256 and digest.hexdigest() != sha256:
        raise StorageError(f"{bucket}/{key} was made anew and is not what it was: its manifest is of another version")
    return number, size, digest.hexdigest()


def provide_truths(storage: Storage, data: DataSet, counts: Sequence[int]) -> None:
    """See to it that the truths of the first so many files are there, each for one of the counts."""
    there = set(storage.list_keys(data.bucket, data.truth(0).rpartition("/")[0]))
    missing = sorted({count for count in counts if data.truth(count) not in there})

    counters = Counters(total=max(missing, default=0))

    def files() -> Iterator[BinaryIO]:
        for number in range(counters.total):
            with closing(storage.get_object(data.bucket, data.key(number), stream=True)) as file:
                yield file
            counters.done += 1
            progress.update()

    with Progress(lambda: counters, label="truth") as progress:
        for count, table in zip(missing, analysis.truth(files(), missing), strict=True):
            with storage.open(data.bucket, data.truth(count), "w") as file:
                file.writelines(table)


def check(storage: Storage, data: DataSet, key: str, count: int) -> list[str]:
    """What of the table at this key is not as in the truth of so many files; the first five of it."""
    with storage.open(data.bucket, key, "r") as found, storage.open(data.bucket, data.truth(count), "r") as right:
        wrong = analysis.differences(found, right)
        return [difference for difference, _ in zip(wrong, range(5), strict=False)]


def shares(sizes: Sequence[int], workers: int) -> dict[str, Any]:
    """How ``map_reduce`` is to cut files of about these sizes, so that each worker has about as many bytes to read.

    Whole files are packed where that comes out within a tenth of even. Otherwise each is cut, into as few equal parts
    as do.
    """
    count = len(sizes)
    parts = 1
    while count * parts < workers or math.ceil(count * parts / workers) * workers > 1.1 * count * parts:
        parts += 1
    if parts > 1:
        return {"obj_chunk_number": parts}
    each = math.ceil(count / workers)
    return {"obj_pack_size": max(sum(sizes[begin : begin + each]) for begin in range(0, count, each))}
