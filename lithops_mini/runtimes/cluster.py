"""A cluster with Knative Serving: services, their secrets, their pods, and what pods have printed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lithops_mini.runtimes import knative_schema
from lithops_mini.runtimes.api_server import ANSWER_LIMIT, FIRST_PAUSE, WATCHED, Answer, ApiServer, Object

MANAGED = "app.kubernetes.io/managed-by"
OWNER = "lithops-mini"
"""The label of everything of ours, and its value."""

_OURS = f"{MANAGED}={OWNER}"
_GROUP, _VERSION, _PLURAL = "serving.knative.dev", "v1", "services"
_CONTAINER = "user-container"  # as Knative names the only one
_REVISIONS = "serving.knative.dev/service"  # the label of a service's pods


class Cluster(ApiServer):
    """May be used from several threads. Its methods raise ``ConfigError``, or ``InvocationError`` for what passes."""

    _published: Object | None = None  # once it was asked for

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

    def check_service(self, body: Object) -> None:
        """Raise ``ConfigError`` for a service that is not what the cluster's own schema permits."""
        if self._published is None:
            self._published = self.schemas(_GROUP, _VERSION)
        knative_schema.check(self._published, body)

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
                self._pause(min(FIRST_PAUSE, left))
            else:
                yield from self._watch(name, found["metadata"]["resourceVersion"], max(1, min(WATCHED, int(left))))

    def _watch(self, name: str, version: str, seconds: int) -> Iterator[Object]:
        listing, selected = self._custom.list_namespaced_custom_object, {"field_selector": f"metadata.name={name}"}
        for kind, found in self._changes(listing, *self._place, version=version, seconds=seconds, **selected):
            if kind == "DELETED":
                return
            yield found

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
        given = {name: value for name, value in limits.items() if value is not None}

        def ask() -> list[str]:
            return list(self._log_lines(pod, previous=previous, **given, **self._limits))

        found = self._ask(f"read the log of the pod {pod}", ask, none_for=("NotFound", "BadRequest"))
        return [stamped(line) for line in found or ()]

    def follow_log(self, pod: str, lines: int, seconds: float) -> Iterator[tuple[str, str]]:
        """The same, as it comes, from the last so many lines on, until nothing has come for some seconds or it ends."""
        limit = ANSWER_LIMIT[0], seconds
        try:
            for line in self._log_lines(pod, follow=True, tail_lines=lines, _request_timeout=limit):
                yield stamped(line)
        except self._errors as error:
            said = Answer(error)
            if said.status in (401, 403):
                raise self._translated(f"read the log of the pod {pod}", said) from error

    def _log_lines(self, pod: str, **given: Any) -> Iterator[str]:
        read = self._core.read_namespaced_pod_log
        return self._lines(
            lambda **raw: read(pod, self.namespace, container=_CONTAINER, timestamps=True, **given, **raw)
        )

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

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return _GROUP, _VERSION, self.namespace, _PLURAL


def stamped(line: str) -> tuple[str, str]:
    """The time of a line, and the line."""
    stamp, _, text = line.partition(" ")
    return stamp, text
