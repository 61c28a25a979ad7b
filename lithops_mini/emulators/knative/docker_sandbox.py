"""Containers of pods that are containers of the Docker engine of this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from docker.errors import APIError
from docker.types import LogConfig
from docker.utils.socket import frames_iter

from lithops_mini.emulators.containers import ERRORS, Container, Engine
from lithops_mini.emulators.knative.logs import Log
from lithops_mini.emulators.knative.sandbox import CannotStart, Program, Sandbox, expanded, free_port

_PROCESSES = 4096


class DockerSandbox(Sandbox):
    """A container with the limits of what it is in its pod.

    ``network``: ``"bridge"``, where it listens on the port that the revision says, or ``"host"``, where it listens on a
    free one that PORT names. ``mounts``: directories of this machine that it sees too; then its user is the emulator's.
    """

    not_enforced: ClassVar[tuple[str, ...]] = (
        "pulling: images are those that this machine's Docker engine has, under the name that a service gives",
        "volumes but empty directories",
    )

    def __init__(self, program: Program, log: Log, engine: Engine, network: str, mounts: Sequence[str]) -> None:
        self._engine = engine
        self._network = network
        self._mounts = mounts
        self._container: Container | None = None
        self._started = False
        super().__init__(program, log)

    def start(self) -> None:
        program = self.program
        port = free_port() if self._network == "host" else program.port
        environment = {**program.environment, "PORT": str(port)}
        host = self._engine.api.create_host_config(
            binds=[f"{path}:{path}" for path in self._mounts],
            log_config=LogConfig(type="none"),
            network_mode=self._network,
            mem_limit=program.memory or None,
            memswap_limit=program.memory or None,
            nano_cpus=round(program.processors * 1e9) or None,
            pids_limit=_PROCESSES,
            read_only=program.read_only,
            tmpfs={path: f"rw,exec,mode=1777,{f'size={size}' if size else ''}" for path, size in program.empty.items()},
            cap_drop=["ALL"] if program.drop_all else None,
        )
        settings: dict[str, Any] = {"environment": environment}
        if program.command:  # the image's own arguments do not count then
            settings |= {"entrypoint": expanded(list(program.command), environment), "command": []}
        if program.arguments:
            settings["command"] = expanded(list(program.arguments), environment)
        if program.directory:
            settings["working_dir"] = program.directory
        user = program.user if program.user is not None else os.getuid() if self._mounts else None
        if user is not None:
            settings["user"] = f"{user}:{os.getgid()}" if self._mounts else str(user)
        try:
            with self._engine.starting():
                self._container = Container(self._engine, program.image, host, **settings)
                output = self._engine.api.attach_socket(self._container.id, {"stdout": 1, "stderr": 1, "stream": 1})
                found = self._container.start()
        except ERRORS as error:
            text = error.explanation if isinstance(error, APIError) else str(error)
            raise CannotStart(str(text or error)) from error
        self._started = True
        address = "127.0.0.1"
        if self._network != "host":
            address = next(each["IPAddress"] for each in found["NetworkSettings"]["Networks"].values())
        self.address = (address, port)
        threading.Thread(target=self._follow, args=(self._container, output), name="container", daemon=True).start()

    def terminate(self) -> None:
        assert self._container is not None
        with suppress(APIError):  # it has just ended
            self._engine.api.kill(self._container.id, "SIGTERM")

    def stop(self) -> None:
        if self._container is not None and self._started:
            self._container.kill()
            self.ended.wait()

    def remove(self) -> None:
        if self._container is not None:
            self._container.remove()

    def _follow(self, container: Container, output: Any) -> None:
        """Read what it prints, until its end."""
        with output:
            for _, data in frames_iter(output, tty=False):  # type: ignore[no-untyped-call]
                self.log.write(data)
        self.finish(container.wait())
