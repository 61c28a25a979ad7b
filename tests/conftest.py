"""What every test may rely on: a home directory of its own, and one rule for engines that are not there."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NoReturn

import docker
import pytest
from docker import DockerClient
from docker_engine import start_docker
from engines import Engine, EngineMissing, install_swift, start_moto, start_swift
from hypothesis import settings
from proxy import Proxy
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import lithops_mini as lm
from lithops_mini.job import keys
from lithops_mini.runtimes import image
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import StorageBackend

# The contracts are tests, although they are shipped; said before any test module imports them.
pytest.register_assert_rewrite("lithops_mini.testing.compute", "lithops_mini.testing.storage")

# How long one example takes is no promise, and on a busy machine it may be long.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Whoever starts the tests in the background has them, and all they start, ignore Ctrl-C: which is tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()
REPOSITORY = Path(__file__).resolve().parent.parent


@cache
def _uses_docker(path: Path) -> bool:
    return bool(re.search(r"\b(docker_engine|runtime_image)\b", path.read_text()))


class _ByModule(LoadScopeScheduling):
    """Which tests run in one process, where there are several: those of a module, and all that use a Docker engine."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "docker" if _uses_docker(self.config.rootpath / module) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByModule:
    config.option.loadscopereorder = False
    return _ByModule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that use a Docker engine begin, since they take longest."""
    items.sort(key=lambda item: not _uses_docker(item.path))


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home directory and no ``LITHOPS_MINI_*`` variable: tests neither see nor touch the user's own things."""
    directory = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("LITHOPS_MINI_"):
                patch.delenv(name)
        patch.setenv("HOME", str(directory))
        keys.job_key("")  # a process keeps its secret: that of a test with a home of its own would be all others'
        yield directory


@pytest.fixture(scope="module")
def workers() -> Iterator[lm.FunctionExecutor]:
    """An executor for the tests of a module, whose calls run in two other processes."""
    with lm.localhost_executor(max_workers=2, progress=False) as executor:
        yield executor


@pytest.fixture(scope="module", params=["localhost", "inline"])
def executor(request: pytest.FixtureRequest) -> Iterator[lm.FunctionExecutor]:
    """Executors for the tests of a module, which run on each; a module may have another one."""
    if request.param == "localhost":
        yield request.getfixturevalue("workers")
    else:
        with lm.function_executor("inline", progress=False) as inline:
            yield inline


def missing_engine(what: str) -> NoReturn:
    """A service a test needs cannot be started here: a loud skip on a laptop, a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def swift() -> Iterator[Engine]:
    """OpenStack Swift with its S3 API: checks signatures."""
    try:
        install_swift()
    except EngineMissing as error:
        missing_engine(str(error))
    with start_swift() as engine:
        yield engine


@pytest.fixture(scope="session")
def moto() -> Iterator[Engine]:
    """moto's server: exact conditional writes, IAM policies."""
    with start_moto() as engine:
        yield engine


@pytest.fixture
def proxy(swift: Engine) -> Iterator[Proxy]:
    """A proxy before Swift, which does what a test says."""
    with Proxy(swift) as proxy:
        yield proxy
    assert proxy.errors == []


@pytest.fixture(params=["aws", "cos"])
def backend(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[StorageBackend]:
    """The backends of the S3 family, behind the proxy; a module may have others."""
    import test_storage_s3

    storage: StorageBackend = getattr(test_storage_s3, request.param)(proxy.engine)
    yield storage
    storage.close()


@pytest.fixture
def bucket(backend: StorageBackend) -> str:
    """An empty bucket."""
    name = f"proxied-{next(_numbers)}"
    backend.create_bucket(name)
    return name


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerClient]:
    """A client of a Docker engine: of the one here, or of one that ends with the session."""
    with ExitStack() as stack:
        try:
            variables = stack.enter_context(start_docker())
        except EngineMissing as error:
            missing_engine(str(error))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        client = docker.from_env()
        stack.callback(client.close)
        yield client


@pytest.fixture(scope="session")
def runtime_image(docker_engine: DockerClient) -> str:
    """The image that workers of ``base="host"`` run in, built once: no registry is needed for it."""
    return image.ensure(docker_engine, Recipe(base="host"), print).name
