"""The localhost storage: the contract, and what only a directory tree can get wrong."""

import errno
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lithops_mini.errors import (
    AccessDenied,
    ConfigError,
    InputError,
    LithopsMiniError,
    NoSuchBucket,
    ObjectExists,
    StorageError,
)
from lithops_mini.storage.localhost import LocalhostStorage, LocalhostStorageOptions, _write_body
from lithops_mini.testing.storage import MIB, StorageContract

NOBODY = 65534
REPOSITORY = Path(__file__).parents[1]


def storage_at(path):
    return LocalhostStorage(LocalhostStorageOptions(str(path)))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def backend(root):
    return storage_at(root)


@pytest.fixture
def bucket(backend):
    backend.create_bucket("bucket")
    return "bucket"


@pytest.fixture
def place(root, bucket):
    """The bucket's directory."""
    return root / bucket


def tree(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def in_child(use, *, uid=None, limit=None):
    """Run ``use`` in a forked child, without root's powers; return what it returns, or raise what it raises."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if uid is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            outcome = (True, use())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the parent
            outcome = (False, (type(error), str(error)))
        with open(write, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        done, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if done:
        return value
    kind, message = value
    raise kind(message)


@pytest.fixture
def open_to_all(tmp_path_factory):
    """A directory that any user can reach."""
    path = tmp_path_factory.mktemp("open")
    reachable = []
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            reachable.append((parent, stat.S_IMODE(parent.stat().st_mode)))
            parent.chmod(0o711)
    path.chmod(0o755)
    yield path
    for parent, mode in reachable:
        parent.chmod(mode)


class TestLocalhostContract(StorageContract):
    pass


class TestLayout:
    def test_objects_are_files_that_ls_shows(self, backend, bucket, root):
        backend.put(bucket, "a/b/c.txt", b"body")
        assert (root / "bucket/a/b/c.txt").read_bytes() == b"body"

    def test_files_put_there_by_hand_are_objects(self, backend, bucket, place):
        (place / "data").mkdir()
        (place / "data/x.csv").write_bytes(b"1,2")
        assert backend.get(bucket, "data/x.csv") == b"1,2"
        assert [info.key for info in backend.list(bucket)] == ["data/x.csv"]

    def test_delete_removes_emptied_directories_only(self, backend, bucket, place):
        backend.put(bucket, "a/b/c", b"")
        backend.put(bucket, "a/d", b"")
        backend.delete(bucket, ["a/b/c"])
        assert tree(place) == ["a", "a/d"]
        backend.delete(bucket, ["a/d"])
        assert tree(place) == []
        backend.head_bucket(bucket)

    @pytest.mark.parametrize("umask", [0, 0o022, 0o077])
    def test_nobody_else_can_read_whatever_the_umask(self, tmp_path, umask):
        def use():
            os.umask(umask)
            backend = storage_at(tmp_path / "above/storage")
            backend.create_bucket("bucket")
            backend.put("bucket", "a/b", b"body", metadata={"k": "v"})
            backend.put("bucket", "a/c", b"body", if_absent=True)

        in_child(use)
        for path in (tmp_path / "above").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o700

    def test_nothing_is_left_behind(self, backend, bucket, root):
        for number in range(3):
            backend.put(bucket, "key", b"body", metadata={"number": str(number)})
            with pytest.raises(ObjectExists):
                backend.put(bucket, "key", b"", if_absent=True, metadata={"lost": "yes"})
            with pytest.raises(StorageError):
                backend.put(bucket, "key/below", b"", metadata={"lost": "yes"})
            with pytest.raises(InputError):
                backend.put(bucket, "key", "text", metadata={"lost": "yes"})
        assert len(list((root / ".metadata").iterdir())) == 1
        backend.delete(bucket, ["key"])
        assert tree(root) == [".metadata", ".temporary", "bucket"]

    def test_what_crashed_writers_left_is_hidden_then_removed(self, backend, bucket, root):
        class Crash:
            blocks = iter([b"part"])

            def read(self, size):
                return next(self.blocks, None) or os._exit(0)

        backend.put(bucket, "warm", b"")
        child = os.fork()
        if child == 0:
            backend.put(bucket, "key", Crash())
        os.waitpid(child, 0)
        (draft,) = (root / ".temporary").iterdir()
        assert draft.read_bytes() == b"part"
        assert [info.key for info in backend.list(bucket)] == ["warm"]
        backend.create_bucket(bucket)
        assert draft.exists()  # it may be a slow writer's
        yesterday = time.time() - 25 * 3600
        os.utime(draft, (yesterday, yesterday))
        status = draft.stat()
        sidecar = root / ".metadata" / f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
        sidecar.parent.mkdir()
        sidecar.write_bytes(b"{}")
        backend.create_bucket(bucket)
        assert not draft.exists()
        assert not sidecar.exists()

    def test_empty_directories_are_no_objects_and_no_obstacle(self, backend, bucket, place):
        for if_absent in (False, True):
            (place / "a/b/c").mkdir(parents=True)
            (place / "a/d").mkdir()
            assert list(backend.list(bucket)) == []
            backend.put(bucket, "a", b"body", if_absent=if_absent)
            assert backend.get(bucket, "a") == b"body"
            backend.delete(bucket, ["a"])

    def test_a_file_whose_name_is_not_utf8_is_an_error_and_not_left_out(self, backend, bucket, place):
        Path(os.fsdecode(os.fsencode(place) + b"/\xff")).write_bytes(b"")
        with pytest.raises(StorageError, match="UTF-8"):
            list(backend.list(bucket))

    def test_options_find_the_home_directory(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        backend = LocalhostStorage(LocalhostStorageOptions())
        assert backend.worker_options() == {"storage_path": str(tmp_path / ".lithops_mini/storage")}

    def test_a_relative_path_is_made_absolute_at_once(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        backend = storage_at("here")
        monkeypatch.chdir("/")
        assert backend.worker_options() == {"storage_path": str(tmp_path / "here")}

    @pytest.mark.parametrize("path", ["", "~nosuchuser/storage", "nul\0"])
    def test_what_is_no_path_is_a_config_error(self, path):
        with pytest.raises(ConfigError, match="storage_path"):
            storage_at(path)

    def test_an_instance_survives_fork_and_leaks_no_descriptor(self, backend, bucket):
        def use():
            backend.put(bucket, "child", b"body")
            return backend.get(bucket, "child")

        def descriptors():
            return os.listdir("/proc/self/fd")

        before = descriptors()
        assert in_child(use) == backend.get(bucket, "child") == b"body"
        for use_badly in (
            lambda: backend.get(bucket, "missing/key"),
            lambda: backend.get("missing", "key"),
            lambda: backend.put(bucket, "child/below", b""),
            lambda: backend.put(bucket, "other", "text"),
            lambda: backend.get(bucket, "x" * 256),
        ):
            with pytest.raises(LithopsMiniError):
                use_badly()
        assert len(descriptors()) == len(before)


class TestConflicts:
    def test_a_key_below_an_object(self, backend, bucket):
        backend.put(bucket, "a", b"body")
        for if_absent in (False, True):
            with pytest.raises(StorageError, match=r"'a/b'.* is an object") as caught:
                backend.put(bucket, "a/b", b"", if_absent=if_absent)
            assert not isinstance(caught.value, ObjectExists)
        assert backend.get(bucket, "a") == b"body"

    def test_an_object_above_other_keys(self, backend, bucket):
        backend.put(bucket, "a/b/c", b"body")
        for if_absent in (False, True):
            with pytest.raises(StorageError, match=r"'a'.* other keys lie below") as caught:
                backend.put(bucket, "a", b"", if_absent=if_absent)
            assert not isinstance(caught.value, ObjectExists)
        assert backend.get(bucket, "a/b/c") == b"body"

    def test_puts_race_with_deletes_that_remove_their_directories(self, backend, bucket):
        def use(number):
            key = f"a/b/c/{number}"
            for turn in range(300):
                backend.put(bucket, key, b"%d" % turn, if_absent=number % 2 == 0)
                assert backend.get(bucket, key) == b"%d" % turn
                backend.delete(bucket, [key])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, range(4)))
        assert list(backend.list(bucket)) == []

    def test_a_name_that_is_too_long(self, backend, bucket):
        backend.put(bucket, "x" * 255, b"")
        for key in ("x" * 256, "dir/" + "é" * 128):
            for use in (backend.get, backend.open, backend.head, lambda b, k: backend.put(b, k, b"")):
                with pytest.raises(InputError, match="255 bytes"):
                    use(bucket, key)
            assert list(backend.list(bucket, key)) == []
            assert list(backend.list(bucket, key + "/")) == []

    def test_a_bucket_that_is_removed_meanwhile(self, backend, bucket, place):
        class Remove:
            def read(self, size):
                if place.exists():
                    place.rmdir()
                    return b"x"
                return b""

        with pytest.raises(StorageError):
            backend.put(bucket, "a/b", Remove())


class TestOutside:
    """Nothing outside the bucket is read, written, listed or deleted."""

    @pytest.fixture
    def outside(self, tmp_path):
        path = tmp_path / "outside"
        path.mkdir()
        (path / "secret").write_bytes(b"secret")
        return path

    def test_links_to_directories(self, backend, bucket, place, outside):
        (place / "link").symlink_to(outside)
        for use in (backend.get, backend.open, backend.head, lambda b, k: backend.put(b, k, b"new")):
            for key in ("link/secret", "link/sub/new"):
                with pytest.raises(AccessDenied, match="symbolic link"):
                    use(bucket, key)
        with pytest.raises(AccessDenied, match="symbolic link"):
            backend.delete(bucket, ["link/secret"])
        assert list(backend.list(bucket)) == list(backend.list(bucket, "link/")) == []
        assert tree(outside) == ["secret"]

    def test_links_to_files(self, backend, bucket, place, outside):
        (place / "link").symlink_to(outside / "secret")
        for use in (backend.get, backend.open, backend.head):
            with pytest.raises(AccessDenied, match="symbolic link"):
                use(bucket, "link")
        assert list(backend.list(bucket)) == []
        with pytest.raises(ObjectExists):
            backend.put(bucket, "link", b"new", if_absent=True)
        backend.put(bucket, "link", b"new")  # replaces the link itself
        assert backend.get(bucket, "link") == b"new"
        (place / "other").symlink_to(outside / "secret")
        backend.delete(bucket, ["other"])
        assert not os.path.lexists(place / "other")
        assert (outside / "secret").read_bytes() == b"secret"

    def test_a_link_to_a_directory_is_replaced_by_an_object(self, backend, bucket, place, outside):
        (outside / "empty").mkdir()
        (place / "link").symlink_to(outside / "empty")
        backend.put(bucket, "link", b"new")
        assert backend.get(bucket, "link") == b"new"
        assert tree(outside) == ["empty", "secret"]

    def test_a_directory_that_becomes_a_link_while_we_write(self, backend, bucket, place, outside):
        (place / "dir").mkdir()
        done = threading.Event()

        def swap():
            while not done.is_set():
                os.rename(place / "dir", place / "moved")
                os.symlink(outside, place / "dir")
                os.unlink(place / "dir")
                os.rename(place / "moved", place / "dir")

        with ThreadPoolExecutor(1) as pool:
            swapper = pool.submit(swap)
            for number in range(500):
                for use in (
                    lambda number=number: backend.put(bucket, f"dir/{number}", b""),
                    lambda: backend.get(bucket, "dir/secret"),
                ):
                    with suppress(LithopsMiniError):
                        assert use() is None
            done.set()
            with suppress(OSError):  # a put had made the directory anew
                swapper.result()
        assert tree(outside) == ["secret"]

    def test_a_bucket_that_is_a_link_or_a_file(self, backend, bucket, root, outside):
        (root / "link").symlink_to(outside)
        (root / "file").write_bytes(b"")
        for name in ("link", "file"):
            for use in (backend.head_bucket, backend.create_bucket, lambda b: list(backend.list(b))):
                with pytest.raises(NoSuchBucket, match="a bucket is a directory"):
                    use(name)

    def test_our_own_directories_are_no_buckets(self, backend, bucket):
        backend.put(bucket, "key", b"", metadata={"a": "b"})
        for name in (".temporary", ".metadata"):
            with pytest.raises(InputError):
                list(backend.list(name))

    def test_special_files_are_no_objects_and_do_not_hang(self, backend, bucket, place):
        os.mkfifo(place / "pipe")
        for use in (backend.get, backend.open, backend.head):
            with pytest.raises(FileNotFoundError):
                use(bucket, "pipe")
        assert list(backend.list(bucket)) == []

    @given(
        key=st.one_of(
            st.text(),
            st.text("./\\\0 aé~%\n-", max_size=12),
            st.lists(st.sampled_from(["..", ".", "", "a", "bucket", "etc"]), max_size=6).map("/".join),
        )
    )
    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        print_blob=True,
    )
    def test_no_key_escapes(self, backend, bucket, root, key):
        around = tree(root.parent)
        try:
            backend.put(bucket, key, b"body")
        except InputError:
            assert tree(root.parent) in (around, sorted([*around, "storage/.temporary"]))
            assert list(backend.list(bucket)) == []
            return
        assert backend.get(bucket, key) == b"body"
        assert [info.key for info in backend.list(bucket)] == [key]
        inside = root / bucket
        assert [p for p in root.parent.rglob("*") if p.is_file()] == [p for p in inside.rglob("*") if p.is_file()]
        backend.delete(bucket, [key])
        assert tree(root / bucket) == []


class TestUsers:
    def test_a_root_of_another_user(self, tmp_path):
        if os.geteuid() == 0:
            path = tmp_path / "storage"
            path.mkdir(mode=0o700)
            os.chown(path, NOBODY, NOBODY)
        else:
            path = Path("/usr")
        backend = storage_at(path)
        for use in (backend.create_bucket, backend.head_bucket, lambda b: backend.put(b, "key", b"")):
            with pytest.raises(AccessDenied, match=r"belongs to user .* storage_path"):
                use("bucket")

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
    def test_a_root_that_others_can_write(self, backend, bucket, root, mode):
        root.chmod(mode)
        for use in (backend.create_bucket, backend.head_bucket, lambda b: backend.get(b, "key")):
            with pytest.raises(AccessDenied, match="chmod go-w"):
                use(bucket)
        root.chmod(0o755)
        backend.put(bucket, "key", b"")

    def test_a_bucket_that_others_can_write(self, backend, bucket, root, place):
        root.chmod(0o755)
        place.chmod(0o777)
        with pytest.raises(AccessDenied, match="chmod go-w"):
            backend.get(bucket, "key")
        root.chmod(0o700)
        backend.put(bucket, "key", b"")  # nobody else gets there

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
    def test_another_user_can_neither_read_nor_feed(self, open_to_all):
        backend = storage_at(open_to_all / "storage")
        backend.create_bucket("bucket")
        backend.put("bucket", "key", b"secret")
        for use in (
            lambda: backend.get("bucket", "key"),
            lambda: backend.put("bucket", "key", b"fed"),
            lambda: backend.create_bucket("other"),
        ):
            with pytest.raises(AccessDenied):
                in_child(use, uid=NOBODY)
        for path in (open_to_all / "storage").rglob("*"):
            with pytest.raises(PermissionError):
                in_child(lambda path=path: os.stat(path), uid=NOBODY)


class TestFaults:
    def test_a_read_only_directory(self, open_to_all):
        home = open_to_all / "home"
        home.mkdir()
        backend = storage_at(home / "storage")

        def use():
            backend.create_bucket("bucket")
            backend.put("bucket", "dir/key", b"body")
            (home / "storage/bucket/dir").chmod(0o500)
            assert backend.get("bucket", "dir/key") == b"body"
            messages = []
            for change in (
                lambda: backend.put("bucket", "dir/new", b""),
                lambda: backend.put("bucket", "dir/new/below", b""),
                lambda: backend.delete("bucket", ["dir/key"]),
            ):
                with pytest.raises(AccessDenied) as caught:
                    change()
                messages.append(str(caught.value))
            home.chmod(0o500)
            with pytest.raises(AccessDenied) as caught:
                storage_at(home / "new").create_bucket("bucket")
            return [*messages, str(caught.value)]

        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        messages = in_child(use, uid=NOBODY)
        assert all("permissions" in message and "bucket" in message for message in messages)
        home.chmod(0o700)

    def test_a_path_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        for path in (tmp_path / "file", tmp_path / "file/below"):
            for use in (storage_at(path).create_bucket, storage_at(path).head_bucket):
                with pytest.raises(StorageError, match=r"storage_path .* is not a directory"):
                    use("bucket")

    def test_a_file_size_limit(self, backend, bucket, root):
        backend.put(bucket, "key", b"old")
        with pytest.raises(StorageError, match="larger than a file may be"):
            in_child(lambda: backend.put(bucket, "key", bytes(2 * MIB)), limit=MIB)
        assert backend.get(bucket, "key") == b"old"
        assert list((root / ".temporary").iterdir()) == []

    def test_a_full_disk(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", disk], capture_output=True
        )
        if not mounted or mounted.returncode:
            pytest.skip("only root can mount a small disk to fill")
        try:
            backend = storage_at(disk)
            backend.create_bucket("bucket")
            backend.put("bucket", "key", b"old")
            for body in (bytes(3 * MIB), [bytes(MIB)] * 3):
                with pytest.raises(StorageError, match="the disk is full") as caught:
                    backend.put("bucket", "key", body)
                assert caught.value.errno == errno.ENOSPC
            assert backend.get("bucket", "key") == b"old"
            assert list((disk / ".temporary").iterdir()) == []
            backend.put("bucket", "key", bytes(MIB))  # the failed put took no room
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_writes_that_signals_cut_short_go_on(self):
        buffers = [os.urandom(size) for size in (1, 300_000, 5, 700_000, 17)]
        received = []
        read, write = os.pipe()
        writer = threading.get_ident()

        def drain():
            while block := os.read(read, 10_000):
                received.append(block)
                signal.pthread_kill(writer, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            with ThreadPoolExecutor(1) as pool:
                draining = pool.submit(drain)
                try:
                    _write_body(write, buffers)
                finally:
                    os.close(write)
                draining.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
            os.close(read)
        assert b"".join(received) == b"".join(buffers)

    def test_too_many_open_files(self, backend, bucket):
        def use():
            most = max(map(int, os.listdir("/proc/self/fd"))) + 12
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            held = []
            with pytest.raises(StorageError, match="Too many open files"):
                held.extend(backend.open(bucket, "key") for _ in range(2000))
            held.clear()
            return backend.get(bucket, "key")

        backend.put(bucket, "key", b"body")
        assert in_child(use) == b"body"


def test_the_worker_imports_nothing_heavy():
    code = (
        "import sys, lithops_mini.storage.localhost, lithops_mini.storage.api; "
        "print(*sorted({'tempfile', 'random', 'asyncio', 'urllib.request', 'ssl', 'uuid', 'shutil', 'subprocess', "
        "'pydantic', 'yaml', 'tqdm', 'requests', 'click', 'cloudpickle'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert result.stdout.split() == []
