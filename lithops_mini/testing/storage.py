"""The contract of storage backends, as tests: a backend is right when its subclass of ``StorageContract`` passes.

class TestMyStorage(StorageContract):
    @pytest.fixture
    def backend(self): ...          # a new instance of your backend; close it afterwards

    @pytest.fixture
    def bucket(self, backend): ...  # the name of an existing, empty bucket
"""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lithops_mini.errors import (
    InputError,
    LithopsMiniError,
    NoSuchBucket,
    NoSuchObject,
    ObjectChanged,
    ObjectExists,
    StorageError,
)
from lithops_mini.storage.base import ObjectInfo, StorageBackend

MIB = 1 << 20

ODD_KEYS = [
    "plain",
    "dir/file",
    "a b/c  d",
    " leading and trailing ",
    "100%/%2e%2e/%00",
    "quote'\"`$HOME;&|<>*?[]{}",
    "back\\slash",
    "..hidden/...",
    "-rf",
    "~root",
    "new\nline\ttab",
    "ünï/日本語/🜲",
    "e\u0301 is not \u00e9",
    "+plus=equals@at:colon,comma",
    "x" * 255,
    "/".join(["deep"] * 100),
]
UNFIT_KEYS = ["", "/", "/absolute", "..", "../up", "a/../../up", "a/./b", "a//b", "a/", "nul\0", "\ud800", "k" * 1025]
BAD_BUCKETS = ["", ".", "..", "a/b", "../up", "sp ace", "-dash", "nul\0", "x" * 64, "ü"]


def tricky_keys(count: int) -> list[str]:
    """Keys whose order differs between directories, strings, UTF-16 and bytes; no key is another's directory."""
    names = ["a-b", "a/b", "a/b-c", "a/c/d", "a0", "A", "Z", "a b", "a%b", "a%2Fb", "é", "z", "\uffee", "🜲", "~", "!"]
    return [f"list/{name}{number:04d}" for number, name in enumerate(islice(cycle(names), count))]


def in_key_order(keys: list[str]) -> list[str]:
    return sorted(keys, key=str.encode)


