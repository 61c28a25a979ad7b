"""Images of functions of AWS Lambda: built by a Docker engine, kept in the account's own registry, under one name."""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import function
from lithops_mini.runtimes.aws import Aws, code_of
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.own_registry import engine_client
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "lithops-mini"
"""The repository of the account that all images of ours are in."""

_TAG = {"Key": "lithops-mini", "Value": "images"}  # of a repository that was made here
_LARGEST = 10 << 30  # bytes of an image, as the engine counts them: Lambda's limit
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}  # the engine's words for Lambda's


@dataclass(frozen=True)
class Image:
    """An image in the registry."""

    uri: str  # with its digest
    size: int  # bytes, compressed
    packages: tuple[str, ...] = ()  # in it, if it was built just now


class FunctionImages:
    """The images of ours in the registry of one account and region. botocore's errors come through.

    ``REPOSITORY`` is made when the first image is built, and goes with the last one.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def find(self, tag: str) -> Image | None:
        """The image with this tag; ``None`` if there is none, or if these credentials may not look for one."""
        try:
            found = self._registry.describe_images(repositoryName=REPOSITORY, imageIds=[{"imageTag": tag}])
        except self._registry.exceptions.ClientError as error:
            # Who may not look has made none: jobs with layers need no rights on images.
            if code_of(error) in ("RepositoryNotFoundException", "ImageNotFoundException", "AccessDeniedException"):
                return None
            raise
        (each,) = found["imageDetails"]
        return Image(f"{self._find_repository()['repositoryUri']}@{each['imageDigest']}", each["imageSizeInBytes"])

    def build(self, recipe: Recipe, setup: function.Setup, why: str, tell: Tell) -> Image:
        """Build the image of ``recipe`` and put it into the registry; the engine is left without it.

        ``why`` begins the error if there is no engine that could. ``ConfigError`` for what the user can put right.
        """
        from lithops_mini.runtimes import engine, image

        tag = function.image_tag(recipe, setup)
        number = secrets.token_hex(8)
        with _engine(setup.architecture, why) as client:
            try:
                built = image.assemble(
                    client,
                    function.image_recipe(recipe),
                    number,
                    tell,
                    files={function.ENTRY_FILE: function.ENTRY},
                    lines=function.IMAGE_LINES,
                )
                made = engine.inspect(client, built)
                assert made is not None
                if made["Size"] > _LARGEST:
                    raise ConfigError(
                        f"the image is {format_size(made['Size'])}, and a function of AWS Lambda may have"
                        f" {format_size(_LARGEST)}: require less"
                    )
                tell(f"Pushing {format_size(made['Size'])} to the registry, as {REPOSITORY}:{tag}")
                try:
                    self._push(client, built, tag)
                finally:
                    with engine.translated("remove the image"):
                        client.api.remove_image(built, force=True)
            finally:
                engine.discard(client, number)
        pushed = self.find(tag)
        if pushed is None:
            raise ConfigError(
                f"the image {REPOSITORY}:{tag} was pushed, and is not there: these credentials may not see it"
            )
        packages = tuple(made["Config"]["Labels"][f"{image.LABEL}.packages"].split())
        return Image(pushed.uri, pushed.size, packages)

    def delete(self, uris: Iterable[str]) -> None:
        """Delete images, unless they are gone, and the repository if it was made here and has no others."""
        digests = [digest for repository, _, digest in (uri.partition("@") for uri in uris) if _is_ours(repository)]
        if not digests:
            return
        registry = self._registry
        with suppress(registry.exceptions.RepositoryNotFoundException):
            wanted = [{"imageDigest": digest} for digest in digests]
            answer = registry.batch_delete_image(repositoryName=REPOSITORY, imageIds=wanted)
            for failure in answer["failures"]:
                if failure["failureCode"] != "ImageNotFound":
                    raise ConfigError(f"an image of {REPOSITORY} cannot be deleted: {failure['failureReason']}")
            arn = self._find_repository()["repositoryArn"]
            if _TAG in registry.list_tags_for_resource(resourceArn=arn)["tags"]:
                with suppress(registry.exceptions.RepositoryNotEmptyException):
                    registry.delete_repository(repositoryName=REPOSITORY)

    def _push(self, client: DockerClient, image: str, tag: str) -> None:
        from lithops_mini.runtimes import engine

        name = self._make_repository()
        token = self._registry.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        user, _, password = b64decode(token).decode().partition(":")
        with engine.translated(f"push an image to {name}"):
            client.api.tag(image, name, tag)
            # Given along, the password is in no file of the user's, where a login would write it.
            who = {"username": user, "password": password}
            for message in client.api.push(name, tag, auth_config=who, stream=True, decode=True):
                if "error" in message:
                    raise ConfigError(f"the image cannot be pushed to {name}: {message['error']}")

    def _find_repository(self) -> Any:
        (found,) = self._registry.describe_repositories(repositoryNames=[REPOSITORY])["repositories"]
        return found

    def _make_repository(self) -> str:
        """The name of the repository for the engine, which has the registry's address in it."""
        registry = self._registry
        try:
            found = self._find_repository()
        except registry.exceptions.RepositoryNotFoundException:
            try:
                found = registry.create_repository(repositoryName=REPOSITORY, tags=[_TAG])["repository"]
            except registry.exceptions.RepositoryAlreadyExistsException:  # somebody else has just made it
                found = self._find_repository()
        return str(found["repositoryUri"])

    @cached_property
    def _registry(self) -> Any:
        return self._aws.client("ecr", retries={"mode": "standard", "total_max_attempts": 6})


def _is_ours(repository: str) -> bool:
    return repository.rpartition("/")[2] == REPOSITORY


@contextmanager
def _engine(architecture: str, why: str) -> Iterator[DockerClient]:
    """A client of the engine that the environment names. ``ConfigError`` if it cannot build for the processor."""
    with engine_client("aws_lambda", why) as client:
        theirs = client.version()["Arch"]
        if theirs != _MACHINES[architecture]:
            raise ConfigError(
                f"{why}, for {architecture}, and the Docker engine's machine is {theirs}: set aws_lambda.architecture"
                f" to {_architecture(theirs)}, or set DOCKER_HOST to an engine on {_MACHINES[architecture]}"
            )
        yield client


def _architecture(machine: str) -> str:
    return next((name for name, each in _MACHINES.items() if each == machine), "its own")
