"""What an API server tells of itself: its version, its groups, its resources."""

from __future__ import annotations

import platform
from typing import Any

from lithops_mini.emulators.front import Request, Response, json_response
from lithops_mini.emulators.knative import kinds, schemas
from lithops_mini.emulators.knative.kinds import Kind

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_INFORMATION = {"title": "Kubernetes", "version": f"v{schemas.VERSION}.0"}
_REVIEW = "SelfSubjectAccessReview"
_AUTHORIZATION = ("authorization.k8s.io", "v1")


def describe(request: Request) -> Response | None:
    """The answer to a question about the server; ``None`` if it is another one."""
    path = request.path.rstrip("/")
    if path in ("/healthz", "/livez", "/readyz"):
        return Response(200, (("Content-Type", "text/plain; charset=utf-8"),), b"ok")
    if path == "/openapi/v2":
        return _open_api(request)
    found = _documents().get(path)
    return None if found is None else json_response(200, found)


def _documents() -> dict[str, Any]:
    groups = sorted({(each.group, each.version) for each in kinds.KINDS if each.group} | {_AUTHORIZATION})
    made: dict[str, Any] = {
        "/version": _version(),
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]},
        "/api/v1": _resources("", "v1"),
    }
    for group, version in groups:
        made[f"/apis/{group}"] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
        made[f"/apis/{group}/{version}"] = _resources(group, version)
    places = [path.removeprefix("/") for path in made if path.endswith("/v1")]
    made["/openapi/v3"] = {"paths": {each: {"serverRelativeURL": f"/openapi/v3/{each}"} for each in places}}
    return made | {f"/openapi/v3/{each}": _checks(each) for each in places}


def _version() -> dict[str, str]:
    major, minor = schemas.VERSION.split(".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    text = f"v{schemas.VERSION}.0+lithops-mini-emulator"
    made = {"major": major, "minor": minor, "gitVersion": text, "platform": f"linux/{machine}"}
    return made | dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"), "")


def _group(group: str, version: str) -> dict[str, Any]:
    place = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [place], "preferredVersion": place}


def _resources(group: str, version: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for kind in kinds.KINDS:
        if (kind.group, kind.version) == (group, version):
            found += _of(kind)
    if (group, version) == _AUTHORIZATION:
        name = f"{_REVIEW.lower()}s"
        found.append({"name": name, "singularName": "", "namespaced": False, "kind": _REVIEW, "verbs": ["create"]})
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def _of(kind: Kind) -> list[dict[str, Any]]:
    made: dict[str, Any] = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced}
    made |= {"kind": kind.name, "verbs": _VERBS}
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    below = {"name": "", "singularName": "", "namespaced": kind.namespaced, "kind": kind.name}
    verbs = {"status": ["get", "patch", "update"], "log": ["get"], "token": ["create"]}
    return [made, *({**below, "name": f"{kind.plural}/{each}", "verbs": verbs[each]} for each in kind.subresources)]


def _checks(place: str) -> dict[str, Any]:
    """That the server itself can be asked to refuse unknown fields, which kubectl wants to know; schemas of its own."""
    paths = {}
    for kind in kinds.KINDS:
        if place in (f"apis/{kind.api_version}", f"api/{kind.api_version}"):
            scope = "namespaces/{namespace}/" if kind.namespaced else ""
            patch: dict[str, Any] = {
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": _whose(kind),
                "responses": {},
            }
            patch["parameters"] = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
            paths[f"/{place}/{scope}{kind.plural}/{{name}}"] = {"patch": patch}
    published = {
        f"dev.knative.{kind.name}": {**schemas.schema(kind), "x-kubernetes-group-version-kind": [_whose(kind)]}
        for kind in kinds.KINDS
        if kind.custom and place == f"apis/{kind.api_version}"
    }
    return {"openapi": "3.0.0", "info": _INFORMATION, "paths": paths, "components": {"schemas": published}}


def _whose(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def _open_api(request: Request) -> Response:
    """No schemas at all: kubectl leaves the checks to the server then."""
    if "proto" in (request.headers.get("Accept") or ""):
        content = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        return Response(200, (("Content-Type", content),))
    return json_response(200, {"swagger": "2.0", "info": _INFORMATION, "paths": {}})
