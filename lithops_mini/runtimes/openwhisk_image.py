"""Images of actions of OpenWhisk: built by a Docker engine, in a repository of the user's."""

from __future__ import annotations

import secrets
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
        """Remove images that no action has any more from the engine, if that is where they are kept."""
        wanted = [name for name in names if name]
        if self._push or not wanted:
            return
        from docker.errors import ImageNotFound

        from lithops_mini.runtimes import engine

        with engine_client(self._section, "the images of the runtime are in a Docker engine") as client:
            for name in wanted:
                with engine.translated(f"remove the image {name}"):
                    try:
                        client.api.remove_image(name, force=True)
                    except ImageNotFound:  # somebody else did
                        continue

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