class StorageContract:
    """Every promise of ``lithops_mini.storage.base``."""

    large: ClassVar[int] = 64 * MIB
    """Bytes of the large bodies; at most a quarter may be in memory at once while one is streamed."""

    processes: ClassVar[bool] = True
    """Whether other processes reach the same objects through ``worker_options()``."""

    many: ClassVar[int] = 2500
    """Objects of a long listing; more than a page of the service's."""

    turns: ClassVar[int] = 20
    """How often objects are replaced, and threads do what may be in each other's way."""

    races: ClassVar[bool] = True
    """Whether of several racing ``if_absent`` writers exactly one wins. Where the service tested against is known to be
    wrong there, run those tests against another one.
    """

    # ---------------------------------------------------------------- put, get

    @pytest.mark.parametrize("body", [b"", b"x", b"\0\xff" * 5000], ids=["empty", "one byte", "10 kB"])
    def test_get_returns_what_was_put(self, backend: StorageBackend, bucket: str, body: bytes) -> None:
        for kind in (bytes, bytearray, memoryview):
            backend.put(bucket, "key", kind(body))
            data = backend.get(bucket, "key")
            assert data == body
            assert isinstance(data, bytes)

    def test_put_replaces(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"a long first body")
        backend.put(bucket, "key", b"short")
        assert backend.get(bucket, "key") == b"short"

    def test_put_takes_buffers_in_order(self, backend: StorageBackend, bucket: str) -> None:
        rng = _seeded()
        buffers = [rng.randbytes(rng.choice((0, 1, 7, 500))) for _ in range(5000)]
        mixed = [rng.choice((bytes, bytearray, memoryview))(buffer) for buffer in buffers]
        backend.put(bucket, "key", mixed)
        assert backend.get(bucket, "key") == b"".join(buffers)
        for nothing in ([], (), [b"", b""]):
            backend.put(bucket, "key", nothing)
            assert backend.get(bucket, "key") == b""

    def test_put_takes_buffers_of_any_item_size(self, backend: StorageBackend, bucket: str) -> None:
        numbers = memoryview(bytes(range(24))).cast("I", (2, 3))
        backend.put(bucket, "key", [numbers, b"end"])
        assert backend.get(bucket, "key") == bytes(range(24)) + b"end"

    def test_put_reads_a_file_from_where_it_stands(self, backend: StorageBackend, bucket: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"0123456789")
        with open(tmp_path / "file", "rb") as file:
            assert file.read(4) == b"0123"
            backend.put(bucket, "file", file)
        memory = io.BytesIO(b"0123456789")
        memory.seek(7)
        backend.put(bucket, "memory", memory)
        assert backend.get(bucket, "file") == b"456789"
        assert backend.get(bucket, "memory") == b"789"

    def test_a_body_that_fails_stores_nothing(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "old", b"old")
        for key in ("new", "dir/new", "old"):
            with pytest.raises(ZeroDivisionError):
                backend.put(bucket, key, io.BufferedReader(_Failing()))
        assert [info.key for info in backend.list(bucket)] == ["old"]
        assert backend.get(bucket, "old") == b"old"

    @pytest.mark.parametrize("body", ["text", 5, None, ["text"]])
    def test_what_is_not_bytes_is_an_input_error(self, backend: StorageBackend, bucket: str, body: Any) -> None:
        with pytest.raises(InputError):
            backend.put(bucket, "key", body)
        assert list(backend.list(bucket)) == []

    @pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
    def test_odd_keys(self, backend: StorageBackend, bucket: str, key: str) -> None:
        backend.put(bucket, key, key.encode())
        assert backend.get(bucket, key) == key.encode()
        assert backend.head(bucket, key).key == key
        assert [info.key for info in backend.list(bucket)] == [key]
        assert [info.key for info in backend.list(bucket, key)] == [key]
        backend.delete(bucket, [key])
        assert list(backend.list(bucket)) == []

    @pytest.mark.parametrize("key", UNFIT_KEYS, ids=ascii)
    def test_a_key_is_kept_as_it_is_or_refused(self, backend: StorageBackend, bucket: str, key: str) -> None:
        try:
            backend.put(bucket, key, b"body")
        except InputError:
            for use in (backend.get, backend.open, backend.head):
                with pytest.raises(InputError):
                    use(bucket, key)
            with pytest.raises(InputError):
                backend.delete(bucket, [key])
            assert list(backend.list(bucket)) == []
        else:
            assert backend.get(bucket, key) == b"body"
            assert [info.key for info in backend.list(bucket)] == [key]

    # ---------------------------------------------------------------- ranges and streams

    def test_ranges_are_half_open_and_clipped(self, backend: StorageBackend, bucket: str) -> None:
        body = b"01234"
        backend.put(bucket, "key", body)
        for start in range(7):
            for stop in (None, *range(7), 1 << 60):
                assert backend.get(bucket, "key", start, stop) == body[start:stop], (start, stop)
                with backend.open(bucket, "key", start, stop) as stream:
                    assert stream.read() == body[start:stop], (start, stop)

    def test_ranges_of_an_empty_object(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"")
        for start, stop in ((0, None), (0, 0), (0, 5), (5, None), (5, 9)):
            assert backend.get(bucket, "key", start, stop) == b""
            with backend.open(bucket, "key", start, stop) as stream:
                assert stream.read(10) == b""

    def test_a_negative_position_is_an_input_error(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"0123456789")
        for start, stop in ((-3, None), (0, -1)):
            for use in (backend.get, backend.open):
                with pytest.raises(InputError):
                    use(bucket, "key", start, stop)

    def test_every_way_of_reading_a_stream(self, backend: StorageBackend, bucket: str) -> None:
        rng = _seeded()
        body = b"".join(rng.randbytes(rng.randrange(200)).replace(b"\n", b".") + b"\n" for _ in range(5000))
        backend.put(bucket, "key", body)
        for _ in range(3):
            start, stop = sorted(rng.sample(range(len(body)), 2))
            expected = body[start:stop]
            with backend.open(bucket, "key", start, stop) as stream:
                assert list(stream) == io.BytesIO(expected).readlines()
            with backend.open(bucket, "key", start, stop) as stream:
                blocks = []
                while block := stream.read(rng.randrange(1, 9999)):
                    blocks.append(block)
                assert b"".join(blocks) == expected
            with backend.open(bucket, "key", start, stop) as stream:
                assert stream.readline() + stream.read(3) + stream.read() == expected
                assert stream.read() == stream.read(1) == stream.readline() == b""
            with io.TextIOWrapper(backend.open(bucket, "key", start, stop), "latin-1", newline="") as text:
                assert text.read() == expected.decode("latin-1")

    def test_an_open_stream_stays_with_its_version(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"a" * 4 * MIB)
        with backend.open(bucket, "key") as stream:
            first = stream.read(MIB)
            backend.put(bucket, "key", b"b" * 4 * MIB)
            try:
                rest = stream.read()
            except StorageError:
                return  # the service keeps one version, and said so
            assert first + rest == b"a" * 4 * MIB

    def test_a_stream_of_one_version(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"first")
        etag = backend.head(bucket, "key").etag
        with backend.open(bucket, "key", 1, 3, etag=etag) as stream:
            assert stream.read() == b"ir"
        backend.put(bucket, "key", b"second")
        with pytest.raises(ObjectChanged, match="key"), backend.open(bucket, "key", 1, 3, etag=etag) as stream:
            stream.read()

    def test_download(self, backend: StorageBackend, bucket: str, tmp_path: Path) -> None:
        for size in (0, 1, 20 * MIB + 1):
            body, moved = random.Random(size).randbytes(size), list[int]()
            backend.put(bucket, "key", body)
            with open(tmp_path / str(size), "xb") as file:
                backend.download(bucket, "key", file, moved.append)
            assert (tmp_path / str(size)).read_bytes() == body
            assert sum(moved) == size

    def test_large_bodies_are_streamed(self, backend: StorageBackend, bucket: str, tmp_path: Path) -> None:
        block = random.Random(5).randbytes(MIB)
        blocks = self.large // MIB
        with open(tmp_path / "file", "wb") as file:
            for _ in range(blocks):
                file.write(block)

        def put_file() -> None:
            with open(tmp_path / "file", "rb") as file:
                backend.put(bucket, "file", file)

        def read_in_blocks() -> None:
            with backend.open(bucket, "file") as stream:
                for _ in range(blocks):
                    assert stream.read(MIB) == block
                assert stream.read(1) == b""

        for use in (put_file, lambda: backend.put(bucket, "buffers", [block] * blocks), read_in_blocks):
            peak = _peak_memory(use)
            assert peak < self.large // 4, f"{peak / MIB:.0f} MiB of memory for {self.large / MIB:.0f} MiB"
        assert backend.head(bucket, "buffers").size == self.large
        assert backend.get(bucket, "buffers") == block * blocks
        middle = self.large // 2
        assert backend.get(bucket, "file", middle - 2, middle + 2) == block[-2:] + block[:2]

    # ---------------------------------------------------------------- head, metadata

    def test_head_describes(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "dir/key", b"12345")
        info = backend.head(bucket, "dir/key")
        assert isinstance(info, ObjectInfo)
        assert (info.key, info.size, dict(info.metadata)) == ("dir/key", 5, {})
        assert abs(info.modified - time.time()) < 3600
        (listed,) = backend.list(bucket)
        assert (listed.key, listed.size, listed.etag) == (info.key, info.size, info.etag)
        assert abs(listed.modified - info.modified) <= 1

    def test_the_etag_changes_with_the_content(self, backend: StorageBackend, bucket: str) -> None:
        etags = set()
        for number in range(5 * self.turns):
            if number % 3 == 2:
                backend.delete(bucket, ["key"])
            backend.put(bucket, "key", b"%03d" % number)
            etags.add(backend.head(bucket, "key").etag)
            etags.add(backend.head(bucket, "key").etag)
        assert len(etags) == 5 * self.turns

    def test_metadata_belongs_to_one_version(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "key", b"1", metadata={"kind": "first", "a-b": "with spaces = and %", "empty": ""})
        assert dict(backend.head(bucket, "key").metadata) == {
            "kind": "first",
            "a-b": "with spaces = and %",
            "empty": "",
        }
        backend.put(bucket, "key", b"2", metadata={"kind": "second"})
        assert dict(backend.head(bucket, "key").metadata) == {"kind": "second"}
        with pytest.raises(ObjectExists):
            backend.put(bucket, "key", b"3", metadata={"kind": "third"}, if_absent=True)
        assert dict(backend.head(bucket, "key").metadata) == {"kind": "second"}
        backend.put(bucket, "key", b"4")
        assert dict(backend.head(bucket, "key").metadata) == {}
        backend.put(bucket, "other", b"5", metadata={"kind": "fifth"}, if_absent=True)
        assert dict(backend.head(bucket, "other").metadata) == {"kind": "fifth"}
        backend.delete(bucket, ["other"])
        backend.put(bucket, "other", b"5")
        assert dict(backend.head(bucket, "other").metadata) == {}

    @pytest.mark.parametrize("metadata", [{"number": 5}, {5: "number"}, {"large": "x" * 3000}], ids=str)
    def test_unfit_metadata_is_an_input_error(self, backend: StorageBackend, bucket: str, metadata: Any) -> None:
        with pytest.raises(InputError):
            backend.put(bucket, "key", b"", metadata=metadata)

    # ---------------------------------------------------------------- atomicity, races

    def test_if_absent(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "dir/key", b"first", if_absent=True)
        with pytest.raises(ObjectExists) as caught:
            backend.put(bucket, "dir/key", b"second", if_absent=True)
        assert isinstance(caught.value, FileExistsError)
        assert backend.get(bucket, "dir/key") == b"first"
        backend.delete(bucket, ["dir/key"])
        backend.put(bucket, "dir/key", b"third", if_absent=True)
        assert backend.get(bucket, "dir/key") == b"third"

    def test_one_of_racing_threads_wins(self, backend: StorageBackend, bucket: str) -> None:
        self._need_exact_races()
        with ThreadPoolExecutor(8) as pool:
            for number in range(20):
                key, barrier = f"race/{number}", threading.Barrier(8)
                racers = [pool.submit(_race, backend, bucket, key, barrier, b"%d" % i * 1000) for i in range(8)]
                winners = [body for racer in racers if (body := racer.result()) is not None]
                assert winners == [backend.get(bucket, key)]

    def test_one_of_racing_processes_wins(
        self, backend: StorageBackend, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._need_processes()
        self._need_exact_races()
        _lend(backend, bucket, monkeypatch)
        context = multiprocessing.get_context("spawn")
        barrier, results = context.Barrier(3), context.Queue()
        options = (type(backend), backend.worker_options())
        racers = [
            context.Process(target=_race_in_process, args=(*options, bucket, barrier, results, b"%d" % i), daemon=True)
            for i in range(3)
        ]
        for racer in racers:
            racer.start()
        won = [results.get(timeout=60) for _ in racers]
        for racer in racers:
            racer.join(60)
        for number in range(_ROUNDS):
            winners = [bodies[number] for bodies in won if bodies[number] is not None]
            assert winners == [backend.get(bucket, f"race/{number}")]

    def test_readers_see_whole_objects(self, backend: StorageBackend, bucket: str) -> None:
        bodies = [bytes([letter]) * (1 + 100_000 * (letter % 4)) for letter in b"abcdefgh"]
        versions = {body: {"letter": chr(body[0])} for body in bodies}
        backend.put(bucket, "key", bodies[0], metadata=versions[bodies[0]])
        done = threading.Event()

        def read() -> int:
            count = 0
            while not done.is_set():
                assert backend.get(bucket, "key") in versions
                with backend.open(bucket, "key") as stream:
                    assert stream.read() in versions
                info = backend.head(bucket, "key")
                assert any(len(b) == info.size and info.metadata == m for b, m in versions.items())
                assert [found.key for found in backend.list(bucket)] == ["key"]
                count += 1
            return count

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            try:
                for _ in range(self.turns):
                    for body, metadata in versions.items():
                        backend.put(bucket, "key", body, metadata=metadata)
            finally:
                done.set()
            assert all(reader.result() > 0 for reader in readers)

    def test_many_threads(self, backend: StorageBackend, bucket: str) -> None:
        def use(number: int) -> None:
            for turn in range(self.turns // 2):
                key = f"threads/{turn}/{number}"
                backend.put(bucket, key, key.encode())
                assert backend.get(bucket, key) == key.encode()
                assert key in [info.key for info in backend.list(bucket, f"threads/{turn}/")]
                backend.delete(bucket, [key])
                with pytest.raises(NoSuchObject):
                    backend.get(bucket, key)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(use, range(16)))
        assert list(backend.list(bucket)) == []

    # ---------------------------------------------------------------- list, delete

    def test_list_is_lazy_in_key_order_and_delete_takes_many(self, backend: StorageBackend, bucket: str) -> None:
        rng = _seeded()
        keys = tricky_keys(self.many)
        rng.shuffle(keys)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: backend.put(bucket, key, b"x" * (len(key) % 7)), keys))
        keys = in_key_order(keys)
        listed = list(backend.list(bucket))
        assert [info.key for info in listed] == keys
        assert all(info.size == len(info.key) % 7 for info in listed)
        assert [info.key for info in islice(backend.list(bucket), 3)] == keys[:3]
        for key in rng.sample(keys, 2 * self.turns):
            prefix, after = key[: rng.randrange(len(key) + 1)], rng.choice(keys)
            after = after[: rng.randrange(len(after) + 1)]
            expected = [k for k in keys if k.startswith(prefix) and k.encode() > after.encode()]
            assert [info.key for info in backend.list(bucket, prefix, after=after)] == expected, (prefix, after)
        for prefix in ("a", "list//", "/", "/list", "list/..", "../", "list/a-b0000/", "nul\0", "x" * 2000):
            assert list(backend.list(bucket, prefix)) == []
        assert list(backend.list(bucket, after="\U0010ffff")) == []
        backend.delete(bucket, (key for key in keys[:-1]))
        assert [info.key for info in backend.list(bucket)] == keys[-1:]

    def test_list_goes_on_after_any_key(self, backend: StorageBackend, bucket: str) -> None:
        keys = in_key_order(tricky_keys(32))
        for key in keys:
            backend.put(bucket, key, b"")
        for position, key in enumerate(keys):
            assert [info.key for info in backend.list(bucket, after=key)] == keys[position + 1 :]

    def test_list_while_objects_are_deleted(self, backend: StorageBackend, bucket: str) -> None:
        keys = [f"{i // 10}/{i % 10}" for i in range(100)]
        for key in keys:
            backend.put(bucket, key, b"")
        seen = []
        for info in backend.list(bucket):
            seen.append(info.key)
            backend.delete(bucket, [info.key])
        assert seen == keys
        assert list(backend.list(bucket)) == []

    def test_deleting_what_is_missing_is_fine(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "dir/key", b"")
        backend.delete(bucket, ["missing", "dir", "dir/missing", "dir/key/below", "missing/dir/key"])
        backend.delete(bucket, [])
        assert [info.key for info in backend.list(bucket)] == ["dir/key"]
        backend.delete(bucket, ["dir/key", "dir/key"])
        assert list(backend.list(bucket)) == []
        with pytest.raises(InputError):
            backend.delete(bucket, "dir/key")  # its letters are not keys

    # ---------------------------------------------------------------- buckets, errors, workers

    def test_a_missing_object(self, backend: StorageBackend, bucket: str) -> None:
        backend.put(bucket, "dir/key", b"")
        for key in ("missing", "missing/key", "dir", "dir/key/below"):
            for use in (backend.get, backend.open, backend.head):
                with pytest.raises(NoSuchObject, match=key) as caught:
                    use(bucket, key)
                assert isinstance(caught.value, FileNotFoundError)
                assert isinstance(caught.value, LithopsMiniError)

    def test_a_missing_bucket(self, backend: StorageBackend, bucket: str) -> None:
        missing = f"{bucket[:40]}-missing"
        uses: list[Callable[[], object]] = [
            lambda: backend.put(missing, "key", b""),
            lambda: backend.get(missing, "key"),
            lambda: backend.open(missing, "key"),
            lambda: backend.head(missing, "key"),
            lambda: list(backend.list(missing)),
            lambda: backend.delete(missing, ["key"]),
            lambda: backend.head_bucket(missing),
        ]
        for use in uses:
            with pytest.raises(NoSuchBucket, match=missing) as caught:
                use()
            assert isinstance(caught.value, FileNotFoundError)

    @pytest.mark.parametrize("name", BAD_BUCKETS, ids=ascii)
    def test_a_bad_bucket_name_is_an_input_error(self, backend: StorageBackend, name: str) -> None:
        uses: list[Callable[[], object]] = [
            lambda: backend.put(name, "key", b""),
            lambda: backend.get(name, "key"),
            lambda: list(backend.list(name)),
            lambda: backend.delete(name, ["key"]),
            lambda: backend.head_bucket(name),
            lambda: backend.create_bucket(name),
        ]
        for use in uses:
            with pytest.raises(InputError):
                use()

    def test_making_a_bucket_again_changes_nothing(self, backend: StorageBackend, bucket: str) -> None:
        backend.head_bucket(bucket)
        backend.put(bucket, "key", b"body")
        backend.create_bucket(bucket)
        assert backend.get(bucket, "key") == b"body"

    def test_worker_options_reach_the_same_objects(
        self, backend: StorageBackend, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = json.loads(json.dumps(backend.worker_options()))
        self._need_processes()
        _lend(backend, bucket, monkeypatch)
        backend.put(bucket, "key", b"from here")
        other = type(backend)(type(backend).Options(**options))  # type: ignore[call-arg]  # as the seam says
        try:
            assert other.get(bucket, "key") == b"from here"
            other.put(bucket, "key", b"from there")
        finally:
            other.close()
        assert backend.get(bucket, "key") == b"from there"

    def _need_exact_races(self) -> None:
        if not self.races:
            pytest.skip("the service of this test may let several of racing writers win")

    def _need_processes(self) -> None:
        if not self.processes:
            pytest.skip("this backend's objects are seen by one process only")


_ROUNDS = 25  # of the race between processes


class _Failing(io.RawIOBase):
    """A file that breaks after its first megabyte."""

    def __init__(self) -> None:
        self._left = MIB

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), self._left)
        self._left -= count
        return count or 1 // 0


def _seeded() -> random.Random:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    return random.Random(seed)


def _lend(backend: StorageBackend, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the credentials that workers get, as their platform would."""
    for name, value in backend.worker_needs(bucket).environment.items():
        monkeypatch.setenv(name, value)


def _race(backend: StorageBackend, bucket: str, key: str, barrier: Any, body: bytes) -> bytes | None:
    """Return the body if it was the first, else None."""
    barrier.wait(60)
    try:
        backend.put(bucket, key, body, if_absent=True)
    except ObjectExists:
        return None
    return body


def _race_in_process(kind: Any, options: dict[str, Any], bucket: str, barrier: Any, results: Any, body: bytes) -> None:
    backend = kind(kind.Options(**options))
    results.put([_race(backend, bucket, f"race/{number}", barrier, body) for number in range(_ROUNDS)])
    backend.close()


def _peak_memory(use: Callable[[], object]) -> int:
    """Return the bytes that Python had allocated at most, over those at the start."""
    tracemalloc.start()
    try:
        use()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
