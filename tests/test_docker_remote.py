"""An engine that is elsewhere: the one of the tests, behind a door of ours that speaks TLS, as remote ones do."""

from __future__ import annotations

import asyncio
import gc
import getpass
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import docker
import pytest
from conftest import missing_engine
from docker_engine import start_sshd
from engines import Engine, EngineMissing

import lithops_mini as lm
from lithops_mini.compute.docker import DockerCompute, DockerOptions
from lithops_mini.errors import ConfigError, InputError

pytestmark = pytest.mark.usefixtures("runtime_image")
LIMIT = 60.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is its own authority, for both sides, under the names that Docker's clients look for."""
    directory = tmp_path_factory.mktemp("certificates")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        *subject,
        "-out",
        str(directory / "cert.pem"),
    ]
    subprocess.run([*command, "-keyout", str(directory / "key.pem")], check=True, capture_output=True)
    (directory / "ca.pem").write_bytes((directory / "cert.pem").read_bytes())
    return directory


class Door:
    """Carries bytes between TLS connections of clients with a certificate and the socket of an engine."""

    def __init__(self, engine: str, certificates: Path) -> None:
        self._engine = engine
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
        self._context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_unix_connection(self._engine)
        try:
            await asyncio.gather(self._carry(reader, to_engine, writer), self._carry(from_engine, writer, to_engine))
        except asyncio.CancelledError:
            return  # the door closes
        finally:
            for each in (writer, to_engine):
                each.transport.abort()

    @staticmethod
    async def _carry(source: asyncio.StreamReader, *sinks: asyncio.StreamWriter) -> None:
        """Until one side ends; then both have."""
        try:
            while data := await source.read(1 << 16):
                sinks[0].write(data)
                await sinks[0].drain()
        except OSError:
            pass  # it broke off
        finally:
            for sink in sinks:
                sink.close()

    def __enter__(self) -> Door:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(3):  # what was aborted is closed in the next turns of the loop
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(LIMIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def socket_of(engine: docker.DockerClient) -> str:
    path: str = engine.api.adapters["http+docker://"].socket_path
    return path


@pytest.fixture
def settings(
    docker_engine: docker.DockerClient, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    with Door(socket_of(docker_engine), certificates) as door:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{door.port}")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # the SDK would prefer them
            monkeypatch.delenv(name, raising=False)
        yield {"backend": "docker", "base": "host", "max_workers": 2, "progress": False}


@pytest.fixture
def executor(settings: dict[str, Any], tmp_path: Path) -> Iterator[lm.FunctionExecutor]:
    with lm.function_executor(**settings, storage="localhost", storage_path=str(tmp_path / "storage")) as executor:
        yield executor


def test_what_fits_in_messages_needs_no_storage(executor: lm.FunctionExecutor) -> None:
    assert executor.get_result(executor.map(lambda x: x * x, range(500))) == [x * x for x in range(500)]
    assert executor.get_result(executor.map_reduce(lambda x: x, range(50), sum, spawn_reducer=20)) == sum(range(50))
    large = executor.map(lambda data: data[::-1], [bytes([n]) * 300_000 for n in range(8)], chunksize=1)
    assert executor.get_result(large) == [bytes([n]) * 300_000 for n in range(8)]


def line_of(executor: lm.FunctionExecutor, host: str | None = None) -> str:
    """What a call prints, as somebody else sees it while the container lives."""
    backend = DockerCompute(DockerOptions(host=host))
    lines: SimpleQueue[tuple[str, int, str]] = SimpleQueue()
    try:
        with backend.tail(lambda *line: lines.put(line)):
            future = executor.submit(print, "said there")
            return next(line for job, _, line in iter(lambda: lines.get(timeout=LIMIT), None) if job == future.job_id)
    finally:
        backend.close()


def test_what_is_printed_there_is_seen_here(executor: lm.FunctionExecutor) -> None:
    assert line_of(executor) == "said there"


def test_calls_are_stopped_there_too(executor: lm.FunctionExecutor) -> None:
    def long() -> None:
        import time

        time.sleep(50)

    futures = [executor.submit(long) for _ in range(4)]
    while not futures[0].running():
        pass
    for future in futures:
        future.cancel()
    assert executor.submit(abs, -1).result(20) == 1


def test_what_does_not_fit_is_refused_before_anything_runs(executor: lm.FunctionExecutor) -> None:
    text = r"an input takes [\d.]+ \w+, messages to docker have room for .*configure an object storage"
    with pytest.raises(InputError, match=text):
        executor.submit(len, bytes(1 << 20))
    text = "x" * (1 << 20)
    with pytest.raises(InputError, match="the function with its modules takes"):
        executor.submit(lambda: len(text))
    executor.storage.create_bucket("data")
    executor.storage.put_object("data", "key", b"text")
    with pytest.raises(InputError, match="'data/key' is in the storage of this machine"):
        executor.map(lambda obj: None, "data/key")


def test_what_turns_out_not_to_fit_is_one_clear_error(executor: lm.FunctionExecutor) -> None:
    with pytest.raises(ConfigError, match="do not reach") as caught:
        executor.submit(bytes, 2 << 20).result(LIMIT)
    assert "that travel in a reply" in str(caught.value)
    with pytest.raises(ConfigError, match="do not reach"):
        executor.submit(lambda storage: storage.list_buckets()).result(LIMIT)


def test_an_object_storage_has_no_such_limits(settings: dict[str, Any], swift: Engine) -> None:
    keys = {"access_key_id": swift.access_key_id, "secret_access_key": swift.secret_access_key}
    aws = {"region": swift.region, "endpoint_url": swift.url} | keys
    config = {"storage": "aws_s3", "storage_bucket": "remote-jobs", "aws": aws}
    with lm.function_executor(**settings, config=config, network="host") as executor:
        assert len(executor.submit(bytes, 2 << 20).result(LIMIT)) == 2 << 20
        assert executor.submit(len, bytes(1 << 20)).result(LIMIT) == 1 << 20


@pytest.fixture(scope="module")
def by_ssh(docker_engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the engine as one to which ssh leads."""
    try:
        with start_sshd(tmp_path_factory.mktemp("ssh")) as (port, programs), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
            yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{socket_of(docker_engine)}"
    except EngineMissing as error:
        missing_engine(str(error))


def test_an_engine_by_ssh(by_ssh: str, tmp_path: Path) -> None:
    settings = {"backend": "docker", "base": "host", "max_workers": 12, "progress": False, "host": by_ssh}
    with lm.function_executor(**settings, storage_path=str(tmp_path / "storage")) as executor:
        futures = executor.map(lambda x: x * x, range(100))
        assert executor.get_result(futures) == [x * x for x in range(100)]
        with pytest.raises(ConfigError, match="do not reach"):
            executor.submit(bytes, 2 << 20).result(LIMIT)
        together = executor.map(time.sleep, [0.5] * 12, chunksize=1)
        executor.get_result(together)
        assert len({future.stats.worker_id for future in together if future.stats}) > 10  # a session each is too many
        assert line_of(executor, by_ssh) == "said there"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "Could not resolve hostname"),
        (lambda url: url.replace("@127", "-nobody@127"), "Permission denied"),
        (lambda url: "ssh://", "names no host"),
        (lambda url: url + ".missing", "no Docker engine ssh://"),
    ],
    ids=["host", "user", "none", "socket"],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ssh_that_leads_nowhere(by_ssh: str, change: Callable[[str], str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        lm.docker_executor(host=change(by_ssh))
    gc.collect()
