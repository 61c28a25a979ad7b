"""Who asks, and what they may do: bearer tokens, and roles that are bound to service accounts in a namespace."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

from lithops_mini.emulators.knative import status
from lithops_mini.emulators.knative.kinds import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Kind, Object
from lithops_mini.emulators.knative.store import Store

ADMINISTRATOR = "kubernetes-admin"


@dataclass(frozen=True)
class User:
    """Who a token belongs to. A service account has a namespace."""

    name: str
    namespace: str = ""
    account: str = ""


@dataclass(frozen=True)
class Need:
    """What a request does to what."""

    verb: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


class Access:
    """Tokens and what they permit. The administrator's may do everything, ``token`` is the one in force."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[User, str, float]] = {}
        self.token = secrets.token_urlsafe(32)

    def renew(self) -> str:
        """A new token for the administrator; the one before has expired."""
        self.token = secrets.token_urlsafe(32)
        return self.token

    def give_token(self, account: Object, seconds: float) -> str:
        """A token of a service account, good for so long."""
        metadata = account["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        user = User(f"system:serviceaccount:{namespace}:{name}", namespace, name)
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._tokens[token] = user, metadata["uid"], time.monotonic() + seconds
        return token

    def authenticate(self, header: str | None) -> User:
        """Whose the ``Authorization`` is. ``Refused`` if it is nobody's."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            if secrets.compare_digest(token.encode(), self.token.encode()):
                return User(ADMINISTRATOR)
            user, uid, end = self._tokens.get(token, (None, "", 0.0))
            if user is not None and time.monotonic() < end:
                account = self._store.find(SERVICE_ACCOUNT, user.namespace, user.account)
                if account is not None and account["metadata"]["uid"] == uid:
                    return user
        raise status.unauthorized()

    def check(self, user: User, need: Need) -> None:
        """``Refused`` if the user may not."""
        if not self.permits(user, need):
            raise status.forbidden(user.name, need.verb, need.kind, need.subresource, need.namespace, need.name)

    def permits(self, user: User, need: Need) -> bool:
        if user.name == ADMINISTRATOR:
            return True
        bindings, _ = self._store.find_all(ROLE_BINDING, need.namespace) if need.namespace else ([], 0)
        return any(
            _allows(rule, need)
            for binding in bindings
            if any(_is(subject, user) for subject in binding.get("subjects", ()))
            and binding["roleRef"]["kind"] == ROLE.name
            for rule in (self._store.find(ROLE, need.namespace, binding["roleRef"]["name"]) or {}).get("rules", ())
        )


def _is(subject: Object, user: User) -> bool:
    if subject["kind"] == "ServiceAccount":
        return bool(subject.get("namespace") == user.namespace and subject["name"] == user.account)
    return bool(subject["kind"] == "User" and subject["name"] == user.name)


def _allows(rule: Object, need: Need) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _covers(rule.get("verbs"), need.verb)
        and _covers(rule.get("apiGroups"), need.kind.group)
        and _covers(rule.get("resources"), need.resource)
        and (not names or need.name in names)
    )


def _covers(listed: list[str] | None, wanted: str) -> bool:
    return wanted in (listed or ()) or "*" in (listed or ())
