"""The packages and actions that there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from lithops_mini.emulators.openwhisk import refusals
from lithops_mini.emulators.openwhisk.entities import Action, Entity, Package
from lithops_mini.emulators.openwhisk.refusals import Refused

Kind = TypeVar("Kind", Package, Action)


class Store:
    """Everything by its path, in memory. A package and an action of a namespace cannot have the same name."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entities: dict[str, Entity] = {}
        self._revisions: set[int] = set()  # of the actions that are there

    def locked(self) -> AbstractContextManager[bool]:
        """Nobody else changes anything in the ``with`` block."""
        return self._lock

    def get(self, kind: type[Kind], path: str) -> Kind:
        """``Refused`` with 404 if there is nothing at the path, with 409 if it is of another kind."""
        with self._lock:
            found = self._entities.get(path)
        if found is None:
            raise Refused(404, refusals.NOT_FOUND)
        if not isinstance(found, kind):
            raise Refused(409, refusals.NOT_IN_COLLECTION)
        return found

    def put(self, kind: type[Kind], path: str, make: Callable[[Kind | None], Kind], *, overwrite: bool) -> Kind:
        """Make what ``make`` makes of nothing, or of what is there. ``Refused`` with 409 if that must stay."""
        with self._lock:
            old = None
            if path in self._entities:
                old = self.get(kind, path)
                if not overwrite:
                    raise Refused(409, "resource already exists")
            made = make(old)
            self._forget(old)
            self._entities[path] = made
            if isinstance(made, Action):
                self._revisions.add(made.revision)
            return made

    def delete(self, kind: type[Kind], path: str) -> Kind:
        """Remove it, and return what it was. ``Refused`` as by ``get``."""
        with self._lock:
            found = self.get(kind, path)
            del self._entities[path]
            self._forget(found)
            return found

    def list(self, kind: type[Kind], within: str) -> list[Kind]:
        """Those at a path or below it, the one first that was changed last."""
        with self._lock:
            found: Iterable[Kind] = [each for each in self._entities.values() if isinstance(each, kind)]
        chosen = [each for each in found if each.namespace == within or each.namespace.startswith(f"{within}/")]
        return sorted(chosen, key=lambda each: -each.updated)

    def has(self, revision: int) -> bool:
        """Whether the action is there, and unchanged."""
        return revision in self._revisions

    def _forget(self, entity: Entity | None) -> None:
        if isinstance(entity, Action):
            self._revisions.discard(entity.revision)
