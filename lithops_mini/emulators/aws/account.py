"""The identities of the account: an administrator to begin with, and sessions of the roles of functions."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

ACCOUNT = DEFAULT_ACCOUNT_ID
_SESSION = 12 * 3600  # seconds
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True)
class Keys:
    """Credentials."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def variables(self) -> dict[str, str]:
        """Environment variables that AWS's SDKs read."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret_access_key}
        return found | ({"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {})


def make_administrator() -> Keys:
    """A user who may do everything."""
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user("us-east-1", "administrator")
    iam.put_user_policy("administrator", "everything", json.dumps(_EVERYTHING))
    key = iam.create_access_key("administrator")
    return Keys(key.access_key_id, key.secret_access_key)


class Roles:
    """Sessions of roles: one for each, which all of its sandboxes share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Keys] = {}

    def session(self, role: str) -> Keys:
        with self._lock:
            if role not in self._sessions:
                made = sts_backends[ACCOUNT]["aws"].assume_role("us-east-1", "lambda", role, "", _SESSION, "")
                self._sessions[role] = Keys(made.access_key_id, made.secret_access_key, made.session_token)
            return self._sessions[role]


def identify(access_key_id: str, session_token: str | None) -> tuple[Keys, Any] | None:
    """The secret that belongs to a key, and who has it, as moto's record of a user or a session. ``None``: nobody."""
    iam = iam_backends[ACCOUNT]["aws"]
    for role in sts_backends[ACCOUNT]["aws"].assumed_roles:
        if role.access_key_id == access_key_id:
            keys = Keys(access_key_id, role.secret_access_key, role.session_token)
            return (keys, role) if session_token == role.session_token else None
    for key in iam.access_keys.values():
        if key.access_key_id == access_key_id and key.user_name and key.status == "Active" and not session_token:
            return Keys(access_key_id, key.secret_access_key), iam.get_user(key.user_name)
    return None
