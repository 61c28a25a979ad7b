"""Actions of OpenWhisk: made when they are missing, found by names that tell what is in them, listed, deleted."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import action_zip, wheels
from lithops_mini.runtimes.base import Built, Runtime, Runtimes, Tell
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.openwhisk_image import ActionImages, end_of_dockerfile
from lithops_mini.runtimes.openwhisk_service import PACKAGE, Service, translated
from lithops_mini.runtimes.recipe import Recipe, pinned
from lithops_mini.version import __version__

_NAME = "python{python}-{digest}"
_ANNOTATION = "lithops-mini"  # everything of ours has it, with what is told of it
# Rounds by which the fingerprint of credentials is worth no guessing: it is in names that others see.
_ROUNDS = 100_000


@dataclass(frozen=True)
class Setup:
    """What decides on the contents of actions, besides the recipe."""

    package: str = "auto"  # or "zip", or "image"
    image: str | None = None  # the repository of images, without a tag
    push: bool = True  # whether an image goes to its registry, or is only in the engine


@dataclass(frozen=True)
class _Contents:
    """What an action is made of."""

    exec: Mapping[str, Any]  # as the service takes it
    packages: Sequence[str]
    size: int  # bytes


class Actions(Runtimes):
    """The actions of one namespace, for one configuration.

    A runtime has actions for sizes of memory, for time limits and for what is bound to them; its name is what theirs
    begin with. May be used from several threads.
    """

    def __init__(
        self,
        service: Service,
        recipe: Recipe,
        setup: Setup,
        *,
        memory: int,
        timeout: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``memory``: MiB of the action that ``build`` makes; ``timeout``: milliseconds of an activation.

        ``environment``: what workers need for their storage; ``build`` makes an action without.
        """
        self._service = service
        self._recipe = recipe
        self._setup = setup
        self._memory = memory
        self._timeout = timeout
        self._environment = environment or {}
        self._bound = f"-{_fingerprint(self._environment)}" if self._environment else ""
        self._images = ActionImages(service.section, setup.image, push=setup.push)
        self._making = threading.Lock()  # two sizes of memory have the same contents
        self._contents: dict[str, _Contents] = {}  # by runtime

    def recipe(self, packages: Iterable[str]) -> Recipe:
        return replace(self._recipe, packages=pinned(packages))

    def name(self, recipe: Recipe) -> str:
        parts = {"recipe": recipe.digest, "entry": action_zip.ENTRY.decode(), "end": end_of_dockerfile()}
        parts["services"] = " ".join(action_zip.SERVICES)
        digest = hashlib.sha256(json.dumps(parts | asdict(self._setup), sort_keys=True).encode()).hexdigest()
        return _NAME.format(python=recipe.python, digest=digest[:12])

    def build(self, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
        began = time.monotonic()
        name = self.name(recipe)
        if force and any(each.name == name for each in self.list()):
            self.delete(name)
        made = self._action_name(recipe, self._memory)
        new = self._ensure(recipe, made, self._memory, {}, tell)
        with translated(self._service, f"describe the action {made}"):
            found = self._service.find_action(made)
        return Built(name, int(_told(found or {}).get("size", 0)), time.monotonic() - began, new)

    def ensure(self, recipe: Recipe, memory: int, tell: Tell) -> str:
        """The name of the action with so many MiB, made if it is missing. ``ConfigError`` if it cannot be."""
        name = f"{self._action_name(recipe, memory)}{self._bound}"
        self._ensure(recipe, name, memory, self._environment, tell)
        return name

    def planned(self, recipe: Recipe, memory: int) -> dict[str, dict[str, Any]]:
        """The action that ``ensure`` would make, by its name, without what it is made of; none if it is there."""
        name = f"{self._action_name(recipe, memory)}{self._bound}"
        with translated(self._service, f"look for the action {name}"):
            found = self._service.find_action(name)
        limits = {"timeout": self._timeout, "memory": memory}
        return {} if found is not None else {name: {"limits": limits, "parameters": sorted(self._environment)}}

    def has_package(self) -> bool:
        """Whether our package is there, with actions or without."""
        with translated(self._service, f"look for the package {PACKAGE}"):
            return self._service.has_package()

    def delete_package(self) -> None:
        """Delete our package, unless it has actions."""
        with translated(self._service, f"delete the package {PACKAGE}"):
            self._service.delete_package()

    def names(self, runtime: str) -> Sequence[str]:
        """The names of the actions of a runtime."""
        return sorted(each["name"] for each in self._actions() if _runtime_of(each) == runtime)

    def list(self) -> list[Runtime]:
        found = sorted(self._actions(), key=lambda each: str(each["name"]))
        groups = groupby(found, _runtime_of)
        runtimes = [self._runtime(name, list(members)) for name, members in groups]
        return sorted(runtimes, key=lambda runtime: runtime.created, reverse=True)

    def delete(self, name: str) -> None:
        members = [each for each in self._actions() if _runtime_of(each) == name]
        if not members:
            raise ConfigError(f"there is no runtime {name} in this namespace")
        images = {_told(each).get("image", "") for each in members}
        with translated(self._service, f"delete the runtime {name}"):
            for each in members:
                self._service.delete_action(each["name"])
            self._service.delete_package()
        self._contents.pop(name, None)
        self._images.forget(images - {_told(each).get("image", "") for each in self._actions()})

    # -- making

    def _action_name(self, recipe: Recipe, memory: int) -> str:
        return f"{self.name(recipe)}-{memory}-{self._timeout / 1000:g}s"

    def _ensure(self, recipe: Recipe, name: str, memory: int, environment: Mapping[str, str], tell: Tell) -> bool:
        """Make an action, if there is none of this name; whether there was none."""
        with translated(self._service, f"use the action {name}"):
            if self._service.find_action(name) is not None:
                return False
            with self._making:
                contents = self._contents_of(recipe, tell)
                tell(f"Creating the action {name}")
                return self._service.make_action(name, self._action(recipe, memory, environment, contents))

    def _action(
        self, recipe: Recipe, memory: int, environment: Mapping[str, str], contents: _Contents
    ) -> dict[str, Any]:
        told = {
            "runtime": self.name(recipe),
            "python": recipe.python,
            "version": __version__,
            "bundle": bundle().digest,
            "recipe": recipe.digest,
            "memory": memory,
            "packages": list(contents.packages),
            "size": contents.size,
            "created": time.time(),
            "image": contents.exec.get("image", ""),
        }
        return {
            "exec": contents.exec,
            "limits": {"timeout": self._timeout, "memory": memory},
            "annotations": [
                {"key": _ANNOTATION, "value": told},
                {"key": "provide-api-key", "value": False},  # workers ask OpenWhisk for nothing
            ],
            "parameters": [{"key": "environment", "value": dict(environment)}] if environment else [],
        }

    def _contents_of(self, recipe: Recipe, tell: Tell) -> _Contents:
        """What actions of this recipe are made of: as another one is, or made now."""
        name = self.name(recipe)
        if name not in self._contents:
            self._contents[name] = self._copied(name) or self._made(recipe, tell)
        return self._contents[name]

    def _copied(self, name: str) -> _Contents | None:
        """What another action of the runtime is made of: its packages need not be fetched again."""
        for each in self._actions():
            if _runtime_of(each) == name:
                found = self._service.find_action(each["name"], code=True)
                if found is not None:  # nobody has deleted it meanwhile
                    told = _told(each)
                    code = {key: value for key, value in found["exec"].items() if key != "binary"}
                    return _Contents(code, told["packages"], told["size"])
        return None

    def _made(self, recipe: Recipe, tell: Tell) -> _Contents:
        package = self._setup.package
        if package == "zip" and (recipe.base or recipe.dockerfile):
            raise ConfigError(
                f"an action that is a zip has OpenWhisk's own Python: leave base and dockerfile out, or set"
                f" {self._service.section}.package to image"
            )
        if package == "image" or recipe.base or recipe.dockerfile:
            return self._image(recipe, "the action is to be an image", tell)
        kind = f"python:{recipe.python}"
        if (kinds := self._service.kinds()) and kind not in kinds:
            why = f"{self._service.endpoint} has no {kind}, but {', '.join(sorted(kinds))}"
            if package == "zip":
                raise ConfigError(
                    f"{why}: run this program with one of these versions of Python, or set"
                    f" {self._service.section}.package to image"
                )
            return self._image(recipe, why, tell)
        try:
            return self._zip(recipe, kind, tell)
        except action_zip.TooLarge as error:
            if package == "zip":
                raise ConfigError(f"{error}: require less, or set {self._service.section}.package to auto") from error
            return self._image(recipe, str(error), tell)

    def _zip(self, recipe: Recipe, kind: str, tell: Tell) -> _Contents:
        machine = action_zip.target(recipe)
        with tempfile.TemporaryDirectory(prefix="lithops-mini-build-") as directory:
            if recipe.requirements or recipe.packages:
                tell(f"Installing packages for {machine}")
            there = Path(directory)
            action_zip.lay_out(there)
            packages = there / action_zip.PACKAGES
            installed = wheels.install(
                packages, machine, tell, requirements=recipe.requirements, packages=recipe.packages
            )
            if not recipe.requirements:  # who requires packages may use all of botocore
                action_zip.trim(packages)
            code = action_zip.encoded(there, recipe)
        return _Contents({"kind": kind, "code": code, "main": "main"}, installed, len(code) * 3 // 4)

    def _image(self, recipe: Recipe, why: str, tell: Tell) -> _Contents:
        image = self._images.ensure(recipe, self.name(recipe), why, tell)
        return _Contents({"kind": "blackbox", "image": image.name}, image.packages, image.size)

    # -- looking

    def _actions(self) -> Sequence[dict[str, Any]]:
        with translated(self._service, f"list the actions of the package {PACKAGE}"):
            return [each for each in self._service.actions() if _told(each)]

    @staticmethod
    def _runtime(name: str, members: Sequence[Mapping[str, Any]]) -> Runtime:
        each_told = [_told(each) for each in members]
        first = each_told[0]
        sizes = ", ".join(map(str, sorted({told["memory"] for told in each_told})))
        kind = f"the image {first['image']}" if first["image"] else f"python:{first['python']}"
        return Runtime(
            name=name,
            id=f"{PACKAGE}/{name}",
            python=first["python"],
            version=first["version"],
            bundle=first["bundle"],
            recipe=first["recipe"],
            base=f"{kind}, with {sizes} MiB",
            packages=tuple(first["packages"]),
            size=int(first["size"]),
            created=min(float(told["created"]) for told in each_told),
        )


def _told(action: Mapping[str, Any]) -> dict[str, Any]:
    """What our annotation tells of an action; empty if it is none of ours."""
    annotations = {each["key"]: each["value"] for each in action.get("annotations", ())}
    return dict(annotations.get(_ANNOTATION) or {})


def _runtime_of(action: Mapping[str, Any]) -> str:
    return str(_told(action)["runtime"])


def _fingerprint(environment: Mapping[str, str]) -> str:
    """What changes when the credentials do, and does not tell them."""
    data = json.dumps(dict(environment), sort_keys=True).encode()
    return hashlib.pbkdf2_hmac("sha256", data, PACKAGE.encode(), _ROUNDS).hex()[:12]
