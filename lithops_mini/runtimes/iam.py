"""Tokens of IBM Cloud's IAM: made of an API key, used by all threads, and made anew before they expire."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlencode, urlsplit

import requests

from lithops_mini.runtimes.http import Client
from lithops_mini.runtimes.openwhisk_service import NoAuthorization, parsed, passes, refusal, shown, unreached

_ENDPOINT = "https://iam.cloud.ibm.com"
_PATH = "/identity/token"
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_HEADERS = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
_LIMIT = 30.0  # seconds for an answer
# Of the time for which a token is good; then there is another, since one may be under way for a while.
_USED = 0.8


class IamToken:
    """Who asks, as the header of a request: an ``Authorize``."""

    def __init__(
        self, api_key: str, endpoint: str | None, *, setting: str, key: str, verify: bool | str = True
    ) -> None:
        """``endpoint``: with the path to the tokens, or without; ``None`` for IBM's public one.

        ``setting`` and ``key``: of the configuration, for errors: where the endpoint is set, and the API key.
        ``verify``: whether the certificate of an ``endpoint`` is checked, or the file of those to trust.
        """
        self._api_key = api_key
        self._endpoint = (endpoint or _ENDPOINT).rstrip("/")
        self._url = self._endpoint if urlsplit(self._endpoint).path else f"{self._endpoint}{_PATH}"
        self._setting = setting
        self._key = key
        self._client = Client(1, True if endpoint is None else verify)
        self._lock = threading.Lock()
        self._header = ""
        self._until = 0.0  # monotonic

    def __call__(self, refused: str) -> str:
        """A token that is good, and another one than was ``refused``."""
        with self._lock:
            if self._header == refused or time.monotonic() > self._until:
                self._fetch()
            return self._header

    def end(self) -> None:
        """Break off what is under way. There is no other token afterwards."""
        self._client.end()

    def _fetch(self) -> None:
        began = time.monotonic()
        form = urlencode({"grant_type": _GRANT, "apikey": self._api_key}).encode()
        try:
            with self._client.send("POST", self._url, _HEADERS, form, (_LIMIT, _LIMIT)) as response:
                _ = response.content  # all of it, or an error
        except requests.RequestException as error:
            why = unreached(error, self._endpoint, self._setting)
            raise NoAuthorization(f"IAM gives no token: {why}", passes=passes(error)) from error
        told = parsed(response)
        try:
            token, life = told["access_token"], float(told["expires_in"])
        except (LookupError, TypeError, ValueError):
            raise self._refused(response, told) from None
        self._header = f"Bearer {token}"
        self._until = began + _USED * life

    def _refused(self, response: requests.Response, told: object) -> NoAuthorization:
        """What an answer means that has no token."""
        if response.status_code in (400, 401, 403) and isinstance(told, dict) and "errorMessage" in told:
            said = shown(told["errorMessage"])
            return NoAuthorization(f"IAM gives no token: check {self._key} ({said})", passes=False)
        found = refusal(response)
        text = f"{self._endpoint} has answered as no IAM does: check {self._setting} ({found.status}, {found.said})"
        return NoAuthorization(f"IAM gives no token: {text}", passes=passes(found))
