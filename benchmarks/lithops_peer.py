"""Lithops, in an environment of its own: in containers of a Docker engine, and in functions of AWS Lambda.

In containers it is its localhost backend with an image as its runtime. Version 1 of that backend starts a container for
each job, with processes for its calls. Version 2, its default, has one container for all jobs, and in it a process for
each call, started by `docker exec`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import docker.errors
from measure import DATA, WORKERS

from lithops_mini.runtimes import image
from lithops_mini.runtimes.recipe import HOST, Recipe

VERSION = "3.8.0"
ENGINES = Path(__file__).parent.parent / "build" / "engines"
PROGRAM = Path(__file__).with_name("lithops_program.py")
LAMBDA_PROGRAM = Path(__file__).with_name("lithops_lambda_program.py")
_LIMIT = 600.0  # seconds until an answer that does not come will not come
# It starts its containers with bash, which the base has not.
_DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY bash /bin/bash
COPY libraries /usr/local/lib/bash
ENV LD_LIBRARY_PATH=/usr/local/lib/bash
"""


def tell(line: str) -> None:
    print(line, file=sys.stderr)


def install(extra: str = "") -> Path:
    """The interpreter that Lithops, with what is optional for ``extra``, is installed for."""
    ENGINES.mkdir(parents=True, exist_ok=True)
    target = ENGINES / f"lithops-{VERSION}{extra and '-'}{extra}"
    what = f"lithops[{extra}]=={VERSION}" if extra else f"lithops=={VERSION}"
    python = target / "bin" / "python"
    with open(ENGINES / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-qq", what], check=True)
            (target / "complete").touch()
    return python


def build(client: docker.DockerClient) -> str:
    """The name of an image with the base of our workers, and in it what Lithops needs in one of its own."""
    context = ENGINES / f"lithops-{VERSION}" / "image"
    libraries = context / "libraries"
    libraries.mkdir(parents=True, exist_ok=True)
    bash = shutil.which("bash")
    assert bash is not None
    shutil.copyfile(bash, context / "bash")
    (context / "bash").chmod(0o755)
    listing = subprocess.run(["ldd", bash], check=True, capture_output=True, text=True).stdout
    for path in re.findall(r"=> (/\S+)", listing):
        if "/libc.so" not in path:
            shutil.copyfile(path, libraries / os.path.basename(path))
    (context / "Dockerfile").write_text(_DOCKERFILE)
    recipe = Recipe(base=HOST, dockerfile=str(context / "Dockerfile"), packages=(f"lithops=={VERSION}",))
    return image.ensure(client, recipe, tell).name


class Lithops:
    """A program with an executor of its own."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def seconds(self, calls: int) -> float:
        """How long so many calls take, from the first that is made to the last result."""
        return float(self.ask(calls))

    def ask(self, calls: int) -> str:
        """What the program answers to a number of calls."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(_LIMIT, self._process.kill)
        watchdog.start()
        try:
            print(calls, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not answer:
            raise TimeoutError(
                f"Lithops returned no {calls} results; its log ends with\n{self._log.read_text()[-2000:]}"
            )
        return answer


@contextmanager
def start(python: Path, client: docker.DockerClient, image_name: str, version: int) -> Iterator[Lithops]:
    """One with this version of its backend. It leaves no container behind."""
    directory = str(DATA / "lithops")  # the /tmp of its containers; what it knows of the image it keeps there
    os.makedirs(directory, exist_ok=True)
    environment = os.environ | {"TMPDIR": directory, "HOME": directory, "WORKERS": str(WORKERS)}
    try:
        with _program([str(python), str(PROGRAM), image_name, str(version)], environment) as lithops:
            yield lithops
    finally:
        for left in client.containers.list(all=True, ignore_removed=True, filters={"ancestor": image_name}):
            with suppress(docker.errors.APIError):  # it is being removed already
                left.remove(force=True)


@contextmanager
def _program(command: list[str], environment: Mapping[str, str]) -> Iterator[Lithops]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        open(DATA / "lithops.log", "w") as log,
        subprocess.Popen(command, **pipes, stderr=log, text=True, env=environment) as process,
    ):
        try:
            yield Lithops(process, Path(log.name))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def first_result(python: Path, client: docker.DockerClient, image_name: str, version: int) -> float:
    """Seconds from the start of a program to its first result."""
    started = time.perf_counter()
    with start(python, client, image_name, version) as lithops:
        lithops.seconds(1)
        return time.perf_counter() - started


# -- in functions of AWS Lambda


def layer(python: Path) -> Path:
    """A zip of what Lithops needs in its functions, as its own configuration lists it."""
    target = python.parent.parent / "layer"
    archive = target.with_suffix(".zip")
    if not archive.exists():
        module = "lithops.serverless.backends.aws_lambda.config"
        code = f"from {module} import DEFAULT_REQUIREMENTS as names; print('\\n'.join(names))"
        listing = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout
        install = ["-m", "pip", "install", "-qq", "--target", str(target / "python"), *listing.split()]
        subprocess.run([str(python), *install], check=True)
        shutil.make_archive(str(target), "zip", target)
    return archive


@contextmanager
def start_on_lambda(
    account: Mapping[str, str], role: str, memory: int, bucket: str, workers: int, interval: float
) -> Iterator[Lithops]:
    """One whose functions, of so many MB, are those of an emulator. ``interval``: seconds between its looks."""
    python = install("aws")
    DATA.mkdir(exist_ok=True)
    directory = str(DATA / "lithops")
    os.makedirs(directory, exist_ok=True)
    environment = os.environ | {
        "TMPDIR": directory,
        "HOME": directory,
        "AWS_ENDPOINT_URL": account["endpoint_url"],
        "AWS_DEFAULT_REGION": account["region"],
        "AWS_ACCESS_KEY_ID": account["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": account["secret_access_key"],
    }
    arguments = [role, str(memory), bucket, str(workers), str(interval), str(layer(python))]
    with _program([str(python), str(LAMBDA_PROGRAM), *arguments], environment) as lithops:
        yield lithops
