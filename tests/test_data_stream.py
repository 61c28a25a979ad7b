"""The theorem of partitions: joined they are the object, and their records in order are its records, each once."""

from __future__ import annotations

import bz2
import gzip
import http.server
import io
import lzma
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory_storage import MemoryStorage

from lithops_mini.errors import (
    AccessDenied,
    InputError,
    IntegrityError,
    NoSuchObject,
    StorageError,
)
from lithops_mini.job.partition import Cutting, cut, plan_partitions
from lithops_mini.job.sources import Source
from lithops_mini.records import Partition
from lithops_mini.storage.localhost import LocalhostStorage, LocalhostStorageOptions
from lithops_mini.worker import delimiter as delimiter_module
from lithops_mini.worker import reader as reader_module
from lithops_mini.worker import stream as stream_module
from lithops_mini.worker.data import DataObject, open_partition

DELIMITERS = [b"\n", b"\r\n", b"\n\n", b"a", b"ab", b"aa", b"aba", b"abab", b"aaa", b"aabaa", b"||", b"abcab"]


def records_of(data: bytes, delimiter: bytes | None) -> list[bytes]:
    """The definition: cut behind each delimiter, from byte 0 on."""
    if delimiter is None:
        return [data] if data else []
    *whole, last = data.split(delimiter)
    return [record + delimiter for record in whole] + ([last] if last else [])


def partitions_of(data: bytes, **how: Any) -> list[Partition]:
    return cut(Source("object", "b", "k", len(data), None), Cutting(**how))


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, bytes | None, dict[str, int]]:
    delimiter = draw(st.sampled_from([*DELIMITERS, None]))
    letters = sorted(set(delimiter or b"a") | {ord("x")})
    pieces = st.one_of(st.sampled_from(letters).map(lambda n: bytes([n])), st.just(delimiter or b"\n"))
    data = b"".join(draw(st.lists(pieces, max_size=draw(st.sampled_from([3, 20, 150])))))
    data = data * draw(st.sampled_from([1, 1, 1, 3])) + draw(st.sampled_from([b"", delimiter or b"", b"x"]))
    if draw(st.booleans()):
        return data, delimiter, {"chunk_size": draw(st.integers(1, len(data) + 3))}
    return data, delimiter, {"chunk_number": draw(st.integers(1, len(data) + 3))}


def read_mixed(obj: DataObject, rng: random.Random) -> list[bytes]:
    """Mix every method at random until the end."""
    stream, pieces = obj.data_stream, []

    def fill(method: Callable[[bytearray], int], size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: method(buffer)])

    while True:
        size = rng.randrange(1, 9)
        piece = rng.choice(
            [
                lambda: stream.read(size),
                lambda: stream.read1(size),
                lambda: stream.readline(),
                lambda: stream.readline(size),
                lambda: next(stream, b""),
                lambda: next(iter(stream), b""),
                lambda: fill(stream.readinto, size),
                lambda: fill(stream.readinto1, size),
                lambda: stream.read() if rng.random() < 0.05 else stream.read(1),
                lambda: b"".join(stream.readlines(size)),
            ]
        )()
        if not piece:
            return pieces
        pieces.append(piece)


def read_sizes(obj: DataObject, rng: random.Random) -> list[bytes]:
    return list(iter(lambda: obj.data_stream.read(rng.randrange(1, 40)), b""))


def read_into(obj: DataObject, rng: random.Random) -> list[bytes]:
    pieces = []
    while count := obj.data_stream.readinto(buffer := bytearray(rng.randrange(1, 20))):
        pieces.append(bytes(buffer[:count]))
    return pieces


def read_text(obj: DataObject, _: random.Random) -> list[bytes]:
    return [io.TextIOWrapper(obj.data_stream, "latin-1", newline="").read().encode("latin-1")]


BYTES: dict[str, Callable[[DataObject, random.Random], list[bytes]]] = {
    "read()": lambda obj, _: [obj.data_stream.read()],
    "read(n)": read_sizes,
    "readinto": read_into,
    "text": read_text,
    "mixed": read_mixed,
}
RECORDS: dict[str, Callable[[DataObject], list[bytes]]] = {
    "iteration": lambda obj: list(obj.data_stream),
    "readline": lambda obj: list(iter(obj.data_stream.readline, b"")),
    "next": lambda obj: list(iter(lambda: next(obj.data_stream, b""), b"")),
    "readlines": lambda obj: obj.data_stream.readlines(),
}


