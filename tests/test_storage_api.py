"""Storage, as users hold it, over the localhost backend."""

import gc
import io
import os
import pickle
import resource
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from lithops_mini.errors import InputError, NoSuchBucket, NoSuchObject, ObjectExists
from lithops_mini.records import CLOUDOBJECTS_PREFIX
from lithops_mini.storage.api import CloudObject, Storage
from lithops_mini.storage.localhost import LocalhostStorage, LocalhostStorageOptions

MIB = 1 << 20


@pytest.fixture
def storage(tmp_path):
    with Storage(LocalhostStorage(LocalhostStorageOptions(str(tmp_path / "storage"))), "default") as storage:
        storage.create_bucket("bucket")
        storage.create_bucket()
        yield storage


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working directory."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


class TestObjects:
    @pytest.mark.parametrize(
        ("body", "stored"),
        [
            (b"bytes", b"bytes"),
            ("täxt", "täxt".encode()),
            ("", b""),
            ([b"several ", bytearray(b"buffers")], b"several buffers"),
            (io.BytesIO(b"file"), b"file"),
        ],
    )
    def test_put_takes_every_kind_of_body(self, storage, body, stored):
        storage.put_object("bucket", "key", body)
        assert storage.get_object("bucket", "key") == stored

    def test_none_is_the_default_bucket(self, storage):
        storage.put_object(None, "key", b"body")
        assert storage.bucket == "default"
        assert storage.get_object("default", "key") == storage.get_object(None, "key") == b"body"
        assert list(storage.list_keys()) == ["key"]
        storage.head_bucket()
        storage.delete_object(None, "key")
        assert list(storage.list_keys("default")) == []
        with pytest.raises(InputError):
            storage.get_object("", "key")

    def test_ranges_and_streams(self, storage):
        storage.put_object("bucket", "key", b"0123456789")
        assert storage.get_object("bucket", "key", range=(2, 5)) == b"234"
        assert storage.get_object("bucket", "key", range=(7, None)) == b"789"
        with storage.get_object("bucket", "key", stream=True, range=(8, 100)) as stream:
            assert stream.read() == b"89"

    def test_localhost_has_no_urls(self, storage):
        with pytest.raises(InputError, match="have no URLs"):
            storage.presigned_url("bucket", "key")

    def test_metadata_and_if_absent(self, storage):
        storage.put_object("bucket", "key", "body", metadata={"a": "b"}, if_absent=True)
        with pytest.raises(ObjectExists):
            storage.put_object("bucket", "key", "other", if_absent=True)
        info = storage.head_object("bucket", "key")
        assert (info.size, info.metadata) == (4, {"a": "b"})

    def test_listing_is_lazy_and_deleting_takes_many(self, storage):
        for number in range(20):
            storage.put_object("bucket", f"dir/{number:02d}", b"x" * number)
        keys = storage.list_keys("bucket", "dir/1")
        assert iter(keys) is keys
        assert list(keys) == [f"dir/{number}" for number in range(10, 20)]
        assert [info.size for info in storage.list_objects("bucket", "dir/0")] == list(range(10))
        storage.delete_objects("bucket", storage.list_keys("bucket", "dir/1"))
        storage.delete_object("bucket", "dir/00")
        storage.delete_object("bucket", "missing")
        assert list(storage.list_keys("bucket")) == [f"dir/0{number}" for number in range(1, 10)]
        with pytest.raises(InputError):
            storage.delete_objects("bucket", "dir/01")

    def test_missing_things(self, storage):
        with pytest.raises(NoSuchObject):
            storage.get_object("bucket", "missing")
        with pytest.raises(NoSuchBucket):
            storage.head_bucket("missing")


