"""Containers of a Docker engine of this machine in which an emulator runs code of others."""

from __future__ import annotations

import os
from typing import Any

import docker
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from lithops_mini.emulators.processes import End, signal_name
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import engine
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.recipe import HOST, Recipe

LABEL = "lithops-mini"
"""Every container has this label, with the value ``"emulator"``."""
OWNER = "lithops-mini.process"
"""And this one, with the number of the emulator's process: others may run beside it."""


def connect() -> DockerClient:
    """A client of the engine of this machine. ``ConfigError`` if none answers, or it is another machine's."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except (DockerException, RequestException) as error:
        raise ConfigError(f"no Docker engine answers ({error}); start one, or take --sandbox process") from error
    if not client.api.base_url.startswith(("http+docker://", "unix://")):
        client.close()
        raise ConfigError(
            "the Docker engine is another machine's, and sandboxes share files with it: unset DOCKER_HOST"
        )
    return client


def base_image(client: DockerClient, tell: Tell) -> str:
    """The image for functions that are zips: this machine's Python, packed when it is first asked for."""
    return engine.base_image(client, Recipe(base=HOST), tell)


class Container:
    """A container that is made, and started when ``start`` says so."""

    def __init__(self, client: DockerClient, image: str, host_config: Any, **settings: Any) -> None:
        """``settings``: those of the engine's API for a new container."""
        self._client = client
        labels = {LABEL: "emulator", OWNER: str(os.getpid())}
        made = client.api.create_container(image, labels=labels, host_config=host_config, **settings)
        self.id: str = made["Id"]

    def start(self) -> dict[str, Any]:
        """Start it, and return what the engine knows of it then."""
        self._client.api.start(self.id)
        found: dict[str, Any] = self._client.api.inspect_container(self.id)
        return found

    def wait(self) -> End:
        """Return when it has ended."""
        code = self._client.api.wait(self.id, timeout=None)["StatusCode"]
        if self._client.api.inspect_container(self.id)["State"]["OOMKilled"]:
            return End("signal: killed", out_of_memory=True, code=code)
        if code > 128:
            return End(f"signal: {signal_name(code - 128)}", code=code)
        return End(f"exit status {code}" if code else "", code=code)

    def kill(self) -> None:
        """Kill it; also if it has ended by itself."""
        try:
            self._client.api.kill(self.id)
        except APIError as error:
            if error.status_code not in (404, 409):
                raise

    def remove(self) -> None:
        """Remove it; also twice."""
        try:
            self._client.api.remove_container(self.id, force=True)
        except NotFound:
            return
