"""The API server: requests for objects, answered from the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import NoneType
from typing import Any

from lithops_mini.emulators.front import Request, Response, compact, json_response
from lithops_mini.emulators.knative import discovery, kinds, patches, status
from lithops_mini.emulators.knative.access import Access, Need, User
from lithops_mini.emulators.knative.admission import admit, check_fields
from lithops_mini.emulators.knative.asked import Asked, asked, decoded_object
from lithops_mini.emulators.knative.connections import Stream, is_gone
from lithops_mini.emulators.knative.dice import Dice
from lithops_mini.emulators.knative.kinds import Kind, Object
from lithops_mini.emulators.knative.status import Refused
from lithops_mini.emulators.knative.store import Change, Policy, Store, now
from lithops_mini.emulators.knative.tables import table, wants_table

_WRITES = ("create", "update", "patch", "delete", "deletecollection")
_MADE_HERE = (kinds.POD, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE)
_LOOK = 1.0  # seconds between looks whether who watches is still there
_WATCH = 3600.0  # seconds of a watch that says no time
_TOKEN = 3600  # seconds of a token that says no time
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

LogReader = Callable[[Object, Asked], Response]


class Api:
    """Answers requests. ``log`` answers those for a pod's log; ``count`` is called with what each request does."""

    def __init__(self, store: Store, access: Access, dice: Dice, log: LogReader, count: Callable[[str], None]) -> None:
        self._store = store
        self._access = access
        self._dice = dice
        self._log = log
        self._count = count

    def answer(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Refused as error:
            return error.response()

    def _answer(self, request: Request) -> Response:
        if self._dice.falls("throttle"):
            raise status.too_many_requests(1)
        user = self._access.authenticate(request.headers.get("Authorization"))
        if self._dice.falls("unauthorized"):
            raise status.unauthorized()
        described = discovery.describe(request) if request.method == "GET" else None
        if described is not None:
            return described
        if request.path == _REVIEWS and request.method == "POST":
            return self._review(user, decoded_object(request))
        given = asked(request)
        verb = given.verb
        self._count(f"{verb} {given.need.resource}")
        self._access.check(user, given.need)
        if "dryRun" in given.query:
            raise status.bad_request("the emulator has no dry run")
        if verb in _WRITES and self._dice.falls("conflict"):
            raise status.conflict(given.kind, given.name)
        if given.subresource == "log":
            return self._log(self._store.get(given.kind, given.namespace, given.name), given)
        if given.subresource == "token":
            return self._give_token(given)
        if verb in ("create", "update", "patch"):
            if given.kind in _MADE_HERE:
                why = "the emulator makes and changes these itself, as Services of Knative say"
                raise status.forbidden_because(given.kind, given.name, why)
            return self._create(given, user) if verb == "create" else self._change(given, user)
        actions = {"get": self._get, "list": self._list, "watch": self._watch, "delete": self._delete}
        return actions.get(verb, self._delete_all)(given)

    def _get(self, given: Asked) -> Response:
        return self._shown(given, self._store.get(given.kind, given.namespace, given.name))

    def _list(self, given: Asked) -> Response:
        found, version = self._store.find_all(given.kind, given.namespace, given.select())
        if wants_table(given.request.headers.get("Accept") or ""):
            include = given.query.get("includeObject", "Metadata")
            return json_response(200, table(given.kind, found, str(version), include))
        kind, metadata = f"{given.kind.name}List", {"resourceVersion": str(version)}
        body = {"kind": kind, "apiVersion": given.kind.api_version, "metadata": metadata, "items": found}
        return json_response(200, body)

    def _watch(self, given: Asked) -> Response:
        if "sendInitialEvents" in given.query:
            text = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise status.invalid(replace(given.kind, name="ListOptions"), "", [status.Cause("sendInitialEvents", text)])
        limit = given.number("timeoutSeconds")
        events = self._events(given, time.monotonic() + (_WATCH if limit is None else limit))
        return Stream(200, (("Content-Type", "application/json"),), parts=events)

    def _events(self, given: Asked, deadline: float) -> Iterator[bytes]:
        select, since = given.select(), given.number("resourceVersion") or 0
        if not since:
            found, since = self._store.find_all(given.kind, given.namespace, select)
            for each in found:
                yield self._event(given, "ADDED", each)
        while (left := deadline - time.monotonic()) > 0 and not is_gone(given.request):
            try:
                changes = self._store.changes(since, min(left, _LOOK))
            except Refused as error:
                yield compact({"type": "ERROR", "object": error.status()}) + b"\n"
                return
            for change in changes:
                since = change.version
                type_ = _seen(change, given, select)
                if type_ is None:
                    continue
                yield self._event(given, type_, change.object)
                if self._dice.falls("end_watch"):
                    return

    def _event(self, given: Asked, type_: str, found: Object) -> bytes:
        if wants_table(given.request.headers.get("Accept") or ""):
            include = given.query.get("includeObject", "Metadata")
            found = table(given.kind, [found], found["metadata"]["resourceVersion"], include)
        return compact({"type": type_, "object": found}) + b"\n"

    def _create(self, given: Asked, user: User) -> Response:
        made = given.object()
        made.pop("status", None)
        warnings = _warnings(given, admit(given.kind, made, None))
        if given.kind is kinds.SERVICE:
            _sign(made, user, "creator", "lastModifier")
        created = self._store.create(given.kind, made)
        return json_response(201, created, warnings)

    def _change(self, given: Asked, user: User) -> Response:
        """Replace or patch an object, or its status."""
        warnings: list[tuple[str, str]] = []
        body = given.body() if given.verb == "patch" else given.object()
        has_status = "status" in given.kind.subresources

        def change(before: Object) -> Object:
            made: Object = body
            if given.verb == "patch":
                made = given.checked(patches.patched(given.kind, before, body, given.content_type))
            elif given.kind.custom and not made["metadata"].get("resourceVersion"):
                cause = status.Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
                raise status.invalid(given.kind, given.name, [cause])
            if given.subresource:
                check_fields(given.kind, made)
            else:
                warnings.extend(_warnings(given, admit(given.kind, made, before)))
                if given.kind is kinds.SERVICE and made.get("spec") != before.get("spec"):
                    _sign(made, user, "lastModifier")
            return made

        place = given.kind, given.namespace, given.name
        state = given.subresource == "status" if has_status else None
        changed = self._store.update(*place, change, state=state)
        return json_response(200, changed, tuple(warnings))

    def _delete(self, given: Asked) -> Response:
        policy, grace, preconditions = _how(given)
        found, gone = self._store.delete(
            given.kind, given.namespace, given.name, policy, grace=grace, preconditions=preconditions
        )
        if gone and given.kind.custom:
            return json_response(200, status.success(given.kind, given.name, found["metadata"]["uid"]))
        return json_response(200, found)

    def _delete_all(self, given: Asked) -> Response:
        policy, grace, _ = _how(given)
        found, version = self._store.find_all(given.kind, given.namespace, given.select())
        for each in found:
            place = each["metadata"].get("namespace", ""), each["metadata"]["name"]
            if self._store.find(given.kind, *place) is not None:
                self._store.delete(given.kind, *place, policy, grace=grace)
        kind, metadata = f"{given.kind.name}List", {"resourceVersion": str(version)}
        body = {"kind": kind, "apiVersion": given.kind.api_version, "metadata": metadata, "items": found}
        return json_response(200, body)

    def _shown(self, given: Asked, found: Object) -> Response:
        if not wants_table(given.request.headers.get("Accept") or ""):
            return json_response(200, found)
        include = given.query.get("includeObject", "Metadata")
        return json_response(200, table(given.kind, [found], found["metadata"]["resourceVersion"], include))

    def _give_token(self, given: Asked) -> Response:
        account = self._store.get(given.kind, given.namespace, given.name)
        wanted = decoded_object(given.request).get("spec") or {}
        seconds = wanted.get("expirationSeconds") if isinstance(wanted, dict) else None
        if not isinstance(seconds, int):
            seconds = _TOKEN
        told = {"token": self._access.give_token(account, seconds), "expirationTimestamp": now(seconds)}
        request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}}
        return json_response(201, {**request, "spec": {"expirationSeconds": seconds}, "status": told})

    def _review(self, user: User, review: Object) -> Response:
        """Whether who asks may do something."""
        spec = review.get("spec")
        asked_for = spec.get("resourceAttributes") if isinstance(spec, dict) else None
        if not isinstance(asked_for, dict):
            raise status.bad_request("spec.resourceAttributes must say what is asked")
        group, resource = asked_for.get("group", ""), asked_for.get("resource", "")
        kind = next((each for each in kinds.KINDS if (each.group, each.plural) == (group, resource)), None)
        kind = kind or Kind(group, "", resource, resource)
        place = asked_for.get("namespace", ""), asked_for.get("name", ""), asked_for.get("subresource", "")
        allowed = self._access.permits(user, Need(asked_for.get("verb", ""), kind, *place))
        return json_response(201, {**review, "status": {"allowed": allowed}})


