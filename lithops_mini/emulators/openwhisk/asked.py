"""A request below a namespace, and the answers that all of them have alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lithops_mini.emulators.front import Request, Response, json_response
from lithops_mini.emulators.openwhisk.identities import Identity
from lithops_mini.emulators.openwhisk.queries import Query
from lithops_mini.emulators.openwhisk.refusals import Refused, malformed, no_access


@dataclass(frozen=True)
class Asked:
    """What is asked, and by whom."""

    request: Request
    caller: Identity
    transaction_id: str
    namespace: str  # that of the path; `_` is the caller's own
    collection: str
    names: tuple[str, ...]  # what follows in the path
    folder: bool  # the path ends with a slash

    @property
    def query(self) -> Query:
        return Query(self.request.query)

    @property
    def path(self) -> str:
        return "/".join((self.namespace, *self.names))

    def own(self) -> None:
        """``Refused`` if the namespace is another's."""
        if self.namespace != self.caller.namespace:
            raise no_access(self.path)

    def body(self) -> Any:
        """The JSON of the request; ``{}`` if it is empty."""
        if not self.request.body:
            return {}
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "The request's Content-Type is not supported. Expected:\napplication/json")
        try:
            return json.loads(self.request.body)
        except ValueError as error:
            raise malformed(str(error)) from error

    def list(self, items: Sequence[Any], show: Callable[[Any], Any]) -> Response:
        """The answer that is a list, of as many as are asked for."""
        counted = self.query.count(self.collection, items)
        if counted is not None:
            return json_response(200, counted)
        return json_response(200, [show(each) for each in self.query.page(self.collection, items)])


def not_allowed(methods: str) -> Refused:
    """The refusal of a method."""
    return Refused(405, f"HTTP method not allowed, supported methods: {methods}")
