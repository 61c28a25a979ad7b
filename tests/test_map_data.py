"""Functions over data: what they get as obj, and which arguments travel beside it."""

# ruff: noqa: A002 - id is a name that executors fill in
from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lithops_mini as lm
from lithops_mini.errors import InputError, NoSuchBucket, NoSuchObject

BUCKET = "map-data"
OTHER = "map-data-other"
LINES = {"a.txt": 100, "b.txt": 7, "sub/c.txt": 1, "sub/empty.txt": 0}


def text(name: str) -> bytes:
    return b"".join(b"%s line %d\n" % (name.encode(), n) for n in range(LINES[name]))


@pytest.fixture(scope="module", params=["localhost", "inline"])
def executor(request: pytest.FixtureRequest) -> Iterator[lm.FunctionExecutor]:
    with lm.function_executor(request.param, progress=False) as shared:
        shared.storage.create_bucket(BUCKET)
        shared.storage.create_bucket(OTHER)
        for name in LINES:
            shared.storage.put_object(BUCKET, f"data/{name}", text(name))
        yield shared


@pytest.fixture
def run(executor: lm.FunctionExecutor) -> Callable[..., Any]:
    return lambda function, items, **options: executor.get_result(executor.map(function, items, **options))


def count(obj: Any) -> tuple[str, int]:
    return obj.key, sum(1 for _ in obj.data_stream)


def content(obj: Any) -> bytes:
    return obj.data_stream.read()


# -- naming data


@pytest.mark.parametrize(
    "source",
    [
        f"{BUCKET}/data/",
        f"{BUCKET}",
        f"{BUCKET}/data/**",
        f"localhost://{BUCKET}/data/",
        [f"{BUCKET}/data/"],
        [f"{BUCKET}/data/?.txt", f"{BUCKET}/data/sub/"],
        [f"{BUCKET}/data/{name}" for name in LINES],
        [[f"{BUCKET}/data/{name}" for name in LINES]],
        [{"obj": f"{BUCKET}/data/"}],
        {"obj": f"{BUCKET}/data/"},
    ],
)
def test_all_objects_in_order(run: Callable[..., Any], source: Any) -> None:
    assert run(count, source) == [(f"data/{name}", lines) for name, lines in LINES.items()]


def test_one_object(executor: lm.FunctionExecutor) -> None:
    assert executor.get_result(executor.call_async(count, f"{BUCKET}/data/b.txt")) == ("data/b.txt", 7)
    assert executor.get_result(executor.call_async(count, {"obj": f"{BUCKET}/data/b.txt"})) == ("data/b.txt", 7)
    with pytest.raises(InputError, match=r"4 .*use map"):
        executor.call_async(count, f"{BUCKET}/data/")


def test_what_obj_knows(run: Callable[..., Any]) -> None:
    def describe(obj: Any) -> tuple[Any, ...]:
        where = (obj.bucket, obj.key, obj.path, obj.url)
        return *where, obj.part, obj.total_parts, obj.data_byte_range, obj.chunk_size, obj.size, str(obj)

    size = len(text("b.txt"))
    described = run(describe, f"{BUCKET}/data/b.txt", obj_chunk_size=60)
    edges = [*range(0, size, 60), size]
    assert described == [
        (BUCKET, "data/b.txt", None, None, part, 2, (start, stop), stop - start, size, f"{BUCKET}/data/b.txt")
        for part, (start, stop) in enumerate(pairwise(edges))
    ]


