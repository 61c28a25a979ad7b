"""The REST API of actions, with their invocations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.openwhisk import refusals
from lithops_mini.emulators.openwhisk.activations import WHISK_ERROR, Activation
from lithops_mini.emulators.openwhisk.asked import Asked, not_allowed
from lithops_mini.emulators.openwhisk.entities import Action, Package
from lithops_mini.emulators.openwhisk.invoker import Invocation, Invoker
from lithops_mini.emulators.openwhisk.puts import check_name, check_sizes, new_action
from lithops_mini.emulators.openwhisk.refusals import Refused, malformed, too_large
from lithops_mini.emulators.openwhisk.sandboxes import Sandboxes
from lithops_mini.emulators.openwhisk.settings import PAYLOAD_LIMIT, Limits
from lithops_mini.emulators.openwhisk.store import Store
from lithops_mini.emulators.openwhisk.throttles import Throttles


class Actions:
    """Makes, shows, lists, deletes and invokes actions. ``limits``: those in force."""

    def __init__(
        self,
        store: Store,
        invoker: Invoker,
        throttles: Throttles,
        sandboxes: Sandboxes,
        limits: Callable[[], Limits],
    ) -> None:
        self._store = store
        self._invoker = invoker
        self._throttles = throttles
        self._sandboxes = sandboxes
        self._limits = limits

    def answer(self, asked: Asked) -> Response:
        """``Refused`` for what is not done."""
        method = asked.request.method
        if len(asked.names) > 2:
            raise Refused(404, refusals.NO_ROUTE)
        if method == "GET" and (not asked.names or (len(asked.names) == 1 and asked.folder)):
            asked.own()
            if asked.names:
                self._store.get(Package, asked.path)
            return asked.list(self._store.list(Action, asked.path), Action.summary)
        for name in asked.names:
            check_name(name)
        if method == "POST" and asked.names:
            return self._invoke(asked)
        if method not in ("GET", "PUT", "DELETE") or not asked.names:
            raise not_allowed("DELETE, GET, PUT, POST" if asked.names else "GET")
        asked.own()
        package = self._package_of(asked)
        if method == "PUT":
            return self._put(asked)
        if method == "DELETE":
            return json_response(200, self._store.delete(Action, asked.path).as_json())
        action = _merged(self._store.get(Action, asked.path), package)
        return json_response(200, action.as_json(code=asked.query.flag("code", True)))

    def _package_of(self, asked: Asked) -> Package | None:
        """The package of the action that is asked for, if it is in one. ``Refused`` if there is no such package."""
        if len(asked.names) == 1:
            return None
        return self._store.get(Package, asked.path.rpartition("/")[0])

    def _put(self, asked: Asked) -> Response:
        body = asked.body()
        check_sizes(body)
        within, _, name = asked.path.rpartition("/")

        def make(old: Action | None) -> Action:
            made = new_action(within, name, body, old, self._limits())
            self._sandboxes.check(made.exec)
            return made

        overwrite = asked.query.flag("overwrite", False)
        return json_response(200, self._store.put(Action, asked.path, make, overwrite=overwrite).as_json())

    def _invoke(self, asked: Asked) -> Response:
        limits = self._limits()
        self._throttles.admit(asked.caller.namespace, limits)
        with self._released_if_refused(asked):
            asked.own()
            package = self._package_of(asked)
            if len(asked.request.body) > PAYLOAD_LIMIT:
                raise too_large("Request", len(asked.request.body), PAYLOAD_LIMIT)
            query = asked.query
            blocking, only_result = query.flag("blocking", False), query.flag("result", False)
            patience = query.seconds("timeout", limits.wait)
            arguments = asked.body()
            action = _merged(self._store.get(Action, asked.path), package)
            _check_arguments(action, arguments)
            invocation = Invocation(asked.caller, action, arguments, asked.transaction_id)
            self._invoker.begin(invocation)
        if blocking and wait([invocation.done], patience).done:
            return _outcome(invocation.done.result(), only_result)
        headers = (("x-openwhisk-activation-id", invocation.activation_id),)
        return json_response(202, {"activationId": invocation.activation_id}, headers)

    @contextmanager
    def _released_if_refused(self, asked: Asked) -> Iterator[None]:
        try:
            yield
        except Refused:
            self._throttles.release(asked.caller.namespace)
            raise


def _merged(action: Action, package: Package | None) -> Action:
    """The action with the parameters of its package, as far as it has none of the same names."""
    return replace(action, parameters={**package.parameters, **action.parameters}) if package else action


def _check_arguments(action: Action, arguments: Any) -> None:
    if not isinstance(arguments, dict):
        raise malformed("Object expected")
    if action.annotations.get("final") is True:
        defined = {name for name, each in action.parameters.items() if each.value is not None}
        if defined & set(arguments):
            raise Refused(400, "Request defines parameters that are not allowed (e.g., reserved properties).")


def _outcome(activation: Activation, only_result: bool) -> Response:
    """The answer to a blocking invocation: it has no logs, since they are not waited for."""
    status = {0: 200, WHISK_ERROR: 500}.get(activation.outcome.code, 502)
    result = activation.outcome.result
    body = result if only_result or isinstance(result, list) else activation.with_logs([]).as_json()
    return json_response(status, body, (("x-openwhisk-activation-id", activation.activation_id),))
