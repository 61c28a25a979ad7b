"""The REST API of packages."""

from __future__ import annotations

from typing import Any

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.openwhisk import refusals
from lithops_mini.emulators.openwhisk.asked import Asked, not_allowed
from lithops_mini.emulators.openwhisk.entities import Action, Package
from lithops_mini.emulators.openwhisk.puts import check_name, check_sizes, new_package
from lithops_mini.emulators.openwhisk.refusals import Refused
from lithops_mini.emulators.openwhisk.store import Store


class Packages:
    """Makes, shows, lists and deletes packages."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, asked: Asked) -> Response:
        """``Refused`` for what is not done."""
        match asked.request.method, asked.names:
            case "GET", ():
                asked.own()
                return asked.list(self._store.list(Package, asked.namespace), Package.summary)
            case "GET", (_,):
                asked.own()
                return json_response(200, self._with_actions(asked))
            case "PUT", (name,):
                asked.own()
                return self._put(asked, check_name(name))
            case "DELETE", (_,):
                asked.own()
                return json_response(200, self._delete(asked).as_json())
        raise not_allowed("GET, PUT, DELETE") if len(asked.names) < 2 else Refused(404, refusals.NO_ROUTE)

    def _with_actions(self, asked: Asked) -> dict[str, Any]:
        with self._store.locked():
            try:
                package = self._store.get(Package, asked.path)
            except Refused as error:
                if error.status == 404:
                    raise Refused(404, f"The requested resource '{asked.path}' does not exist.") from error
                raise
            actions = [each for each in self._store.list(Action, package.path) if each.namespace == package.path]
        shown = [{name: each.summary()[name] for name in ("name", "version", "annotations")} for each in actions]
        return {**package.as_json(), "actions": shown, "feeds": []}

    def _put(self, asked: Asked, name: str) -> Response:
        body = asked.body()
        check_sizes(body)
        if name == "default":
            raise Refused(400, "Package name 'default' is reserved.")
        made = self._store.put(
            Package,
            asked.path,
            lambda old: new_package(asked.namespace, name, body, old),
            overwrite=asked.query.flag("overwrite", False),
        )
        return json_response(200, made.as_json())

    def _delete(self, asked: Asked) -> Package:
        force = asked.query.flag("force", False)
        with self._store.locked():
            package = self._store.get(Package, asked.path)
            actions = self._store.list(Action, package.path)
            if actions and not force:
                what = f"{len(actions)} {'entity' if len(actions) == 1 else 'entities'}"
                text = f"Package not empty (contains {what}). Set force param or delete package contents."
                raise Refused(409, text)
            for action in actions:
                self._store.delete(Action, action.path)
            return self._store.delete(Package, package.path)
