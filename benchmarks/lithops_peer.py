"""Lithops on a Docker engine: its localhost backend with an image as its runtime.

Version 1 of that backend starts a container for each job, with processes for its calls. Version 2, its default, has
one container for all jobs, and in it a process for each call, started by `docker exec`.
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
from collections.abc import Iterator
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


def install() -> Path:
    """The interpreter that Lithops is installed for, in an environment of its own."""
    ENGINES.mkdir(parents=True, exist_ok=True)
    target = ENGINES / f"lithops-{VERSION}"
    python = target / "bin" / "python"
    with open(ENGINES / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-qq", f"lithops=={VERSION}"], check=True)
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
        return float(answer)


@contextmanager
def start(python: Path, client: docker.DockerClient, image_name: str, version: int) -> Iterator[Lithops]:
    """One with this version of its backend. It leaves no container behind."""
    directory = str(DATA / "lithops")  # the /tmp of its containers; what it knows of the image it keeps there
    os.makedirs(directory, exist_ok=True)
    environment = os.environ | {"TMPDIR": directory, "HOME": directory, "WORKERS": str(WORKERS)}
    command = [str(python), str(PROGRAM), image_name, str(version)]
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
            for left in client.containers.list(all=True, ignore_removed=True, filters={"ancestor": image_name}):
                with suppress(docker.errors.APIError):  # it is being removed already
                    left.remove(force=True)


def first_result(python: Path, client: docker.DockerClient, image_name: str, version: int) -> float:
    """Seconds from the start of a program to its first result."""
    started = time.perf_counter()
    with start(python, client, image_name, version) as lithops:
        lithops.seconds(1)
        return time.perf_counter() - started
