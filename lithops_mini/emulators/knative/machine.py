"""The only node of the cluster: what makes sandboxes, and which images there are."""

from __future__ import annotations

import platform
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lithops_mini.emulators.knative.logs import Log
from lithops_mini.emulators.knative.sandbox import ProcessSandbox, Program, Sandbox
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import engine

if TYPE_CHECKING:
    from lithops_mini.emulators.containers import Engine

KINDS = ("docker", "process")
NETWORKS = ("host", "bridge")


class Machine:
    """Makes sandboxes of one kind. ``ConfigError`` if there can be none here; ``close`` when all of them are gone."""

    def __init__(self, kind: str, network: str, mounts: Sequence[str]) -> None:
        for given, known, what in ((kind, KINDS, "sandboxes of the kind"), (network, NETWORKS, "network")):
            if given not in known:
                raise ConfigError(f"there is no {what} {given!r}; there are {', '.join(known)}")
        self.name = socket.gethostname().lower()
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        names = {"arch": machine, "os": "linux", "hostname": self.name}
        self.labels = {f"kubernetes.io/{name}": value for name, value in names.items()}
        self._engine: Engine | None = None
        self._network = network
        self._mounts = tuple(mounts)
        self.not_enforced = ProcessSandbox.not_enforced
        if kind == "docker":
            from lithops_mini.emulators.containers import Engine
            from lithops_mini.emulators.knative.docker_sandbox import DockerSandbox

            self._engine = Engine()
            self.not_enforced = DockerSandbox.not_enforced
            if network == "host":
                self.not_enforced += ("a network of its own: a container is in this machine's",)

    def image(self, name: str) -> str | None:
        """The digest of an image; ``None`` if there is none of this name."""
        if self._engine is None:
            return "sha256:" + "0" * 64
        found = engine.inspect(self._engine.client, name)
        return None if found is None else str(found["Id"])

    def run(self, program: Program, log: Log) -> Sandbox:
        """A container that has been started. ``CannotStart``."""
        if self._engine is None:
            return ProcessSandbox(program, log)
        from lithops_mini.emulators.knative.docker_sandbox import DockerSandbox

        return DockerSandbox(program, log, self._engine, self._network, self._mounts)

    def end(self) -> None:
        """Make no more containers; who waits for its turn is told so."""
        if self._engine is not None:
            self._engine.end()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
