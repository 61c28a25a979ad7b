"""Runtimes: what goes in, the digest that names it, and images on a real Docker engine."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, missing_engine
from docker import DockerClient
from docker_engine import OwnEngine, start_own_docker
from engines import EngineMissing

from lithops_mini import registry
from lithops_mini.config import load
from lithops_mini.errors import ConfigError, InvocationError
from lithops_mini.runtimes import engine, host, image, wheels
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe, this_python
from lithops_mini.runtimes.wheels import Target
from lithops_mini.testing.messages import Messages

QUICK = 5.0  # seconds in which what needs no build is done
HOST = Recipe(base="host")

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of this test's directory, and return its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


# ---------------------------------------------------------------- the bundle


def unpack(directory: Path) -> Path:
    for name, data in bundle().files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def test_the_bundle_alone_runs_messages(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lithops_mini import wire\n"
        "from lithops_mini.worker.call import Jobs\n"
        "payload = bytearray(sys.stdin.buffer.read())\n"
        "outcomes = [wire.encode_outcome(outcome) for outcome in Jobs(None).run(payload, bytes)]\n"
        "sys.stdout.buffer.write(wire.encode_reply('fresh', b''.join(outcomes)))\n"
    )
    config = load(backend="inline", storage="localhost", storage_path=str(tmp_path / "store"))
    storage = registry.find("storage", config.storage)(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    messages = Messages(config, storage)
    payload = messages.payload(lambda size: "x" * size, [3, 200_000])  # the second result goes through the storage
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(unpack(tmp_path / "bundle"))],
        input=payload,
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert messages.values(done.stdout) == ["xxx", "x" * 200_000]


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of lithops_mini that code imports, anywhere in it but for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lithops_mini"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


def test_the_bundle_has_what_it_imports() -> None:
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in bundle().files}
    found = {
        (path, name)
        for path, text in bundle().files.items()
        if path.startswith("lithops_mini/")
        for name in imports(ast.parse(text))
    }
    assert len(found) > 50
    assert {
        (path, name) for path, name in found if name not in modules and name.rpartition(".")[0] not in modules
    } == set()


def test_the_bundle_has_the_worker_and_not_the_client() -> None:
    files = bundle().files
    assert {"lithops_mini/worker/server.py", "lithops_mini/storage/aws_s3.py", "cloudpickle/cloudpickle.py"} <= set(
        files
    )
    assert not [path for path in files if re.match(r"lithops_mini/(cli|job|config|compute|testing|executor)", path)]
    assert sum(map(len, files.values())) < 1 << 20


def test_the_digest_of_the_bundle_is_the_same_in_every_process() -> None:
    program = "from lithops_mini.runtimes.bundle import bundle; print(bundle().digest)"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == bundle().digest


# ---------------------------------------------------------------- the recipe


def test_the_name_has_python_and_digest() -> None:
    recipe = Recipe()
    assert recipe.name == f"lithops-mini/runtime:{this_python()}-{recipe.digest[:12]}"
    assert recipe.base_name == f"python:{this_python()}-slim"


def test_whatever_goes_in_changes_the_digest(write: Write, tmp_path: Path) -> None:
    requirements, dockerfile = write("requirements.txt", "six\n-r more.txt\n"), write("image/Dockerfile", "FROM x\n")
    write("more.txt", "idna\n")
    write("image/data.txt", "1")
    full = Recipe(requirements=requirements, dockerfile=dockerfile, packages=("a==1", "b==1"))
    digests = [Recipe().digest, full.digest]

    def another(recipe: Recipe) -> None:
        digests.append(recipe.digest)

    another(Recipe(python="3.99"))
    another(Recipe(base="debian:12"))
    another(Recipe(base="host"))
    another(Recipe(packages=("a==1",)))
    another(Recipe(requirements=requirements))
    another(dataclasses.replace(full, packages=("a==2", "b==1")))
    write("more.txt", "idna==3.10\n")
    another(dataclasses.replace(full))
    write("image/data.txt", "2")
    another(dataclasses.replace(full))
    write("image/Dockerfile", "FROM y\n")
    another(dataclasses.replace(full))
    (tmp_path / "image" / "data.txt").chmod(0o755)
    another(dataclasses.replace(full))
    write("image/sub/new.txt", "")
    another(dataclasses.replace(full))
    assert len(set(digests)) == len(digests)


def test_what_does_not_go_in_does_not_change_the_digest(write: Write) -> None:
    requirements, dockerfile = write("requirements.txt", "six\n"), write("image/Dockerfile", "FROM x\n")
    write("image/.dockerignore", "# what is large\n*.log\ndata\n")
    before = Recipe(requirements=requirements, dockerfile=dockerfile, packages=("a==1", "b==1"))
    assert before.digest
    write("requirements.txt", "# comment\n\n  six  # needed\n")
    write("image/run.log", "x")
    write("image/data/large.bin", "x")
    after = Recipe(requirements=requirements, dockerfile=dockerfile, packages=("b==1", "a==1"))
    assert after.digest == before.digest


def test_a_wheel_among_the_requirements_counts_by_its_content(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.path.dirname(requirements := write("requirements.txt", "./mine-1.0-py3-none-any.whl\n")))
    digests = []
    for content in ("one", "two"):
        write("mine-1.0-py3-none-any.whl", content)
        digests.append(Recipe(requirements=requirements).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"python": "3"}, "'3' is not a minor version of Python: write one like"),
        ({"requirements": "nowhere.txt"}, "there is no file nowhere.txt"),
        ({"dockerfile": "nowhere/Dockerfile"}, "there is no file nowhere/Dockerfile"),
    ],
)
def test_a_wrong_recipe_is_told(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Recipe(**given)


def test_a_base_that_a_dockerfile_would_not_use_is_told(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"names its own base, so 'host' would not be used; begin it with .*ARG BASE"):
        Recipe(base="host", dockerfile=write("Dockerfile", "FROM python:3.11\n"))
    assert Recipe(base="host", dockerfile=write("Dockerfile", "arg BASE\nFROM ${BASE}\n")).takes_base


def test_a_context_beside_large_data_is_told(write: Write, tmp_path: Path) -> None:
    dockerfile = write("Dockerfile", "FROM x\n")
    with open(tmp_path / "data.bin", "wb") as file:
        file.truncate(600 << 20)
    with pytest.raises(ConfigError, match=r"has more than 500 MiB in it, .*\.dockerignore"):
        assert Recipe(dockerfile=dockerfile).digest
    write(".dockerignore", "data.bin\n")
    assert Recipe(dockerfile=dockerfile).digest


# ---------------------------------------------------------------- packages


def test_wheels_are_those_of_the_target(tmp_path: Path) -> None:
    told: list[str] = []
    target = Target("3.12", "aarch64", "glibc", (2, 28))
    installed = wheels.install(tmp_path, target, told.append, packages=["markupsafe==3.0.2"])
    assert installed == ["MarkupSafe==3.0.2"]
    (binary,) = tmp_path.rglob("*.so")
    assert binary.name == "_speedups.cpython-312-aarch64-linux-gnu.so"
    assert any("markupsafe" in line.lower() for line in told)


@pytest.mark.parametrize(
    ("target", "first", "last"),
    [
        (Target("3.11", "x86_64", "glibc", (2, 26)), "manylinux_2_26_x86_64", "linux_x86_64"),
        (Target("3.11", "aarch64", "glibc", (2, 17)), "manylinux_2_17_aarch64", "linux_aarch64"),
        (Target("3.11", "x86_64", "musl", (1, 2)), "musllinux_1_2_x86_64", "linux_x86_64"),
    ],
)
def test_platforms_of_a_target(target: Target, first: str, last: str) -> None:
    platforms = target.platforms()
    assert (platforms[0], platforms[-1]) == (first, last)
    assert ("manylinux2014_x86_64" in platforms) == (target.libc == "glibc" and target.machine == "x86_64")
    assert "manylinux_2_27_x86_64" not in platforms


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is pip's only index."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


HERE = Target(this_python(), host.MACHINE, "glibc", (2, 36))


def test_a_package_without_a_wheel_is_told(index: Path, tmp_path: Path, write: Write) -> None:
    setup = write("onlysource-1.0/setup.py", "from setuptools import setup\nsetup(name='onlysource', version='1.0')\n")
    with tarfile.open(index / "onlysource-1.0.tar.gz", "w:gz") as tar:
        tar.add(os.path.dirname(setup), "onlysource-1.0")
    requirements = write("requirements.txt", "onlysource>=1\n")
    with pytest.raises(
        ConfigError, match=r"no wheel of onlysource>=1 for Python 3\.\d+ on \w+ with glibc 2\.36; .*-f Dock"
    ):
        wheels.install(tmp_path / "packages", HERE, print, requirements=requirements)


def test_what_pip_refuses_is_told(tmp_path: Path, write: Write) -> None:
    requirements = write("requirements.txt", "this is no requirement\n")
    with pytest.raises(ConfigError, match=r"pip could not install the packages: Invalid requirement"):
        wheels.install(tmp_path / "packages", HERE, print, requirements=requirements)


# ---------------------------------------------------------------- images


def run_in(client: DockerClient, name: str, *command: str) -> str:
    """What a command prints that a container runs as a worker is run: without network, on a read-only root."""
    options: dict[str, Any] = {"network_mode": "none", "read_only": True, "remove": True, "tmpfs": {"/tmp": ""}}
    output: bytes = client.containers.run(name, list(command[1:]), entrypoint=[command[0]], **options)
    return output.decode().strip()


def quietly(_line: str) -> None:
    pass


def derived(client: DockerClient, name: str, *lines: str) -> str:
    """The id of an image made from another by these lines of a Dockerfile."""
    text = "\n".join([f"FROM {name}", *lines]).encode()
    found = client.images.build(fileobj=io.BytesIO(text), rm=True, forcerm=True)
    identity = found[0].id
    assert identity
    return identity


@pytest.fixture
def left(docker_engine: DockerClient) -> Iterator[Callable[[], list[str]]]:
    """What builds have left on the engine since the test began: containers, and images without a name."""
    # Other sessions may use the engine at the same time, so only what this process's builds have marked counts.
    seen: list[str] = []
    numbers = pytest.MonkeyPatch()
    original = image.secrets.token_hex

    def token(size: int) -> str:
        seen.append(original(size))
        return seen[-1]

    numbers.setattr(image.secrets, "token_hex", token)

    def left() -> list[str]:
        found: list[str] = []
        for number in seen:
            label = f"{engine.BUILD_LABEL}={number}"
            found += [each.name or "" for each in docker_engine.containers.list(all=True, filters={"label": label})]
            images = docker_engine.api.images(filters={"label": label, "dangling": True}, quiet=True)
            found += [str(each) for each in images]
        assert seen, "nothing was built"
        return found

    yield left
    numbers.undo()


def test_an_image_runs_the_worker_as_nobody(docker_engine: DockerClient, runtime_image: str) -> None:
    program = "import os, cloudpickle, lithops_mini.worker.call as call; print(os.getuid(), os.getgid(), call.__file__)"
    printed = run_in(docker_engine, runtime_image, "python3", "-c", program)
    assert printed == "65534 65534 /opt/lithops_mini/worker/lithops_mini/worker/call.py"
    attributes = engine.inspect(docker_engine, runtime_image)
    assert attributes is not None
    config = attributes["Config"]
    assert config["Entrypoint"] == ["python3", "-P", "-m", "lithops_mini.worker.server"]
    assert (config["User"], config["StopSignal"], config["Cmd"] or []) == ("65534:65534", "SIGTERM", [])
    assert config["Healthcheck"]["Test"][-1] == "--health"
    assert attributes["Size"] < 80e6


def test_nothing_is_compiled_when_a_worker_starts(docker_engine: DockerClient, runtime_image: str) -> None:
    program = (
        "import os, sys, json, asyncio, lithops_mini.worker.server, lithops_mini.worker.runner\n"
        "print([name for name, module in sys.modules.items() if getattr(module, '__cached__', None)"
        " and not os.path.exists(module.__cached__) and name != '__main__'])"
    )
    assert run_in(docker_engine, runtime_image, "python3", "-c", program) == "[]"


def test_the_packed_python_works(docker_engine: DockerClient, runtime_image: str) -> None:
    program = (
        "import bz2, ctypes, decimal, hashlib, lzma, sqlite3, ssl, subprocess, sys, zlib, zoneinfo, socket, uuid\n"
        "zoneinfo.ZoneInfo('Europe/Berlin')\n"
        "assert len(ssl.create_default_context().get_ca_certs()) > 50\n"
        "assert subprocess.run(['sh', '-c', 'echo $HOME | tr a-z A-Z'], capture_output=True, check=True).stdout\n"
        "assert socket.gethostbyname('localhost') == '127.0.0.1'\n"
        "ctypes.CDLL('libstdc++.so.6'), ctypes.CDLL('libpthread.so.0')\n"
        "assert not [path for path in sys.path if 'root' in path or 'home' in path]\n"
        "print('%d.%d' % sys.version_info[:2], sys.prefix)"
    )
    printed = run_in(docker_engine, runtime_image, "python3", "-c", program).split()
    assert printed == [this_python(), "/usr" if sys.base_prefix == "/usr" else "/usr/local"]


def test_the_python_of_the_distribution_can_be_packed(docker_engine: DockerClient, tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    program = "import sys; from lithops_mini.runtimes import host; host.pack(open(sys.argv[1], 'w+b'))"
    archive = tmp_path / "root.tar"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    recent = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not os.path.exists(python) or subprocess.run([python, "-c", recent], check=False).returncode:
        pytest.skip("needs a Python 3.11 of the distribution")
    subprocess.run([python, "-c", program, str(archive)], env=environment, check=True)
    made = json.loads(docker_engine.api.import_image_from_file(str(archive), changes=list(host.CHANGES)))["status"]
    try:
        printed = run_in(docker_engine, made, "python3", "-c", "import asyncio, ssl, sqlite3, sys; print(sys.prefix)")
        assert printed == "/usr"
    finally:
        docker_engine.images.remove(made)


def test_what_is_there_is_not_built_again(docker_engine: DockerClient, runtime_image: str) -> None:
    told: list[str] = []
    built = image.ensure(docker_engine, dataclasses.replace(HOST), told.append)
    assert (built.name, built.new, told) == (runtime_image, False, [])
    assert built.seconds < QUICK
    image.check(docker_engine, runtime_image)


def test_a_forced_build_replaces_the_image(docker_engine: DockerClient, runtime_image: str, left: Any) -> None:
    recipe = Recipe(base=runtime_image)  # nobody else's, who might use it
    first = image.build(docker_engine, recipe, quietly)
    try:
        before = docker_engine.images.get(first.name)
        second = image.build(docker_engine, recipe, quietly, force=True)
        after = docker_engine.images.get(first.name)
        assert (second.name, second.new, second.size) == (first.name, True, after.attrs["Size"])
        assert before.id != after.id
        assert left() == []
        assert engine.inspect(docker_engine, str(before.id)) is None
    finally:
        image.delete(docker_engine, first.name)


def test_requirements_are_installed_and_a_changed_one_is_another_image(
    docker_engine: DockerClient, runtime_image: str, write: Write
) -> None:
    names = []
    try:
        for version in ("3.0.1", "3.0.2"):
            recipe = Recipe(base="host", requirements=write("requirements.txt", f"markupsafe=={version}\n"))
            told: list[str] = []
            built = image.ensure(docker_engine, recipe, told.append)
            names.append(built.name)
            assert built.new
            assert any(line.startswith("Step ") for line in told)
            program = (
                "import markupsafe, importlib.metadata as m; print(m.version('markupsafe'), markupsafe.escape('<'))"
            )
            assert run_in(docker_engine, built.name, "python3", "-c", program) == f"{version} &lt;"
            (found,) = [each for each in image.images(docker_engine) if each.name == built.name]
            assert found.packages == (f"MarkupSafe=={version}",)
            assert found.base == host.name()
            assert found.current
        assert len({*names, runtime_image}) == 3
    finally:
        for name in names:
            image.delete(docker_engine, name)
    assert not {each.name for each in image.images(docker_engine)} & set(names)


def test_nothing_of_the_clients_pip_is_in_the_image(
    docker_engine: DockerClient, runtime_image: str, index: Path, write: Write
) -> None:
    wheel = index / "withscript-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("withscript.py", "def main(): print('it runs')\n")
        info = "withscript-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: withscript\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: me\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nwithscript = withscript:main\n")
        archive.writestr(f"{info}/RECORD", "")
    built = image.ensure(docker_engine, Recipe(base="host", packages=("withscript",)), quietly)
    try:
        assert run_in(docker_engine, built.name, "withscript") == "it runs"
        found = run_in(docker_engine, built.name, "sh", "-c", f"grep -rlF {str(index)!r} /opt/lithops_mini /etc; true")
        assert found == ""
        assert str(index) not in json.dumps(docker_engine.api.history(built.name))
    finally:
        image.delete(docker_engine, built.name)


def test_a_dockerfile_of_the_users_is_built_first(
    docker_engine: DockerClient, runtime_image: str, write: Write, left: Any
) -> None:
    dockerfile = write(
        "image/Dockerfile",
        "ARG BASE\nFROM ${BASE}\nENV PYTHONPATH=/app GREETING=hello\nCOPY mine.py /app/mine.py\nUSER 1234\n",
    )
    write("image/mine.py", "answer = 42\n")
    built = image.ensure(docker_engine, Recipe(base="host", dockerfile=dockerfile), quietly)
    try:
        program = "import os, mine, lithops_mini.worker.call; print(os.getuid(), mine.answer, os.environ['GREETING'])"
        assert run_in(docker_engine, built.name, "python3", "-c", program) == "1234 42 hello"
        assert left() == []
    finally:
        image.delete(docker_engine, built.name)


def test_a_step_that_fails_shows_the_end_of_its_log(
    docker_engine: DockerClient, runtime_image: str, write: Write, left: Any
) -> None:
    dockerfile = write("Dockerfile", "ARG BASE\nFROM ${BASE}\nRUN echo so far so good && exit 3\n")
    recipe = Recipe(base="host", dockerfile=dockerfile)
    with pytest.raises(
        ConfigError, match=r"(?s)Dockerfile cannot be built: .*returned a non-zero code: 3.*so far so good"
    ):
        image.ensure(docker_engine, recipe, quietly)
    assert left() == []
    assert engine.inspect(docker_engine, recipe.name) is None


@pytest.mark.parametrize("step", ["COPY worker", "RUN", "ENTRYPOINT", "LABEL lithops-mini.python"])
def test_an_interrupted_build_leaves_nothing(
    docker_engine: DockerClient, runtime_image: str, left: Any, step: str
) -> None:
    def interrupt(line: str) -> None:
        if f": {step}" in line:
            raise KeyboardInterrupt

    recipe = Recipe(base=runtime_image)  # an image on another is one as well, and this one has a digest of its own
    with pytest.raises(KeyboardInterrupt):
        image.ensure(docker_engine, recipe, interrupt)
    assert left() == []
    assert engine.inspect(docker_engine, recipe.name) is None


def test_a_base_that_cannot_be_had_is_told(docker_engine: DockerClient) -> None:
    recipe = Recipe(base="localhost:1/nobody/nothing:1.0")
    with pytest.raises(
        ConfigError, match=r"localhost:1/nobody/nothing:1\.0 is not on .* pulled; .*--base IMAGE.*--base host"
    ):
        image.ensure(docker_engine, recipe, quietly)


def test_a_base_without_python_is_told(docker_engine: DockerClient, runtime_image: str, left: Any) -> None:
    base = derived(docker_engine, host.name(), "RUN rm /usr/local/bin/python* || rm /usr/bin/python*")
    try:
        with pytest.raises(ConfigError, match=r"has no python3 that could be run"):
            image.ensure(docker_engine, Recipe(base=base), quietly)
        assert left() == []
    finally:
        docker_engine.images.remove(base)


def test_a_base_of_another_python_is_told(docker_engine: DockerClient, runtime_image: str, left: Any) -> None:
    with pytest.raises(ConfigError, match=rf"has Python {this_python()}, and the runtime is to have 3\.99: .*--python"):
        image.ensure(docker_engine, Recipe(base=host.name(), python="3.99"), quietly)
    with pytest.raises(ConfigError, match=rf"'host' has this machine's Python {this_python()}, not 3\.99"):
        image.ensure(docker_engine, Recipe(base="host", python="3.99"), quietly)
    assert left() == []


def test_images_that_calls_cannot_run_in_are_told(docker_engine: DockerClient, runtime_image: str) -> None:
    command = "lithops-mini runtime build -p prod"
    other = derived(docker_engine, runtime_image, "LABEL lithops-mini.python=3.9")
    stale = derived(docker_engine, runtime_image, "LABEL lithops-mini.bundle=0 lithops-mini.version=0.0.9")
    try:
        expected = {
            "lithops-mini/runtime:gone": r"no image lithops-mini/runtime:gone; pull it, or make it with: ",
            host.name(): r"is no runtime of lithops_mini; make one with: ",
            other: rf"has Python 3\.9, and functions pickled by this Python {this_python()} cannot .* with: ",
            stale: r"of lithops_mini 0\.0\.9, is not the one of this lithops_mini .*; make the image again with: ",
        }
        for name, says in expected.items():
            with pytest.raises(ConfigError, match=says + re.escape(command)):
                image.check(docker_engine, name, command)
    finally:
        docker_engine.images.remove(other)
        docker_engine.images.remove(stale)


def test_what_is_not_ours_or_in_use_is_not_deleted(docker_engine: DockerClient, runtime_image: str) -> None:
    with pytest.raises(ConfigError, match="is no runtime of lithops_mini, and is not deleted"):
        image.delete(docker_engine, host.name())
    with pytest.raises(ConfigError, match="has no image lithops-mini/runtime:gone"):
        image.delete(docker_engine, "lithops-mini/runtime:gone")
    docker_engine.images.get(runtime_image).tag("lithops-mini-test/used", "1")
    container = docker_engine.containers.create("lithops-mini-test/used:1")
    try:
        used = derived(docker_engine, runtime_image, "LABEL one=more")
        held = docker_engine.containers.create(used)
        try:
            with pytest.raises(InvocationError, match="is in use"):
                image.delete(docker_engine, used)
        finally:
            held.remove()
            docker_engine.images.remove(used)
    finally:
        container.remove()
        docker_engine.images.remove("lithops-mini-test/used:1")


# ---------------------------------------------------------------- the command


def lithops_mini(*arguments: str, code: int = 0, answer: str = "", **environment: str) -> str:
    """What a command prints, on both streams; it must end with ``code``."""
    done = subprocess.run(
        [sys.executable, "-m", "lithops_mini", *arguments],
        capture_output=True,
        text=True,
        input=answer,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def configured(write: Write) -> str:
    """A configuration file with the docker backend and the base ``host``."""
    return write("lithops_mini.yaml", "profiles:\n  default:\n    backend: docker\n    docker:\n      base: host\n")


def test_the_commands(docker_engine: DockerClient, runtime_image: str, configured: str, write: Write) -> None:
    requirements = write("requirements.txt", "markupsafe==3.0.2\n")
    assert f"{runtime_image} is there" in lithops_mini("runtime", "build", "-c", configured)
    printed = lithops_mini("runtime", "build", "-c", configured, "--requirements", requirements)
    match = re.search(r"Built (\S+): [\d.]+ MiB, [\d.]+ s", printed)
    assert match
    assert re.search(r" s  Step \d+/\d+ : ", printed)
    name = match[1]
    try:
        assert re.search(rf"{name} .* current", lithops_mini("runtime", "list", "-c", configured))
        listed = [json.loads(line) for line in lithops_mini("runtime", "list", "-c", configured, "--json").splitlines()]
        assert {(each["name"], each["current"]) for each in listed} >= {(name, True), (runtime_image, True)}
        assert "MarkupSafe==3.0.2" in lithops_mini("runtime", "info", "-c", configured, name)
        assert f"name          {runtime_image}" in lithops_mini("runtime", "info", "-c", configured)
        assert json.loads(lithops_mini("runtime", "info", "-c", configured, name, "--json"))["python"] == this_python()
    finally:
        assert f"Deleted {name}" in lithops_mini("runtime", "delete", "-c", configured, name)
    assert name not in lithops_mini("runtime", "list", "-c", configured)
    gone = lithops_mini("runtime", "info", "-c", configured, name, code=1)
    assert f"there is no runtime {name}; lithops-mini runtime list shows" in gone


def test_commands_used_wrongly(docker_engine: DockerClient, runtime_image: str, configured: str, write: Write) -> None:
    assert "name the runtimes to delete" in lithops_mini("runtime", "delete", "-c", configured, code=2)
    assert "add --yes" in lithops_mini("runtime", "delete", "--all", "-c", configured, code=2)
    assert "builds no runtime" in lithops_mini("runtime", "list", "-b", "localhost", code=1)
    dockerfile = write("Dockerfile", "ARG BASE\nFROM ${BASE}\nRUN echo the last words; exit 1\n")
    printed = lithops_mini("runtime", "build", "-c", configured, "-f", dockerfile, code=1)
    assert "Error: " in printed
    assert "the last words" in printed


def test_interrupt_ends_a_build(docker_engine: DockerClient, runtime_image: str, configured: str, write: Write) -> None:
    marker = os.urandom(4).hex()
    dockerfile = write("Dockerfile", f"ARG BASE\nFROM ${{BASE}}\nLABEL marker={marker}\nRUN sleep 600\n")
    command = [sys.executable, "-m", "lithops_mini", "runtime", "build", "-c", configured, "-f", dockerfile]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        filters: dict[str, Any] = {"label": f"marker={marker}"}
        deadline = time.monotonic() + 60
        while not docker_engine.containers.list(filters=filters):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    deadline = time.monotonic() + 20
    while docker_engine.containers.list(
        all=True, filters=filters
    ):  # the engine ends it when it sees that nobody listens
        assert time.monotonic() < deadline
    docker_engine.images.prune(filters={"label": f"marker={marker}"})


@pytest.fixture
def own_engine() -> Iterator[OwnEngine]:
    try:
        with start_own_docker() as engine:
            yield engine
    except EngineMissing as error:
        missing_engine(str(error))


def test_update_builds_and_deletes_what_is_stale(
    docker_engine: DockerClient, runtime_image: str, own_engine: OwnEngine, configured: str
) -> None:
    with_host = {"DOCKER_HOST": own_engine.host}
    client = DockerClient(own_engine.host)
    try:
        client.images.load(b"".join(docker_engine.images.get(host.name()).save(named=True)))  # type: ignore[arg-type]
        assert "There are no runtimes" in lithops_mini("runtime", "list", "-c", configured, **with_host)
        printed = lithops_mini("runtime", "update", "-c", configured, **with_host)  # nothing to ask about
        assert f"Built {runtime_image}" in printed
        for tag in ("stale", "used"):
            stale = derived(client, runtime_image, f"LABEL lithops-mini.bundle={tag}")
            client.api.tag(stale, "lithops-mini/runtime", tag)
        user = client.containers.create("lithops-mini/runtime:used")
        assert "add --yes" in lithops_mini("runtime", "update", "-c", configured, code=2, **with_host)
        printed = lithops_mini("runtime", "update", "-c", configured, "--yes", **with_host)
        assert f"{runtime_image} is there" in printed
        assert "Deleted lithops-mini/runtime:stale" in printed
        assert re.search(r"Kept lithops-mini/runtime:used: .* is in use", printed)
        assert {each.name for each in image.images(client)} == {runtime_image, "lithops-mini/runtime:used"}
        user.remove()
        lithops_mini("runtime", "delete", "--all", "--yes", "-c", configured, **with_host)
        assert client.images.list(all=True) == []  # the base is gone with the last one on it
    finally:
        client.close()


def test_the_dockerfile_of_the_repository_is_the_packages() -> None:
    link = REPOSITORY / "runtimes" / "docker" / "Dockerfile"
    assert link.resolve() == REPOSITORY / "lithops_mini" / "runtimes" / "Dockerfile"
