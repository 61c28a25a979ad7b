"""The local Knative, asked by the official Python client: objects, and services whose pods are processes."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import yaml
from conftest import REPOSITORY, missing_engine
from engines import EngineMissing
from knative_emulator import GROUP, SERVER, condition, host, install_kubectl, start_knative, status, wait_until
from kubernetes import client
from kubernetes.client import ApiException

from lithops_mini.emulators.knative import kinds, schemas
from lithops_mini.emulators.knative.server import Emulator, Settings
from lithops_mini.errors import ConfigError


@pytest.fixture(scope="module")
def knative(tmp_path_factory):
    directory = tmp_path_factory.mktemp("knative")
    with start_knative(directory, "--sandbox", "process", "--grace", "5", "--back-off", "0.5") as emulated:
        yield emulated


def scaled(least=0, most=0, **more):
    """Annotations."""
    given = {"min-scale": least, "max-scale": most, **more}
    return {f"autoscaling.knative.dev/{name}": str(value) for name, value in given.items() if value}


# -- what is told of it


def test_it_says_where_it_is(knative):
    url = yaml.safe_load(knative.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    assert url.startswith("https://127.0.0.1:")
    assert knative.lines == [
        f"An emulator of Knative answers at {url}, until Ctrl-C or SIGTERM.\n",
        f"export KUBECONFIG={knative.kubeconfig}\n",
        f"export INGRESS={knative.ingress}\n",
    ]
    profile = yaml.safe_load(knative.profile.read_text())
    assert profile["default_profile"] == "emulator"
    assert profile["profiles"]["emulator"]["backend"] == "knative"
    assert profile["profiles"]["emulator"]["storage"] == "localhost"
    assert knative.kubeconfig == knative.profile.with_suffix(".kubeconfig")
    for path in (knative.profile, knative.kubeconfig):
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_it_is(knative):
    version = client.VersionApi(knative.api).get_code()
    assert version.git_version.endswith("+lithops-mini-emulator")
    assert "serving.knative.dev" in [each.name for each in client.ApisApi(knative.api).get_api_versions().groups]
    found = knative.custom.get_api_resources(*GROUP)
    services = next(each for each in found.resources if each.name == "services")
    assert (services.kind, services.short_names, services.namespaced) == ("Service", ["kservice", "ksvc"], True)
    assert {"default", "kube-system"} <= {each.metadata.name for each in knative.core.list_namespace().items}


def test_who_has_another_certificate_authority_does_not_connect(knative):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(knative.api.configuration.host, timeout=10)


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic YTpi"])
def test_a_wrong_token(knative, header):
    answer = knative.ask("GET", "/api/v1/namespaces", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


# -- objects


def test_a_new_service(knative):
    name = knative.make(containerConcurrency=2)
    made = knative.get(name)
    metadata, spec = made["metadata"], made["spec"]
    assert metadata["generation"] == 1
    assert {"uid", "resourceVersion", "creationTimestamp"} <= set(metadata)
    assert metadata["annotations"]["serving.knative.dev/creator"] == "kubernetes-admin"
    assert spec["template"]["spec"]["containers"][0]["name"] == "user-container"
    assert spec["template"]["spec"]["enableServiceLinks"] is False
    assert spec["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert [each["type"] for each in made["status"]["conditions"]] == ["ConfigurationsReady", "Ready", "RoutesReady"]
    assert {each["status"] for each in made["status"]["conditions"]} == {"True"}
    assert made["status"]["latestReadyRevisionName"] == f"{name}-00001"
    assert host(made["status"]["url"]) == f"{name}.default.localhost:{knative.ingress.rpartition(':')[2]}"
    for plural in ("configurations", "routes"):
        assert condition(knative.get(name, plural))["status"] == "True"
    revision = knative.get(f"{name}-00001", "revisions")
    assert condition(revision)["status"] == "True"
    assert revision["spec"]["containerConcurrency"] == 2
    (pod,) = knative.pods(name)
    assert pod.status.phase == "Running"
    assert [each.name for each in pod.status.container_statuses] == ["user-container", "queue-proxy"]
    assert all(each.ready for each in pod.status.container_statuses)
    assert pod.metadata.labels["serving.knative.dev/revision"] == f"{name}-00001"


def bad(knative, change):
    body = knative.body("bad")
    change(body["spec"]["template"]["spec"], body)
    return body


@pytest.mark.parametrize(
    ("change", "code", "reason", "message"),
    [
        (
            lambda spec, _: spec.update(containerConcurrency="one"),
            422,
            "Invalid",
            'Service.serving.knative.dev "bad" is invalid: spec.template.spec.containerConcurrency: Invalid value:'
            ' "string": spec.template.spec.containerConcurrency in body must be of type integer: "string"',
        ),
        (
            lambda spec, _: spec["containers"][0].update(env=[{"value": "x"}]),
            422,
            "Invalid",
            '"bad" is invalid: spec.template.spec.containers[0].env[0].name: Required value',
        ),
        (
            lambda spec, _: spec["containers"][0].update(resources={"limits": {"memory": "lots"}}),
            422,
            "Invalid",
            "spec.template.spec.containers[0].resources.limits.memory in body should match",
        ),
        (
            lambda _, body: body["metadata"].update(name="Not_a_name"),
            422,
            "Invalid",
            'metadata.name: Invalid value: "Not_a_name": a lowercase RFC 1123 subdomain must consist of',
        ),
        (
            lambda _, body: body["metadata"].pop("name"),
            422,
            "Invalid",
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            lambda spec, _: spec.update(timeoutSeconds=601),
            400,
            "BadRequest",
            'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: expected'
            " 1 <= 601 <= 600: spec.template.spec.timeoutSeconds",
        ),
        (
            lambda _, body: body["metadata"].update(name="a" * 64),
            400,
            "BadRequest",
            "not a DNS 1035 label: [must be no more than 63 characters]: metadata.name",
        ),
        (lambda spec, _: spec["containers"][0].pop("image"), 400, "BadRequest", "missing field(s): "),
        (
            lambda spec, _: spec["containers"][0].update(env=[{"name": "PORT", "value": "1"}]),
            400,
            "BadRequest",
            '"PORT" is a reserved environment variable',
        ),
        (
            lambda _, body: body["spec"]["template"]["metadata"].update(annotations=scaled(3, 2)),
            400,
            "BadRequest",
            "max-scale=2 is less than min-scale=3",
        ),
        (lambda _, body: body.update(kind="Servant"), 400, "BadRequest", "does not match the expected API version"),
        (
            lambda _, body: body["metadata"].update(namespace="other"),
            400,
            "BadRequest",
            "the namespace of the provided",
        ),
    ],
)
def test_what_cannot_be_a_service(knative, change, code, reason, message):
    with pytest.raises(ApiException) as caught:
        knative.create(bad(knative, change))
    found = status(caught.value)
    assert (found["code"], found["reason"]) == (code, reason)
    assert message in found["message"]
    if code == 422:
        assert found["details"]["causes"][0]["field"].startswith(("spec.", "metadata."))
        assert found["details"] | {"group": "serving.knative.dev", "kind": "Service"} == found["details"]
    assert "bad" not in [each["metadata"]["name"] for each in knative.list()]


def test_an_unknown_field_is_pruned(knative):
    body = knative.body("pruned")
    body["spec"]["template"]["spec"]["nonsense"] = 1
    body["other"] = 1
    made = knative.create(body)
    assert "nonsense" not in made["spec"]["template"]["spec"]
    assert "other" not in made
    knative.delete("pruned")


def test_an_unknown_field_is_refused_for_who_wants_it(knative):
    body = knative.body("strict")
    body["spec"]["template"]["spec"]["nonsense"] = 1
    with pytest.raises(ApiException) as caught:
        knative.create(body, field_validation="Strict")
    assert status(caught.value)["code"] == 400
    assert 'strict decoding error: unknown field "spec.template.spec.nonsense"' in status(caught.value)["message"]


def test_one_that_is_there_and_one_that_is_not(knative):
    name = knative.make()
    with pytest.raises(ApiException) as caught:
        knative.create(knative.body(name))
    found = status(caught.value)
    assert (found["code"], found["reason"]) == (409, "AlreadyExists")
    assert found["message"] == f'services.serving.knative.dev "{name}" already exists'
    for ask in (lambda: knative.get("absent"), lambda: knative.delete("absent"), lambda: knative.patch("absent", {})):
        with pytest.raises(ApiException) as caught:
            ask()
        found = status(caught.value)
        assert (found["code"], found["reason"]) == (404, "NotFound")
        assert found["message"] == 'services.serving.knative.dev "absent" not found'
        assert found["details"] == {"name": "absent", "group": "serving.knative.dev", "kind": "services"}
    with pytest.raises(ApiException) as caught:
        knative.create(knative.body("any"), namespace="absent")
    assert status(caught.value)["message"] == 'namespaces "absent" not found'


def replace(knative, body):
    name = body["metadata"]["name"]
    return knative.custom.replace_namespaced_custom_object(*GROUP, "default", "services", name, body)


def test_a_version_that_is_old(knative):
    name = knative.make()
    first = knative.get(name)
    knative.patch(name, {"metadata": {"labels": {"new": "yes"}}})
    first["metadata"]["labels"]["other"] = "yes"
    with pytest.raises(ApiException) as caught:
        replace(knative, first)
    found = status(caught.value)
    assert (found["code"], found["reason"]) == (409, "Conflict")
    assert found["message"].endswith("please apply your changes to the latest version and try again")
    latest = knative.get(name)
    assert latest["metadata"]["labels"]["new"] == "yes"
    assert latest["metadata"]["generation"] == 1
    latest["spec"]["template"]["spec"]["timeoutSeconds"] = 7
    latest["status"] = {}
    latest["metadata"]["uid"] = first["metadata"]["uid"]
    changed = replace(knative, latest)
    assert changed["metadata"]["generation"] == 2
    assert changed["status"]["url"]
    del changed["metadata"]["resourceVersion"]
    with pytest.raises(ApiException) as caught:
        replace(knative, changed)
    assert "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update" in caught.value.body


def test_who_has_made_it_stays(knative):
    name = knative.make()
    fresh = knative.body(name, timeoutSeconds=7)
    fresh["metadata"]["resourceVersion"] = knative.get(name)["metadata"]["resourceVersion"]
    with pytest.raises(ApiException) as caught:
        replace(knative, fresh)
    text = "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
    assert text in status(caught.value)["message"]


def test_patches(knative):
    name = knative.make()
    merged = knative.patch(name, {"metadata": {"labels": {"a": "b", "app.kubernetes.io/managed-by": None}}})
    assert merged["metadata"]["labels"] == {"a": "b"}
    same = knative.patch(name, {"metadata": {"labels": {"a": "b"}}})
    assert same["metadata"]["resourceVersion"] == merged["metadata"]["resourceVersion"]
    as_list = {"_content_type": "application/json-patch+json"}
    listed = knative.patch(name, [{"op": "add", "path": "/metadata/labels/c", "value": "d"}], **as_list)
    assert listed["metadata"]["labels"] == {"a": "b", "c": "d"}
    with pytest.raises(ApiException) as caught:
        knative.patch(name, [{"op": "test", "path": "/metadata/labels/c", "value": "e"}], **as_list)
    assert caught.value.status == 422
    with pytest.raises(ApiException) as caught:
        knative.patch(name, {"spec": {"template": {"spec": {"containerConcurrency": "one"}}}})
    assert caught.value.status == 422
    with pytest.raises(ApiException) as caught:
        knative.patch(name, {}, _content_type="application/strategic-merge-patch+json")
    assert caught.value.status == 415


def test_the_status_is_another_matter(knative):
    name = knative.make()
    knative.patch(name, {"status": {"url": "http://no"}})
    assert "no" not in host(knative.get(name)["status"]["url"])
    told = {"status": {"annotations": {"a": "b"}}, "metadata": {"labels": {"new": "yes"}}}
    changed = knative.custom.patch_namespaced_custom_object_status(*GROUP, "default", "services", name, told)
    assert changed["status"]["annotations"] == {"a": "b"}
    assert "new" not in changed["metadata"]["labels"]


def test_lists_by_selectors(knative):
    names = [knative.make(ready=False) for _ in range(3)]
    for name, colour in zip(names, ("red", "blue", "green"), strict=True):
        knative.patch(name, {"metadata": {"labels": {"colour": colour}}})
    by = {
        "colour": names,
        "colour=red": names[:1],
        "colour!=red,colour": names[1:],
        "colour in (red, blue)": names[:2],
        "colour,colour notin (red)": names[1:],
        "!colour,app.kubernetes.io/managed-by=lithops-mini": [],
    }
    for selector, expected in by.items():
        found = [each["metadata"]["name"] for each in knative.list(label_selector=selector)]
        assert [each for each in found if each in names] == expected
    (one,) = knative.list(field_selector=f"metadata.name={names[0]}")
    assert one["metadata"]["name"] == names[0]
    with pytest.raises(ApiException) as caught:
        knative.list(label_selector="a in b")
    assert caught.value.status == 400


def test_secrets(knative):
    core = knative.core
    made = core.create_namespaced_secret(
        "default", client.V1Secret(metadata={"name": "keys"}, data={"a": "Yg=="}, string_data={"c": "d"})
    )
    assert made.data == {"a": "Yg==", "c": "ZA=="}
    assert (made.type, made.string_data, made.metadata.generation) == ("Opaque", None, None)
    changed = core.patch_namespaced_secret("keys", "default", {"data": {"c": None}, "stringData": {"e": "f"}})
    assert changed.data == {"a": "Yg==", "e": "Zg=="}
    changed.string_data = {"g": "h"}
    changed.metadata.resource_version = None
    assert core.replace_namespaced_secret("keys", "default", changed).data["g"] == "aA=="
    assert core.patch_namespaced_secret("keys", "default", {"immutable": True}).immutable
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_secret("keys", "default", {"stringData": {"a": "c"}})
    assert status(caught.value)["code"] == 422
    core.delete_namespaced_secret("keys", "default")
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_secret("keys", "default")
    assert status(caught.value)["message"] == 'secrets "keys" not found'


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"data": {"a": "no base64!"}}, 400, "illegal base64 data"),
        ({"data": {"a": 1}}, 400, 'Secret in version "v1" cannot be handled as a Secret'),
        ({"stringData": {"a b": "x"}}, 422, "a valid config key must consist of"),
        ({"stringData": {"a": "x" * 1_048_577}}, 422, "Too long"),
        ({"stringData": {"a": "x" * 3_200_000}}, 413, "Request entity too large: limit is 3145728"),
    ],
)
def test_what_cannot_be_a_secret(knative, body, code, message):
    answer = knative.ask("POST", "/api/v1/namespaces/default/secrets", json={"metadata": {"name": "bad"}, **body})
    assert answer.status_code == code
    assert message in answer.json()["message"]


# -- watches


def test_a_watch_goes_on_where_a_list_ended(knative):
    name = knative.make()
    since = knative.custom.list_namespaced_custom_object(*GROUP, "default", "services")["metadata"]["resourceVersion"]
    knative.patch(name, {"metadata": {"labels": {"a": "b"}}})
    knative.delete(name)
    told = []
    for event in knative.events(resource_version=since, field_selector=f"metadata.name={name}"):
        told.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert told[0] == "MODIFIED"
    assert set(told[:-1]) == {"MODIFIED"}


def test_a_watch_ends_when_its_time_is_over(knative):
    began = time.monotonic()
    assert list(knative.events(timeout_seconds=1, field_selector="metadata.name=absent")) == []
    assert 0.9 < time.monotonic() - began < 10


def test_a_watch_of_what_is_long_past(knative):
    knative.make()
    with knative.limits(history=2):
        knative.make(ready=False)
        with pytest.raises(ApiException) as caught:
            list(knative.events(resource_version="1"))
    assert caught.value.status == 410
    assert "too old resource version: 1" in str(caught.value)


def test_an_object_that_leaves_a_selection_is_deleted_for_who_watches_it(knative):
    name = knative.make()
    knative.patch(name, {"metadata": {"labels": {"here": "yes"}}})
    told = []
    for event in knative.events(label_selector="here=yes"):
        told.append(event["type"])
        if event["type"] == "ADDED":
            knative.patch(name, {"metadata": {"labels": {"here": None}}})
        if event["type"] == "DELETED":
            break
    assert told == ["ADDED", "DELETED"]


# -- what is deleted


def test_all_that_a_service_has_goes_with_it(knative):
    name = knative.make()
    pid = knative.call(name).body["pid"]
    answer = knative.delete(name)
    assert (answer["status"], answer["details"]["name"]) == ("Success", name)
    for plural in ("services", "configurations", "routes", "revisions"):
        assert name not in str([each["metadata"]["name"] for each in knative.list(plural)])
    wait_until(lambda: not knative.pods(name))
    assert not os.path.exists(f"/proc/{pid}")
    assert knative.call(name).status == 404


def test_in_the_foreground_the_service_goes_last(knative, tmp_path):
    name = knative.make()
    until = tmp_path / "until"
    with ThreadPoolExecutor() as executor:
        call = executor.submit(knative.call, name, {"until": str(until)})
        wait_until(lambda: knative.own("state")["running"])
        answer = knative.delete(name, propagation_policy="Foreground")
        assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert "deletionTimestamp" in knative.get(name)["metadata"]
        assert [each.metadata.deletion_timestamp is not None for each in knative.pods(name)] == [True]
        until.touch()
        assert call.result().status == 200  # a call is not cut by it
    wait_until(lambda: name not in [each["metadata"]["name"] for each in knative.list()])
    assert knative.pods(name) == []


def test_orphans_stay(knative):
    name = knative.make()
    knative.delete(name, propagation_policy="Orphan")
    assert "ownerReferences" not in str(knative.get(name, "routes")["metadata"].get("ownerReferences") or "")
    assert knative.call(name).status == 200
    for plural in ("routes", "configurations"):
        knative.custom.delete_namespaced_custom_object(*GROUP, "default", plural, name)
    wait_until(lambda: not knative.pods(name))


def test_preconditions(knative):
    name = knative.make()
    with pytest.raises(ApiException) as caught:
        knative.delete(name, body=client.V1DeleteOptions(preconditions={"uid": "another"}))
    assert status(caught.value)["code"] == 409
    knative.delete(name, body=client.V1DeleteOptions(preconditions={"uid": knative.get(name)["metadata"]["uid"]}))


def test_what_the_emulator_makes_is_not_for_others(knative):
    name = knative.make()
    for plural, made in (("revisions", f"{name}-00001"), ("routes", name)):
        with pytest.raises(ApiException) as caught:
            knative.custom.patch_namespaced_custom_object(*GROUP, "default", plural, made, {"spec": {}})
        assert status(caught.value)["code"] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "services", "[]", 400),
        ("POST", "services", "{", 400),
        ("POST", "services", '{"metadata": {"name": 1}}', 400),
        ("POST", "services", '{"metadata": {"name": "a", "labels": {"b": 1}}}', 400),
        ("POST", "services", '{"metadata": {"name": "a"}, "spec": null}', 422),
        ("PUT", "services", "{}", 405),
        ("POST", "services/a", "{}", 405),
        ("DELETE", "services/a", "1", 400),
        ("DELETE", "services/a", '{"propagationPolicy": "Sideways"}', 400),
        ("GET", "services/a/scale", "", 404),
        ("GET", "nonsense", "", 404),
        ("GET", "services?watch=1&timeoutSeconds=x", "", 400),
    ],
)
def test_what_cannot_be_asked(knative, method, path, body, code):
    answer = knative.ask(method, f"/apis/serving.knative.dev/v1/namespaces/default/{path}", data=body)
    assert answer.status_code == code
    assert answer.json()["code"] == code


def test_a_finalizer_holds_it(knative):
    name = knative.make()
    knative.patch(name, {"metadata": {"finalizers": ["example.com/mine"]}})
    knative.delete(name)
    assert "deletionTimestamp" in knative.get(name)["metadata"]
    knative.patch(name, {"metadata": {"finalizers": []}})
    with pytest.raises(ApiException) as caught:
        knative.get(name)
    assert caught.value.status == 404


def test_a_namespace_goes_with_all_in_it(knative):
    core = knative.core
    core.create_namespace({"metadata": {"name": "other"}})
    wait_until(lambda: core.list_namespaced_service_account("other").items)
    core.create_namespaced_secret("other", {"metadata": {"name": "keys"}})
    knative.create(knative.body("service"), namespace="other")
    wait_until(lambda: condition(knative.get("service", namespace="other"))["status"] == "True")
    answer = requests.post(f"{knative.ingress}/", json={}, headers={"Host": "service.other.localhost"}, timeout=30)
    assert answer.json()["revision"] == "service-00001"
    core.delete_namespace("other")
    wait_until(lambda: "other" not in [each.metadata.name for each in core.list_namespace().items])
    assert core.list_secret_for_all_namespaces(field_selector="metadata.namespace=other").items == []
    with pytest.raises(ApiException) as caught:
        core.delete_namespace("default")
    assert caught.value.status == 403


# -- calls


def test_a_call_arrives_as_it_was_sent(knative):
    name = knative.make({"env": [{"name": "A", "value": "b"}]})
    asked = {"environment": ["A", "PORT", "K_SERVICE", "K_CONFIGURATION"], "large": 3_000_000}
    answer = knative.call(name, asked, path="/a%20b?c=d", headers={"X-Own": "e"})
    assert (answer.status, int(answer.headers["Content-Length"]) > 3_000_000) == (200, True)
    assert answer.body["path"] == "/a%20b?c=d"
    assert answer.body["headers"]["X-Own"] == "e"
    assert answer.body["headers"]["Host"] == f"{name}.default.localhost"
    environment = answer.body["environment"]
    assert environment | {"A": "b", "K_SERVICE": name, "K_CONFIGURATION": name} == environment
    assert knative.call(name, {"status": 422}).status == 422


def test_the_url_of_a_service_leads_to_it(knative):
    name = knative.make()
    url = knative.get(name)["status"]["url"]
    answer = requests.get(knative.ingress, headers={"Host": host(url)}, timeout=10)
    assert answer.json() == {"path": "/"}


def test_a_pod_has_no_more_calls_than_it_may(knative):
    name = knative.make(containerConcurrency=2, annotations=scaled(most=2))
    with ThreadPoolExecutor(10) as executor:
        answers = list(executor.map(lambda _: knative.call(name, {"sleep": 0.2}), range(10)))
    assert [each.status for each in answers] == [200] * 10
    assert max(each.body["peak"] for each in answers) == 2
    assert len({each.body["pod"] for each in answers}) == 2
    assert len(knative.pods(name)) == 2


def test_without_a_limit_one_pod_takes_all(knative):
    name = knative.make()
    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(lambda _: knative.call(name, {"sleep": 0.3}), range(8)))
    assert len({each.body["pod"] for each in answers}) == 1
    assert max(each.body["peak"] for each in answers) > 2


def test_a_call_that_takes_too_long(knative):
    name = knative.make(timeoutSeconds=1, containerConcurrency=1, annotations=scaled(most=1))
    began = time.monotonic()
    answer = knative.call(name, {"sleep": 20})
    assert (answer.status, answer.body) == (504, "request timeout\n")
    assert 0.9 < time.monotonic() - began < 5
    assert knative.call(name).status == 200  # the pod is free, though it works on


def test_a_call_that_waits_too_long(knative):
    name = knative.make(timeoutSeconds=2, containerConcurrency=1, annotations=scaled(most=1))
    with ThreadPoolExecutor() as executor:
        first = executor.submit(knative.call, name, {"sleep": 1.5})
        wait_until(lambda: knative.own("state")["running"])
        second = executor.submit(knative.call, name, {"sleep": 1.5})
        assert first.result().status == 200
        assert second.result().status == 504


def test_too_many_calls_that_wait(knative, tmp_path):
    name = knative.make(containerConcurrency=1, annotations=scaled(most=1))
    until = tmp_path / "until"
    with knative.limits(queue=1), ThreadPoolExecutor() as executor:
        calls = [executor.submit(knative.call, name, {"until": str(until)}) for _ in range(2)]
        wait_until(lambda: knative.own("state")["waiting"] == 1)
        answer = knative.call(name)
        assert (answer.status, answer.body) == (503, "pending request queue full\n")
        until.touch()
        assert [each.result().status for each in calls] == [200, 200]


def test_who_does_not_wait_any_more_frees_the_pod(knative, tmp_path):
    name = knative.make(containerConcurrency=1, annotations=scaled(most=1))
    for _ in range(2):
        with pytest.raises(requests.exceptions.ReadTimeout):
            knative.call(name, {"until": str(tmp_path / "never")}, timeout=0.3)
    wait_until(lambda: not knative.own("state")["running"])
    assert knative.call(name).status == 200


def test_to_zero_and_from_zero(knative):
    name = knative.make(containerConcurrency=1)
    first = knative.call(name).body
    with knative.limits(idle=0.3):
        wait_until(lambda: not knative.pods(name))
    wait_until(lambda: condition(knative.get(f"{name}-00001", "revisions"), "Active")["reason"] == "NoTraffic")
    assert condition(knative.get(name))["status"] == "True"
    answer = knative.call(name)
    assert (answer.status, answer.body["calls"]) == (200, 1)
    assert answer.body["pod"] != first["pod"]


def test_as_few_as_must_be_there(knative):
    name = knative.make(containerConcurrency=1, annotations=scaled(least=2))
    assert len(knative.pods(name)) == 2
    with ThreadPoolExecutor() as executor, knative.limits(idle=0.2):
        list(executor.map(lambda _: knative.call(name, {"sleep": 0.2}), range(4)))
        wait_until(lambda: len(knative.pods(name)) == 2)
        knative.core.delete_namespaced_pod(knative.pods(name)[0].metadata.name, "default", grace_period_seconds=0)
        wait_until(lambda: len([each for each in knative.pods(name) if each.status.phase == "Running"]) == 2)


# -- pods that end


def test_a_pod_that_dies_in_a_call(knative):
    name = knative.make(containerConcurrency=1)
    answer = knative.call(name, {"print": "last words", "exit": 3})
    assert (answer.status, answer.body) == (502, "EOF\n")
    wait_until(lambda: knative.call(name).status == 200)  # until its end is noticed, calls still come to it
    (pod,) = knative.pods(name)
    state = pod.status.container_statuses[0]
    assert (state.restart_count, state.last_state.terminated.exit_code) == (1, 3)
    assert (state.last_state.terminated.reason, "last words" in state.last_state.terminated.message) == ("Error", True)
    assert knative.log(pod.metadata.name, previous=True) == "starts\nlast words\n"
    assert knative.log(pod.metadata.name) == "starts\n"


def test_a_container_that_dies_again_and_again(knative):
    name = knative.make(containerConcurrency=1)
    with knative.limits(back_off=2.0):
        for _ in range(2):
            assert knative.call(name, {"kill": 9}).status == 502
            wait_until(lambda: knative.pods(name)[0].status.container_statuses[0].state.terminated is None)
        wait_until(lambda: knative.pods(name)[0].status.container_statuses[0].state.waiting)
        assert knative.pods(name)[0].status.container_statuses[0].state.waiting.reason == "CrashLoopBackOff"
        answer = knative.call(name)
        assert (answer.status, answer.body) == (503, "no healthy upstream\n")
        wait_until(lambda: knative.call(name).status == 200)


def test_a_pod_that_is_deleted_finishes_its_call(knative, tmp_path):
    name = knative.make(containerConcurrency=1)
    until = tmp_path / "until"
    with ThreadPoolExecutor() as executor:
        call = executor.submit(knative.call, name, {"until": str(until)})
        wait_until(lambda: knative.own("state")["running"])
        (pod,) = knative.pods(name)
        knative.core.delete_namespaced_pod(pod.metadata.name, "default")
        other = knative.call(name).body["pod"]
        assert other != pod.metadata.name
        until.touch()
        assert call.result().body["pod"] == pod.metadata.name
    wait_until(lambda: pod.metadata.name not in [each.metadata.name for each in knative.pods(name)])


def test_a_program_that_ends_at_once(knative):
    name = knative.make({"command": ["sh", "-c", "echo no luck; exit 7"]}, ready=False)
    found = knative.await_condition(f"{name}-00001", "ContainerHealthy", "revisions")
    assert (found["reason"], found["message"]) == ("ExitCode7", "Container failed with: no luck\n")
    for kind in ("Ready", "ConfigurationsReady"):
        found = knative.await_condition(name, kind)
        assert found["reason"] == "RevisionFailed"
        assert found["message"].startswith(
            f'Revision "{name}-00001" failed with message: Container failed with: no luck'
        )
    found = knative.await_condition(name, "RoutesReady")
    assert (found["reason"], found["message"]) == (
        "RevisionMissing",
        f'Configuration "{name}" does not have any ready Revision.',
    )
    assert knative.call(name).status == 404
    knative.delete(name)


def test_a_program_that_is_not_there(knative):
    name = knative.make({"command": ["/no/such/program"]}, ready=False)
    found = knative.await_condition(f"{name}-00001", "ContainerHealthy", "revisions")
    assert found["reason"] == "ExitCode128"
    assert "no such file or directory" in found["message"]
    knative.delete(name)


def test_a_server_that_does_not_listen(knative):
    progress = {"serving.knative.dev/progress-deadline": "1s"}
    name = knative.make({"command": ["sleep", "100"]}, ready=False, annotations=progress)
    found = knative.await_condition(f"{name}-00001", "ResourcesAvailable", "revisions")
    assert (found["reason"], found["message"]) == ("ProgressDeadlineExceeded", "Initial scale was never achieved")
    knative.delete(name)


def test_a_probe_of_its_own(knative):
    container = {"readinessProbe": {"httpGet": {"path": "/ready"}}}
    assert knative.call(knative.make(container)).status == 200


def test_a_pod_that_is_not_ready_gets_no_calls_until_it_is(knative, tmp_path):
    answers = 'self.answer({"path": self.path}'
    program = SERVER.replace(answers, f'{answers}, 503 if os.path.exists("{tmp_path}/no") else 200')
    probe = {"httpGet": {"path": "/"}, "periodSeconds": 1, "failureThreshold": 1}
    name = knative.make({"command": [sys.executable, "-c", program], "readinessProbe": probe})
    (tmp_path / "no").touch()
    wait_until(lambda: not ready(knative, name))
    with ThreadPoolExecutor() as executor:
        call = executor.submit(knative.call, name)
        wait_until(lambda: knative.own("state")["waiting"])
        (tmp_path / "no").unlink()
        assert call.result().status == 200


def ready(knative, name):
    return all(each.ready for pod in knative.pods(name) for each in pod.status.container_statuses)


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"serviceAccountName": "absent"}, "FailedCreate", 'serviceaccount "absent" not found'),
        (
            {"nodeSelector": {"kubernetes.io/arch": "none"}},
            "Unschedulable",
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
    ],
)
def test_a_pod_that_cannot_be(knative, spec, reason, message):
    name = knative.make(ready=False, **spec)
    found = knative.await_condition(f"{name}-00001", "ResourcesAvailable", "revisions")
    assert found["reason"] == reason
    assert message in found["message"]
    assert message in knative.await_condition(name)["message"]
    knative.delete(name)


def test_more_pods_than_the_quota(knative):
    knative.settle()
    with knative.limits(pods=0):
        name = knative.make(ready=False)
        found = knative.await_condition(name)
        assert (
            "is forbidden: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0" in found["message"]
        )
    wait_until(lambda: condition(knative.get(name))["status"] == "True")


def test_a_secret_that_comes_later(knative):
    progress = {"serving.knative.dev/progress-deadline": "1s"}
    sources = {"envFrom": [{"secretRef": {"name": "later"}}]}
    name = knative.make(sources, ready=False, annotations=progress)
    found = knative.await_condition(f"{name}-00001", "ResourcesAvailable", "revisions")
    assert (found["reason"], found["message"]) == ("CreateContainerConfigError", 'secret "later" not found')
    knative.core.create_namespaced_secret("default", {"metadata": {"name": "later"}, "stringData": {"KEY": "value"}})
    wait_until(lambda: condition(knative.get(name))["status"] == "True")
    assert knative.call(name, {"environment": ["KEY"]}).body["environment"] == {"KEY": "value"}


def test_one_value_of_a_secret(knative):
    data = {"key": base64.b64encode(b"value").decode()}
    knative.core.create_namespaced_secret("default", {"metadata": {"name": "one"}, "data": data})
    environment = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "one", "key": "key"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "one", "key": "absent", "optional": True}}},
    ]
    name = knative.make({"env": environment})
    assert knative.call(name, {"environment": ["A", "B"]}).body["environment"] == {"A": "value", "B": None}


# -- changes


def test_a_change_makes_another_revision(knative):
    name = knative.make(containerConcurrency=1)
    old = knative.call(name).body
    container = knative.body(name, {"env": [{"name": "A", "value": "b"}]})["spec"]["template"]["spec"]["containers"]
    changed = knative.patch(name, {"spec": {"template": {"spec": {"containers": container}}}})
    assert changed["metadata"]["generation"] == 2
    found = knative.await_ready(name, generation=2)
    assert found["status"]["latestReadyRevisionName"] == f"{name}-00002"
    new = knative.call(name, {"environment": ["A"]}).body
    assert (new["revision"], new["environment"]) == (f"{name}-00002", {"A": "b"})
    wait_until(lambda: old["pod"] not in [each.metadata.name for each in knative.pods(name)])
    assert [each["metadata"]["name"] for each in knative.list("revisions") if name in each["metadata"]["name"]] == [
        f"{name}-00001",
        f"{name}-00002",
    ]


def test_a_change_that_fails_leaves_what_was(knative):
    name = knative.make(containerConcurrency=1)
    container = knative.body(name, {"command": ["false"]})["spec"]["template"]["spec"]["containers"]
    knative.patch(name, {"spec": {"template": {"spec": {"containers": container}}}})
    assert knative.await_condition(name)["reason"] == "RevisionFailed"
    assert knative.call(name).body["revision"] == f"{name}-00001"
    knative.delete(name)


# -- logs


def test_logs(knative):
    name = knative.make(containerConcurrency=1)
    for number in range(3):
        knative.call(name, {"print": f"line {number}"})
    pod = knative.pods(name)[0].metadata.name
    assert knative.log(pod) == "starts\nline 0\nline 1\nline 2\n"
    assert knative.log(pod, tail_lines=1) == "line 2\n"
    assert knative.log(pod, limit_bytes=8) == "starts\nl"
    assert knative.log(pod, timestamps=True, tail_lines=1)[4] == "-"
    with pytest.raises(ApiException) as caught:
        knative.core.read_namespaced_pod_log(pod, "default")
    text = f"a container name must be specified for pod {pod}, choose one of: [user-container queue-proxy]"
    assert status(caught.value)["message"] == text


def test_a_log_as_it_comes(knative):
    name = knative.make(containerConcurrency=1)
    pod = knative.pods(name)[0].metadata.name
    stream = knative.core.read_namespaced_pod_log(
        pod, "default", container="user-container", follow=True, _preload_content=False
    )
    lines = (line for part in stream.stream() for line in part.decode().splitlines())
    assert next(lines) == "starts"
    knative.call(name, {"print": "more"})
    assert next(lines) == "more"
    knative.delete(name)
    assert list(lines) == []


# -- faults


@pytest.mark.parametrize(("fault", "code"), [("busy", 429), ("unavailable", 503)])
def test_what_the_ingress_refuses(knative, fault, code):
    name = knative.make()
    assert knative.own("next", "PUT", **{fault: 1}) == {fault: 1}
    answer = knative.call(name)
    assert answer.status == code
    assert answer.headers.get("Retry-After") == ("1" if code == 429 else None)
    assert knative.call(name).status == 200


def test_a_connection_that_is_cut_with_the_work_done(knative, tmp_path):
    name = knative.make()
    knative.own("next", "PUT", cut=1)
    with pytest.raises(requests.exceptions.ConnectionError):
        knative.call(name, {"file": str(tmp_path / "done")})
    assert (tmp_path / "done").read_text() == "x"


def test_pods_that_are_killed_in_calls(knative, tmp_path):
    name = knative.make(containerConcurrency=1)
    knative.own("faults", "PUT", seed=1)
    done = tmp_path / "done"
    with knative.faults(crash=1.0):
        answers = [knative.call(name, {"file": str(done), "sleep": 0.3}) for _ in range(6)]
    assert {(each.status, each.body) for each in answers} == {(502, "EOF\n")}
    assert 0 < len(done.read_text()) < 6  # some with all work done
    assert knative.call(name).status == 200


def test_a_node_that_is_lost(knative, tmp_path):
    name = knative.make(containerConcurrency=1)
    with ThreadPoolExecutor() as executor:
        calls = [executor.submit(knative.call, name, {"until": str(tmp_path / "never")}) for _ in range(3)]
        wait_until(lambda: knative.own("state")["running"] == 3)
        assert knative.own("lose-node", "POST")["pods"] >= 3
        for call in calls:
            with pytest.raises(requests.exceptions.ConnectionError):
                call.result()
    assert knative.call(name).status == 200


def test_faults_of_the_api_server(knative):
    name = knative.make()
    knative.own("next", "PUT", conflict=1, throttle=1, unauthorized=1)
    answer = knative.ask("GET", "/version")
    assert (answer.status_code, answer.json()["reason"]) == (429, "TooManyRequests")
    assert answer.headers["Retry-After"] == "1"
    with pytest.raises(ApiException) as caught:
        knative.get(name)
    assert status(caught.value)["code"] == 401
    assert knative.get(name)
    with pytest.raises(ApiException) as caught:
        knative.patch(name, {"metadata": {"labels": {"a": "b"}}})
    assert status(caught.value)["reason"] == "Conflict"
    assert knative.patch(name, {"metadata": {"labels": {"a": "b"}}})["metadata"]["labels"]["a"] == "b"


def test_a_watch_that_ends_early(knative):
    name = knative.make(ready=False)
    knative.own("next", "PUT", end_watch=1)
    since = knative.get(name)["metadata"]["resourceVersion"]
    knative.patch(name, {"metadata": {"labels": {"a": "b"}}})
    began = time.monotonic()
    assert len(list(knative.events(resource_version=since))) == 1
    assert time.monotonic() - began < 10


def test_an_api_server_that_starts_again(knative):
    name = knative.make()
    told: list[str] = []

    def look():
        for event in knative.events(timeout_seconds=30, field_selector=f"metadata.name={name}"):
            told.append(event["type"])

    with ThreadPoolExecutor() as executor:
        watcher = executor.submit(look)
        wait_until(lambda: told)
        knative.own("restart-api", "POST", seconds=1)
        assert watcher.exception(timeout=20) is not None
        assert knative.call(name).status == 200  # calls need no API server
        address = ("127.0.0.1", int(knative.api.configuration.host.rpartition(":")[2]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 1)
        wait_until(lambda: listens(address))
    assert knative.get(name)["metadata"]["name"] == name


def listens(address):
    try:
        socket.create_connection(address, 1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_token_that_expires(knative):
    before = yaml.safe_load(knative.kubeconfig.read_text())["users"][0]["user"]["token"]
    knative.own("expire-token", "POST")
    with pytest.raises(ApiException) as caught:
        knative.list()
    assert caught.value.status == 401
    knative.reconnect()
    knative.list()
    assert yaml.safe_load(knative.kubeconfig.read_text())["users"][0]["user"]["token"] != before


def test_an_image_that_takes_its_time(knative):
    with knative.faults(pull=1.0):
        began = time.monotonic()
        name = knative.make(ready=False)
        wait_until(lambda: condition(knative.get(name)).get("reason"))
        assert knative.pods(name) == []
        knative.await_ready(name)
        assert time.monotonic() - began > 1.0


def test_faults_and_limits_are_checked(knative):
    assert knative.own("faults", "PUT", nonsense=1)["error"].startswith("there is no 'nonsense'; there are cold_start")
    assert knative.own("next", "PUT", pull=1)["error"].startswith("there is no 'pull'; there are crash")
    assert "must be a whole number" in knative.own("next", "PUT", crash="1")["error"]
    assert "must be a whole number" in knative.own("limits", "PUT", pods=1.5)["error"]
    assert knative.own("nonsense")["error"].startswith("there is no GET /_emulator/nonsense")


def test_what_it_tells_of_itself(knative):
    knative.settle()
    knative.own("requests", "DELETE")
    name = knative.make(containerConcurrency=1)
    knative.call(name)
    found = knative.own("state")
    assert (found["services"], found["pods"], found["ready"], found["running"]) == (1, 1, 1, 0)
    requests = knative.own("requests")
    assert (requests["create services"], requests["watch services"]) == (1, 1)


# -- who may do what


def test_a_role_permits_what_it_says(knative):
    core, access = knative.core, client.RbacAuthorizationV1Api(knative.api)
    core.create_namespaced_service_account("default", {"metadata": {"name": "worker"}})
    rules = [
        {"apiGroups": ["serving.knative.dev"], "resources": ["services"], "verbs": ["get", "list", "create"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    access.create_namespaced_role("default", {"metadata": {"name": "worker"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"}
    binding = {"metadata": {"name": "worker"}, "subjects": [subject], "roleRef": reference}
    access.create_namespaced_role_binding("default", binding)
    asked = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("worker", "default", asked).status.token
    configuration = client.Configuration(host=knative.api.configuration.host)
    configuration.ssl_ca_cert = knative.api.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(configuration) as api:
        its, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        custom.list_namespaced_custom_object(*GROUP, "default", "services")
        core.create_namespaced_secret("default", {"metadata": {"name": "mine"}})
        its.read_namespaced_secret("mine", "default")
        for ask in (
            lambda: its.read_namespaced_secret("other", "default"),
            lambda: its.list_namespaced_pod("default"),
            lambda: custom.delete_namespaced_custom_object(*GROUP, "default", "services", "x"),
            lambda: custom.list_namespaced_custom_object(*GROUP, "kube-system", "services"),
        ):
            with pytest.raises(ApiException) as caught:
                ask()
            assert status(caught.value)["reason"] == "Forbidden"
        assert status(caught.value)["message"] == (
            'services.serving.knative.dev is forbidden: User "system:serviceaccount:default:worker" cannot list'
            ' resource "services" in API group "serving.knative.dev" in the namespace "kube-system"'
        )
        for verb, allowed in (("create", True), ("delete", False)):
            attributes = {"group": "serving.knative.dev", "resource": "services", "namespace": "default", "verb": verb}
            review = {"spec": {"resourceAttributes": attributes}}
            answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
            assert answer.status.allowed is allowed
        core.delete_namespaced_service_account("worker", "default")
        with pytest.raises(ApiException) as caught:
            its.read_namespaced_secret("mine", "default")
        assert caught.value.status == 401


# -- the end


def test_nothing_is_left(tmp_path):
    with start_knative(tmp_path, "--sandbox", "process") as knative:
        names = [knative.make() for _ in range(2)]
        pids = [knative.call(name).body["pid"] for name in names]
        with ThreadPoolExecutor() as executor:
            call = executor.submit(knative.call, names[0], {"sleep": 60})
            wait_until(lambda: knative.own("state")["running"])
            knative.process.send_signal(signal.SIGINT)
            knative.process.wait(30)
            with pytest.raises(requests.exceptions.ConnectionError):
                call.result()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_port_that_is_taken(knative):
    port = int(knative.ingress.rpartition(":")[2])
    for settings in (Settings(port=port), Settings(ingress_port=port)):
        with pytest.raises(ConfigError, match=f"port {port} cannot be used"):
            Emulator(settings)


# -- kubectl


@pytest.fixture(scope="module")
def kubectl(knative):
    """Runs kubectl; returns what it prints."""
    try:
        program = install_kubectl()
    except EngineMissing as error:
        missing_engine(str(error))

    def run(*arguments, fails=False):
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "KUBECONFIG": str(knative.kubeconfig)}
        command = [program, "--request-timeout=30s", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_kubectl_gets(knative, kubectl):
    name = knative.make()
    url = knative.get(name)["status"]["url"]
    lines = kubectl("get", "ksvc", name).splitlines()
    assert lines[0].split() == ["NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON"]
    assert lines[1].split() == [name, url, f"{name}-00001", f"{name}-00001", "True"]
    assert kubectl("get", "ksvc", name, "-o", "jsonpath={.status.url}") == url
    assert yaml.safe_load(kubectl("get", "ksvc", name, "-o", "yaml")) == knative.get(name)
    pod = kubectl("get", "pods", "-l", f"serving.knative.dev/service={name}", "--no-headers").split()
    assert pod[:3] == [knative.pods(name)[0].metadata.name, "2/2", "Running"]
    found = kubectl("get", "all", "-o", "name").split()
    kinds = ("service", "configuration", "route")
    assert {f"{kind}.serving.knative.dev/{name}" for kind in kinds} <= set(found)
    assert f"revision.serving.knative.dev/{name}-00001" in found
    assert 'Error from server (NotFound): services.serving.knative.dev "absent" not found' in kubectl(
        "get", "ksvc", "absent", fails=True
    )


def test_kubectl_describes(knative, kubectl):
    name = knative.make({"env": [{"name": "A", "value": "b"}]})
    text = kubectl("describe", "ksvc", name)
    for part in (f"Name:         {name}", "Kind:         Service", "Latest Ready Revision Name:", "Events:"):
        assert part in text
    assert f'Created Configuration "{name}"' in text
    pod = knative.pods(name)[0].metadata.name
    assert "Started container user-container" in kubectl("describe", "pod", pod)


def test_kubectl_deletes(knative, kubectl):
    for flags in ((), ("--wait=false",), ("--grace-period=0", "--force")):
        name = knative.make()
        assert f'service.serving.knative.dev "{name}"' in kubectl("delete", "ksvc", name, *flags)
        assert name not in [each["metadata"]["name"] for each in knative.list()]
    name = knative.make()
    kubectl("delete", "pods", "-l", f"serving.knative.dev/service={name}")
    kubectl("delete", "ksvc", "-l", "app.kubernetes.io/managed-by=lithops-mini")
    assert knative.list() == []


def test_kubectl_applies(knative, kubectl, tmp_path):
    file = tmp_path / "service.yaml"
    body = knative.body("applied")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"}, "stringData": {"a": "b"}}
    file.write_text(yaml.safe_dump_all([body, secret]))
    assert kubectl("apply", "-f", str(file)).splitlines() == [
        "service.serving.knative.dev/applied created",
        "secret/applied created",
    ]
    kubectl("wait", "ksvc/applied", "--for=condition=Ready", "--timeout=30s")
    kubectl("apply", "-f", str(file))
    assert knative.get("applied")["metadata"]["generation"] == 1
    body["spec"]["template"]["spec"]["timeoutSeconds"] = 7
    file.write_text(yaml.safe_dump_all([body, secret]))
    assert "service.serving.knative.dev/applied configured" in kubectl("apply", "-f", str(file))
    found = knative.await_ready("applied", generation=2)
    assert found["spec"]["template"]["spec"]["timeoutSeconds"] == 7
    kubectl("delete", "-f", str(file))


def test_kubectl_applies_our_manifests(knative, kubectl, tmp_path):
    """A namespace with who may make services in it, and in it a service by hand, which is a worker."""
    manifests = REPOSITORY / "runtimes" / "knative"
    text = (manifests / "service.yaml").read_text().replace("<64 hexadecimal digits>", "00" * 32)
    (tmp_path / "service.yaml").write_text(text)
    kubectl("apply", "-f", str(manifests / "access.yaml"))
    document = yaml.safe_load(knative.kubeconfig.read_text())
    made = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    place = "lithops-mini"
    wait_until(lambda: knative.core.list_namespaced_service_account(place).items)
    given = knative.core.create_namespaced_service_account_token(place, place, made)
    document["users"][0]["user"] = {"token": given.status.token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    own = ("--kubeconfig", str(tmp_path / "kubeconfig"), "--namespace", place)
    assert kubectl(*own, "create", "-f", str(tmp_path / "service.yaml")).count("created") == 2
    name = "lithops-mini-0123456789ab-2048"
    kubectl(*own, "wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    answer = requests.get(knative.ingress, headers={"Host": f"{name}.{place}.localhost"}, timeout=60)
    assert answer.json().keys() == {"python", "version"}
    assert "cannot list resource" in kubectl(*own, "get", "ksvc", "-n", "default", fails=True)
    deleted = kubectl("delete", "ksvc,secret", "-n", place, "-l", "app.kubernetes.io/managed-by=lithops-mini")
    assert deleted.count(name) == 2
    assert kubectl(*own, "get", "ksvc", "-o", "name") == ""
    kubectl("delete", "--ignore-not-found", "-f", str(manifests / "access.yaml"))


def test_kubectl_shows_logs(knative, kubectl):
    name = knative.make()
    pod = knative.pods(name)[0].metadata.name
    assert kubectl("logs", pod, "-c", "user-container") == "starts\n"


# -- the schemas


# The package is of Knative 1.17 and the definition of 1.15: newer fields, and some that have a default by now. Unknown
# fields of a template's metadata are pruned here, and kept by the definition.
_REVISION = ".spec.template.spec"
KNOWN = {
    ".spec.template.metadata: additionalProperties is None, published True",
    f"{_REVISION}.containers[].ports[]: required is None, published ['containerPort']",
    f"{_REVISION}.containers[].resources.claims: only published",
    f"{_REVISION}.containers[].securityContext.privileged: only ours",
    f"{_REVISION}.hostIPC: only ours",
    f"{_REVISION}.hostNetwork: only ours",
    f"{_REVISION}.hostPID: only ours",
    f"{_REVISION}.volumes[].hostPath: only ours",
    *(
        f"{_REVISION}.containers[].{probe}.grpc: required is None, published ['port']"
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
    ),
}


def test_the_schema_is_the_published_one():
    """The schema of the package is what the CustomResourceDefinition says, which KNATIVE_SERVICE_CRD names."""
    path = os.environ.get("KNATIVE_SERVICE_CRD")
    if not path:
        pytest.skip("needs KNATIVE_SERVICE_CRD, the path of the published definition of services.serving.knative.dev")
    with open(path, encoding="utf-8") as file:
        definition = yaml.safe_load(file)
    (version,) = definition["spec"]["versions"]
    published = schemas.structural(version["schema"]["openAPIV3Schema"], {})
    ours = schemas.schema(kinds.SERVICE)
    names = definition["spec"]["names"]
    assert (names["plural"], tuple(names["shortNames"]), tuple(names["categories"])) == (
        kinds.SERVICE.plural,
        kinds.SERVICE.short_names[:2],
        kinds.SERVICE.categories,
    )
    published["properties"]["metadata"] = ours["properties"]["metadata"]  # the definition leaves it to the server
    assert set(differences(published, ours)) == KNOWN


def differences(published, ours, path=""):
    """Where two schemas take different things, as sentences."""
    for name in ("type", "required", "pattern", "enum"):
        if published.get(name) != ours.get(name):
            yield f"{path}: {name} is {ours.get(name)}, published {published.get(name)}"
    theirs, mine = published.get("properties", {}), ours.get("properties", {})
    for name in sorted(set(theirs) ^ set(mine)):
        yield f"{path}.{name}: only {'published' if name in theirs else 'ours'}"
    for name in set(theirs) & set(mine):
        yield from differences(theirs[name], mine[name], f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(published.get(name), dict) and isinstance(ours.get(name), dict):
            yield from differences(published[name], ours[name], f"{path}[]")
        elif bool(published.get(name)) != bool(ours.get(name)):
            yield f"{path}: {name} is {ours.get(name)}, published {published.get(name)}"
