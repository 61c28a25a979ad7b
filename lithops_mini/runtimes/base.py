"""The seam of backends whose workers run in something that is built first: an image, a function with layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe

Tell = Callable[[str], object]
"""Called with a line about each step, as it begins."""


@dataclass(frozen=True)
class Runtime:
    """A runtime that exists."""

    name: str
    id: str  # the platform's own
    python: str  # "3.11"; empty if the build never came to its end
    version: str  # of the lithops_mini in it
    bundle: str  # digest of the worker in it
    recipe: str  # digest of what went in
    base: str  # what it was built on
    packages: tuple[str, ...]  # the distributions that were asked for
    size: int  # bytes
    created: float  # seconds since the epoch

    @property
    def current(self) -> bool:
        """Whether the worker in it is the one of this lithops_mini."""
        return self.bundle == bundle().digest


@dataclass(frozen=True)
class Built:
    """What came of a build."""

    name: str
    size: int  # bytes
    seconds: float
    new: bool  # False: it was there already


class Runtimes(ABC):
    """The runtimes of one backend, where it keeps them."""

    @abstractmethod
    def recipe(self, packages: Iterable[str]) -> Recipe:
        """What the configuration asks for, with the ``packages`` that its storage needs in a worker."""

    @abstractmethod
    def name(self, recipe: Recipe) -> str:
        """The name under which the configuration has its workers use what ``recipe`` makes."""

    @abstractmethod
    def build(self, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
        """Build what ``recipe`` says unless it is there, or all the same with ``force``."""

    @abstractmethod
    def list(self) -> list[Runtime]:
        """All runtimes, the newest first, whoever built them."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a runtime; ``ConfigError`` if it is none of ours, ``InvocationError`` if something still uses it."""