@pytest.fixture(params=["small windows", "real windows"])
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of a few bytes meet every boundary that real ones meet in large objects."""
    if request.param == "small windows":
        for module in (stream_module, delimiter_module):
            for name, size in {"_FIRST_WINDOW": 3, "_LARGEST_WINDOW": 8, "_LARGEST_PIECE": 5}.items():
                monkeypatch.setattr(module, name, size)
        monkeypatch.setattr(delimiter_module, "_LOOKBACK", 1)
        monkeypatch.setattr(reader_module, "BUFFER", 7)


theorem = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("way", BYTES)
@theorem
@given(case=cases(), seed=st.integers(0, 1 << 32))
@example(case=(b"", b"\n", {"chunk_number": 3}), seed=0)
@example(case=(b"x", b"\n", {"chunk_number": 3}), seed=0)
@example(case=(b"\n", b"\n", {"chunk_size": 1}), seed=0)
@example(case=(b"a\r\nb\r\nc", b"\r\n", {"chunk_size": 2}), seed=0)
@example(case=(b"x" * 100 + b"\ny", b"\n", {"chunk_size": 10}), seed=0)
@example(case=(b"a" * 61, b"aa", {"chunk_size": 7}), seed=0)
def test_the_partitions_joined_are_the_object(
    way: str, case: tuple[bytes, bytes | None, dict[str, int]], seed: int
) -> None:
    data, delimiter, how = case
    storage = MemoryStorage(b={"k": data})
    read = [
        b"".join(BYTES[way](open_partition(part, storage), random.Random(seed)))
        for part in partitions_of(data, delimiter=delimiter, **how)
    ]
    assert b"".join(read) == data
    edges = {0}
    for record in records_of(data, delimiter):
        edges.add(max(edges) + len(record))
    if delimiter is not None:  # and each begins and ends with a record
        ends = [sum(map(len, read[: number + 1])) for number in range(len(read))]
        assert edges.issuperset(ends)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("way", RECORDS)
@theorem
@given(case=cases())
@example(case=(b"", b"\n", {"chunk_number": 3}))
@example(case=(b"\n\n\n", b"\n\n", {"chunk_size": 1}))
@example(case=(b"x" * 30 + b"a" * 40, b"aaa", {"chunk_size": 9}))
def test_each_record_is_in_one_partition(way: str, case: tuple[bytes, bytes | None, dict[str, int]]) -> None:
    data, delimiter, how = case
    if delimiter is None:
        return
    storage = MemoryStorage(b={"k": data})
    partitions = partitions_of(data, delimiter=delimiter, **how)
    expected = records_of(data, delimiter)
    assert [record for part in partitions for record in RECORDS[way](open_partition(part, storage))] == expected
    bare = [record.removesuffix(delimiter) for record in expected]
    assert [record for part in partitions for record in open_partition(part, storage).records()] == bare
    position = 0  # a record belongs to the partition in which its first byte lies
    for part in partitions:
        for record in open_partition(part, storage).data_stream:
            assert part.start <= position < part.stop
            position += len(record)
    assert all(stream.closed for stream in storage.streams)


@pytest.mark.parametrize("delimiter", [None, b"\n", b"\r\n", b"aa"])
def test_megabyte_records(delimiter: bytes | None, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    rng = random.Random(seed)
    letters = bytes(range(256)) if delimiter is None else b"bcdefgh"
    records = [
        bytes(rng.choices(letters, k=1000)) * rng.choice([0, 1, 7, 300, 3000, 5500]) + (delimiter or b"")
        for _ in range(20)
    ]
    data = b"".join(records) + b"the last"
    storage = LocalhostStorage(LocalhostStorageOptions(str(tmp_path / "storage")))
    storage.create_bucket("b")
    storage.put("b", "k", data)
    for size in ("1MiB", 300_001, "64MiB"):
        [[partitions]] = plan_partitions(
            "b/k",
            storage=storage,
            storage_name="localhost",
            readable=("object", "path", "url"),
            obj_chunk_size=size,
            obj_newline=delimiter,
        )
        for way in ("read()", "text"):
            pieces = []
            for part in partitions:
                obj = open_partition(part, storage)
                pieces += BYTES[way](obj, rng)
                obj.close()
            assert b"".join(pieces) == data
        if delimiter:
            found = []
            for part in partitions:
                obj = open_partition(part, storage)
                found += list(obj.data_stream)
                obj.close()
            assert found == [*records, b"the last"]


def test_a_run_of_overlapping_delimiters_longer_than_every_window() -> None:
    data = b"x" + b"\n" * 300_001 + b"y" * 10 + b"\n" * 99_999
    storage = MemoryStorage(b={"k": data})
    partitions = partitions_of(data, chunk_size=100_000, delimiter=b"\n\n")
    found = [record for part in partitions for record in open_partition(part, storage).data_stream]
    assert found == records_of(data, b"\n\n")


class TestRequests:
    def opens(self, data: bytes, part: int, **how: Any) -> list[tuple[Any, ...]]:
        storage = MemoryStorage(b={"k": data})
        open_partition(partitions_of(data, **how)[part], storage).data_stream.read()
        return [request[2:] for request in storage.requests]

    def test_one_when_a_record_ends_where_the_partition_does(self) -> None:
        data = b"123456789\n" * 10
        assert self.opens(data, 1, chunk_size=20) == [(19, 40)]
        assert self.opens(data, 4, chunk_size=20) == [(79, 100)]

    def test_one_for_the_last_partition_and_for_exact_bytes(self) -> None:
        data = b"123456789\n" * 10 + b"tail"
        assert self.opens(data, 4, chunk_size=25) == [(99, 104)]
        assert self.opens(data, 1, chunk_size=25, delimiter=None) == [(25, 50)]

    def test_ranges_grow_until_the_last_record_ends(self) -> None:
        data = b"x" * 200_000 + b"\n" + b"y" * 1_000_000
        assert self.opens(data, 0, chunk_size=1000) == [(0, 1000), (1000, 66536), (66536, 197608), (197608, 459752)]

    def test_no_look_past_a_partition_without_a_record(self) -> None:
        assert self.opens(b"x" * 10_000, 3, chunk_size=1000) == [(2999, 4000)]

    def test_none_for_empty_partitions_nor_before_the_first_read(self) -> None:
        assert self.opens(b"", 0) == []
        assert self.opens(b"ab", 2, chunk_number=5) == [(0, 1), (1, 2)]
        assert self.opens(b"ab", 1, chunk_number=5) == []
        storage = MemoryStorage(b={"k": b"data"})
        obj = open_partition(partitions_of(b"data")[0], storage)
        io.TextIOWrapper(obj.data_stream)
        assert storage.requests == []

    def test_closing_early_closes_the_storage_stream(self) -> None:
        storage = MemoryStorage(b={"k": b"data\n" * 200_000})
        obj = open_partition(partitions_of(storage.buckets["b"]["k"])[0], storage)
        obj.data_stream.read(3)
        assert not storage.streams[0].closed
        obj.close()
        obj.close()
        assert storage.streams[0].closed
        with pytest.raises(ValueError, match="closed"):
            obj.data_stream.read(1)


def test_the_attributes_of_a_data_object() -> None:
    data = b"0123456789"
    part = partitions_of(data, chunk_size=4)[1]
    obj = open_partition(part, MemoryStorage(b={"k": data}))
    assert (obj.bucket, obj.key, obj.path, obj.url) == ("b", "k", None, None)
    assert (obj.part, obj.total_parts, obj.data_byte_range, obj.chunk_size, obj.size) == (1, 3, (4, 8), 4, 10)
    assert str(obj) == "b/k"
    assert repr(obj) == "<DataObject b/k, part 1 of 3>"
    with pytest.raises(StorageError, match=r"b/k is in object storage"):
        open_partition(part, None)
    with pytest.raises(InputError, match="exact bytes"):
        open_partition(replace(part, delimiter=None), MemoryStorage()).records()


def test_the_reader_of_records_is_a_proper_stream() -> None:
    data = b"one||two||three"
    reader = open_partition(partitions_of(data, delimiter=b"||")[0], MemoryStorage(b={"k": data})).data_stream
    assert isinstance(reader, io.BufferedIOBase)
    assert reader.readable()
    assert not reader.writable()
    assert not reader.seekable()
    assert reader.readline(0) == b""
    assert reader.read(0) == b""
    assert next(iter(reader)) == b"one||"
    assert reader.read(1) == b"t"
    assert reader.readline() == b"wo||"
    assert list(reader) == [b"three"]
    assert reader.read() == reader.readline() == reader.read1() == b""
    with reader:
        pass
    for use in (reader.read, reader.readline, lambda: list(reader)):
        with pytest.raises(ValueError, match="closed"):
            use()


@pytest.mark.parametrize("delimiter", [b"\n", b";"])
def test_pandas_reads_partitions(delimiter: bytes) -> None:
    table = pandas.DataFrame({"a": range(5000), "b": [f"text {n}" for n in range(5000)]})
    data = table.to_csv(index=False, header=False, lineterminator=delimiter.decode()).encode()
    storage = MemoryStorage(b={"k": data})
    frames = [
        pandas.read_csv(open_partition(part, storage).data_stream, names=["a", "b"], lineterminator=delimiter.decode())
        for part in partitions_of(data, chunk_size=7777, delimiter=delimiter)
    ]
    assert len(frames) > 5
    pandas.testing.assert_frame_equal(pandas.concat(frames, ignore_index=True), table)


class TestSourcesThatChange:
    def test_another_version_of_an_object(self) -> None:
        storage = MemoryStorage(b={"k": b"old data"})
        [[[part]]] = plan_partitions("b/k", storage=storage, storage_name="memory", readable=("object", "url"))
        storage.put("b", "k", b"new data")
        with pytest.raises(IntegrityError, match="b/k changed after it was planned"):
            open_partition(part, storage).data_stream.read()
        assert all(stream.closed for stream in storage.streams)

    def test_a_version_that_comes_while_the_partition_is_read(self) -> None:
        storage = MemoryStorage(b={"k": b"x" * 10 + b"\n" + b"y" * 10})
        [[parts]] = plan_partitions(
            "b/k", storage=storage, storage_name="memory", readable=("object", "url"), obj_chunk_size=5
        )
        stream = open_partition(parts[0], storage).data_stream
        raw = stream.raw
        assert raw.read(5) == b"x" * 5
        storage.put("b", "k", b"z" * 21)
        with pytest.raises(IntegrityError, match="changed"):
            raw.read(5)
        storage.put("b", "k", b"x" * 10 + b"\n" + b"y" * 10)
        with pytest.raises(StorageError, match="reading failed before: b/k changed"):
            raw.read(5)

    def test_another_version_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_bytes(b"12345")
        [[[part]]] = plan_partitions(
            path, storage=MemoryStorage(), storage_name="memory", readable=("object", "path", "url")
        )
        path.write_bytes(b"123456")
        with pytest.raises(IntegrityError, match="changed"):
            open_partition(part, None).data_stream.read()
        path.unlink()
        with pytest.raises(NoSuchObject, match="does not exist"):
            open_partition(part, None).data_stream.read()

    @pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"aa", None])
    @pytest.mark.parametrize("promised", [{"chunk_size": 50}, {"chunk_number": 1}])
    def test_data_that_ends_too_early_is_an_error_each_time(
        self, delimiter: bytes | None, promised: dict[str, int]
    ) -> None:
        storage = MemoryStorage(b={"k": b"short\n" * 10})
        last = partitions_of(b"-" * 100, delimiter=delimiter, **promised)[-1]
        stream = open_partition(last, storage).data_stream
        for _ in range(2):
            with pytest.raises(StorageError, match="ended at byte 60"):
                stream.read()
        with pytest.raises(StorageError, match="ended at byte 60"):
            list(open_partition(last, storage).data_stream)


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSORS)
class TestCompression:
    def plan(self, storage: MemoryStorage, key: str, **options: Any) -> list[Partition]:
        options = {"obj_chunk_size": 1000, **options}
        [[partitions]] = plan_partitions(
            f"b/{key}", storage=storage, storage_name="memory", readable=("object", "url"), **options
        )
        return partitions

    def test_one_partition_decompressed(self, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
        data = b"".join(b"line %d\n" % n for n in range(100_000))
        half = len(data) // 2
        compress = COMPRESSORS[suffix]
        storage = MemoryStorage(
            b={"one" + suffix: compress(data), "two" + suffix: compress(data[:half]) + compress(data[half:])}
        )
        for key in storage.buckets["b"]:
            [part] = self.plan(storage, key)
            assert "cannot be cut" in caplog.text
            assert open_partition(part, storage).data_stream.read() == data
            assert list(open_partition(part, storage).data_stream) == data.splitlines(keepends=True)
        [part] = self.plan(storage, "one" + suffix, obj_newline="9\n", obj_chunk_size=None)
        assert list(open_partition(part, storage).data_stream) == records_of(data, b"9\n")

    def test_switched_off(self, suffix: str) -> None:
        data = COMPRESSORS[suffix](random.Random(1).randbytes(5000))
        storage = MemoryStorage(b={"k" + suffix: data})
        parts = self.plan(storage, "k" + suffix, obj_decompress=False)
        assert len(parts) == 6
        assert b"".join(open_partition(part, storage).data_stream.read() for part in parts) == data

    def test_cut_short_or_broken(self, suffix: str) -> None:
        data = COMPRESSORS[suffix](random.Random(1).randbytes(50_000))
        middle = len(data) // 2
        broken = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        storage = MemoryStorage(
            b={"short" + suffix: data[:middle], "broken" + suffix: broken, "no" + suffix: b"plain text"}
        )
        for key, words in {
            "short": "is cut short",
            "broken": "is broken|cannot be read",
            "no": "is broken|cannot be read",
        }.items():
            [part] = self.plan(storage, key + suffix)
            stream = open_partition(part, storage).data_stream
            with pytest.raises(StorageError, match=f"b/{key}{suffix}: its .* data ({words})"):
                list(stream)

    def test_an_empty_object_has_no_bytes(self, suffix: str) -> None:
        storage = MemoryStorage(b={"k" + suffix: b""})
        [part] = self.plan(storage, "k" + suffix)
        assert open_partition(part, storage).data_stream.read() == b""

    def test_closed_early(self, suffix: str) -> None:
        storage = MemoryStorage(b={"k" + suffix: COMPRESSORS[suffix](random.Random(1).randbytes(1_000_000))})
        [part] = self.plan(storage, "k" + suffix)
        obj = open_partition(part, storage)
        obj.data_stream.read(10)
        obj.close()
        assert all(stream.closed for stream in storage.streams)


MEMORY_PROGRAM = """
import sys
from lithops_mini.records import Partition
from lithops_mini.worker.data import open_partition
path, size = sys.argv[1], int(sys.argv[2])
part = Partition("path", None, path, size, 0, 2, 0, size // 2, sys.argv[3].encode().decode("unicode_escape").encode())
other = Partition("path", None, path, size, 1, 2, size // 2, size, part.delimiter)
count = 0
for piece in (part, other):
    for line in open_partition(piece, None).data_stream:
        count += 1
print(count)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("delimiter", ["\\n", "\\r\\n"])
def test_memory_does_not_grow_with_the_partition(tmp_path: Path, delimiter: str) -> None:
    block = (b"x" * 98 + b"\r\n") * 10_000
    with open(tmp_path / "large", "wb") as file:
        for _ in range(320):
            file.write(block)
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path / "large"), str(320 * len(block)), delimiter]
    count, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    os.unlink(tmp_path / "large")
    assert int(count) == 3_200_000
    assert int(peak) < 60_000  # KiB


