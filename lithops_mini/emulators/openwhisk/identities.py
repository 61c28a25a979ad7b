"""Who may ask: one namespace with an API key, and one whose bearer tokens an IAM endpoint gives."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import string
import threading
import time
import uuid
from dataclasses import dataclass
from urllib.parse import parse_qs

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.openwhisk import refusals
from lithops_mini.emulators.openwhisk.refusals import Refused

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Identity:
    """A subject with a namespace of its own; ``key`` is ``uuid:secret`` where there is one."""

    subject: str
    namespace: str
    key: str


class Identities:
    """The two identities of an emulator."""

    def __init__(self) -> None:
        secret = "".join(secrets.choice(_LETTERS) for _ in range(64))
        self.guest = Identity("guest", "guest", f"{uuid.uuid4()}:{secret}")
        self.iam = Identity("IBMid-emulator", str(uuid.uuid4()), "")
        self.iam_api_key = secrets.token_urlsafe(33)
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}  # and until when they are good

    def authenticate(self, header: str | None) -> Identity:
        """Who sends a request with this ``Authorization``. ``Refused`` if that is nobody."""
        if not header:
            raise Refused(401, refusals.NO_CREDENTIALS)
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic" and hmac.compare_digest(_decoded(value).encode(), self.guest.key.encode()):
            return self.guest
        if scheme.lower() == "bearer":
            with self._lock:
                if self._tokens.get(value.strip(), 0.0) > time.time():
                    return self.iam
        raise Refused(401, refusals.WRONG_CREDENTIALS)

    def give_token(self, body: bytes, life: float) -> Response:
        """What the IAM endpoint answers to a form with an API key: a token that is good for ``life`` seconds."""
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != _GRANT:
            return json_response(400, {"errorCode": "BXNIM0106E", "errorMessage": f"The grant_type must be {_GRANT}."})
        if not hmac.compare_digest(form.get("apikey", "").encode(), self.iam_api_key.encode()):
            return json_response(
                400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
            )
        token = secrets.token_urlsafe(60)
        now = time.time()
        with self._lock:
            self._tokens = {known: until for known, until in self._tokens.items() if until > now}
            self._tokens[token] = now + life
        answer = {"access_token": token, "refresh_token": "not_supported", "token_type": "Bearer"}
        return json_response(
            200, {**answer, "expires_in": int(life), "expiration": int(now + life), "scope": "ibm openid"}
        )


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
