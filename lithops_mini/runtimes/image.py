"""Runtime images on a Docker engine: built when they are missing, found out when they are wrong, listed, deleted."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from docker import DockerClient
from docker.errors import APIError
from docker.utils.build import create_archive

from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import engine, host, wheels
from lithops_mini.runtimes.base import Built, Runtime, Runtimes, Tell
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe, dockerfile, pinned, this_python
from lithops_mini.version import __version__

LABEL = "lithops-mini"
"""Every image of ours has this label, with the value ``"runtime"``; its containers have it too unless given another."""

USER = "65534:65534"
"""Who runs the worker, unless a Dockerfile of the user's says who: nobody."""

_BUILD_COMMAND = "lithops-mini runtime build -b docker"
_ABANDONED = 3600.0  # seconds after which an image without a name is nobody's who is still building
_MODIFIED = 1_000_000_000  # of the files in an image; what counts is in its digest


class Images(Runtimes):
    """The runtime images of one engine, for one configuration."""

    def __init__(self, client: DockerClient, recipe: Recipe, name: str | None = None) -> None:
        """``name``: an image name besides the one with the digest."""
        self._client = client
        self._recipe = recipe
        self._name = name

    def recipe(self, packages: Iterable[str]) -> Recipe:
        return replace(self._recipe, packages=pinned(packages))

    def name(self, recipe: Recipe) -> str:
        return self._name or recipe.name

    def build(self, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
        built = build(self._client, recipe, tell, force=force)
        if not self._name:
            return built
        repository, tag = _split(self._name)
        with engine.translated(f"name the image {self._name}"):
            self._client.api.tag(built.name, repository, tag)
        return replace(built, name=self._name)

    def list(self) -> list[Runtime]:
        return images(self._client)

    def delete(self, name: str) -> None:
        delete(self._client, name)


def ensure(client: DockerClient, recipe: Recipe, tell: Tell) -> Built:
    """Build the image of ``recipe`` if the engine has none of its name."""
    return build(client, recipe, tell)


def build(client: DockerClient, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
    """Build the image of ``recipe``, unless it is there; with ``force`` also then, on a base that is pulled again.

    The image has its name when it is complete. A build that fails or is interrupted leaves nothing, except for finished
    steps of the user's Dockerfile in the engine's cache. ``ConfigError`` for what the user can put right.
    """
    began = time.monotonic()
    there = engine.inspect(client, recipe.name)
    if there is not None and not force:
        return Built(recipe.name, there["Size"], time.monotonic() - began, new=False)
    number = secrets.token_hex(8)
    try:
        image = assemble(client, recipe, number, tell, renew=force)
        before = engine.inspect(client, recipe.name)  # also what another process has built meanwhile
        repository, tag = _split(recipe.name)
        with engine.translated(f"name the image {recipe.name}"):
            client.api.tag(image, repository, tag)
            if before is not None:
                _remove_unused(client, before["Id"])
    except BaseException:
        engine.discard(client, number)
        raise
    made = engine.inspect(client, image)
    return Built(recipe.name, made["Size"] if made else 0, time.monotonic() - began, new=True)


def assemble(
    client: DockerClient,
    recipe: Recipe,
    number: str,
    tell: Tell,
    *,
    renew: bool = False,
    files: Mapping[str, bytes] = MappingProxyType({}),
    lines: str = "",
) -> str:
    """Build the image of ``recipe``, without a name, and return its id. ``engine.discard`` removes what is left of it.

    ``number``: of this build. ``renew``: on a base that is pulled again. ``files``: beside the worker's, by their
    paths. ``lines``: of a Dockerfile, after our own.
    """
    base = engine.base_image(client, recipe, tell, renew=renew) if recipe.takes_base else ""
    if recipe.dockerfile:
        base = _build_users(client, recipe, base, tell)
    target = engine.probe(client, base, number)
    if target.python != recipe.python:
        where = recipe.dockerfile or f"the base image {base}"
        raise ConfigError(
            f"{where} has Python {target.python}, and the runtime is to have {recipe.python}: functions run only in "
            f"the minor version that pickled them; take a base with Python {recipe.python}, or build with --python "
            f"{target.python} if your programs run on that"
        )
    with tempfile.TemporaryDirectory(prefix="lithops-mini-build-") as directory, tempfile.TemporaryFile() as context:
        packages = Path(directory)
        tell(f"Base {base}: {target}")
        installed = wheels.install(packages, target, tell, requirements=recipe.requirements, packages=recipe.packages)
        labels = {
            "python": target.python,
            "version": __version__,
            "bundle": bundle().digest,
            "recipe": recipe.digest,
            "base": os.path.basename(recipe.dockerfile) if recipe.dockerfile else base,
            "packages": " ".join(installed),
        }
        _write_context(context, packages, labels, files, lines)
        arguments = {"BASE": base, "BUILD": number, "USER": _user(client, base)}
        return engine.build(client, context, tell, dockerfile="Dockerfile", arguments=arguments, offline=True)


def check(client: DockerClient, name: str, command: str = _BUILD_COMMAND) -> None:
    """Return if calls of this process can run in the image ``name``; ``ConfigError`` says why not, and what to run.

    ``command`` is what builds such an image.
    """
    found = engine.inspect(client, name)
    if found is None:
        raise ConfigError(f"the Docker engine has no image {name}; pull it, or make it with: {command}")
    labels = found["Config"].get("Labels") or {}
    if labels.get(LABEL) != "runtime" or f"{LABEL}.bundle" not in labels:
        raise ConfigError(f"the image {name} is no runtime of lithops_mini; make one with: {command}")
    if (python := labels[f"{LABEL}.python"]) != this_python():
        raise ConfigError(
            f"the image {name} has Python {python}, and functions pickled by this Python {this_python()} cannot run "
            f"there; run this program with Python {python}, or make another image with: {command}"
        )
    if labels[f"{LABEL}.bundle"] != bundle().digest:
        version = labels.get(f"{LABEL}.version")
        raise ConfigError(
            f"the worker in the image {name}, of lithops_mini {version}, is not the one of this lithops_mini "
            f"{__version__}; make the image again with: {command}"
        )


def images(client: DockerClient) -> list[Runtime]:
    """The runtime images on the engine, the newest first; those without a name are what broken builds have left."""
    with engine.translated("list images"):
        found = client.api.images(filters={"label": f"{LABEL}=runtime"})
    runtimes = [runtime for image in found for runtime in _runtimes(image)]
    return sorted(runtimes, key=lambda runtime: runtime.created, reverse=True)


def delete(client: DockerClient, name: str) -> None:
    """Delete a runtime image, and the base made of this machine's Python if no other runtime is built on it.

    ``ConfigError`` if it is none of ours, ``InvocationError`` if a container uses it.
    """
    found = engine.inspect(client, name)
    if found is None:
        raise ConfigError(f"the Docker engine has no image {name}")
    labels = found["Config"].get("Labels") or {}
    if labels.get(LABEL) != "runtime":
        raise ConfigError(f"the image {name} is no runtime of lithops_mini, and is not deleted")
    with engine.translated(f"delete the image {name}"):
        try:
            client.api.remove_image(name)
        except APIError as error:
            if error.status_code != 409:
                raise
            text = f"the image {name} is in use: {error.explanation}"
            raise InvocationError(text, reason=Reason.REFUSED) from error
        base = labels.get(f"{LABEL}.base", "")
        if base.startswith(f"{host.REPOSITORY}:") and all(each.base != base for each in images(client)):
            _remove_unused(client, base)


def _runtimes(image: dict[str, Any]) -> list[Runtime]:
    """An image of a listing under each of its names."""
    labels = image["Labels"] or {}
    names = [name for name in image["RepoTags"] or () if name != "<none>:<none>"]
    if not names:
        if time.time() - image["Created"] < _ABANDONED:
            return []
        names = [image["Id"].removeprefix("sha256:")[:12]]
    return [
        Runtime(
            name=name,
            id=image["Id"],
            python=labels.get(f"{LABEL}.python", ""),
            version=labels.get(f"{LABEL}.version", ""),
            bundle=labels.get(f"{LABEL}.bundle", ""),
            recipe=labels.get(f"{LABEL}.recipe", ""),
            base=labels.get(f"{LABEL}.base", ""),
            packages=tuple(labels.get(f"{LABEL}.packages", "").split()),
            size=image["Size"],
            created=image["Created"],
        )
        for name in names
    ]


def _build_users(client: DockerClient, recipe: Recipe, base: str, tell: Tell) -> str:
    """Build the user's own Dockerfile in its directory, and return the image's id."""
    root, name = os.path.split(os.path.abspath(recipe.dockerfile or ""))
    tell(f"Building {recipe.dockerfile}")
    with tempfile.TemporaryFile() as archive:
        create_archive(root, files=list(recipe.context), fileobj=archive)
        return engine.build(client, archive, tell, dockerfile=name, arguments={"BASE": base} if base else {})


def _write_context(
    file: IO[bytes], packages: Path, labels: Mapping[str, str], files: Mapping[str, bytes], lines: str
) -> None:
    """Write the archive that our Dockerfile is built from; the labels come last, so what has them is complete."""
    line = " ".join(f"{LABEL}.{name}={_quoted(value)}" for name, value in labels.items())
    with tarfile.open(fileobj=file, mode="w") as tar:
        _add(tar, "Dockerfile", dockerfile() + f"{lines}LABEL {line}\n".encode())
        for path, data in {**bundle().files, **files}.items():
            _add(tar, f"worker/{path}", data)
        tar.add(packages, "packages", filter=_anonymous)
    file.seek(0)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("$", "\\$")


def _add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(data)
    info.mtime = _MODIFIED
    tar.addfile(info, io.BytesIO(data))


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, and readable by everybody, whoever has written it here under whatever umask."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = _MODIFIED
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return info


def _user(client: DockerClient, base: str) -> str:
    found = engine.inspect(client, base)
    user: str = found["Config"].get("User", "") if found else ""
    return USER if user.partition(":")[0] in ("", "0", "root") else user


def _split(name: str) -> tuple[str, str]:
    """Repository and tag of an image name; a port is no tag."""
    repository, _, tag = name.rpartition(":")
    return (name, "latest") if not repository or "/" in tag else (repository, tag)


def _remove_unused(client: DockerClient, image: str) -> None:
    """Remove an image that has lost its name, unless a container runs it."""
    try:
        client.api.remove_image(image)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise
