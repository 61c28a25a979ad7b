"""The REST API of activation records."""

from __future__ import annotations

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.openwhisk import refusals
from lithops_mini.emulators.openwhisk.activations import Activation, Activations
from lithops_mini.emulators.openwhisk.asked import Asked, not_allowed
from lithops_mini.emulators.openwhisk.refusals import Refused

_HEX = frozenset("0123456789abcdef")


class Records:
    """Shows and lists what is kept."""

    def __init__(self, kept: Activations) -> None:
        self._kept = kept

    def answer(self, asked: Asked) -> Response:
        """``Refused`` for what is not done."""
        if asked.request.method != "GET":
            raise not_allowed("GET")
        match asked.names:
            case ():
                asked.own()
                return self._list(asked)
            case (name,):
                return json_response(200, self._record(asked, name).as_json())
            case (name, "result"):
                return json_response(200, self._record(asked, name).outcome.as_json())
            case (name, "logs"):
                return json_response(200, {"logs": list(self._record(asked, name).logs)})
        raise Refused(404, refusals.NO_ROUTE)

    def _record(self, asked: Asked, name: str) -> Activation:
        if len(name) != 32:
            raise Refused(400, f"Activation id length is {len(name)} but must be 32.")
        if not _HEX.issuperset(name):
            raise Refused(400, "The activation id is not valid.")
        asked.own()
        found = self._kept.get(asked.namespace, name)
        if found is None:
            raise Refused(404, refusals.NOT_FOUND)
        return found

    def _list(self, asked: Asked) -> Response:
        query = asked.query
        docs, name = query.flag("docs", False), query.text("name")
        if name is not None and len(name.split("/")) > 2:
            text = f"Parameter may be a 'simple' name or 'package-name/simple' name: {name}"
            raise refusals.malformed_query("name", text)
        if docs and query.flag("count", False):
            raise Refused(400, "The parameter 'docs' is not permitted with 'count'.")
        since, upto = query.moment("since", 0), query.moment("upto", float("inf"))
        found = self._kept.list(asked.namespace, name, since, upto)
        return asked.list(found, lambda each: each.as_json() if docs else each.summary())