class TestOpen:
    def test_reading(self, storage):
        storage.put_object("bucket", "key", "zeile 1\r\nzäile 2\n")
        with storage.open("bucket", "key") as file:
            assert file.readlines() == [b"zeile 1\r\n", "zäile 2\n".encode()]
        with storage.open("bucket", "key", "r") as file:
            assert list(file) == ["zeile 1\n", "zäile 2\n"]
        with storage.open("bucket", "key", "r", newline="") as file:
            assert file.readline() == "zeile 1\r\n"
        with storage.open("bucket", "key", start=6, stop=7) as file:
            assert file.read() == b"1"
        with storage.open("bucket", "key", "r", encoding="latin-1", start=9) as file:
            assert file.read() == "zÃ¤ile 2\n"

    @pytest.mark.parametrize("size", [0, 10, 20 * MIB])
    def test_a_written_object_appears_on_close(self, storage, size):
        body = os.urandom(size)
        with storage.open("bucket", "key", "wb") as file:
            for start in range(0, size, MIB):
                assert file.write(memoryview(body)[start : start + MIB]) == min(MIB, size - start)
                assert file.tell() == min(start + MIB, size)
            assert list(storage.list_keys("bucket")) == []
        assert file.closed
        assert storage.get_object("bucket", "key") == body

    def test_writing_text(self, storage):
        with storage.open("bucket", "key", "w") as file:
            print("eins", "zwö", sep="\n", file=file)
        with storage.open("bucket", "latin", "w", encoding="latin-1", newline="\r\n") as file:
            file.write("zwö\n")
        assert storage.get_object("bucket", "key") == "eins\nzwö\n".encode()
        assert storage.get_object("bucket", "latin") == "zwö\r\n".encode("latin-1")

    @pytest.mark.parametrize(("mode", "text"), [("wb", b"part"), ("w", "part")])
    def test_nothing_appears_if_the_block_raises(self, storage, mode, text):
        storage.put_object("bucket", "old", b"old")

        def use(file):
            with file:
                file.write(text)
                file.flush()
                1 // 0

        for key in ("old", "new"):
            file = storage.open("bucket", key, mode)
            with pytest.raises(ZeroDivisionError):
                use(file)
            file.close()
        assert list(storage.list_keys("bucket")) == ["old"]
        assert storage.get_object("bucket", "old") == b"old"

    def test_nothing_appears_if_a_write_fails(self, storage):
        file = storage.open("bucket", "key", "w", encoding="ascii")
        file.write("part")
        with pytest.raises(UnicodeEncodeError), file:
            file.write("é")
        binary = storage.open("bucket", "key", "wb")
        with pytest.raises(TypeError), binary:
            binary.write("text")
        assert list(storage.list_keys("bucket")) == []

    def test_nothing_appears_if_the_temporary_file_is_full(self, storage):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        file = storage.open("bucket", "key", "w")
        file.write("part")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 * MIB, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                file.write("x" * 20 * MIB)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.close()
        assert list(storage.list_keys("bucket")) == []

    @pytest.mark.parametrize(("mode", "text"), [("wb", b"part"), ("w", "part")])
    def test_a_file_that_is_never_closed_is_not_stored_and_says_so(self, storage, mode, text):
        def use():
            storage.open("bucket", "key", mode).write(text)
            gc.collect()

        with pytest.warns(ResourceWarning, match="bucket/key was not stored"):
            use()
        assert list(storage.list_keys("bucket")) == []

    def test_a_failing_store_is_told_by_close_once(self, storage):
        file = storage.open("missing", "key", "wb")
        file.write(b"body")
        with pytest.raises(NoSuchBucket):
            file.close()
        assert file.closed
        file.close()

    def test_closed_files_take_no_more(self, storage):
        with storage.open("bucket", "key", "wb") as file:
            file.write(b"body")
        with pytest.raises(ValueError, match="closed"):
            file.write(b"more")

    def test_programs_write_to_it(self, storage):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        with storage.open("bucket", "t.csv", "w") as file:
            frame.to_csv(file, index=False)
        with storage.open("bucket", "t.pickle", "wb") as file:
            pickle.dump(frame, file)
        with storage.open("bucket", "t.csv") as file:
            assert pandas.read_csv(file).equals(frame)
        with storage.open("bucket", "t.pickle") as file:
            assert pickle.load(file).equals(frame)

    def test_wrong_arguments(self, storage):
        storage.put_object("bucket", "key", b"")
        for mode in ("a", "r+", "x", "", "rw"):
            with pytest.raises(InputError, match="mode"):
                storage.open("bucket", "key", mode)
        with pytest.raises(InputError, match="start and stop"):
            storage.open("bucket", "key", "wb", start=5)
        for mode in ("r", "w"):
            with pytest.raises(LookupError):
                storage.open("bucket", "key", mode, encoding="no such encoding")
        gc.collect()  # the streams are closed: no ResourceWarning


