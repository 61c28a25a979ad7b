"""Which objects, files and URLs a source is, how they are cut and packed, and what is refused before anything runs."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from lithops_mini.errors import AccessDenied, InputError, LithopsMiniError, NoSuchBucket, NoSuchObject
from lithops_mini.job.globs import glob_prefix, glob_regex
from lithops_mini.job.partition import Cutting, cut, pack, plan_partitions
from lithops_mini.job.sources import Source
from lithops_mini.records import Partition, manifest_key
from lithops_mini.sizes import format_size, parse_size
from lithops_mini.storage.localhost import LocalhostStorage, LocalhostStorageOptions
from lithops_mini.worker.data import open_partition


@pytest.fixture
def storage() -> MemoryStorage:
    keys = ["a", "logs/2023-12.csv", "logs/2024-01.csv", "logs/2024-02.csv", "logs/deep/2024-03.csv", "logs.txt", "z/y"]
    return MemoryStorage(bucket={key: key.encode() * 10 for key in keys})


def plan(sources: Any, storage: Any = None, **options: Any) -> list[list[list[Partition]]]:
    options = {
        "storage": storage or MemoryStorage(),
        "storage_name": "localhost",
        "readable": ("object", "path", "url"),
        **options,
    }
    return plan_partitions(sources, **options)


def keys(sources: Any, storage: Any = None, **options: Any) -> list[list[str]]:
    return [[parts[0].key for parts in item] for item in plan(sources, storage, **options)]


class TestObjects:
    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("bucket/a", ["a"]),
            ("bucket/z/", ["z/y"]),
            ("bucket/logs/", ["logs/2023-12.csv", "logs/2024-01.csv", "logs/2024-02.csv", "logs/deep/2024-03.csv"]),
            ("bucket/logs/2024-*.csv", ["logs/2024-01.csv", "logs/2024-02.csv"]),
            ("bucket/logs/**/2024-*.csv", ["logs/2024-01.csv", "logs/2024-02.csv", "logs/deep/2024-03.csv"]),
            ("bucket/*", ["a", "logs.txt"]),
            ("bucket/?", ["a"]),
            ("bucket/logs/202[!3]-0[2-9].csv", ["logs/2024-02.csv"]),
            ("localhost://bucket/a", ["a"]),
            ("LOCALHOST://bucket/l*", ["logs.txt"]),
        ],
    )
    def test_forms(self, storage: MemoryStorage, source: str, found: list[str]) -> None:
        assert keys(source, storage) == [found]

    @pytest.mark.parametrize("source", ["bucket", "bucket/", "bucket/**", "localhost://bucket"])
    def test_a_whole_bucket(self, storage: MemoryStorage, source: str) -> None:
        everything = [sorted(storage.buckets["bucket"])]
        assert keys(source, storage) == everything
        job = manifest_key("3f9c1a2b-M003")
        storage.put("bucket", job, b"ours")
        storage.put("bucket", "lithops_mini/cloudobjects/1", b"ours")
        storage.put("bucket", "folder/", b"")
        assert keys(source, storage) == everything
        assert keys("bucket/lithops_mini/jobs/", storage) == [[job]]
        assert keys(f"bucket/{job}", storage) == [[job]]

    def test_several_sources_keep_their_order(self, storage: MemoryStorage) -> None:
        sources = ["bucket/z/y", "bucket/logs/2024*", "localhost://bucket/a"]
        expected = [["z/y"], ["logs/2024-01.csv", "logs/2024-02.csv"], ["a"]]
        assert keys(sources, storage) == keys(tuple(sources), storage) == keys(iter(sources), storage) == expected
        assert keys([], storage) == []

    def test_one_listing_for_a_prefix(self, storage: MemoryStorage) -> None:
        plan("bucket/logs/", storage)
        plan("bucket/logs/2024-*.csv", storage)
        assert storage.requests == [("list", "logs/"), ("list", "logs/2024-")]

    def test_what_a_partition_says(self, storage: MemoryStorage) -> None:
        [[parts]] = plan("bucket/a", storage, obj_chunk_size=4, obj_newline="\r\n")
        etag = storage.head("bucket", "a").etag
        assert parts[1] == Partition("object", "bucket", "a", 10, 1, 3, 4, 8, b"\r\n", None, etag)

    @pytest.mark.parametrize("scheme", ["s3", "aws_s3"])
    def test_the_scheme_is_the_storage(self, storage: MemoryStorage, scheme: str) -> None:
        assert keys(f"{scheme}://bucket/a", storage, storage_name="aws_s3") == [["a"]]
        with pytest.raises(InputError, match=r"'aws_s3', and the configured storage is 'localhost'"):
            plan(f"{scheme}://bucket/a", storage)

    @pytest.mark.parametrize(
        ("source", "kind", "words"),
        [
            ("missing", NoSuchBucket, "missing"),
            ("missing/", NoSuchBucket, "missing"),
            ("missing/key", NoSuchBucket, "missing"),
            ("missing/*", NoSuchBucket, "missing"),
            ("bucket/b", NoSuchObject, "the bucket 'bucket' has no object 'b'"),
            ("bucket/logs", NoSuchObject, "there are objects below it: write 'bucket/logs/'"),
            ("bucket/nothing/", NoSuchObject, "has a key that begins with 'nothing/'"),
            ("bucket/*.json", NoSuchObject, "no object in the bucket 'bucket' matches '\\*.json'"),
            ("bucket/[a", InputError, "has no '\\]'"),
            ("bucket/[z-a]", InputError, "is not a pattern"),
            ("b*/x", InputError, "cannot be a pattern"),
            ("localhost://", InputError, "the name of a bucket comes first"),
            ("gs://bucket/a", InputError, "is in the storage 'gs'"),
            ("", InputError, "is not a data source"),
            (3, InputError, "3 is not a data source"),
            (b"bucket/a", InputError, "is not a data source"),
            (["bucket/a", None], InputError, "None is not a data source"),
        ],
    )
    def test_clear_errors(self, storage: MemoryStorage, source: Any, kind: type[LithopsMiniError], words: str) -> None:
        sources = source if isinstance(source, list) else [source]
        with pytest.raises(kind, match=words):
            plan(sources, storage)

    def test_an_empty_bucket(self) -> None:
        with pytest.raises(NoSuchObject, match="no object in the bucket 'bucket' is there"):
            plan("bucket", MemoryStorage(bucket={}))

    def test_a_file_without_its_dot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x.csv").write_text("1")
        (tmp_path / "my file").write_text("1")
        storage = LocalhostStorage(LocalhostStorageOptions(str(tmp_path / "storage")))
        storage.create_bucket("other")
        for source in ("data/x.csv", "data", "my file"):
            with pytest.raises(NoSuchBucket, match=f"write './{source}'"):
                plan(source, storage)


class TestFiles:
    @pytest.fixture(autouse=True)
    def _tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("b.csv", "a.csv", "sub/c.csv", "sub/.hidden", ".git/config", "empty"):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text("" if name == "empty" else name)
        (tmp_path / "nothing").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))

    def names(self, source: Any, tmp_path: Path) -> list[str]:
        [found] = keys(source)
        return [os.path.relpath(path, tmp_path / "in") for path in found]

    def test_forms(self, tmp_path: Path) -> None:
        everything = ["a.csv", "b.csv", "empty", "sub/c.csv"]
        for source in (
            tmp_path / "in",
            str(tmp_path / "in"),
            "./in",
            "./in/",
            "~/in",
            f"file://{tmp_path}/in",
            "./x/../in",
        ):
            assert self.names(source, tmp_path) == everything
        assert self.names("./in/a.csv", tmp_path) == ["a.csv"]
        assert self.names(Path("in/a.csv"), tmp_path) == ["a.csv"]
        assert self.names("./in/sub/.hidden", tmp_path) == ["sub/.hidden"]
        assert self.names("./in/*", tmp_path) == ["a.csv", "b.csv", "empty"]
        assert self.names("./in/**/*.csv", tmp_path) == ["a.csv", "b.csv", "sub/c.csv"]

    def test_names_that_look_like_something_else(self, tmp_path: Path) -> None:
        for name in ("x[1].csv", "100%20.csv", "a b"):
            (tmp_path / "in" / name).write_text("1")
            assert self.names(f"./in/{name}", tmp_path) == [name]
        assert self.names(f"file://{tmp_path}/in/a%20b", tmp_path) == ["a b"]

    def test_links(self, tmp_path: Path) -> None:
        top = tmp_path / "in"
        (top / "sub" / "back").symlink_to(top)
        (top / "link.csv").symlink_to(top / "a.csv")
        assert self.names("./in", tmp_path) == ["a.csv", "b.csv", "empty", "link.csv", "sub/c.csv"]
        (top / "broken").symlink_to("nowhere")
        with pytest.raises(NoSuchObject, match=r"'./in' \(.*/in/broken\) is a link to nothing"):
            plan("./in")

    def test_partitions_are_read_from_the_file(self, tmp_path: Path) -> None:
        data = b"".join(b"%d\n" % n for n in range(1000))
        (tmp_path / "numbers").write_bytes(data)
        [[parts]] = plan("./numbers", obj_chunk_number=7)
        objs = [open_partition(part, None) for part in parts]
        assert (objs[0].path, objs[0].bucket, objs[0].key, objs[0].url) == (str(tmp_path / "numbers"), None, None, None)
        assert b"".join(obj.data_stream.read() for obj in objs) == data
        for obj in objs:
            obj.close()

    def test_clear_errors(self, tmp_path: Path) -> None:
        with pytest.raises(NoSuchObject, match=r"'./none' \(.*/none\) does not exist"):
            plan("./none")
        with pytest.raises(NoSuchObject, match=r"'\./nothing': there is no file"):
            plan("./nothing")
        with pytest.raises(NoSuchObject, match="there is no file"):
            plan("./in/*.json")
        with pytest.raises(InputError, match="is not a regular file"):
            plan("/dev/null")
        with pytest.raises(InputError, match="file:///absolute/path"):
            plan("file://in/a.csv")
        with pytest.raises(InputError, match="storage put"):
            plan("./in/a.csv", readable=("object", "url"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_directory_that_may_not_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "in" / "sub").chmod(0)
        try:
            with pytest.raises(AccessDenied, match="cannot be read"):
                plan("./in")
        finally:
            (tmp_path / "in" / "sub").chmod(0o700)


@pytest.mark.parametrize("other", ["./x", "http://127.0.0.1:1/x"])
def test_mixed_kinds_make_no_request(storage: MemoryStorage, other: str) -> None:
    with pytest.raises(InputError, match=r"mixed object kinds: .*'bucket/a'"):
        plan(["bucket/a", other], storage)
    assert storage.requests == []


class TestCutting:
    def ranges(self, size: int | None, **how: Any) -> list[tuple[int, int | None]]:
        source = Source("object", "b", "k", size, None, how.pop("compression", None), how.pop("ranged", True))
        return [(part.start, part.stop) for part in cut(source, Cutting(**how))]

    def test_sizes_and_numbers(self) -> None:
        assert self.ranges(10) == [(0, 10)]
        assert self.ranges(10, chunk_size=4) == [(0, 4), (4, 8), (8, 10)]
        assert self.ranges(10, chunk_size=10) == self.ranges(10, chunk_size=99) == [(0, 10)]
        assert self.ranges(10, chunk_number=3) == [(0, 3), (3, 6), (6, 10)]
        assert self.ranges(2, chunk_number=4) == [(0, 0), (0, 1), (1, 1), (1, 2)]
        assert self.ranges(0) == self.ranges(0, chunk_size=5) == [(0, 0)]

    def test_what_cannot_be_cut(self) -> None:
        assert self.ranges(10, chunk_size=4, compression="gzip") == [(0, 10)]
        assert self.ranges(10, chunk_number=4, ranged=False) == [(0, 10)]
        assert self.ranges(None, chunk_size=4, ranged=False) == [(0, None)]
        assert self.ranges(10, chunk_size=4, pack_size=10) == [(0, 10)]
        assert self.ranges(11, chunk_size=4, pack_size=10) == [(0, 4), (4, 8), (8, 11)]

    @given(st.integers(0, 1 << 40), st.integers(1, 50), st.integers(1, 1 << 40))
    def test_ranges_are_all_of_the_source(self, size: int, number: int, chunk: int) -> None:
        for how in ({"chunk_number": number}, {"chunk_size": max(chunk, size // 50 + 1)}):
            ranges = self.ranges(size, **how)
            assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
            assert ranges[-1][1] == size
            assert all(start <= stop for start, stop in ranges)
            assert len(ranges) == number or "chunk_size" in how

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"obj_chunk_size": 1, "obj_chunk_number": 1}, "not both"),
            ({"obj_chunk_size": 0}, "obj_chunk_size=0: it must be at least 1"),
            ({"obj_chunk_size": "lots"}, "'lots' is not a size"),
            ({"obj_chunk_number": 0}, "obj_chunk_number=0"),
            ({"obj_chunk_number": "4"}, "obj_chunk_number='4': give a whole number"),
            ({"obj_chunk_number": 1.5}, "whole number"),
            ({"obj_newline": ""}, "obj_newline=''"),
            ({"obj_newline": 10}, "obj_newline=10"),
            ({"obj_pack_size": "0"}, "obj_pack_size"),
        ],
    )
    def test_arguments_that_say_nothing(self, storage: MemoryStorage, arguments: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError, match=words):
            plan("bucket/a", storage, **arguments)
        assert storage.requests == []


class TestPacking:
    def test_neighbours_up_to_the_size(self) -> None:
        storage = MemoryStorage(b={f"{n}": b"x" * size for n, size in enumerate([3, 4, 3, 1, 25, 0, 10, 0, 11])})
        [objects] = plan("b", storage, obj_pack_size=10, obj_chunk_size=10)
        calls = [[(part.key, part.start, part.stop) for part in call] for call in pack(objects, "10")]
        assert calls == [
            [("0", 0, 3), ("1", 0, 4), ("2", 0, 3)],
            [("3", 0, 1)],
            [("4", 0, 10)],
            [("4", 10, 20)],
            [("4", 20, 25)],
            [("5", 0, 0), ("6", 0, 10), ("7", 0, 0)],
            [("8", 0, 10)],
            [("8", 10, 11)],
        ]

    def test_without_a_size_each_partition_is_a_call(self) -> None:
        storage = MemoryStorage(b={"1": b"xx", "2": b"x"})
        [objects] = plan("b", storage, obj_chunk_size=1)
        assert [[(part.key, part.part) for part in call] for call in pack(objects)] == [
            [("1", 0)],
            [("1", 1)],
            [("2", 0)],
        ]

    def test_nothing_is_lost(self) -> None:
        seed = random.randrange(1 << 32)
        print(f"{seed=}")
        rng = random.Random(seed)
        for _ in range(200):
            sizes = [rng.randrange(12) for _ in range(rng.randrange(20))]
            how = Cutting(chunk_size=rng.choice([None, 3]), pack_size=rng.choice([None, 1, 5, 30]))
            objects = [cut(Source("object", "b", str(n), size, None), how) for n, size in enumerate(sizes)]
            calls = pack(objects, how.pack_size)
            assert [part for call in calls for part in call] == [part for parts in objects for part in parts]
            for call in calls:
                assert len(call) == 1 or sum(part.size or 0 for part in call) <= (how.pack_size or 0)


class TestGlobs:
    @pytest.mark.parametrize(
        ("pattern", "matching", "others"),
        [
            ("a*", ["a", "abc"], ["ba", "a/b", ""]),
            ("a/**", ["a/b", "a/b/c"], ["a", "a/", "ab/c"]),
            ("**/x", ["x", "a/x", "a/b/x"], ["xx", "a/xx"]),
            ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
            ("a**b", ["ab", "axxb"], ["a/b"]),
            ("[!a]", ["b", "]"], ["a", "/", ""]),
            ("[]^a-c-]", ["]", "^", "b", "-"], ["d", "/"]),
            ("[!]]", ["a"], ["]", "/"]),
            ("[+-9]", ["5"], ["/"]),
            ("a.b+", ["a.b+"], ["axb+", "a.bb"]),
            ("[[]1]", ["[1]"], ["1"]),
            ("[\\\\a]", ["\\", "a"], ["b"]),
        ],
    )
    def test_matches(self, pattern: str, matching: list[str], others: list[str]) -> None:
        regex = glob_regex(pattern)
        assert [key for key in matching if not regex.fullmatch(key)] == []
        assert [key for key in others if regex.fullmatch(key)] == []
        assert all(key.startswith(glob_prefix(pattern)) for key in matching)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            (1048576, 1 << 20),
            ("1048576", 1 << 20),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64M", 64 << 20),
            ("64MB", 64_000_000),
            ("64k", 64 << 10),
            ("64kB", 64_000),
            ("1.5GiB", 3 << 29),
            ("0.1kB", 100),
            ("2TiB", 2 << 40),
            ("7b", 7),
            (" 7 ", 7),
            (0, 0),
        ],
    )
    def test_parse(self, text: Any, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text", ["", "MiB", "-1", "1e3", "1.5", "0.3k", "5 apples", "1 i", "٣", -1, 1.5, None, True]
    )
    def test_what_is_not_a_size(self, text: Any) -> None:
        with pytest.raises(InputError, match="is not a"):
            parse_size(text)

    def test_format(self) -> None:
        sizes = [0, 512, 1023, 1024, 1536, 64 << 20, (1 << 30) - 1, 3 << 29, 5 << 50, 7 << 60]
        texts = ["0 B", "512 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "1 GiB", "1.5 GiB", "5 PiB", "7168 PiB"]
        assert [format_size(size) for size in sizes] == texts

    @given(st.integers(0, 1 << 60))
    def test_what_is_formatted_can_be_parsed_again(self, size: int) -> None:
        text = format_size(size)
        number = text.split()[0]
        if "." not in number:
            assert abs(parse_size(text) - size) <= size * 0.05 + 1