def _seen(change: Change, given: Asked, select: Callable[[Object], bool]) -> str | None:
    """What a change is for who sees only some objects; ``None`` if it is nothing."""
    if change.kind is not given.kind or given.namespace not in ("", change.object["metadata"].get("namespace")):
        return None
    was = change.before is not None and select(change.before)
    there = change.type != "DELETED" and select(change.object)
    if was and there:
        return "MODIFIED"
    return "ADDED" if there else "DELETED" if was else None


def _how(given: Asked) -> tuple[Policy, float | None, Object]:
    """How something is to be deleted: by the body, or by the query."""
    options = decoded_object(given.request)
    policy: Any = options.get("propagationPolicy") or given.query.get("propagationPolicy") or "Background"
    if options.get("orphanDependents") or given.flag("orphanDependents"):
        policy = "Orphan"
    if policy not in ("Background", "Foreground", "Orphan"):
        raise status.bad_request(f'invalid propagationPolicy "{policy}": must be Background, Foreground or Orphan')
    grace = options.get("gracePeriodSeconds", given.number("gracePeriodSeconds"))
    preconditions = options.get("preconditions") or {}
    if not isinstance(grace, (int, NoneType)) or not isinstance(preconditions, dict):
        raise status.bad_request("gracePeriodSeconds must be a number, and preconditions an object")
    return policy, None if grace is None else max(grace, 0), preconditions


def _sign(service: Object, user: User, *names: str) -> None:
    annotations = service["metadata"].setdefault("annotations", {})
    for name in names:
        annotations[f"{kinds.SERVING}/{name}"] = user.name


def _warnings(given: Asked, unknown: list[str]) -> tuple[tuple[str, str], ...]:
    """What is said of fields that no schema has. ``Refused`` if the client wants to have none of them."""
    how = given.query.get("fieldValidation", "Warn")
    if not unknown or how == "Ignore":
        return ()
    texts = [f'unknown field "{path}"' for path in unknown]
    if how == "Strict":
        what = f'{given.kind.name} in version "{given.kind.version}" cannot be handled as a {given.kind.name}'
        raise status.bad_request(f"{what}: strict decoding error: {', '.join(texts)}")
    quoted = [text.replace('"', r"\"") for text in texts]
    return tuple(("Warning", f'299 - "{text}"') for text in quoted)