class TestFiles:
    def test_upload(self, storage, home):
        (home / "file.bin").write_bytes(b"body")
        storage.upload_file(home / "file.bin", "bucket")
        storage.upload_file("file.bin", None, "dir/other")
        assert storage.get_object("bucket", "file.bin") == storage.get_object(None, "dir/other") == b"body"

    def test_download(self, storage, home):
        storage.put_object("bucket", "dir/key", b"body")
        (home / "there").mkdir()
        assert storage.download_file("bucket", "dir/key") == "key"
        assert storage.download_file("bucket", "dir/key", "there") == os.path.join("there", "key")
        assert storage.download_file("bucket", "dir/key", home / "new/dir/name") == str(home / "new/dir/name")
        for path in ("key", "there/key", "new/dir/name"):
            assert (home / path).read_bytes() == b"body"
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE((home / "key").stat().st_mode) == 0o666 & ~mask

    def test_progress_counts_every_byte(self, storage, home):
        body = os.urandom(5 * MIB + 3)
        (home / "file").write_bytes(body)
        up, down = [], []
        storage.upload_file("file", "bucket", progress=up.append)
        assert storage.get_object("bucket", "file") == body
        storage.download_file("bucket", "file", "copy", progress=down.append)
        assert (home / "copy").read_bytes() == body
        assert sum(up) == sum(down) == len(body)
        assert len(up) > 1
        assert len(down) > 1

    def test_a_download_that_fails_leaves_the_old_file(self, storage, home):
        storage.put_object("bucket", "key", os.urandom(3 * MIB))
        (home / "key").write_bytes(b"old")

        def stop(count):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.download_file("bucket", "key", progress=stop)
        with pytest.raises(NoSuchObject):
            storage.download_file("bucket", "missing", "new/file")
        assert os.listdir(home) == ["key"]
        assert (home / "key").read_bytes() == b"old"

    def test_an_upload_that_fails_stores_nothing(self, storage, home):
        (home / "file").write_bytes(bytes(3 * MIB))

        def stop(count):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.upload_file("file", "bucket", progress=stop)
        with pytest.raises(FileNotFoundError):
            storage.upload_file("missing", "bucket")
        assert list(storage.list_keys("bucket")) == []

    def test_a_long_name(self, storage, home):
        storage.put_object("bucket", "x" * 255, b"body")
        assert storage.download_file("bucket", "x" * 255) == "x" * 255


def many_keys(path, count):
    storage = Storage(LocalhostStorage(LocalhostStorageOptions(path)), "bucket")
    return [storage.put_cloudobject(b"").key for _ in range(count)]


class TestCloudObjects:
    def test_round_trip(self, storage):
        name = storage.put_cloudobject("body")
        assert (name.backend, name.bucket) == ("LocalhostStorage", "default")
        assert name.key.startswith(CLOUDOBJECTS_PREFIX)
        copy = pickle.loads(pickle.dumps(name))
        assert copy == name
        assert storage.get_cloudobject(copy) == b"body"
        with storage.get_cloudobject(copy, stream=True) as stream:
            assert stream.read() == b"body"

    def test_place_can_be_chosen(self, storage):
        name = storage.put_cloudobject(b"body", "bucket", "dir/key")
        assert name == CloudObject("LocalhostStorage", "bucket", "dir/key")
        assert storage.get_object("bucket", "dir/key") == b"body"
        mine = Storage(storage.backend, "bucket", cloudobject_prefix="mine/")
        assert mine.put_cloudobject(b"body").key.startswith("mine/")

    def test_deleting(self, storage):
        names = [storage.put_cloudobject(b"", bucket) for bucket in (None, "bucket", None)]
        storage.delete_cloudobject(names[0])
        storage.delete_cloudobjects(names)
        assert list(storage.list_keys()) == list(storage.list_keys("bucket")) == []

    def test_objects_of_other_storage_are_refused(self, storage):
        for name in (CloudObject("S3Storage", "bucket", "key"), "key"):
            for use in (storage.get_cloudobject, storage.delete_cloudobject):
                with pytest.raises(InputError):
                    use(name)

    def test_keys_never_collide_between_forks(self, storage, tmp_path):
        with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
            tasks = [pool.submit(many_keys, str(tmp_path / "storage"), 50) for _ in range(8)]
            keys = [key for task in tasks for key in task.result()]
        assert len(set(keys)) == 400
        assert sorted(keys) == list(storage.list_keys("bucket"))