@pytest.mark.parametrize("cut", [{"obj_chunk_size": 100}, {"obj_chunk_size": "1KiB"}, {"obj_chunk_number": 3}, {}])
def test_the_partitions_joined_are_the_object(run: Callable[..., Any], cut: dict[str, Any]) -> None:
    size = len(text("a.txt"))
    parts = run(content, f"{BUCKET}/data/a.txt", **cut)
    assert b"".join(parts) == text("a.txt")
    assert all(part.endswith(b"\n") for part in parts if part)
    assert len(parts) == {100: -(-size // 100), "1KiB": -(-size // 1024), 3: 3, None: 1}[next(iter(cut.values()), None)]


def test_exact_bytes(run: Callable[..., Any]) -> None:
    parts = run(content, f"{BUCKET}/data/a.txt", obj_chunk_size=100, obj_newline=None)
    assert [len(part) for part in parts[:-1]] == [100] * (len(parts) - 1)
    assert b"".join(parts) == text("a.txt")


def test_records_of_another_delimiter(executor: lm.FunctionExecutor, run: Callable[..., Any]) -> None:
    executor.storage.put_object(OTHER, "paragraphs", b"one\nmore||two||three")

    def records(obj: Any) -> list[bytes]:
        return list(obj.records())

    parts = run(records, f"{OTHER}/paragraphs", obj_chunk_number=4, obj_newline="||")
    assert list(chain(*parts)) == [b"one\nmore", b"two", b"three"]


# -- arguments beside the data


def test_other_arguments(run: Callable[..., Any]) -> None:
    def function(obj: Any, x: int, y: int = 0) -> tuple[str, int, int]:
        return obj.key, x, y

    one, two = f"{BUCKET}/data/a.txt", f"{BUCKET}/data/b.txt"
    expected = [("data/a.txt", 1, 0), ("data/b.txt", 2, 3)]
    assert run(function, [{"obj": one, "x": 1}, {"y": 3, "x": 2, "obj": two}]) == expected
    assert run(function, [(one, 1), (two, 2, 3)]) == expected
    assert run(function, [one, two], extra_args=(5,)) == [("data/a.txt", 5, 0), ("data/b.txt", 5, 0)]
    assert run(function, f"{BUCKET}/data/?.txt", extra_args={"x": 5}) == [("data/a.txt", 5, 0), ("data/b.txt", 5, 0)]
    assert run(function, [(one, 1)], extra_args=[7]) == [("data/a.txt", 1, 7)]


def test_obj_need_not_come_first(run: Callable[..., Any]) -> None:
    def function(x: int, obj: Any, id: int, storage: Any) -> tuple[Any, ...]:
        key = storage.put_cloudobject(obj.data_stream.read())
        return x, obj.key, id, storage.get_cloudobject(key)

    (first, second) = run(function, [(1, f"{BUCKET}/data/b.txt"), {"obj": f"{BUCKET}/data/sub/c.txt", "x": 2}])
    assert first == (1, "data/b.txt", 0, text("b.txt"))
    assert second == (2, "data/sub/c.txt", 1, text("sub/c.txt"))


def test_id_numbers_the_partitions(run: Callable[..., Any]) -> None:
    def function(id: int, obj: Any) -> tuple[int, int]:
        return id, obj.part

    assert run(function, f"{BUCKET}/data/?.txt", obj_chunk_number=2) == [(0, 0), (1, 1), (2, 0), (3, 1)]


def test_a_keyword_only_obj_and_a_class(run: Callable[..., Any]) -> None:
    class Counter:
        def __call__(self, *, obj: Any) -> int:
            return sum(1 for _ in obj.data_stream)

    assert run(Counter(), [{"obj": f"{BUCKET}/data/b.txt"}]) == [7]


def test_futures_beside_the_data(executor: lm.FunctionExecutor, run: Callable[..., Any]) -> None:
    def function(obj: Any, x: int) -> tuple[str, int]:
        return obj.key, x

    future = executor.call_async(abs, -3)
    assert run(function, [{"obj": f"{BUCKET}/data/b.txt", "x": future}]) == [("data/b.txt", 3)]


# -- many and packed


def test_small_objects_in_one_call(run: Callable[..., Any]) -> None:
    def names(obj: list[Any]) -> list[tuple[str, int]]:
        return [(each.key, len(each.data_stream.read())) for each in obj]

    sizes = {f"data/{name}": len(text(name)) for name in LINES}
    assert run(names, f"{BUCKET}/data/", obj_pack_size="1MiB") == [list(sizes.items())]
    parts = run(names, f"{BUCKET}/data/", obj_pack_size=200, obj_chunk_number=2)
    assert [key for part in parts for key, _ in part] == ["data/a.txt"] * 2 + list(sizes)[1:]
    assert sum(size for part in parts for _, size in part) == sum(sizes.values())


def test_reduce_by_object(executor: lm.FunctionExecutor) -> None:
    def lines(obj: Any) -> int:
        return sum(1 for _ in obj.data_stream)

    futures = executor.map_reduce(lines, f"{BUCKET}/data/", list, obj_chunk_number=4, obj_reduce_by_key=True)
    values = executor.get_result(futures)
    assert [sum(value) for value in values] == list(LINES.values())
    assert [len(value) for value in values] == [4, 4, 4, 4]
    executor.get_result(throw_except=False)
    executor.map_reduce(lines, f"{BUCKET}/data/", sum, obj_chunk_number=4, obj_reduce_by_key=True, spawn_reducer=20)
    assert executor.get_result() == list(LINES.values())
    executor.map_reduce(lines, [f"{BUCKET}/data/b.txt"], sum, obj_reduce_by_key=True)
    assert executor.get_result() == [7]
    executor.map_reduce(lines, f"{BUCKET}/data/", sum, obj_chunk_size=50)
    assert executor.get_result() == sum(LINES.values())


def test_one_object_named_twice_is_two_for_the_reducers(executor: lm.FunctionExecutor) -> None:
    def part(obj: Any) -> int:
        return obj.part

    name = f"{BUCKET}/data/b.txt"
    futures = executor.map_reduce(part, [name, name], list, obj_chunk_number=2, obj_reduce_by_key=True)
    assert executor.get_result(futures) == [[0, 1], [0, 1]]


def test_reducers_of_packed_objects(executor: lm.FunctionExecutor) -> None:
    def keys(obj: list[Any]) -> list[str]:
        return [each.key for each in obj]

    def total(results: Sequence[list[str]]) -> list[str]:
        return [name for names in results for name in names]

    futures = executor.map_reduce(keys, f"{BUCKET}/data/", total, obj_pack_size="1MiB")
    assert executor.get_result(futures) == [f"data/{name}" for name in LINES]


# -- local files


def test_local_files(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(obj: Any) -> tuple[Any, ...]:
        return obj.bucket, obj.key, obj.path, obj.data_stream.read()

    (tmp_path / "in" / "deep").mkdir(parents=True)
    expected = []
    for name in ("a.csv", "b.csv", "deep/c.csv"):
        (tmp_path / "in" / name).write_text(f"{name}\n")
        expected.append((None, None, str(tmp_path / "in" / name), f"{name}\n".encode()))
    monkeypatch.chdir(tmp_path)
    for source in (f"{tmp_path}/in", f"file://{tmp_path}/in/", "./in", [tmp_path / "in"], tmp_path / "in"):
        assert run(look, source) == expected
    assert run(look, f"{tmp_path}/in/*.csv") == expected[:2]
    assert run(look, [tmp_path / "in" / "a.csv", "./in/b.csv"]) == expected[:2]
    assert b"".join(run(content, "./in/a.csv", obj_chunk_size=2)) == b"a.csv\n"
    assert run(look, (path for path in (tmp_path / "in").glob("a*"))) == expected[:1]


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_data(
    executor: lm.FunctionExecutor, run: Callable[..., Any], suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    data = b"".join(b"line %d\n" % n for n in range(10_000))
    key = f"{OTHER}/data.{suffix}"
    compressed = compress(data)
    executor.storage.put_object(OTHER, f"data.{suffix}", compressed)
    assert run(content, key) == [data]
    assert run(content, key, obj_decompress=False) == [compressed]
    assert run(count, key, obj_chunk_size=100) == [(f"data.{suffix}", 10_000)]


def test_streams_for_text_and_frames(executor: lm.FunctionExecutor, run: Callable[..., Any]) -> None:
    frame = pd.DataFrame({"a": np.arange(1000), "b": np.arange(1000) / 4})
    executor.storage.put_object(OTHER, "table.csv", frame.to_csv(index=False, header=False).encode())

    def read(obj: Any) -> Any:
        return pd.read_csv(obj.data_stream, names=["a", "b"])

    def lines(obj: Any) -> list[str]:
        return io.TextIOWrapper(obj.data_stream, encoding="utf-8").readlines()

    frames = run(read, f"{OTHER}/table.csv", obj_chunk_number=3)
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), frame)
    assert run(lines, f"{BUCKET}/data/b.txt") == [text("b.txt").decode().splitlines(keepends=True)]


def test_the_stream_is_closed_after_the_call(executor: lm.FunctionExecutor) -> None:
    def keep(obj: Any) -> bool:
        sys.kept_stream = obj.data_stream  # type: ignore[attr-defined]
        return obj.data_stream.closed

    def kept(_: int) -> bool:
        return sys.kept_stream.closed  # type: ignore[attr-defined]

    with lm.localhost_executor(max_workers=1, progress=False) as one_process:
        assert one_process.get_result(one_process.map(keep, f"{BUCKET}/data/b.txt")) == [False]
        assert one_process.get_result(one_process.map(kept, [1])) == [True]


# -- what cannot be run


def over(obj: Any) -> None:
    raise AssertionError("it ran")


def over_url(url: Any) -> None:
    raise AssertionError("it ran")


@pytest.mark.parametrize(
    ("function", "source", "options", "error", "words"),
    [
        (over, "no-such-bucket/key", {}, NoSuchBucket, "no-such-bucket"),
        (over, f"{BUCKET}/nothing", {}, NoSuchObject, "nothing"),
        (over, f"{BUCKET}/nothing/", {}, NoSuchObject, "begins with 'nothing/'"),
        (over, f"{BUCKET}/*.parquet", {}, NoSuchObject, r"matches '\*.parquet'"),
        (over, f"{BUCKET}/data", {}, NoSuchObject, f"write '{BUCKET}/data/'"),
        (over, "./no/such/file", {}, NoSuchObject, "does not exist"),
        (over, [f"{BUCKET}/data/", "/etc/hostname"], {}, InputError, "mixed object kinds"),
        (over, [5], {}, InputError, "5 is not a data source"),
        (over, [""], {}, InputError, "is not a data source"),
        (over, "s3://bucket/key", {}, InputError, "aws_s3.*localhost"),
        (over, f"{BUCKET}/data/", {"obj_chunk_size": 5, "obj_chunk_number": 5}, InputError, "not both"),
        (over, f"{BUCKET}/data/", {"obj_chunk_size": 0}, InputError, "obj_chunk_size"),
        (over, f"{BUCKET}/data/", {"obj_chunk_size": "many"}, InputError, "many"),
        (over, f"{BUCKET}/data/", {"obj_newline": ""}, InputError, "obj_newline"),
        (over, [{"obj": f"{BUCKET}/data/", "other": 1}], {}, InputError, "does not fit .*over"),
        (over, [{}], {}, InputError, "missing a required argument: 'obj'"),
        (over_url, f"{BUCKET}/data/", {}, InputError, r"url takes http\(s\) addresses"),
        (lambda obj, url: 0, [("a", "b")], {}, InputError, "obj and url"),
        (lambda obj, *args: 0, [(f"{BUCKET}/data/b.txt", 1, 2)], {}, InputError, r"obj .*\*args"),
    ],
)
def test_errors_before_anything_runs(
    executor: lm.FunctionExecutor,
    function: Callable[..., Any],
    source: Any,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    jobs = len(executor.stats())
    with pytest.raises(error, match=words):
        executor.map(function, source, **options)
    assert len(executor.stats()) == jobs


def test_an_object_that_changes_after_planning_fails_the_call(tmp_path: Path) -> None:
    def slow(obj: Any, gate: str) -> bytes:
        while obj.part == 0 and not os.path.exists(gate):
            time.sleep(0.01)  # the file is made by another process
        return obj.data_stream.read()

    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        executor.storage.put_object(OTHER, "changing", b"a\n" * 100)
        futures = executor.map(slow, f"{OTHER}/changing", extra_args=(str(tmp_path / "gate"),), obj_chunk_number=2)
        executor.storage.put_object(OTHER, "changing", b"b\n" * 100)
        (tmp_path / "gate").touch()
        with pytest.raises(lm.LithopsMiniError, match="changed after it was planned"):
            executor.get_result(futures)


def test_calls_tell_how_much_of_their_data_they_have_read(executor: lm.FunctionExecutor) -> None:
    packed = gzip.compress(os.urandom(9000))
    executor.storage.put_object(OTHER, "read/packed.gz", packed)
    executor.storage.put_object(OTHER, "read/lines", b"line\n" * 40_000)

    def some(obj: Any) -> int:
        return len(obj.data_stream.read(10) if obj.part == 1 else obj.data_stream.read())

    futures = executor.map(some, f"{OTHER}/read/lines", obj_chunk_number=4)
    sizes = executor.get_result(futures)
    read = [future.stats.data_read for future in futures if future.stats is not None]
    assert [read[n] for n in (0, 2, 3)] == [sizes[n] for n in (0, 2, 3)] == [50_000] * 3
    assert 10 <= read[1] <= 50_000
    (future,) = executor.map(some, f"{OTHER}/read/packed.gz")
    assert future.result() == 9000
    assert future.stats.data_read == len(packed)
    unread = executor.map(lambda obj: obj.part, f"{OTHER}/read/lines", obj_chunk_number=1)
    assert executor.get_result(unread) == [0]
    assert unread[0].stats.data_read == 0
