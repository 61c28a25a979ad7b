"""Who may write where, and what is believed: bytes from storage are checked before they are unpickled."""

from __future__ import annotations

import base64
import json
import os
import pickle
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attempts import until

import lithops_mini as lm
from lithops_mini import records, registry, wire
from lithops_mini.compute.base import Activation
from lithops_mini.compute.inline import InlineCompute, InlineOptions
from lithops_mini.errors import AccessDenied, IntegrityError, StorageError
from lithops_mini.executor import FunctionExecutor
from lithops_mini.job import keys, manifest
from lithops_mini.storage.localhost import LocalhostStorage, LocalhostStorageOptions
from lithops_mini.worker import code

LARGE = 2 << 20
LIMIT = 30


class Bomb:
    """A pickle of this writes a file wherever it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What a bomb makes. No test may leave it."""
    path = tmp_path / "exploded"
    yield path
    assert not path.exists(), "something was unpickled before it was checked"


def test_a_bomb_explodes_where_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[FunctionExecutor]:
    with lm.localhost_executor(max_workers=1, progress=False, storage_path=str(tmp_path / "storage")) as executor:
        yield executor
        assert executor.submit(abs, -1).result(timeout=LIMIT) == 1


def bucket_of(executor: FunctionExecutor) -> Path:
    backend = executor.storage.backend
    assert isinstance(backend, LocalhostStorage)
    return Path(backend.path, executor.storage.bucket)


def objects(executor: FunctionExecutor, part: str) -> list[Path]:
    return sorted(path for path in bucket_of(executor).rglob("*") if path.is_file() and f"/{part}" in str(path))


@contextmanager
def tampered(executor: FunctionExecutor, part: str, change: Callable[[bytes], bytes]) -> Iterator[list[str]]:
    """While this lasts, whatever the client stores under keys with ``part`` is changed on the disk at once."""
    backend, original, changed = executor.storage.backend, executor.storage.backend.put, []

    def put(bucket: str, key: str, *args: Any, **options: Any) -> None:
        original(bucket, key, *args, **options)
        if part in key:
            path = bucket_of(executor) / key
            path.write_bytes(change(path.read_bytes()))
            changed.append(key)

    backend.put = put  # type: ignore[method-assign]
    try:
        yield changed
    finally:
        backend.put = original  # type: ignore[method-assign]


