"""Sandboxes that are containers of a Docker engine of this machine, with what a function is promised and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from docker.errors import APIError
from docker.types import LogConfig, Ulimit

from lithops_mini.emulators.aws.files import Files
from lithops_mini.emulators.aws.functions import Function
from lithops_mini.emulators.aws.images import Images
from lithops_mini.emulators.aws.runtime_api import Invocation
from lithops_mini.emulators.aws.sandbox import NoRuntime, Sandbox
from lithops_mini.emulators.containers import ERRORS, Container, Engine
from lithops_mini.emulators.processes import End
from lithops_mini.runtimes import engine

_VCPU = 1769  # MB of a function's memory for which it has one processor
_USER = "993:990"  # as on AWS: nobody in particular
_PERIOD = 100_000  # microseconds
_INIT_CPUS = 2  # until the runtime is ready
_PROCESSES = 1024
_FILES = 1024
_OUTPUT = "/lithops-mini/output"
_COMMAND = ["python3", "-S", "/var/runtime/bootstrap.py"]


class DockerSandbox(Sandbox):
    """A container: read-only but for ``/tmp``, with the memory and the share of the processors of the function."""

    not_enforced: ClassVar[tuple[str, ...]] = ("a network of its own: a function is in this machine's",)

    def __init__(
        self,
        function: Function,
        files: Files,
        environment: Mapping[str, str],
        engine: Engine,
        images: Images,
        base: str,
    ) -> None:
        self._engine = engine
        self._image = images.name(function.image) if function.image else base
        self._container: Container | None = None
        self._started = False
        self._peak_files: list[str] = []
        super().__init__(function, files, environment)

    def open_output(self) -> tuple[int, int]:
        path = self.directory / "output"
        os.mkfifo(path)
        path.chmod(0o666)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for writing too: so it has no end before ours
        return descriptor, descriptor

    def start(self, environment: dict[str, str]) -> None:
        function = self.function
        command = self._image_command() if function.image else _COMMAND
        binds = {str(self.directory / "output"): _OUTPUT}
        if not function.image:
            files = {self.files.task(function): "/var/task", self.files.layers(function): "/opt"}
            binds |= {f"{path}:ro": target for path, target in {**files, self.files.runtime: "/var/runtime"}.items()}
            environment |= {
                "LAMBDA_TASK_ROOT": "/var/task",
                "LAMBDA_RUNTIME_DIR": "/var/runtime",
                "LITHOPS_MINI_OPT": "/opt",
                "PYTHONPATH": "/var/runtime",
            }
        host = self._engine.api.create_host_config(
            binds=[_bind(source, target) for source, target in binds.items()],
            init=True,
            log_config=LogConfig(type="none"),
            network_mode="host",  # loopback is where the Runtime API and the services are
            mem_limit=function.memory << 20,
            memswap_limit=function.memory << 20,
            cpu_period=_PERIOD,
            cpu_quota=max(self._share(), _INIT_CPUS * _PERIOD),
            pids_limit=_PROCESSES,
            ulimits=[Ulimit(name="nofile", soft=_FILES, hard=_FILES)],
            read_only=True,
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={function.storage}m"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        try:
            with self._engine.starting():
                self._container = Container(
                    self._engine,
                    self._image,
                    host,
                    # What it prints comes through a pipe, complete, before the Runtime API is told of the outcome.
                    entrypoint=["sh", "-c", f'exec "$@" > {_OUTPUT} 2>&1', "sh"],
                    command=command,
                    environment=environment,
                    working_dir=function.directory or (None if function.image else "/var/task"),
                    user=_USER,
                )
                found = self._container.start()
                self._started = True
        except ERRORS as error:
            raise NoRuntime(f"the Docker engine has started no container: {error}") from error
        self._peak_files = list(_peak_files(found["State"]["Pid"]))

    def ready(self) -> None:
        assert self._container is not None
        if self._share() < _INIT_CPUS * _PERIOD:
            with suppress(APIError):  # it has just ended
                self._engine.api.update_container(self._container.id, cpu_quota=self._share())

    def send(self, invocation: Invocation) -> None:
        assert self._container is not None
        self._container.begin()
        super().send(invocation)

    def wait(self) -> End:
        assert self._container is not None
        return self._container.wait()

    def stop(self) -> None:
        if self._container is not None and self._started:
            self._container.kill()
            self.ended.wait()

    def kill(self) -> None:
        super().kill()
        if self._container is not None:
            self._container.remove()

    def peak_memory(self) -> int:
        for path in self._peak_files:
            try:
                return int(Path(path).read_text()) >> 20
            except OSError:  # of the other version of control groups, or gone
                continue
        return 0

    def _share(self) -> int:
        """Microseconds of the processors in each period."""
        return max(round(self.function.memory / _VCPU * _PERIOD), 1000)

    def _image_command(self) -> list[str]:
        """What AWS runs in an image: the function's own settings, and where it has none the image's."""
        found = engine.inspect(self._engine.client, self._image)
        if found is None:
            raise NoRuntime(f"the Docker engine has no image {self._image}")
        config: dict[str, Any] = found["Config"]
        entry_point = list(self.function.entry_point) or config.get("Entrypoint") or []
        return entry_point + (list(self.function.command) or config.get("Cmd") or [])


def _peak_files(pid: int) -> Iterator[str]:
    """Where the kernel may count the memory of a process's control group."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:  # it has ended, or the engine is in a virtual machine
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield f"/sys/fs/cgroup/memory{path}/memory.max_usage_in_bytes"
        elif not controllers:
            yield f"/sys/fs/cgroup{path}/memory.peak"


def _bind(source: str, target: str) -> str:
    path, _, mode = source.partition(":")
    return f"{path}:{target}:{mode or 'rw'}"
