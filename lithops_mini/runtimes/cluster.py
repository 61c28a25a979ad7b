"""A Kubernetes cluster with Knative Serving, as a configuration reaches it: one namespace, its errors in our words."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from urllib3.exceptions import HTTPError, InsecureRequestWarning

from lithops_mini.errors import ConfigError, InvocationError, Reason

T = TypeVar("T")
Object = dict[str, Any]
"""An object of the API, as JSON has it."""

MANAGED = "app.kubernetes.io/managed-by"
OWNER = "lithops-mini"
"""The label of everything of ours, and its value."""

_GROUP, _VERSION, _PLURAL = "serving.knative.dev", "v1", "services"
_CONTAINER = "user-container"  # as Knative names the only one
_REVISIONS = "serving.knative.dev/service"  # the label of a service's pods
# Seconds for which a server that is away, or has too much to do, is asked again; and until it has answered once.
_PATIENCE = 30.0
_ANSWER_LIMIT = (5.0, 30.0)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# Seconds of a watch: who ends it all does not wait for longer.
_WATCHED = 5
_SHOWN = 600  # characters of what a server said
_OWN_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Cluster:
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
        self._load(0)

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._client.configuration.host)

    @property
    def namespace(self) -> str:
        return self._found_namespace

    def close(self) -> None:
        """Wait for nothing any more."""
        self._closing.set()
        self._client.rest_client.pool_manager.clear()

    # -- services

    def services(self) -> list[Object]:
        """All services of ours."""
        found = self._ask(
            "list services of Knative",
            lambda: self._custom.list_namespaced_custom_object(*self._place, **self._limits, label_selector=_OURS),
        )
        return [] if found is None else list(found["items"])

    def find_service(self, name: str) -> Object | None:
        return self._ask(
            f"read the service {name}",
            lambda: self._custom.get_namespaced_custom_object(*self._place, name, **self._limits),
            none_for=("NotFound",),
        )

    def create_service(self, body: Object) -> Object | None:
        """``None`` if there is one of this name."""
        return self._ask(
            f"create the service {body['metadata']['name']}",
            lambda: self._custom.create_namespaced_custom_object(*self._place, body, **self._limits),
            none_for=("AlreadyExists",),
            again_for=("Conflict",),  # of a quota that others count on too
        )

    def replace_service(self, body: Object) -> Object | None:
        """``None`` if it is not the one that was read any more."""
        name = body["metadata"]["name"]
        return self._ask(
            f"change the service {name}",
            lambda: self._custom.replace_namespaced_custom_object(*self._place, name, body, **self._limits),
            none_for=("Conflict", "NotFound"),
        )

    def delete_service(self, name: str) -> None:
        """Delete it, if it is there."""
        self._ask(
            f"delete the service {name}",
            lambda: self._custom.delete_namespaced_custom_object(*self._place, name, **self._limits),
            none_for=("NotFound",),
            again_for=("Conflict",),
        )

    def versions(self, name: str, until: float) -> Iterator[Object | None]:
        """Yield the service as it is, and again when it has changed, or some seconds have passed, up to a time.

        ``until``: of the monotonic clock. ``None``: it is not there.
        """
        while True:
            found = self.find_service(name)
            yield found
            left = until - time.monotonic()
            if left <= 0:
                return
            if found is None:
                self._pause(min(_FIRST_PAUSE, left))
            else:
                yield from self._watch(name, found["metadata"]["resourceVersion"], max(1, min(_WATCHED, int(left))))

    def _watch(self, name: str, version: str, seconds: int) -> Iterator[Object]:
        listing, selected = self._custom.list_namespaced_custom_object, {"field_selector": f"metadata.name={name}"}
        for kind, found in self._changes(listing, *self._place, version=version, seconds=seconds, **selected):
            if kind == "DELETED":
                return
            yield found

    def _changes(
        self, listing: Any, *place: str, version: str, seconds: int = _WATCHED, **selected: str
    ) -> Iterator[tuple[str, Object]]:
        """What a watch tells: the kind of each change, and the object. It ends after some seconds."""
        began = time.monotonic()
        events = self._watches.Watch().stream(
            listing,
            *place,
            resource_version=version,
            timeout_seconds=seconds,
            _request_timeout=(_ANSWER_LIMIT[0], seconds + 5),
            **selected,
        )
        pause = _FIRST_PAUSE
        try:
            for event in events:
                if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    yield event["type"], event["raw_object"]
        except self._errors:
            pause = 1.0  # it has ended before its time, or cannot be had: whoever asks again is told why
        self._pause(max(0.0, began + pause - time.monotonic()))

    # -- what explains how a service is

    def pods(self, service: str) -> list[Object]:
        """The pods of a service; none if these credentials may not see them."""
        return self._listed(
            "list pods",
            lambda: self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{_REVISIONS}={service}", **self._limits
            ),
        )

    def all_pods(self) -> Iterator[tuple[float, Mapping[str, Object]]]:
        """Yield all pods of ours by their names, and again whenever one has changed or gone, for some seconds.

        With it comes when they were listed, of the monotonic clock.
        """
        began = time.monotonic()
        listed = self._ask(
            "list pods",
            lambda: self._plain(
                self._core.list_namespaced_pod(self.namespace, label_selector=_OURS, **self._limits),
            ),
        )
        assert listed is not None
        pods = {each["metadata"]["name"]: each for each in listed["items"]}
        yield began, pods
        version = listed["metadata"]["resourceVersion"]
        listing = self._core.list_namespaced_pod
        for kind, pod in self._changes(listing, self.namespace, version=version, label_selector=_OURS):
            name = pod["metadata"]["name"]
            pods = {each: found for each, found in pods.items() if each != name}
            if kind != "DELETED":
                pods[name] = pod
            yield began, pods

    def log(
        self, pod: str, *, previous: bool = False, lines: int | None = None, seconds: int | None = None
    ) -> list[tuple[str, str]]:
        """What the container of calls in a pod has printed: lines, each with its time as Kubernetes writes it.

        ``previous``: the one that has ended before it. ``lines``: the last ones only; ``seconds``: only what is not
        older. Nothing, if there is no such container, or no such pod any more.
        """
        limits = {"tail_lines": lines, "since_seconds": seconds}
        text = self._ask(
            f"read the log of the pod {pod}",
            lambda: self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=_CONTAINER,
                previous=previous,
                timestamps=True,
                _preload_content=False,
                **{name: value for name, value in limits.items() if value is not None},
                **self._limits,
            ).data.decode(errors="replace"),
            none_for=("NotFound", "BadRequest"),
        )
        return [stamped(line) for line in (text or "").splitlines()]

    def follow_log(self, pod: str, lines: int, seconds: float) -> Iterator[tuple[str, str]]:
        """The same, as it comes, from the last so many lines on, until nothing has come for some seconds or it ends."""
        try:
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=_CONTAINER,
                follow=True,
                timestamps=True,
                tail_lines=lines,
                _preload_content=False,
                _request_timeout=(_ANSWER_LIMIT[0], seconds),
            )
            with answer:
                rest = b""
                for part in answer.stream():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        yield stamped(line.decode(errors="replace"))
        except self._errors as error:
            said = Answer(error)
            if said.status in (401, 403):
                raise self._translated(f"read the log of the pod {pod}", said) from error

    def warnings(self, name: str) -> list[Object]:
        """The warnings among the events about what is named so, or begins so; none if one may not see them."""
        found = self._listed(
            "list events",
            lambda: self._core.list_namespaced_event(self.namespace, field_selector="type=Warning", **self._limits),
        )
        mine = re.compile(rf"{re.escape(name)}(-\d{{5}}.*)?")
        return [each for each in found if mine.fullmatch(each["involvedObject"].get("name", ""))]

    def _listed(self, doing: str, ask: Callable[[], Any]) -> list[Object]:
        found = self._ask(doing, lambda: self._client.sanitize_for_serialization(ask()), none_for=("Forbidden",))
        return [] if found is None else list(found["items"])

    # -- secrets

    def find_secret(self, name: str) -> Object | None:
        return self._ask(
            f"read the secret {name}",
            lambda: self._plain(self._core.read_namespaced_secret(name, self.namespace, **self._limits)),
            none_for=("NotFound",),
        )

    def create_secret(self, body: Object) -> Object | None:
        """``None`` if there is one of this name."""
        return self._ask(
            f"create the secret {body['metadata']['name']}",
            lambda: self._plain(self._core.create_namespaced_secret(self.namespace, body, **self._limits)),
            none_for=("AlreadyExists",),
            again_for=("Conflict",),  # of a quota that others count on too
        )

    def replace_secret(self, body: Object) -> Object | None:
        """``None`` if it is not the one that was read any more."""
        name = body["metadata"]["name"]
        return self._ask(
            f"change the secret {name}",
            lambda: self._plain(self._core.replace_namespaced_secret(name, self.namespace, body, **self._limits)),
            none_for=("Conflict", "NotFound"),
        )

    def delete_secret(self, name: str) -> None:
        """Delete it, if it is there."""
        self._ask(
            f"delete the secret {name}",
            lambda: self._core.delete_namespaced_secret(name, self.namespace, **self._limits),
            none_for=("NotFound",),
            again_for=("Conflict",),
        )

    # -- asking

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return _GROUP, _VERSION, self.namespace, _PLURAL

    _limits: Mapping[str, Any] = {"_request_timeout": _ANSWER_LIMIT}

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
        pause, loaded, renewed = _FIRST_PAUSE, self._loaded, False
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

    # -- who one is

    def _load(self, loaded: int) -> None:
        """Read the configuration, unless somebody has done so since it was the one numbered ``loaded``."""
        try:
            client, config, watches = (import_module(f"kubernetes.{each}") for each in ("client", "config", "watch"))
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
            self._watches: Any = watches
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


def stamped(line: str) -> tuple[str, str]:
    """The time of a line, and the line."""
    stamp, _, text = line.partition(" ")
    return stamp, text


class Answer:
    """What an error of the client tells: an answer of the API server that is no success, or none at all."""

    def __init__(self, error: Exception) -> None:
        self.status = int(getattr(error, "status", None) or 0)  # of HTTP; 0: there was none
        told = _status(getattr(error, "body", None))
        self.reason = str(told.get("reason") or "")  # as the API names it: NotFound, Conflict, ...
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


_OURS = f"{MANAGED}={OWNER}"
