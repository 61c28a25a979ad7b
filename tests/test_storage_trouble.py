"""Storage that is full, read-only or limited: a clear error in the right place, nothing hangs, the executor closes."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from attempts import until

import lithops_mini as lm
from lithops_mini.errors import AccessDenied, StorageError
from lithops_mini.executor import FunctionExecutor

LIMIT = 30
SIZE = 4 << 20


def mount(path: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for four megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    if not mount(path, f"size={SIZE},mode=0700"):
        pytest.skip("needs to be allowed to mount a file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> None:
    """Leave no room at all."""
    with (disk / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(bytes(4096)))


@pytest.fixture
def executor(small_disk: Path) -> Iterator[FunctionExecutor]:
    executor = lm.localhost_executor(max_workers=2, progress=False, storage_path=str(small_disk / "storage"))
    yield executor
    began = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - began < 10


def test_inputs_that_do_not_fit_are_told_before_anything_runs(executor: FunctionExecutor) -> None:
    with pytest.raises(StorageError, match=r"inputs.*the disk is full"):
        executor.submit(len, bytes(2 * SIZE))
    with pytest.raises(StorageError, match=r"inputs.*the disk is full"):
        executor.map_reduce(abs, [1], lambda results, large: large, extra_args_reduce=(bytes(2 * SIZE),))
    assert executor.submit(len, bytes(SIZE // 2)).result(timeout=LIMIT) == SIZE // 2


def test_a_result_that_does_not_fit_is_its_calls_failure(executor: FunctionExecutor) -> None:
    futures = executor.map(bytes, [1, 2 * SIZE, 2], chunksize=3, retries=1)
    found = executor.get_result(futures, throw_except=False, timeout=LIMIT)
    assert isinstance(found[1], StorageError)
    assert "the result could not be stored" in str(found[1])
    assert "the disk is full" in str(found[1])
    assert [found[0], found[2]] == [b"\0", b"\0\0"]
    assert futures[1].stats is not None
    assert (futures[1].stats.status, futures[1].stats.attempt) == ("unavailable", 2)
    assert executor.submit(bytes, SIZE // 2).result(timeout=LIMIT) == bytes(SIZE // 2)


def test_calls_go_on_when_their_record_cannot_be_written(
    executor: FunctionExecutor, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(small_disk)
    with caplog.at_level(logging.WARNING, "lithops_mini"):
        assert executor.get_result(executor.map(abs, range(-100, 0)), timeout=LIMIT) == list(range(100, 0, -1))
        executor._recorder.flush()
    assert "could not be written, so it cannot be resumed" in caplog.text
    assert "the disk is full" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("full", ["from the beginning", "while the reducer waits"])
def test_an_early_reducer_does_not_wait_for_what_could_not_be_recorded(
    executor: FunctionExecutor, small_disk: Path, tmp_path: Path, full: str
) -> None:
    reducing, go = tmp_path / "reducing", tmp_path / "go"

    def late(number: int) -> int:
        if number == 2:
            until(go.exists, "the word to go on")
        return number

    def reduce(results: Sequence[int]) -> list[int]:
        with reducing.open("ab") as file:
            file.write(b".")
        return list(results)

    if full == "from the beginning":
        fill(small_disk)
    (reducer,) = executor.map_reduce(late, [0, 1, 2], reduce, spawn_reducer=60, chunksize=1)
    if full == "while the reducer waits":
        until(reducing.exists, "the reducer waits")
        fill(small_disk)
    go.touch()
    assert reducer.result(timeout=LIMIT) == [0, 1, 2]
    assert reducer.stats is not None
    assert reducer.stats.attempt == 1  # being sent to wait in vain is none
    assert full == "from the beginning" or reducing.read_bytes() == b".."


def test_no_room_for_local_modules_is_a_clear_error(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "large_module.py").write_bytes(b"def f():\n    pass\n" + b"# \n" * (2 * SIZE // 3))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import large_module  # type: ignore[import-not-found]

    with lm.localhost_executor(max_workers=1, progress=False, storage_path=str(tmp_path / "storage")) as executor:
        with pytest.raises(OSError, match="No space left on device"):
            executor.submit(large_module.f).result(timeout=LIMIT)
        assert executor.submit(abs, -1).result(timeout=LIMIT) == 1
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A storage with a bucket and an object, that can only be read."""
    path = tmp_path / "disk"
    path.mkdir(mode=0o700)
    mounted = os.geteuid() == 0
    if mounted and not mount(path, "mode=0700"):
        pytest.skip("root needs to be allowed to mount a file system, since no mode stops it")
    with lm.localhost_executor(max_workers=1, progress=False, storage_path=str(path)) as executor:
        executor.storage.create_bucket("data")
        executor.storage.put_object("data", "lines", b"one\ntwo\n")
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    else:
        for directory in (path, *(each for each in path.rglob("*") if each.is_dir())):
            directory.chmod(0o500)
    yield path
    if mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)
    else:
        for directory in (path, *(each for each in path.rglob("*") if each.is_dir())):
            directory.chmod(0o700)


def test_a_read_only_storage_says_so(read_only: Path) -> None:
    with lm.localhost_executor(max_workers=1, progress=False, storage_path=str(read_only)) as executor:
        # What needs no storage of its own works: data can be read from there.
        futures = executor.map(lambda obj: obj.data_stream.read(), "data/lines")
        assert executor.get_result(futures, timeout=LIMIT) == [b"one\ntwo\n"]
        with pytest.raises(AccessDenied, match=r"inputs.*(read-only|permissions)"):
            executor.submit(len, bytes(SIZE))
        with pytest.raises(StorageError, match=r"could not be stored.*(read-only|permissions)"):
            executor.map(bytes, [SIZE], retries=0)[0].result(timeout=LIMIT)
        with pytest.raises(AccessDenied, match=r"(read-only|permissions)"):
            executor.storage.put_object("data", "more", b"")


def test_a_new_bucket_in_a_read_only_storage(read_only: Path) -> None:
    with pytest.raises(AccessDenied, match=r"another.*(read-only|permissions)"):
        lm.localhost_executor(progress=False, storage_path=str(read_only), storage_bucket="another")
    with pytest.raises(AccessDenied, match=r"(read-only|permissions)"):
        lm.localhost_executor(progress=False, storage_path=str(read_only / "below"))


LIMITED = """
import resource
import lithops_mini as lm

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with lm.localhost_executor(max_workers=1, progress=False, retries=0, storage_path={path!r}) as executor:
    for make in (lambda: executor.submit(len, bytes(4 << 20)), lambda: executor.submit(bytes, 4 << 20)):
        try:
            print(len(make().result(timeout=30)))
        except lm.errors.StorageError as error:
            print("larger than a file may be here" in str(error))
    future = executor.submit(lambda: print("x" * (4 << 20)))
    print(type(future.exception(timeout=30)).__name__)
    print(executor.submit(abs, -1).result(timeout=30))
"""


def test_a_limit_for_files_is_a_clear_error(tmp_path: Path) -> None:
    program = LIMITED.format(path=str(tmp_path / "storage"))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["True", "True", "OSError", "1"], "")
