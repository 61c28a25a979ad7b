"""Images of actions of OpenWhisk: built by a Docker engine, in a repository of the user's."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.own_registry import engine_client, is_pushed, push
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger("lithops_mini.openwhisk")

# Seconds for which the containers that use an image may need to end, and between two tries: OpenWhisk ends those of an
# action that is gone some time after.
_PATIENCE, _PAUSE = 15.0, 0.5


@dataclass(frozen=True)
class Image:
    """An image that OpenWhisk can use."""

    name: str
    size: int = 0  # bytes, if it is in the engine
    packages: tuple[str, ...] = ()  # likewise


def end_of_dockerfile() -> str:
    """What the Dockerfile of an action's image has after that of every runtime."""
    return resources.files(__package__).joinpath("openwhisk.Dockerfile").read_text("utf-8")


class ActionImages:
    """The images in one repository. What has the right name is right."""

    def __init__(self, section: str, repository: str | None, *, push: bool) -> None:
        """``section``: of the configuration, for errors. ``push``: whether they go to the repository's registry."""
        self._section = section
        self._repository = repository
        self._push = push

    def ensure(self, recipe: Recipe, tag: str, why: str, tell: Tell) -> Image:
        """The image of ``recipe`` with this tag, built and pushed if it is not there.

        ``why`` begins the error if that cannot be. ``ConfigError`` for what the user can put right.
        """
        if self._repository is None:
            raise ConfigError(
                f"{why}: set {self._section}.image to a repository that you may push to and OpenWhisk pulls from, as in"
                " name/lithops-mini"
            )
        name = f"{self._repository}:{tag}"
        with engine_client(self._section, why) as client:
            if self._push and is_pushed(client, name):
                return Image(name)
            if (there := _described(client, name)) is None:
                tell(f"{why[0].upper()}{why[1:]}")
                self._build(client, recipe, name, tell)
                there = _described(client, name)
                assert there is not None
            if self._push:
                tell(f"Pushing {format_size(there.size)} to {name}")
                push(client, name, "OpenWhisk")
            return there

    def forget(self, names: Iterable[str]) -> None:
        """Remove images that no action has any more from the engine, if that is where they are kept.

        One that a container goes on to use keeps its name, and a warning says so.
        """
        wanted = [name for name in names if name]
        if self._push or not wanted:
            return
        with engine_client(self._section, "the images of the runtime are in a Docker engine") as client:
            for name in wanted:
                _remove(client, name)

    def _build(self, client: DockerClient, recipe: Recipe, name: str, tell: Tell) -> None:
        from lithops_mini.runtimes import engine, image

        number = secrets.token_hex(8)
        try:
            built = image.assemble(client, recipe, number, tell, lines=end_of_dockerfile())
            repository, _, tag = name.rpartition(":")
            with engine.translated(f"name the image {name}"):
                client.api.tag(built, repository, tag)
        except BaseException:
            engine.discard(client, number)
            raise


def _described(client: DockerClient, name: str) -> Image | None:
    """The image in the engine, if it is one of ours."""
    from lithops_mini.runtimes import engine, image

    found = engine.inspect(client, name)
    if found is None:
        return None
    labels: dict[str, Any] = found["Config"].get("Labels") or {}
    return Image(name, int(found["Size"]), tuple(labels.get(f"{image.LABEL}.packages", "").split()))


def _remove(client: DockerClient, name: str) -> None:
    from docker.errors import APIError

    from lithops_mini.runtimes import engine

    until = time.monotonic() + _PATIENCE
    with engine.translated(f"remove the image {name}"):
        while True:
            try:
                client.api.remove_image(name)  # by force it would lose its name, and stay without
                return
            except APIError as error:
                if error.status_code == 404:  # somebody else did
                    return
                if error.status_code != 409:
                    raise
                if time.monotonic() > until:
                    text = "the image %s stays, since a container still uses it (%s): remove it later by docker rmi %s"
                    logger.warning(text, name, error.explanation, name)
                    return
            threading.Event().wait(_PAUSE)
