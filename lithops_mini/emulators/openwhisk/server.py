"""The emulator as a whole: what listens, what it is made of, how it ends."""

from __future__ import annotations

import secrets
import string
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lithops_mini.emulators.control import OWN, allow_many_files, control, usual
from lithops_mini.emulators.front import Front, Request, Response, json_response, serve
from lithops_mini.emulators.openwhisk import actions, refusals
from lithops_mini.emulators.openwhisk.activations import Activation, Activations
from lithops_mini.emulators.openwhisk.asked import Asked
from lithops_mini.emulators.openwhisk.descriptions import API, describe, namespace_limits
from lithops_mini.emulators.openwhisk.entities import Action
from lithops_mini.emulators.openwhisk.faults import Dice
from lithops_mini.emulators.openwhisk.identities import Identities, Identity
from lithops_mini.emulators.openwhisk.invoker import Invocation, Invoker
from lithops_mini.emulators.openwhisk.packages import Packages
from lithops_mini.emulators.openwhisk.records import Records
from lithops_mini.emulators.openwhisk.refusals import Refused
from lithops_mini.emulators.openwhisk.sandbox import NoSandbox, Sandbox
from lithops_mini.emulators.openwhisk.sandboxes import Sandboxes
from lithops_mini.emulators.openwhisk.settings import REQUEST_LIMIT, Faults, Limits
from lithops_mini.emulators.openwhisk.store import Store
from lithops_mini.emulators.openwhisk.throttles import Throttles
from lithops_mini.emulators.pool import Pool
from lithops_mini.emulators.settings import change
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell

_LETTERS = string.ascii_letters + string.digits
_CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"),
    ("Access-Control-Allow-Methods", "GET, DELETE, POST, PUT, HEAD"),
)


@dataclass(frozen=True)
class Settings:
    """What an emulator is to be."""

    port: int = 0  # 0: any that is free
    sandbox: str = "process"
    network: str = "bridge"  # of containers of images
    limits: Limits = field(default_factory=Limits)
    faults: Faults = field(default_factory=Faults)


class Emulator:
    """A local OpenWhisk, listening from now on until ``close``, which removes everything it has started."""

    def __init__(self, given: Settings, tell: Tell) -> None:
        self._sandboxes = Sandboxes(given.sandbox, given.network, tell)
        allow_many_files()
        self.identities = Identities()
        self._limits = given.limits
        self._dice = Dice(given.faults)
        self._counting = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._store = Store()
        self._activations = Activations()
        self._throttles = Throttles(self._dice)
        self._pool: Pool[int, Action, Sandbox] = Pool(
            lambda action: self._sandboxes.make(action, self.url),
            self._store.has,
            lambda: self._limits.idle,
            lambda: NoSandbox("Failed to provision resources to run the action.", developer=False),
        )
        self._invoker = Invoker(self._pool, self._dice, self._record, self._release)
        made = actions.Actions(self._store, self._invoker, self._throttles, self._sandboxes, lambda: self._limits)
        self._collections: dict[str, Callable[[Asked], Response]] = {
            "actions": made.answer,
            "packages": Packages(self._store).answer,
            "activations": Records(self._activations).answer,
            "limits": lambda asked: namespace_limits(asked, self._limits),
        }
        try:
            patience = lambda: self._limits.patience  # noqa: E731
            self._front = serve(given.port, lambda: Front(given.port, self._answer, patience=patience))
        except ConfigError:
            self._end()
            raise
        self.url: str = self._front.url

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """What is otherwise than on OpenWhisk because of what actions run in."""
        return self._sandboxes.not_enforced

    def close(self) -> None:
        self._front.shutdown()
        self._front.server_close()
        self._end()

    def _end(self) -> None:
        self._sandboxes.end()
        self._pool.close()
        self._sandboxes.close()

    def _record(self, activation: Activation) -> None:
        self._activations.add(activation, self._limits.records)

    def _release(self, invocation: Invocation) -> None:
        self._throttles.release(invocation.caller.namespace)

    def _answer(self, request: Request) -> Response:
        if request.path.startswith(OWN):
            return self._own(request)
        transaction_id = request.headers.get("X-Request-ID") or "".join(secrets.choice(_LETTERS) for _ in range(32))
        try:
            response = self._answer_or_refuse(request, transaction_id)
        except Refused as error:
            challenge = (("WWW-Authenticate", 'Basic realm="OpenWhisk secure realm",charset=UTF-8'),)
            body = {"error": error.text, "code": transaction_id}
            response = json_response(error.status, body, challenge if error.status == 401 else ())
        headers = (*response.headers, *_CORS, ("X-Request-ID", transaction_id))
        return Response(response.status, headers, response.body)

    def _answer_or_refuse(self, request: Request, transaction_id: str) -> Response:
        if request.late:
            raise Refused(408, refusals.TOO_LATE)
        if len(request.body) > REQUEST_LIMIT:
            raise Refused(413, refusals.TOO_LARGE)
        path, method = request.path.rstrip("/"), request.method
        if (method, path) == ("POST", "/identity/token"):
            self._count("POST token")
            return self.identities.give_token(request.body, self._limits.token_life)
        if method == "OPTIONS":
            return Response(200)
        if (method, path) == ("GET", ""):
            return json_response(200, describe(self._limits))
        if (method, path) == ("GET", API):
            return json_response(
                200, {"description": "OpenWhisk API", "api_version": "1.0.0", "api_version_path": "v1"}
            )
        parts = request.parts
        if parts[:3] != ["api", "v1", "namespaces"]:
            raise Refused(404, refusals.NO_ROUTE)
        caller = self.identities.authenticate(request.headers.get("Authorization"))
        if len(parts) == 3 and method == "GET":
            self._count("GET namespaces")
            return json_response(200, [caller.namespace])
        if len(parts) < 5:
            raise Refused(404, refusals.NO_ROUTE)
        self._count(f"{method} {parts[4]}")
        names = tuple(parts[5:])
        namespace = self._namespace(parts[3], caller, request)
        asked = Asked(request, caller, transaction_id, namespace, parts[4], names, request.path.endswith("/"))
        if asked.collection in ("triggers", "rules"):
            raise Refused(501, f"The emulator has no {asked.collection}.")
        if asked.collection not in self._collections:
            raise Refused(404, refusals.NO_ROUTE)
        return self._collections[asked.collection](asked)

    def _namespace(self, given: str, caller: Identity, request: Request) -> str:
        """That of the path. A token belongs to no namespace, so `_` says which only with a header."""
        if given != "_":
            return given
        if caller == self.identities.iam:
            return str(request.headers.get("X-Namespace-Id", "_"))
        return caller.namespace

    def _count(self, what: str) -> None:
        with self._counting:
            self._requests[what] += 1

    def _limit(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        self._limits = change(self._limits, changes)
        return asdict(self._limits)

    def _state(self) -> dict[str, int]:
        return {
            "running": self._throttles.running(),
            "sandboxes": len(self._pool),
            "records": len(self._activations),
            "throttles": self._throttles.refused,
            **vars(self._invoker.totals),
        }

    def _own(self, request: Request) -> Response:
        return control(request, usual(self._dice.change, self._limit, self._state, self._requests))
