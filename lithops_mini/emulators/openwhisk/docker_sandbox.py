"""Sandboxes that are containers of a Docker engine of this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from docker.errors import APIError, ImageNotFound
from docker.types import LogConfig, Ulimit
from docker.utils.socket import STDOUT, frames_iter

from lithops_mini.emulators.containers import ERRORS, Container, Engine
from lithops_mini.emulators.openwhisk.entities import BLACKBOX, Action
from lithops_mini.emulators.openwhisk.sandbox import RUNTIME, Answer, NoSandbox, Sandbox, connect_to_file

_PORT = 8080  # of the contract
_PROCESSES = 1024
_FILES = 1024
_RUNTIME = "/lithops-mini/action_runtime.py"
_DIRECTORY = "/lithops-mini/socket"


class DockerSandbox(Sandbox):
    """A container with the memory of its action, made of this machine's Python or of the action's own image."""

    not_enforced: ClassVar[tuple[str, ...]] = (
        "a network of its own for Python actions: they are in this machine's",
        "an action's share of the processors",
    )

    def __init__(self, action: Action, endpoint: str, engine: Engine, base: str, network: str) -> None:
        """``network``: of containers of images, ``"bridge"`` or ``"host"``."""
        self._engine = engine
        self._base = base
        self._network = network if action.exec.kind == BLACKBOX else "host"
        self._container: Container | None = None
        self._started = False
        self._address = ("127.0.0.1", _PORT)
        super().__init__(action, endpoint)

    def start(self) -> None:
        image, settings, binds = self._base, self._runtime(), self._binds()
        if self.action.exec.kind == BLACKBOX:
            image, settings, binds = self.action.exec.image, {}, {}
            if self._network == "host":
                self._address = ("127.0.0.1", _free_port())
                self.variables["PORT"] = str(self._address[1])
        memory = self.action.limits.memory << 20
        host = self._engine.api.create_host_config(
            binds=[f"{source}:{target}" for source, target in binds.items()],
            init=True,
            log_config=LogConfig(type="none"),
            network_mode=self._network,
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=_PROCESSES,
            ulimits=[Ulimit(name="nofile", soft=_FILES, hard=_FILES)],
            cap_drop=["NET_RAW", "NET_ADMIN"],
            security_opt=["no-new-privileges"],
        )
        output = None
        try:
            with self._engine.starting():
                self._container = Container(self._engine, image, host, environment=self.variables, **settings)
                output = self._engine.api.attach_socket(self._container.id, {"stdout": 1, "stderr": 1, "stream": 1})
                found = self._container.start()
                self._started = True
        except ImageNotFound as error:
            raise NoSandbox(f"Failed to pull container image '{image}'.", developer=True) from error
        except ERRORS as error:
            # An image whose program cannot be run is the developer's fault.
            mine = isinstance(error, APIError) and error.status_code == 400
            raise NoSandbox("Failed to provision resources to run the action.", developer=mine) from error
        finally:
            if output is not None and not self._started:
                output.close()
        threading.Thread(target=self._follow, args=(self._container, output), name="sandbox", daemon=True).start()
        if self._network != "host":
            addresses = [each["IPAddress"] for each in found["NetworkSettings"]["Networks"].values()]
            self._address = (next(iter(addresses), ""), _PORT)

    def stop(self) -> None:
        if self._container is not None:
            if self._started:
                self._container.kill()
                self.ended.wait()
            self._container.remove()

    def post(self, path: str, value: Any, limit: float, *, wait: bool = False) -> Answer:
        assert self._container is not None
        self._container.begin()
        return super().post(path, value, limit, wait=wait)

    def connect(self, limit: float) -> socket.socket:
        if self.action.exec.kind == BLACKBOX:
            if not self._address[0]:  # it has ended at once
                raise ConnectionRefusedError(self.action.exec.image)
            return socket.create_connection(self._address, limit)
        return connect_to_file(self.directory / "socket" / "socket", limit)

    def _runtime(self) -> Mapping[str, Any]:
        return {"command": ["python3", "-S", _RUNTIME, f"{_DIRECTORY}/socket"], "working_dir": "/"}

    def _binds(self) -> dict[Path | str, str]:
        directory = self.directory / "socket"
        directory.mkdir()
        directory.chmod(0o777)  # whoever may not enter the one around it does not come here
        return {f"{RUNTIME}": f"{_RUNTIME}:ro", directory: _DIRECTORY}

    def _follow(self, container: Container, output: Any) -> None:
        """Read what it prints, until its end."""
        with output:
            for stream, data in frames_iter(output, tty=False):  # type: ignore[no-untyped-call]
                self.output.feed("stdout" if stream == STDOUT else "stderr", data)
        self.output.end()
        self.watch(container.wait())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
