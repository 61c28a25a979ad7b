"""Images of functions on the engine that sandboxes are made by."""

from __future__ import annotations

import threading

from docker import DockerClient
from docker.errors import APIError

from lithops_mini.emulators.aws.registry import LAMBDA, USER, Registry
from lithops_mini.emulators.aws.sandbox import NoRuntime
from lithops_mini.errors import InvocationError
from lithops_mini.runtimes import engine


class Images:
    """Images pulled from the registry, each once, and removed by ``close``; and those that the engine has anyway."""

    def __init__(self, client: DockerClient, registry: Registry) -> None:
        self._client = client
        self._registry = registry
        self._password = registry.token(LAMBDA)
        self._lock = threading.Lock()
        self._pulled: set[str] = set()

    def name(self, uri: str) -> str:
        """The name by which the engine knows the image, once it is there. ``NoRuntime`` if there is none."""
        found = self._registry.find(uri)
        if found is None:
            return uri
        repository, image = found
        if image is None:
            raise NoRuntime(f"the image {uri} is not in the registry any more")
        name = f"{repository.uri}@{image.get_image_digest()}"
        with self._lock:
            if name not in self._pulled:
                self._pull(name)
                self._pulled.add(name)
        return name

    def size(self, uri: str) -> int:
        """Bytes of the image, unpacked. ``NoRuntime`` if there is none."""
        found = engine.inspect(self._client, self.name(uri))
        if found is None:
            raise NoRuntime(f"the Docker engine has no image {uri}")
        return int(found["Size"])

    def close(self) -> None:
        for name in self._pulled:
            try:
                self._client.api.remove_image(name)
            except APIError as error:
                if error.status_code not in (404, 409):  # it is gone, or somebody runs it
                    raise

    def _pull(self, name: str) -> None:
        who = {"username": USER, "password": self._password}
        try:
            with engine.translated(f"pull {name}"):
                for message in self._client.api.pull(name, auth_config=who, stream=True, decode=True):
                    if "error" in message:
                        raise NoRuntime(f"the image {name} cannot be pulled: {message['error']}")
        except InvocationError as error:
            raise NoRuntime(str(error)) from error