class Server(http.server.ThreadingHTTPServer):
    """Serves ``body`` at every path; the class attributes of its handler say how well."""

    daemon_threads = True
    body = b""
    etag: str | None = '"v1"'
    ranges = True
    lying = False  # answers ranges with other bytes than asked for
    truncate = 0  # bytes left out at the end of each body
    length = True  # says how long a body is
    requests: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class ServerHandler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/data.txt")
            self.end_headers()
            return
        if code := re.fullmatch(r"/status/(\d+)", self.path):
            self.send_error(int(code[1]))
            return
        body, status = server.body, 200
        if_range = self.headers.get("If-Range")
        if wanted and server.ranges and if_range in (None, server.etag):
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            last = min(last, len(body) - 1)
            shift = int(server.lying)
            body, status = body[first + shift : last + shift + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{len(server.body)}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(body[: len(body) - server.truncate])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), ServerHandler) as server:
        server.requests = []
        server.body = b"".join(b"line %d\n" % n for n in range(20_000))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plan_url(url: str, **options: Any) -> list[Partition]:
    [[parts]] = plan_partitions(
        url, storage=MemoryStorage(), storage_name="memory", readable=("object", "url"), **options
    )
    return parts


def read_parts(parts: list[Partition]) -> bytes:
    data = []
    for part in parts:
        obj = open_partition(part, None)
        data.append(obj.data_stream.read())
        obj.close()
    return b"".join(data)


