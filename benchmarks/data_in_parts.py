"""A large text in partitions: counting its words, reading it, and iterating over all of it in one worker."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial, reduce
from itertools import islice
from operator import add
from pathlib import Path
from time import sleep

from measure import DATA, WORKERS, Row, executor, main, seconds, seconds_beside, side_by_side

from lithops_mini.worker.data import DataObject

BLOCK = 16 << 20
PARTITION = 32 << 20
Range = tuple[str, int, int]


def text(size: int) -> Path:
    """A file of about ``size`` bytes of lines of words, some frequent and most rare; the same each time."""
    path = DATA / f"words-{size >> 20}.txt"
    if path.exists():
        return path
    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlucmfw", k=chance.randint(1, 12))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    lines, filled = [], 0
    while filled < BLOCK:
        line = " ".join(chance.choices(words, weights, k=chance.randint(1, 25))) + "\n"
        lines.append(line)
        filled += len(line)
    DATA.mkdir(exist_ok=True)
    beside = path.with_suffix(".part")
    with open(beside, "w", encoding="ascii") as file:
        for _ in range(size // BLOCK):
            chance.shuffle(lines)
            file.writelines(lines)
    beside.rename(path)
    return path


# -- what the functions do with the lines of a partition, whoever hands them over


def count_words(lines: Iterable[bytes]) -> Counter[bytes]:
    words: Counter[bytes] = Counter()
    for line in lines:
        words.update(line.split())
    return words


def count_lines(lines: Iterable[bytes]) -> int:
    return sum(1 for _ in lines)


# -- with lithops_mini


def our_words(obj: DataObject) -> Counter[bytes]:
    return count_words(obj.data_stream)


def our_lines(obj: DataObject) -> int:
    return count_lines(obj.data_stream)


def our_bytes(obj: DataObject) -> int:
    return sum(map(len, iter(partial(obj.data_stream.read, 1 << 20), b"")))


def together(counts: Iterable[Counter[bytes]]) -> Counter[bytes]:
    return reduce(add, counts)


# -- by hand, on a pool of as many processes


def byte_ranges(path: Path) -> list[Range]:
    size = path.stat().st_size
    return [(str(path), start, min(size, start + PARTITION)) for start in range(0, size, PARTITION)]


def lines_of(place: Range) -> Iterable[bytes]:
    """The lines that begin in the range, read at once."""
    path, start, stop = place
    with open(path, "rb") as file:
        edges = []
        for position in (start, stop):
            file.seek(max(0, position - 1))
            if position:
                file.readline()
            edges.append(file.tell())
        file.seek(edges[0])
        return io.BytesIO(file.read(edges[1] - edges[0]))


def their_words(place: Range) -> Counter[bytes]:
    return count_words(lines_of(place))


def their_bytes(place: Range) -> int:
    path, start, stop = place
    with open(path, "rb") as file:
        file.seek(start)
        return sum(len(file.read(min(1 << 20, stop - position))) for position in range(start, stop, 1 << 20))


def their_lines(place: Range, count: int) -> int:
    """Told how many lines to read, it does nothing but read them."""
    path, start, _ = place
    with open(path, "rb") as file:
        file.seek(start)
        return count_lines(islice(file, count))


def measure(quick: bool) -> Sequence[Row]:
    size, rounds = (128 << 20, 2) if quick else (1 << 30, 3)
    path = text(size)
    ranges = byte_ranges(path)
    name = f"{size >> 20:,} MiB in parts of {PARTITION >> 20} MiB"
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(sleep, [0.1] * WORKERS))
        with executor() as ex:
            ex.storage.create_bucket("text")
            ex.storage.upload_file(path, "text", "words.txt")
            results: list[object] = []

            def reduced() -> None:
                results.append(
                    ex.get_result(ex.map_reduce(our_words, "text/words.txt", together, obj_chunk_size=PARTITION))
                )

            def pooled() -> None:
                results.append(together(pool.map(their_words, ranges)))

            counted = side_by_side(rounds, lambda: seconds(reduced), lambda: seconds(pooled))
            assert all(result == results[0] for result in results)
            read = side_by_side(
                2 * rounds + 1,
                lambda: seconds(lambda: ex.get_result(ex.map(our_bytes, "text/words.txt", obj_chunk_size=PARTITION))),
                lambda: seconds(lambda: list(pool.map(their_bytes, ranges))),
            )
            lines = ex.get_result(ex.map(our_lines, "text/words.txt", obj_chunk_size=PARTITION))
            iterated = side_by_side(
                rounds,
                lambda: seconds(lambda: ex.get_result(ex.map(our_lines, "text/words.txt", obj_chunk_size=PARTITION))),
                lambda: seconds(lambda: list(pool.map(their_lines, ranges, lines))),
            )
            whole = ex.call_async(our_lines, "text/words.txt")
            ex.get_result(whole)
            assert whole.stats is not None
            peak = whole.stats.peak_memory / 1e6
    rows = [
        seconds_beside(what, mine, theirs, most)
        for what, (mine, theirs), most in (
            (f"count the words of {name}; by hand on ProcessPoolExecutor", counted, 1.1),
            (f"read {name}; the file by read(1 MiB), ProcessPoolExecutor", read, 1.25),
            (f"lines of {name}; the file line by line, ProcessPoolExecutor", iterated, 1.25),
        )
    ]
    what = f"lines of {size >> 20:,} MiB in one worker, its peak memory"
    return [*rows, Row(what, f"{peak:.0f} MB", "", "", "under 150 MB", peak < 150)]


if __name__ == "__main__":
    main(measure)
