"""The API server of a Kubernetes, as a configuration reaches it: one namespace, its errors in our words."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from urllib3 import Timeout
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from lithops_mini.errors import ConfigError, InvocationError, Reason

T = TypeVar("T")
Object = dict[str, Any]
"""An object of the API, as JSON has it."""

ANSWER_LIMIT = (5.0, 30.0)
"""Seconds within which one is connected, and answered."""
FIRST_PAUSE = 0.2
WATCHED = 5
"""Seconds of a watch: who ends it all does not wait for longer."""

# Seconds for which a server that is away, or has too much to do, is asked again.
_PATIENCE = 30.0
_LONGEST_PAUSE = 5.0
_SHOWN = 600  # characters of what a server said
# Of answers that are no objects of the API.
_REASONS = {403: "Forbidden", 404: "NotFound"}
_OWN_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class ApiServer:
    """May be used from several threads. Its methods raise ``ConfigError``, or ``InvocationError`` for what passes."""

    def __init__(
        self,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        """``kubeconfig``: a file, by default as kubectl finds it, else what a pod has. ``namespace``: by default the
        context's. ``ca_bundle``: a file of certificates to trust where the kubeconfig names none.
        """
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._ca_bundle = ca_bundle
        self._closing = threading.Event()
        self._loading = threading.Lock()
        self._loaded = 0
        self._read: list[Any] = []  # answers that are being read as they come
        self._load(0)

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._client.configuration.host)

    @property
    def namespace(self) -> str:
        return self._found_namespace

    def schemas(self, group: str, version: str) -> Object:
        """The document of OpenAPI 3 about a group of the API; empty if the server does not show it."""

        def ask() -> Object:
            # What the client offers for paths of one's own is called differently in each of its versions.
            tokens = self._client.configuration.auth_settings().values()
            answer = self._client.rest_client.pool_manager.request(
                "GET",
                f"{self.server}/openapi/v3/apis/{group}/{version}",
                headers={"Accept": "application/json", **{token["key"]: token["value"] for token in tokens}},
                timeout=Timeout(connect=ANSWER_LIMIT[0], read=ANSWER_LIMIT[1]),
                retries=False,
            )
            self._check(answer)
            return dict(json.loads(answer.data))

        return self._ask(f"read the schemas of {group}", ask, none_for=("NotFound", "Forbidden")) or {}

    def close(self) -> None:
        """Wait for nothing any more."""
        self._closing.set()
        with self._loading:
            for answer in self._read:
                with suppress(OSError, AttributeError):  # it has ended by itself
                    # urllib3 offers no way to end what another thread reads.
                    socket.socket.shutdown(answer._original_response.fp.raw._sock, socket.SHUT_RDWR)
        self._client.rest_client.pool_manager.clear()

    # -- asking

    _limits: Mapping[str, Any] = {"_request_timeout": ANSWER_LIMIT}

    def _plain(self, answer: Any) -> Object:
        plain: Object = self._client.sanitize_for_serialization(answer)
        return plain

    def _ask(
        self, doing: str, ask: Callable[[], T], *, none_for: tuple[str, ...] = (), again_for: tuple[str, ...] = ()
    ) -> T | None:
        """What ``ask`` returns, tried again for some time where that can help; ``None`` for answers of some reasons.

        A server that does not accept who one is, is asked once more with what the configuration has now: tokens expire.
        """
        deadline = time.monotonic() + _PATIENCE
        pause, loaded, renewed = FIRST_PAUSE, self._loaded, False
        while True:
            try:
                return ask()
            except self._errors as error:
                said = Answer(error)
                if said.reason in none_for:
                    return None
                if said.status == 401 and not renewed:
                    renewed = True
                    self._load(loaded)
                    continue
                wait = max(pause, said.retry_after)
                passes = said.passes or said.reason in again_for
                if not passes or time.monotonic() + wait > deadline:
                    raise self._translated(doing, said) from error
                self._pause(wait)
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise InvocationError("the knative backend was closed", reason=Reason.CANCELLED)

    def _translated(self, doing: str, said: Answer) -> ConfigError | InvocationError:
        text = f"cannot {doing} in the namespace {self.namespace} of {self.server}: {said.text}"
        if hint := self._hint(said):
            text = f"{text}; {hint}"
        if said.passes:
            return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)
        return ConfigError(text)

    def _hint(self, said: Answer) -> str:
        if said.status == 401:
            return "the credentials of the kubeconfig are not valid, or not any more: log in to the cluster again"
        if said.status == 403 and "quota" not in said.text:
            return "docs/backends/knative.md has a Role with what is needed"
        if said.status == 404 and "namespaces" not in said.text:
            return "is Knative Serving installed there? kubectl api-resources --api-group serving.knative.dev tells"
        if "CERTIFICATE_VERIFY_FAILED" in said.text:
            return "set knative.ca_bundle to the file of the certificate that signed the server's"
        return ""

    def _changes(
        self, listing: Any, *place: str, version: str, seconds: int = WATCHED, **selected: str
    ) -> Iterator[tuple[str, Object]]:
        """What a watch tells: the kind of each change, and the object. It ends after some seconds."""
        began, pause = time.monotonic(), FIRST_PAUSE
        limit = ANSWER_LIMIT[0], seconds + 5
        watched = {"resource_version": version, "timeout_seconds": seconds, **selected}
        try:
            for line in self._lines(
                lambda **raw: listing(*place, watch=True, _request_timeout=limit, **watched, **raw)
            ):
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    yield event["type"], event["object"]
        except (*self._errors, ValueError):
            pause = 1.0  # it has ended before its time, or cannot be had: whoever asks again is told why
        self._pause(max(0.0, began + pause - time.monotonic()))

    def _check(self, answer: Any) -> None:
        """Raise what the client raises for an answer that is no success: newer ones leave that to who reads it."""
        if not 200 <= answer.status < 300:
            error = self._errors[0](status=answer.status, reason=answer.reason)
            error.body, error.headers = getattr(answer, "data", None) or answer.read(), answer.headers
            raise error

    def _lines(self, ask: Callable[..., Any]) -> Iterator[str]:
        """The lines of an answer as they come, until it ends, or this is closed. Raises what the client raises."""
        with ask(_preload_content=False) as answer:
            self._check(answer)
            with self._loading:
                self._read.append(answer)
            try:
                rest = b""
                for part in () if self._closing.is_set() else answer.stream():
                    *whole, rest = (rest + part).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
                if rest:
                    yield rest.decode(errors="replace")
            finally:
                with self._loading:
                    self._read.remove(answer)

    # -- who one is

    def _load(self, loaded: int) -> None:
        """Read the configuration, unless somebody has done so since it was the one numbered ``loaded``."""
        try:
            client, config = (import_module(f"kubernetes.{each}") for each in ("client", "config"))
        except ImportError as error:
            raise ConfigError(
                f"Kubernetes is reached with its own client, which is not installed ({error}): pip install"
                " 'lithops_mini[knative]'"
            ) from error
        with self._loading:
            if self._loaded != loaded:
                return
            configuration: Any = client.Configuration()
            file = self._file()
            try:
                if file is None:
                    config.load_incluster_config(configuration)
                    namespace = Path(_OWN_NAMESPACE).read_text().strip()
                else:
                    config.load_kube_config(file, self._context, configuration, persist_config=False)
                    contexts, active = config.list_kube_config_contexts(file)
                    used = next((each for each in contexts if each["name"] == self._context), active)
                    namespace = used["context"].get("namespace") or "default"
            except (config.ConfigException, OSError) as error:
                where = file or "of this pod"
                raise ConfigError(
                    f"the configuration {where} leads to no cluster ({error}): set knative.kubeconfig to a file with"
                    " which kubectl works, and knative.context to one of its contexts"
                ) from error
            if self._ca_bundle and not configuration.ssl_ca_cert and not getattr(configuration, "ca_cert_data", None):
                configuration.ssl_ca_cert = self._ca_bundle
            configuration.retries = False  # that is done here
            if not configuration.verify_ssl:  # whoever wrote the kubeconfig knows, and need not be told each time
                warnings.simplefilter("ignore", InsecureRequestWarning)
            if loaded:
                self._client.rest_client.pool_manager.clear()
            self._client: Any = client.ApiClient(configuration)
            self._custom: Any = client.CustomObjectsApi(self._client)
            self._core: Any = client.CoreV1Api(self._client)
            self._errors = (client.ApiException, HTTPError, OSError)
            self._found_namespace = self._namespace or namespace
            self._loaded += 1

    def _file(self) -> str | None:
        """The kubeconfig; ``None`` for what a pod has."""
        if given := self._kubeconfig or os.environ.get("KUBECONFIG"):
            return os.path.expanduser(given)
        usual = os.path.expanduser("~/.kube/config")
        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not self._context
        return None if in_pod and not os.path.exists(usual) else usual


class Answer:
    """What an error of the client tells: an answer of the API server that is no success, or none at all."""

    def __init__(self, error: Exception) -> None:
        self.status = int(getattr(error, "status", None) or 0)  # of HTTP; 0: there was none
        told = _status(getattr(error, "body", None))
        # As the API names it: NotFound, Conflict, ...
        self.reason = str(told.get("reason") or _REASONS.get(self.status, ""))
        self.text = _shortened(str(told.get("message") or getattr(error, "reason", None) or error))
        seconds = (getattr(error, "headers", None) or {}).get("Retry-After", "")
        self.retry_after = min(float(seconds), _PATIENCE) if str(seconds).isdecimal() else 0.0

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later."""
        if self.status == 0:
            return "SSL" not in self.text and "CERTIFICATE" not in self.text
        return self.status in (408, 429) or self.status >= 500


def _status(body: str | bytes | None) -> Mapping[str, Any]:
    try:
        told = json.loads(body or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _shortened(text: str) -> str:
    text = " ".join(re.sub(r"<[^>]*object at 0x[^>]*>:? ?", "", text).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
