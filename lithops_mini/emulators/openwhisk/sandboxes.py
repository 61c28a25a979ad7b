"""What makes sandboxes: processes, or containers of the engine of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lithops_mini.emulators.openwhisk.entities import BLACKBOX, Action, Exec
from lithops_mini.emulators.openwhisk.refusals import Refused
from lithops_mini.emulators.openwhisk.sandbox import ProcessSandbox, Sandbox
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell

if TYPE_CHECKING:
    from lithops_mini.emulators.containers import Engine

KINDS = ("docker", "process")
NETWORKS = ("bridge", "host")


class Sandboxes:
    """Makes sandboxes of one kind. ``ConfigError`` if there can be none here; ``close`` when all of them are gone."""

    def __init__(self, kind: str, network: str, tell: Tell) -> None:
        for given, known, what in ((kind, KINDS, "kind of sandboxes"), (network, NETWORKS, "network")):
            if given not in known:
                raise ConfigError(f"there is no {what} {given!r}; there are {', '.join(known)}")
        self._engine: Engine | None = None
        self._network = network
        self.not_enforced = ProcessSandbox.not_enforced
        if kind == "docker":
            from lithops_mini.emulators.containers import Engine
            from lithops_mini.emulators.openwhisk.docker_sandbox import DockerSandbox

            self._engine = Engine()
            self._base = self._engine.base_image(tell)
            self.not_enforced = DockerSandbox.not_enforced

    def check(self, chosen: Exec) -> None:
        """``Refused`` for what no sandbox here can run."""
        if chosen.kind == BLACKBOX and self._engine is None:
            text = "The emulator runs actions in processes, which cannot run images: start it with --sandbox docker."
            raise Refused(400, text)

    def make(self, action: Action, endpoint: str) -> Sandbox:
        """A sandbox of the action, which is told the ``endpoint`` of the API. ``NoSandbox`` if it cannot be."""
        if self._engine is None:
            return ProcessSandbox(action, endpoint)
        from lithops_mini.emulators.openwhisk.docker_sandbox import DockerSandbox

        return DockerSandbox(action, endpoint, self._engine, self._base, self._network)

    def end(self) -> None:
        """Make no more containers; who waits for its turn is told so."""
        if self._engine is not None:
            self._engine.end()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