def flip(data: bytes) -> bytes:
    """One bit changed, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def changes(bomb: bytes) -> dict[str, Callable[[bytes], bytes]]:
    return {
        "replaced": lambda _: bomb,
        "replaced, same size": lambda data: bomb.ljust(len(data), b"\0"),
        "one bit": flip,
        "cut": lambda data: data[:-1],
        "emptied": lambda _: b"",
        "continued": lambda data: bomb + data,
    }


CHANGES = list(changes(b""))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_function_is_not_unpickled(executor: FunctionExecutor, mark: Path, change: str) -> None:
    large = os.urandom(64 << 10)  # too large to travel in messages
    planted = code.encode(pickle.dumps(Bomb(mark)), {}, b"")
    with tampered(executor, "/code/", changes(planted)[change]) as changed:
        future = executor.submit(lambda: len(large))
        with pytest.raises(IntegrityError, match="function of this job"):
            future.result(timeout=LIMIT)
    assert len(changed) == 1
    assert future.stats is not None
    assert future.stats.attempt == 1


@pytest.mark.parametrize("change", CHANGES)
def test_changed_inputs_are_not_unpickled(executor: FunctionExecutor, mark: Path, change: str) -> None:
    planted = pickle.dumps(((Bomb(mark),), {}))
    with tampered(executor, "/inputs", changes(planted)[change]) as changed:
        future = executor.submit(len, os.urandom(LARGE))
        with pytest.raises(IntegrityError, match="input of call 0"):
            future.result(timeout=LIMIT)
    assert len(changed) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_changed_dependencies_are_not_unpickled(executor: FunctionExecutor, mark: Path, change: str) -> None:
    parts = executor.map(bytes, [20_000] * 10)
    executor.get_result(parts, timeout=LIMIT)
    with tampered(executor, "/dependencies/", changes(pickle.dumps(Bomb(mark)))[change]) as changed:
        future = executor.submit(lambda *values: sum(map(len, values)), *parts)
        with pytest.raises(IntegrityError, match="dependencies of call 0"):
            future.result(timeout=LIMIT)
    assert len(changed) == 1


@pytest.mark.parametrize("reader", ["client", "worker"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_outcome_is_not_unpickled(executor: FunctionExecutor, mark: Path, change: str, reader: str) -> None:
    future = executor.submit(os.urandom, LARGE)
    executor.wait(future, timeout=LIMIT)
    (path,) = objects(executor, "outcomes/")
    valid = path.read_bytes()
    path.write_bytes(changes(pickle.dumps(Bomb(mark)))[change](valid))
    with pytest.raises(IntegrityError, match=r"signature of '.*outcomes/00000000\.1' is not valid"):
        (future if reader == "client" else executor.submit(len, future)).result(timeout=LIMIT)
    path.write_bytes(valid)
    assert len(future.result()) == LARGE


def test_outcomes_that_change_places_are_not_believed(executor: FunctionExecutor) -> None:
    futures = executor.map(lambda number: bytes([number]) * LARGE, range(2))
    others = executor.map(lambda number: bytes([number + 2]) * LARGE, range(2))
    executor.wait([*futures, *others], timeout=LIMIT)
    first, second, other, _ = objects(executor, "outcomes/")
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    for future in futures:
        with pytest.raises(IntegrityError):
            future.result(timeout=LIMIT)
    first.write_bytes(other.read_bytes())  # of another job, with that job's signature
    with pytest.raises(IntegrityError):
        futures[0].result(timeout=LIMIT)
    first.write_bytes(one)
    second.write_bytes(two)
    assert [future.result()[0] for future in (*futures, *others)] == [0, 1, 2, 3]


def test_an_outcome_that_is_gone_says_so(executor: FunctionExecutor) -> None:
    future = executor.submit(os.urandom, LARGE)
    executor.wait(future, timeout=LIMIT)
    objects(executor, "outcomes/")[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"outcomes/00000000\.1") as raised:
        future.result(timeout=LIMIT)
    assert isinstance(raised.value, StorageError)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_progress_is_not_believed_by_reducers(mark: Path, tmp_path: Path, change: str) -> None:
    ready = tmp_path / "ready"

    def call(number: int) -> int:
        if number == 1:
            until(ready.exists, "progress changed")
        return number

    outcome = wire.Outcome(1, 1, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, b"", pickle.dumps(Bomb(mark)))
    planted = wire.encode_progress({}, [wire.encode_reply("me", wire.encode_outcome(outcome))])
    path = str(tmp_path / "storage")
    with (
        lm.localhost_executor(max_workers=2, progress=False, storage_path=path) as executor,
        tampered(executor, "M000/progress/", changes(planted + b"\0" * 32)[change]) as changed,
    ):
        reducers = executor.map_reduce(call, [0, 1], list, spawn_reducer=10)
        until(lambda: changed, "progress recorded")
        with pytest.raises(IntegrityError, match=r"signature of '.*/progress/"):
            reducers[0].result(timeout=LIMIT)
        ready.touch()
        executor.wait(reducers.map_futures, timeout=LIMIT)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["manifest", "progress/"])
def test_changed_records_are_not_believed(executor: FunctionExecutor, mark: Path, part: str, change: str) -> None:
    future = executor.submit(abs, -1)
    future.result(timeout=LIMIT)
    executor._recorder.flush()
    backend, bucket = executor.storage.backend, executor.storage.bucket
    key = keys.job_key(future.job_id)
    assert manifest.read_manifest(backend, bucket, future.job_id, key)["function"] == "abs"
    assert [outcome.call for _, outcome in manifest.read_outcomes(backend, bucket, future.job_id, key)] == [0]
    (path,) = objects(executor, f"C000/{part}")
    path.write_bytes(changes(pickle.dumps(Bomb(mark)))[change](path.read_bytes()))
    read = {
        "manifest": manifest.read_manifest,
        "progress/": lambda *place: list(manifest.read_outcomes(*place)),
    }[part]
    with pytest.raises(IntegrityError, match="is not valid: somebody else wrote or changed this object"):
        read(backend, bucket, future.job_id, key)
    # A listing believes nothing and shows what it finds; nothing planted there makes it fail.
    assert [record.job_id for record in manifest.list_jobs(backend, bucket)] == [future.job_id]


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"calls": "many"}', b'{"a": 1e999999}'],
    ids=lambda header: repr(header[:20]),
)
def test_planted_records_do_not_break_a_listing(executor: FunctionExecutor, header: bytes) -> None:
    backend, bucket = executor.storage.backend, executor.storage.bucket
    for size in (len(header), 0xFFFFFFFF):
        backend.put(bucket, records.manifest_key("someone-M000"), size.to_bytes(4, "little") + header)
        backend.put(bucket, records.progress_key("someone-M000", 0), size.to_bytes(4, "little") + header)
        assert [record.state for record in manifest.list_jobs(backend, bucket)] == ["unreadable"]
    backend.delete(bucket, [records.manifest_key("someone-M000"), records.progress_key("someone-M000", 0)])


# -- what travels

SECRET, OUR_SECRET = "hunter2-the-password", "hunter2-in-our-environment"


@dataclass(frozen=True)
class Options(InlineOptions):
    """Of a backend with an account."""

    user: str = "somebody"
    password: str | None = field(default=None, repr=False, metadata={"secret": True})


class Recording(InlineCompute):
    """The inline backend, with an account and a memory."""

    Options = Options
    payloads: ClassVar[list[bytes]] = []

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        self.payloads.append(payload)
        return super().invoke(payload, activation)


def test_no_credential_leaves_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: Mapping[str, str] = {**registry._BUILTIN["compute"], "recording": f"{__name__}:Recording"}
    monkeypatch.setitem(registry._BUILTIN, "compute", known)
    monkeypatch.setenv("SOME_SERVICE_TOKEN", OUR_SECRET)
    monkeypatch.setattr(Recording, "payloads", [])
    path = tmp_path / "storage"
    with lm.function_executor("recording", progress=False, storage_path=str(path), password=SECRET) as executor:
        assert executor.config.compute_options.password == SECRET
        reducers = executor.map_reduce(bytes, [LARGE, 5], len)
        assert executor.get_result(reducers, timeout=LIMIT) == 2
        executor._recorder.flush()
        texts = [*Recording.payloads, *(each.read_bytes() for each in path.rglob("*") if each.is_file())]
        texts += [repr(executor.config).encode(), repr(executor).encode()]
        job_keys = [future.job.key for future in (*reducers, *reducers.map_futures) if future.job]
    assert len(Recording.payloads) >= 2
    assert any(b"manifest" in str(each).encode() for each in path.rglob("*"))
    for text in texts:
        for secret in (SECRET, OUR_SECRET):
            for form in (secret.encode(), base64.b64encode(secret.encode()), secret.encode().hex().encode()):
                assert form not in text
    # The keys that sign results travel with the messages, and are in no object.
    stored = [each.read_bytes() for each in path.rglob("*") if each.is_file()]
    for key in job_keys:
        assert any(key.hex().encode() in payload for payload in Recording.payloads)
        assert not any(key in text or key.hex().encode() in text for text in stored)


# -- files


def test_everything_written_is_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    keys._secret.cache_clear()
    before = os.umask(0)
    try:
        with lm.localhost_executor(max_workers=2, progress=False) as executor:
            reducers = executor.map_reduce(bytes, [LARGE, 5], len)
            assert executor.get_result(reducers, timeout=LIMIT) == 2
            executor.submit(lambda large: Bomb.__name__, os.urandom(LARGE)).result(timeout=LIMIT)
            executor.storage.create_bucket("mine")
            executor.storage.put_object("mine", "a/b/c", b"text")
            executor._recorder.flush()
            (scratch,) = temporary.iterdir()
            assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
            found = list((home / ".lithops_mini").rglob("*"))
            modes = {str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode) for path in found}
    finally:
        os.umask(before)
        keys._secret.cache_clear()
    assert stat.S_IMODE((home / ".lithops_mini").stat().st_mode) == 0o700
    assert any("outcomes" in name for name in modes)
    assert any("manifest" in name for name in modes)
    wrong = {
        str(path): oct(mode)
        for path, mode in zip(found, modes.values(), strict=True)
        if mode != (0o700 if path.is_dir() else 0o600)
        if path.exists()
    }
    assert wrong == {}
    assert modes[".lithops_mini/secret"] == 0o600
    assert list(temporary.iterdir()) == []


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The secret of a home of its own, just made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    keys._secret.cache_clear()
    keys.job_key("x-M000")
    path = tmp_path / ".lithops_mini/secret"
    assert path.stat().st_size == 32
    yield path
    keys._secret.cache_clear()


def another_process() -> bytes:
    keys._secret.cache_clear()
    return keys.job_key("x-M000")


def test_the_key_of_a_job_is_the_same_in_every_process(secret: Path) -> None:
    first = keys.job_key("x-M000")
    assert another_process() == first
    assert keys.job_key("x-M001") != first
    assert secret.read_bytes() not in first


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602, 0o604])
def test_a_secret_that_others_can_read_or_write_is_not_used(
    secret: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = keys.job_key("x-M000")
    secret.chmod(mode)
    assert another_process() not in (first, another_process())
    assert "is not a private file of this user and is not used" in caplog.text


def test_a_cut_secret_is_not_used(secret: Path) -> None:
    secret.write_bytes(b"")
    assert another_process() != another_process()


NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users at once")


@needs_root
def test_what_another_user_has_prepared_is_not_used(secret: Path, tmp_path: Path) -> None:
    first = keys.job_key("x-M000")
    os.chown(secret, NOBODY, NOBODY)
    assert another_process() not in (first, another_process())
    for name, mode, owner in (("storage", 0o777, NOBODY), ("private", 0o700, NOBODY), ("open", 0o777, 0)):
        path = tmp_path / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, owner, owner)
        with pytest.raises(AccessDenied, match=str(path)):
            lm.localhost_executor(progress=False, storage_path=str(path))
    root = tmp_path / "readable"
    (root / "lithops-mini").mkdir(parents=True)
    root.chmod(0o755)
    os.chown(root / "lithops-mini", NOBODY, NOBODY)
    with pytest.raises(AccessDenied, match="lithops-mini belongs to user"):
        lm.localhost_executor(progress=False, storage_path=str(root))


def as_nobody(checks: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Try each as another user, in a process of its own; return the name of the error it raised, or ``allowed``."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        found = {}
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            for name, check in checks.items():
                try:
                    check()
                    found[name] = "allowed"
                except Exception as error:  # noqa: BLE001 - reported below
                    found[name] = type(error).__name__
            os.write(writing, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@needs_root
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_another_user_can_neither_read_nor_feed_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o755)  # everybody comes as far as this
        temporary = home / "temporary"
        temporary.mkdir()
        temporary.chmod(0o1777)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        keys._secret.cache_clear()
        with lm.localhost_executor(max_workers=1, progress=False) as executor:
            future = executor.submit(lambda: (os.getpid(), Bomb.__name__, os.urandom(LARGE)))
            worker = future.result(timeout=LIMIT)[0]
            executor._recorder.flush()
            (scratch,) = temporary.iterdir()
            bucket, stored = bucket_of(executor), objects(executor, "")
            storage = LocalhostStorage(LocalhostStorageOptions(str(bucket.parent)))
            name = bucket.name
            checks: dict[str, Callable[[], object]] = {
                "list the home": lambda: os.listdir(home / ".lithops_mini"),
                "read the secret": lambda: (home / ".lithops_mini/secret").read_bytes(),
                "list the bucket": lambda: os.listdir(bucket),
                "read an object": lambda: stored[0].read_bytes(),
                "write an object": lambda: stored[0].write_bytes(b""),
                "make an object": lambda: (bucket / "new").write_bytes(b""),
                "remove an object": lambda: stored[0].unlink(),
                "use the storage": lambda: storage.get(name, "x"),
                "feed the storage": lambda: storage.put(name, "x", b""),
                "list the storage": lambda: list(storage.list(name)),
                "list the modules": lambda: os.listdir(scratch),
                "plant a module": lambda: (scratch / "attempts.py").write_text(""),
                "remove the modules": lambda: scratch.rename(home / "elsewhere"),
                "look into the worker": lambda: os.listdir(f"/proc/{worker}/fd"),
                "read the environment": lambda: Path(f"/proc/{worker}/environ").read_bytes(),
                "read the log": lambda: Path(f"/proc/{worker}/fd/1").read_bytes(),
                "kill the worker": lambda: os.kill(worker, 9),
            }
            assert stored
            found = as_nobody(checks)
            assert set(found) == set(checks)
            assert {name: how for name, how in found.items() if how not in ("PermissionError", "AccessDenied")} == {}
            assert executor.submit(os.getpid).result(timeout=LIMIT) == worker
        keys._secret.cache_clear()


@needs_root
def test_directories_of_others_are_not_reaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs, ours, link = (tmp_path / f"lithops_mini-{name}" for name in ("theirs", "ours", "link"))
    for path in (theirs, ours):
        path.mkdir()
    kept = tmp_path / "kept"
    kept.mkdir()
    link.symlink_to(kept)
    os.chown(theirs, NOBODY, NOBODY)
    with lm.localhost_executor(max_workers=1, progress=False):
        assert theirs.exists()
        assert kept.exists()
        assert not ours.exists()
