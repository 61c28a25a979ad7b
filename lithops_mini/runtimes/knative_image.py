"""Images that a cluster pulls: those of the docker backend, in a repository that a configuration names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.own_registry import engine_client, is_pushed, push
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger("lithops_mini.knative")

LOCAL = "dev.local/lithops-mini"
"""The repository of images that are in no registry: Knative does not look for one of this host."""

_SECTION = "knative"


@dataclass(frozen=True)
class Image:
    """An image by the name that the cluster pulls it by."""

    name: str
    size: int = 0  # bytes, if an engine here has it
    packages: tuple[str, ...] = ()  # likewise


class ServiceImages:
    """The images of one configuration."""

    def __init__(self, image: str | None, *, push: bool) -> None:
        """``image``: a repository, or with a tag or a digest an image that is used as it is. ``push``: whether images
        are sent to a registry; ``False``: the cluster has those of the engine.
        """
        if image is None and push:
            raise ConfigError(
                "knative.image is not set: name a repository that you may push to and the cluster pulls from, as in"
                " registry.example.com/team/lithops-mini, or an image that is there; or, where the cluster has the"
                " images of the Docker engine, set knative.push to false"
            )
        self._image = image or LOCAL
        self._push = push

    @property
    def is_given(self) -> bool:
        """Whether it is one image, whatever is in it."""
        return "@" in self._image or ":" in self._image.rpartition("/")[2]

    def name(self, recipe: Recipe) -> str:
        """The name by which the cluster pulls the image of ``recipe``."""
        return self._image if self.is_given else f"{self._image}:{recipe.python}-{recipe.digest[:12]}"

    def ensure(self, recipe: Recipe, tell: Tell) -> Image:
        """The image, built and pushed if it is not there and an engine is; one that was given is taken as it is."""
        name = self.name(recipe)
        if self.is_given:
            return Image(name)
        try:
            with engine_client(_SECTION, f"the image {name} may have to be built") as client:
                if self._push and is_pushed(client, name):
                    return Image(name)
                return self._make(client, recipe, tell, force=False)
        except ConfigError as error:
            if error.__cause__ is None or not _is_missing_engine(error.__cause__):
                raise
            # The cluster tells, if it is not.
            tell(f"No Docker engine is here: the image {name} is taken to be there")
            return Image(name)

    def build(self, recipe: Recipe, tell: Tell, *, force: bool) -> Image:
        """Build the image and push it, also one that was given by its tag."""
        name = self.name(recipe)
        if "@" in name:
            raise ConfigError(f"{name} names what an image has in it, and is not built: leave its digest out")
        with engine_client(_SECTION, f"the image {name} is to be built") as client:
            if self._push and not force and not self.is_given and is_pushed(client, name):
                tell(f"{name} is in its registry")
                return Image(name)
            return self._make(client, recipe, tell, force=force)

    def _make(self, client: DockerClient, recipe: Recipe, tell: Tell, *, force: bool) -> Image:
        from lithops_mini.runtimes import engine, image

        name = self.name(recipe)
        built = image.build(client, recipe, tell, force=force)
        found = engine.inspect(client, built.name)
        assert found is not None
        repository, _, tag = name.rpartition(":")
        with engine.translated(f"name the image {name}"):
            client.api.tag(built.name, repository, tag)
        if self._push:
            tell(f"Pushing {format_size(built.size)} to {name}")
            push(client, name, "the cluster")
        packages = tuple(found["Config"]["Labels"].get(f"{image.LABEL}.packages", "").split())
        return Image(name, built.size, packages)


def _is_missing_engine(cause: BaseException) -> bool:
    from requests.exceptions import RequestException

    if isinstance(cause, ImportError):
        return True
    from docker.errors import APIError, DockerException

    return isinstance(cause, DockerException | RequestException) and not isinstance(cause, APIError)
