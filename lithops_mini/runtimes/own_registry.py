"""Images in a repository of the user's: a Docker engine builds them, and sends them to its registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lithops_mini.errors import ConfigError

if TYPE_CHECKING:
    from docker import DockerClient

_ENGINE_LIMIT = 600  # seconds for which an engine may say nothing


@contextmanager
def engine_client(section: str, why: str) -> Iterator[DockerClient]:
    """A client of the engine that the environment names. ``ConfigError`` if there is none.

    ``section``: of the configuration. ``why`` begins the error.
    """
    try:
        import docker
        from docker.errors import DockerException
        from requests.exceptions import RequestException
    except ImportError as error:
        raise ConfigError(f"{why}; it is built with the Docker SDK: pip install 'lithops_mini[docker]'") from error
    try:
        client = docker.from_env(timeout=_ENGINE_LIMIT)
    except (DockerException, RequestException) as error:
        raise ConfigError(
            f"{why}, and no Docker engine answers to build it ({error}): start one, or set DOCKER_HOST, or run"
            f" 'lithops-mini runtime build -b {section}' where there is one; what it makes is used from anywhere"
        ) from error
    try:
        yield client
    finally:
        client.close()


def is_pushed(client: DockerClient, name: str) -> bool:
    """Whether the registry has the image, as far as it tells this engine."""
    from docker.errors import APIError

    from lithops_mini.runtimes import engine

    with engine.translated(f"look for {name} in its registry"):
        try:
            client.api.inspect_distribution(name)  # type: ignore[no-untyped-call]
        except APIError:  # it has none, or says so to nobody who may not push either
            return False
        return True


def push(client: DockerClient, name: str, who: str) -> None:
    """Send an image of the engine to its registry, and take this name from it here. ``who`` pulls it from there."""
    from lithops_mini.runtimes import engine

    repository, _, tag = name.rpartition(":")
    with engine.translated(f"push the image {name}"):
        for message in client.api.push(repository, tag, stream=True, decode=True):
            if "error" in message:
                raise ConfigError(
                    f"the image cannot be pushed to {name}: {message['error']}; if it needs no registry, because"
                    f" {who} uses this very engine, set push to false"
                )
        client.api.remove_image(name, force=True)
