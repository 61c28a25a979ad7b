"""Tokens of IBM Cloud's IAM: made of an API key, used by all threads, and made anew before they expire."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

import requests

from lithops_mini.runtimes.openwhisk_service import Refusal, shown

ENDPOINT = "https://iam.cloud.ibm.com"
_PATH = "/identity/token"
_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_LIMIT = 30.0  # seconds for an answer
# Of the time for which a token is good; then there is another, since one may be under way for a while.
_USED = 0.8


class IamToken:
    """Who asks, as the header of a request: an ``Authorize``."""

    def __init__(self, api_key: str, endpoint: str = ENDPOINT) -> None:
        """``endpoint``: with the path to the tokens, or without."""
        self._api_key = api_key
        self._endpoint = endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}{_PATH}"
        self._lock = threading.Lock()
        self._header = ""
        self._until = 0.0  # monotonic

    def __call__(self, refused: str) -> str:
        """A token that is good, and another one than was ``refused``. Raises ``SERVICE_ERRORS``."""
        with self._lock:
            if self._header == refused or time.monotonic() > self._until:
                self._fetch()
            return self._header

    def _fetch(self) -> None:
        began = time.monotonic()
        response = requests.post(
            self._endpoint,
            data={"grant_type": _GRANT, "apikey": self._api_key},
            headers={"Accept": "application/json"},
            timeout=_LIMIT,
        )
        if not response.ok:
            raise Refusal(401 if response.status_code == 400 else response.status_code, _said(response))
        told = response.json()
        self._header = f"Bearer {told['access_token']}"
        self._until = began + _USED * float(told["expires_in"])


def _said(response: requests.Response) -> str:
    try:
        told = response.json()
        return f"IAM gives no token: {shown(told['errorMessage'])}"
    except (ValueError, LookupError, TypeError):
        return f"IAM gives no token: {response.status_code} {response.reason}"
