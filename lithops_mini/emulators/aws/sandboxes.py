"""What makes sandboxes: processes, or containers of the engine of this machine."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from lithops_mini.emulators.aws.account import Roles
from lithops_mini.emulators.aws.files import Files
from lithops_mini.emulators.aws.functions import Function
from lithops_mini.emulators.aws.registry import Registry
from lithops_mini.emulators.aws.sandbox import NoRuntime, ProcessSandbox, Sandbox
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.recipe import this_python

if TYPE_CHECKING:
    from lithops_mini.emulators.aws.images import Images
    from lithops_mini.emulators.containers import Engine

KINDS = ("docker", "process")
_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}  # Lambda's words for what uname says


class Sandboxes:
    """Makes sandboxes of one kind. ``ConfigError`` if there can be none here; ``close`` when all of them are gone."""

    def __init__(self, kind: str, registry: Registry, tell: Tell) -> None:
        if kind not in KINDS:
            raise ConfigError(f"there are no sandboxes of the kind {kind!r}; there are {', '.join(KINDS)}")
        self._engine: Engine | None = None
        self._images: Images | None = None
        self._roles = Roles()
        self.not_enforced = ProcessSandbox.not_enforced
        if kind == "docker":
            from lithops_mini.emulators.aws.docker_sandbox import DockerSandbox
            from lithops_mini.emulators.aws.images import Images
            from lithops_mini.emulators.containers import Engine

            self._engine = Engine()
            self._images = Images(self._engine.client, registry)
            self._base = self._engine.base_image(tell)
            self.not_enforced = DockerSandbox.not_enforced
        self._files = Files(link=kind == "process")

    def make(self, function: Function, endpoint: str) -> Sandbox:
        """A sandbox of the function, which finds the services at ``endpoint``. ``NoRuntime`` if it cannot run here."""
        machine = _MACHINES.get(platform.machine(), platform.machine())
        if function.architecture != machine:
            raise NoRuntime(f"the emulator runs on {machine}, and the function is for {function.architecture}")
        if not function.image and function.runtime != f"python{this_python()}":
            raise NoRuntime(f"the emulator runs python{this_python()}, and the function is for {function.runtime}")
        variables = {**self._roles.session(function.role).variables(), "AWS_ENDPOINT_URL": endpoint}
        if self._engine is not None and self._images is not None:
            from lithops_mini.emulators.aws.docker_sandbox import DockerSandbox

            return DockerSandbox(function, self._files, variables, self._engine, self._images, self._base)
        if function.image:
            raise NoRuntime("an image cannot run in a process: start the emulator with --sandbox docker")
        return ProcessSandbox(function, self._files, variables)

    def image_size(self, uri: str) -> int:
        """Bytes of an image, unpacked; 0 if it cannot run here. ``NoRuntime`` if there is none."""
        return self._images.size(uri) if self._images is not None else 0

    def end(self) -> None:
        """Make no more containers; who waits for its turn is told so."""
        if self._engine is not None:
            self._engine.end()

    def close(self) -> None:
        self._files.close()
        if self._images is not None:
            self._images.close()
        if self._engine is not None:
            self._engine.close()
