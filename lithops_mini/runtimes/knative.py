"""Services of Knative: made when they are missing, found by names that tell what is in them, listed, deleted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import knative_ready
from lithops_mini.runtimes import knative_service as manifests
from lithops_mini.runtimes.api_server import Object
from lithops_mini.runtimes.base import Built, Runtime, Runtimes, Tell
from lithops_mini.runtimes.cluster import Cluster
from lithops_mini.runtimes.knative_image import Image, ServiceImages
from lithops_mini.runtimes.knative_service import RUNTIME, Lent, Setup, Size
from lithops_mini.runtimes.recipe import Recipe, pinned

_KEY_SIZE = 32  # bytes
_RACES = 10  # times that somebody else may be first


@dataclass(frozen=True)
class There:
    """A service that takes messages."""

    name: str
    url: str
    key: bytes  # that messages are signed with


class Services(Runtimes):
    """The services of one namespace, for one configuration. A runtime has a service for each memory size.

    Its name is what their names begin with. May be used from several threads.
    """

    def __init__(
        self,
        cluster: Cluster,
        recipe: Recipe,
        images: ServiceImages,
        setup: Setup,
        memory: int,
        seconds: float,
        lent: Lent | None = None,
    ) -> None:
        """``memory``: MiB of the service that ``build`` makes. ``seconds``: until a service must be ready.

        ``lent``: what workers need of their storage.
        """
        self._cluster = cluster
        self._recipe = recipe
        self._images = images
        self._setup = setup
        self._memory = memory
        self._seconds = seconds
        self._lent = lent or Lent()
        self._making = threading.Lock()  # two sizes of memory have the same image
        self._made: Image | None = None

    def recipe(self, packages: Iterable[str]) -> Recipe:
        return replace(self._recipe, packages=pinned(packages))

    def name(self, recipe: Recipe) -> str:
        return manifests.runtime_name(recipe, self._images.name(recipe), self._setup)

    def build(self, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
        began = time.monotonic()
        size = self._size(recipe, self._memory)
        if force and any(each.name == size.runtime for each in self.list()):
            self.delete(size.runtime)
        new = self._cluster.find_service(size.name) is None
        if new:
            with self._making:
                self._made = self._images.build(recipe, tell, force=force)
        self.ensure(recipe, self._memory, tell)
        about = manifests.about_of(self._cluster.find_service(size.name))
        return Built(size.runtime, about.size if about else 0, time.monotonic() - began, new)

    def ensure(self, recipe: Recipe, memory: int, tell: Tell) -> There:
        """The service with so many MiB for a call, made or changed if it is not as it should be.

        ``ConfigError`` if it cannot be, or does not get ready.
        """
        size = self._size(recipe, memory)
        for _ in range(_RACES):
            there = self._cluster.find_service(size.name)
            if there is None:  # before an image is built for it
                self._cluster.check_service(self._draft(size, recipe))
            wanted = self._wanted(size, recipe, there, tell)
            key = self._ensure_secret(size)
            if there is None:
                tell(f"Creating the service {size.name}")
                done = self._create(wanted)
            elif not manifests.is_as_wanted(there, wanted):
                tell(f"Changing the service {size.name}")
                self._cluster.check_service(wanted)
                done = self._cluster.replace_service(manifests.changed(there, wanted))
            elif knative_ready.failure(there):
                tell(f"Trying the service {size.name} again")
                done = self._cluster.replace_service(manifests.changed(there, manifests.renewed(wanted)))
            else:
                done = there
            if done is not None:
                return There(size.name, knative_ready.wait(self._cluster, size.name, self._seconds, tell), key)
        raise _outrun(size.name)

    def list(self) -> list[Runtime]:
        found = sorted(self._cluster.services(), key=_runtime_of)
        groups = groupby(found, _runtime_of)
        runtimes = [_described(name, list(members)) for name, members in groups if name]
        return sorted(runtimes, key=lambda runtime: runtime.created, reverse=True)

    def delete(self, name: str) -> None:
        """Delete its services and their secrets; the image stays in its registry."""
        members = [each["metadata"]["name"] for each in self._cluster.services() if _runtime_of(each) == name]
        if not members:
            raise ConfigError(f"there is no runtime {name} in the namespace {self._cluster.namespace}")
        for each in members:
            self._cluster.delete_secret(each)  # first: a service that is there finds what was left behind
            self._cluster.delete_service(each)

    def _create(self, wanted: Object) -> Object | None:
        try:
            return self._cluster.create_service(wanted)
        except ConfigError:
            self._cluster.delete_secret(wanted["metadata"]["name"])  # nobody would find it
            raise

    def _size(self, recipe: Recipe, memory: int) -> Size:
        return Size(self.name(recipe), memory, self._lent)

    def _wanted(self, size: Size, recipe: Recipe, there: Object | None, tell: Tell) -> Object:
        """The service as it should be; its image is there then, unless the service has it already."""
        about = manifests.about_of(there)
        if about is None:
            with self._making:
                if self._made is None:
                    self._made = self._images.ensure(recipe, tell)
            about = manifests.about(recipe, self._made.packages, self._made.size)
        return manifests.service(size, self._cluster.namespace, self._images.name(recipe), self._setup, about)

    def _draft(self, size: Size, recipe: Recipe) -> Object:
        """The service as it will be, but for what is known of its image when that is there."""
        about = manifests.about(recipe, (), 0)
        return manifests.service(size, self._cluster.namespace, self._images.name(recipe), self._setup, about)

    def _ensure_secret(self, size: Size) -> bytes:
        """The key in the secret of a service, which is made, or has what is lent now."""
        for _ in range(_RACES):
            there = self._cluster.find_secret(size.name)
            key = os.urandom(_KEY_SIZE) if there is None else manifests.key_of(there)
            wanted = manifests.secret(size, self._cluster.namespace, key)
            if there is None:
                done = self._cluster.create_secret(wanted)
            elif there.get("data") != wanted["data"]:
                done = self._cluster.replace_secret({**there, "data": wanted["data"]})
            else:
                done = there
            if done is not None:
                return key
        raise _outrun(size.name)


def _outrun(name: str) -> InvocationError:
    text = f"somebody else changes {name} again and again"
    return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)


def _runtime_of(service: Object) -> str:
    return str((service["metadata"].get("labels") or {}).get(RUNTIME, ""))


def _described(name: str, members: Sequence[Object]) -> Runtime:
    first = min(members, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    about = manifests.about_of(first) or manifests.About("", "", "", "", "")
    created = datetime.fromisoformat(first["metadata"]["creationTimestamp"]).timestamp()
    return Runtime(
        name=name,
        id=str(first["metadata"]["uid"]),
        python=about.python,
        version=about.version,
        bundle=about.bundle,
        recipe=about.recipe,
        base=about.base,
        packages=tuple(about.packages),
        size=about.size,
        created=created,
    )
