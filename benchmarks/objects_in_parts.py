"""A large text in S3 storage in partitions: counting its words and its lines, beside boto3 on a pool of processes."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from data_in_parts import PARTITION, count_lines, count_words, our_lines, our_words, text, together
from measure import WORKERS, Row, main, seconds, seconds_beside, side_by_side
from s3_service import BUCKET, Engine, config, sdk_client, start_swift

import lithops_mini as lm

KEY = "words.txt"
LONGEST = 64 << 10  # bytes of a line at most: so many are read past the end of a range
Range = tuple[int, int, int]  # start, stop, size of the object

# -- by hand, on a pool of as many processes, each with a client of its own

client: Any


def connect(engine: Engine) -> None:
    global client
    client = sdk_client(engine)


def byte_ranges(size: int) -> list[Range]:
    return [(start, min(size, start + PARTITION), size) for start in range(0, size, PARTITION)]


def lines_of(place: Range) -> Iterable[bytes]:
    """The lines that begin in the range, read at once by one request."""
    start, stop, size = place
    first, last = max(0, start - 1), min(size, stop + LONGEST)
    data = client.get_object(Bucket=BUCKET, Key=KEY, Range=f"bytes={first}-{last - 1}")["Body"].read()
    begin = data.index(b"\n") + 1 if start else 0
    end = data.index(b"\n", stop - first - 1) + 1
    return io.BytesIO(memoryview(data)[begin:end])


def their_words(place: Range) -> Counter[bytes]:
    return count_words(lines_of(place))


def their_lines(place: Range) -> int:
    return count_lines(lines_of(place))


def compared(ex: lm.FunctionExecutor, pool: ProcessPoolExecutor, size: int, rounds: int) -> Iterator[Row]:
    ranges = byte_ranges(size)
    source = f"s3://{BUCKET}/{KEY}"
    for what, ours, theirs, add in (
        ("words", our_words, their_words, together),
        ("lines", our_lines, their_lines, sum),
    ):
        results: list[Any] = []

        def reduced(ours: Any = ours, add: Any = add, results: list[Any] = results) -> None:
            results.append(ex.get_result(ex.map_reduce(ours, source, add, obj_chunk_size=PARTITION)))

        def pooled(theirs: Any = theirs, add: Any = add, results: list[Any] = results) -> None:
            results.append(add(pool.map(theirs, ranges)))

        mine, other = side_by_side(rounds, lambda: seconds(reduced), lambda: seconds(pooled))
        assert all(result == results[0] for result in results)
        work = f"count the {what} of {size >> 20:,} MiB in S3, {PARTITION >> 20} MiB a part"
        yield seconds_beside(f"{work}; boto3, ProcessPoolExecutor", mine, other, 1.1)


def measure(quick: bool) -> Sequence[Row]:
    size, rounds = (128 << 20, 2) if quick else (1 << 30, 5)
    path = text(size)
    with start_swift() as engine, ProcessPoolExecutor(WORKERS, initializer=connect, initargs=(engine,)) as pool:
        list(pool.map(time.sleep, [0.1] * WORKERS))
        with lm.localhost_executor(config=config("aws_s3", engine), max_workers=WORKERS, progress=False) as ex:
            ex.storage.create_bucket()
            ex.storage.upload_file(path, None, KEY)
            ex.get_result(ex.map(our_lines, f"s3://{BUCKET}/{KEY}", obj_chunk_number=2 * WORKERS))  # SDKs are imported
            return list(compared(ex, pool, path.stat().st_size, rounds))


if __name__ == "__main__":
    main(measure)