class TestUrls:
    def test_ranges(self, server: Server) -> None:
        url = server.url + "/data.txt?x=a b"
        parts = plan_url(url, obj_chunk_size=50_000)
        assert len(parts) == 5
        assert read_parts(parts) == server.body
        assert server.requests[:2] == ["bytes=0-0", "bytes=0-49999"]
        obj = open_partition(parts[1], None)
        assert (obj.url, obj.bucket, obj.key, obj.path, str(obj)) == (url, None, None, None, url)
        assert next(iter(obj.data_stream)).startswith(b"line ")
        obj.close()

    def test_one_partition_without_ranges(self, server: Server) -> None:
        server.ranges = False
        parts = plan_url(server.url, obj_chunk_number=4)
        assert len(parts) == 1
        assert read_parts(parts) == server.body

    def test_a_server_that_does_not_say_how_much(self, server: Server) -> None:
        server.ranges = server.length = False
        parts = plan_url(server.url, obj_chunk_number=4)
        assert [(part.start, part.stop, part.size) for part in parts] == [(0, None, None)]
        assert read_parts(parts) == server.body
        assert list(open_partition(parts[0], None).data_stream) == server.body.splitlines(keepends=True)

    def test_an_empty_body(self, server: Server) -> None:
        server.body = b""
        parts = plan_url(server.url, obj_chunk_number=1)
        assert (parts[0].size, read_parts(parts)) == (0, b"")

    def test_a_redirect_keeps_the_range(self, server: Server) -> None:
        parts = plan_url(server.url + "/redirect", obj_chunk_number=3)
        assert len(parts) == 3
        assert read_parts(parts) == server.body

    def test_a_compressed_file(self, server: Server) -> None:
        data, server.body = server.body, gzip.compress(server.body)
        parts = plan_url(server.url + "/data.gz?key=x", obj_chunk_size=100)
        assert len(parts) == 1
        assert read_parts(parts) == data

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_a_truncated_body(self, server: Server, chunks: int) -> None:
        parts = plan_url(server.url, obj_chunk_number=chunks)
        server.truncate = 10
        with pytest.raises(StorageError, match=r"127\.0\.0\.1.*(the data ended at byte|connection failed)"):
            read_parts(parts)

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_another_version(self, server: Server, chunks: int) -> None:
        parts = plan_url(server.url, obj_chunk_number=chunks)
        server.etag = '"v2"'
        with pytest.raises(IntegrityError, match="changed after it was planned"):
            read_parts(parts)

    def test_another_size_without_versions(self, server: Server) -> None:
        server.etag = None
        parts = plan_url(server.url)
        server.body += b"more"
        with pytest.raises(IntegrityError, match="changed after it was planned"):
            read_parts(parts)

    def test_a_server_that_sends_other_bytes(self, server: Server) -> None:
        parts = plan_url(server.url, obj_chunk_number=3)
        server.lying = True
        with pytest.raises(StorageError, match="was asked for bytes=0-"):
            read_parts(parts)

    def test_a_server_that_stops_answering_ranges(self, server: Server) -> None:
        parts = plan_url(server.url, obj_chunk_number=3)
        server.ranges = False
        with pytest.raises(StorageError, match="answered 200 with no Content-Range"):
            read_parts(parts)

    @pytest.mark.parametrize(("status", "kind"), [(404, NoSuchObject), (403, AccessDenied), (503, StorageError)])
    def test_what_the_server_refuses(self, server: Server, status: int, kind: type[StorageError]) -> None:
        with pytest.raises(kind, match=f"/status/{status}: the server answered {status}"):
            plan_url(f"{server.url}/status/{status}")

    def test_no_server(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
            with pytest.raises(StorageError, match=f"{url} cannot be reached: .*refused"):
                plan_url(url)
        with pytest.raises(InputError, match="is not a URL"):
            plan_url("http://127.0.0.1:port/x")


def test_a_worker_imports_nothing_heavy_for_objects() -> None:
    program = (
        "import sys, lithops_mini.worker.data; "
        "print([m for m in ('urllib.request', 'http.client', 'gzip', 'bz2', 'lzma', 'zlib', 'asyncio', 'tempfile', "
        "'random', 'email', 'logging') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output == "[]\n"
