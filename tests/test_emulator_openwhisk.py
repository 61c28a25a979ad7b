"""The local OpenWhisk, with actions in processes: what its API answers, and what becomes of invocations."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from openwhisk_emulator import CODE, KIND, Answered, annotation, start_openwhisk, zipped

from lithops_mini.emulators.openwhisk.faults import Dice
from lithops_mini.emulators.openwhisk.output import MARKER, Output
from lithops_mini.emulators.openwhisk.sandboxes import Sandboxes
from lithops_mini.emulators.openwhisk.settings import Faults
from lithops_mini.errors import ConfigError

SPECIFICATION = "OPENWHISK_SPECIFICATION"
NOTHING = "The requested resource does not exist."
RUN = "The action did not produce a valid response and exited unexpectedly."
INCOMPLETE = "stderr: The action did not initialize or run as expected. Log data might be missing."
FLAGS = ("--sandbox", "process", "--per-minute", "1000000")


@pytest.fixture(scope="module")
def specification():
    """Checks answers against the published specification, if it is there."""
    path = os.environ.get(SPECIFICATION)
    return _Specification(json.loads(Path(path).read_text())) if path else None


@pytest.fixture(scope="module")
def ow(tmp_path_factory, specification):
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *FLAGS) as emulated:
        if specification:
            emulated.watch = specification.check
        yield emulated


@pytest.fixture(scope="module")
def action(ow):
    return ow.make()


class _Specification:
    """OpenWhisk's published description of its API."""

    def __init__(self, document):
        import jsonschema

        # It names those kinds that there were when it was written.
        document["definitions"]["ActionExec"]["properties"]["kind"]["enum"].append(KIND)
        self._document = document
        self._validate = jsonschema.Draft4Validator
        self._paths = {
            re.compile(re.sub(r"\{\w+\}", "[^/]+", path.replace(".", r"\."))): methods
            for path, methods in document["paths"].items()
        }
        self.checked = set()

    def check(self, method, path, answer: Answered):
        path, _, query = path.partition("?")
        path = path.removeprefix("/api/v1").rstrip("/")
        found = [methods for pattern, methods in self._paths.items() if pattern.fullmatch(path)]
        if not found or method.lower() not in found[0] or "count=true" in query:  # which it does not know
            return
        described = found[0][method.lower()]["responses"].get(str(answer.status))
        schema = (described or {}).get("schema")
        if schema is None and answer.status >= 400 and "response" not in answer.body and "code" in answer.body:
            schema = {"$ref": "#/definitions/ErrorMessage"}
        elif schema is None and method == "POST" and isinstance(answer.body, dict) and "activationId" in answer.body:
            schema = {"$ref": f"#/definitions/{'ActivationId' if answer.status == 202 else 'Activation'}"}
        elif schema is None and method == "DELETE" and answer.status == 200:
            schema = {"$ref": f"#/definitions/{'Package' if '/packages/' in path else 'Action'}"}
        if schema is not None:
            validator = self._validate({**schema, "definitions": self._document["definitions"]})
            assert [error.message for error in validator.iter_errors(answer.body)] == []
            self.checked.add((method, answer.status, json.dumps(schema)))


# --- packages


def test_a_package_from_its_making_to_its_end(ow):
    made = ow.ask("PUT", "packages/tools", {"parameters": [{"key": "a", "value": 1}], "annotations": []})
    assert made.status == 200
    assert made.body["namespace"] == ow.namespace
    assert (made.body["version"], made.body["publish"], made.body["binding"]) == ("0.0.1", False, {})
    assert made.body["parameters"] == [{"key": "a", "value": 1}]
    again = ow.ask("PUT", "packages/tools", {})
    assert (again.status, again.error) == (409, "resource already exists")
    changed = ow.ask("PUT", "packages/tools?overwrite=true", {"annotations": [{"key": "b", "value": [2]}]})
    assert changed.body["version"] == "0.0.2"
    assert changed.body["parameters"] == made.body["parameters"]
    name = ow.make(package="tools")
    shown = ow.ask("GET", "packages/tools").body
    assert [each["name"] for each in shown["actions"]] == [name.partition("/")[2]]
    assert shown["feeds"] == []
    listed = {each["name"]: each for each in ow.ask("GET", "packages").body}
    assert listed["tools"]["binding"] is False
    full = ow.ask("DELETE", "packages/tools")
    assert full.status == 409
    assert full.error == "Package not empty (contains 1 entity). Set force param or delete package contents."
    assert ow.ask("DELETE", "packages/tools?force=true").body["name"] == "tools"
    gone = ow.ask("GET", "packages/tools")
    assert (gone.status, gone.error) == (404, f"The requested resource '{ow.namespace}/tools' does not exist.")
    assert ow.ask("GET", f"actions/{name}").error == NOTHING
    assert ow.ask("DELETE", "packages/tools").error == NOTHING


def test_a_package_and_an_action_of_one_name(ow, action):
    answer = ow.ask("PUT", f"packages/{action}", {})
    assert (answer.status, answer.error) == (409, "Resource by this name exists but is not in this collection.")


def test_packages_that_cannot_be(ow):
    assert ow.ask("PUT", "packages/default", {}).error == "Package name 'default' is reserved."
    bound = ow.ask("PUT", "packages/bound", {"binding": {"namespace": "whisk.system", "name": "utils"}})
    assert (bound.status, bound.error) == (400, "The emulator has no package bindings.")


# --- actions


def test_an_action_from_its_making_to_its_end(ow):
    given = {
        "exec": {"kind": "python:default", "code": CODE, "main": "main"},
        "limits": {"memory": 128, "timeout": 5000},
        "parameters": [{"key": "a", "value": {"b": 1}}],
        "annotations": [{"key": "c", "value": "d"}],
    }
    made = ow.ask("PUT", "actions/whole", given)
    assert made.status == 200
    assert made.body["exec"] == {"kind": KIND, "code": CODE, "main": "main", "binary": False}
    assert made.body["limits"] == {"timeout": 5000, "memory": 128, "logs": 10, "concurrency": 1}
    annotations = {each["key"]: each["value"] for each in made.body["annotations"]}
    assert annotations == {"c": "d", "exec": KIND, "provide-api-key": False}
    assert ow.ask("PUT", "actions/whole", given).error == "resource already exists"
    changed = ow.ask("PUT", "actions/whole?overwrite=true", {"limits": {"memory": 256}, "delAnnotations": ["c"]})
    assert changed.body["limits"] == {"timeout": 5000, "memory": 256, "logs": 10, "concurrency": 1}
    assert changed.body["version"] == "0.0.2"
    assert changed.body["parameters"] == given["parameters"]
    assert {each["key"] for each in changed.body["annotations"]} == {"exec", "provide-api-key"}
    assert ow.ask("GET", "actions/whole").body["exec"]["code"] == CODE
    assert ow.ask("GET", "actions/whole?code=false").body["exec"] == {"kind": KIND, "main": "main", "binary": False}
    assert ow.ask("DELETE", "actions/whole").body["name"] == "whole"
    for method in ("GET", "DELETE"):
        gone = ow.ask(method, "actions/whole")
        assert (gone.status, gone.error) == (404, NOTHING)
    assert ow.invoke("whole").error == NOTHING


def test_actions_in_packages(ow):
    assert ow.ask("PUT", "actions/absent/x", {"exec": {"kind": KIND, "code": CODE}}).error == NOTHING
    ow.ask("PUT", "packages/box", {"parameters": [{"key": "a", "value": 1}, {"key": "b", "value": 1}]})
    name = ow.make(package="box", parameters=[{"key": "b", "value": 2}, {"key": "c", "value": 2}])
    assert ow.invoke(name, c=3).result["params"] == {"a": 1, "b": 2, "c": 3}
    shown = {each["key"]: each["value"] for each in ow.ask("GET", f"actions/{name}").body["parameters"]}
    assert shown == {"a": 1, "b": 2, "c": 2}
    listed = ow.ask("GET", "actions/box/").body
    assert [(each["namespace"], each["name"]) for each in listed] == [(f"{ow.namespace}/box", name.partition("/")[2])]
    assert name.partition("/")[2] in [each["name"] for each in ow.ask("GET", "actions?limit=200").body]
    assert ow.ask("GET", "actions/absent/").error == NOTHING


def test_lists_in_pages(ow):
    for number in range(5):
        ow.ask("PUT", f"packages/page-{number}?overwrite=true", {})
    everything = [each["name"] for each in ow.ask("GET", "packages?limit=0").body]
    assert ow.ask("GET", "packages?count=true").body == {"packages": len(everything)}
    assert [each["name"] for each in ow.ask("GET", "packages?limit=2&skip=1").body] == everything[1:3]
    for query, parameter, text in (
        ("limit=201", "limit", "The value '201' is not in the range of 0 to 200 for packages."),
        ("limit=x", "limit", "The value 'x' is not an integer for packages."),
        ("skip=-1", "skip", "The value '-1' is not greater than or equal to 0 for packages."),
    ):
        refused = ow.ask("GET", f"packages?{query}")
        assert refused.status == 400
        assert refused.error == f"The query parameter '{parameter}' was malformed:\n{text}"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"memory": 1024}, "memory size 1024 MB exceeds allowed threshold of 512 MB"),
        ({"memory": 64}, "memory size 64 MB below allowed threshold of 128 MB"),
        ({"timeout": 300_001}, "duration 300001 milliseconds exceeds allowed threshold of 300000 milliseconds"),
        ({"timeout": 99}, "duration 99 milliseconds below allowed threshold of 100 milliseconds"),
        ({"logs": 11}, "log size 11 MB exceeds allowed threshold of 10 MB"),
        ({"concurrency": 2}, "concurrency 2 exceeds allowed threshold of 1"),
    ],
)
def test_limits_out_of_range(ow, limits, text):
    answer = ow.ask("PUT", "actions/limited", {"exec": {"kind": KIND, "code": CODE}, "limits": limits})
    assert (answer.status, answer.error) == (400, text)


def test_actions_that_cannot_be(ow):
    def refused(body):
        answer = ow.ask("PUT", "actions/impossible", body)
        assert answer.status == 400
        return answer.error.removeprefix("The request content was malformed:\n")

    assert refused({}) == "exec undefined"
    known = f"Valid values are: '{KIND}', 'blackbox'."
    other = "The specified runtime 'nodejs:20' is not supported by this platform."
    assert refused({"exec": {"kind": "nodejs:20", "code": ""}}) == f"{other} {known}"
    assert refused({"exec": {"kind": KIND}}) == f"'code' must be a string defined in 'exec' for '{KIND}' actions"
    assert refused({"exec": {"code": ""}}) == "'kind' must be a string defined in 'exec'"
    assert refused({"exec": {"kind": KIND, "code": CODE}, "parameters": [1]}) == "parameters malformed!"
    assert "--sandbox docker" in refused({"exec": {"kind": "blackbox", "image": "openwhisk/example"}})
    for name in ("a%2Fb", "-a", "a%09", "%C3%A9"):
        answer = ow.ask("PUT", f"actions/{name}", {"exec": {"kind": KIND, "code": CODE}})
        assert (answer.status, answer.error) == (400, "The name of the entity contains illegal characters.")
    long = ow.ask("PUT", f"actions/{'a' * 257}", {"exec": {"kind": KIND, "code": CODE}})
    assert long.error == "Name segement longer than allowed: 257 > 256."


def test_bodies_that_are_no_json(ow):
    headers = {"Content-Type": "application/json"}
    assert ow.ask("PUT", "actions/broken", data="{", headers=headers).status == 400
    assert ow.ask("PUT", "actions/broken", data="a=b", headers={"Content-Type": "text/plain"}).status == 415
    assert ow.ask("PUT", "actions/broken", [1]).error == "The request content was malformed:\nObject expected"


def test_more_than_may_be(ow, action):
    code = {"kind": KIND, "code": "x" * (48 << 20)}
    assert ow.ask("PUT", "actions/large", {"exec": code}).status == 200
    code["code"] += "x"
    refused = ow.ask("PUT", "actions/larger", {"exec": code})
    assert (refused.status, refused.error) == (413, "exec larger than allowed: 50331649 > 50331648 bytes.")
    ow.ask("DELETE", "actions/large")
    bound = [{"key": "abc", "value": "x" * (1 << 20)}]
    refused = ow.ask("PUT", "actions/larger", {"exec": {"kind": KIND, "code": CODE}, "parameters": bound})
    assert (refused.status, refused.error) == (413, "parameters larger than allowed: 1048581 > 1048576 bytes.")
    body = json.dumps({"a": "x" * ((1 << 20) - 9)})
    headers = {"Content-Type": "application/json"}
    fits = ow.ask("POST", f"actions/{action}?blocking=true", data=body, headers=headers)
    assert fits.status in (200, 502)  # the answer repeats it, and is longer
    refused = ow.ask("POST", f"actions/{action}?blocking=true", data=body + " ", headers=headers)
    assert (refused.status, refused.error) == (413, "Request larger than allowed: 1048577 > 1048576 bytes.")


# --- who may


def test_who_may_ask(ow, action):
    for auth in (("x", "y"), (ow.place["api_key"].partition(":")[0], "wrong")):
        refused = ow.ask("GET", "actions", auth=auth)
        assert (refused.status, refused.error) == (401, "The supplied authentication is invalid")
        assert refused.headers["WWW-Authenticate"].startswith('Basic realm="OpenWhisk secure realm"')
    nobody = ow.ask("GET", "actions", auth=None)
    assert nobody.status == 401
    assert nobody.error == "The resource requires authentication, which was not supplied with the request"
    assert ow.ask("GET", "actions", namespace=ow.namespace).status == 200
    for method, path in (("GET", "actions"), ("GET", f"actions/{action}"), ("POST", f"actions/{action}")):
        refused = ow.ask(method, path, namespace="other")
        resource = path.replace("actions", "other", 1)
        assert refused.status == 403
        assert refused.error == f"The supplied authentication is not authorized to access '{resource}'."
    assert ow.ask("GET", f"activations/{'a' * 32}", namespace="other").status == 403
    assert ow.own("state")["running"] == 0
    assert ow.ask("GET", f"{ow.url}/api/v1/namespaces").body == [ow.namespace]


def test_bearer_tokens(ow, action):
    assert ow.token(apikey="wrong").json()["errorCode"] == "BXNIM0415E"
    assert ow.token(grant_type="password").status_code == 400
    answer = ow.token().json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert answer["expiration"] == pytest.approx(time.time() + 3600, abs=30)
    namespace = ow.ibm["namespace_id"]

    def ask(method, path, token=answer["access_token"], namespace=namespace, **options):
        headers = {"Authorization": f"Bearer {token}"}
        return ow.ask(method, path, auth=_Nobody(), headers=headers, namespace=namespace, **options)

    assert ask("GET", "actions").body == []
    made = ask("PUT", "actions/mine", value={"exec": {"kind": KIND, "code": CODE}})
    assert made.body["namespace"] == namespace
    done = ask("POST", "actions/mine?blocking=true", value={"do": "environment"})
    assert done.result["__OW_NAMESPACE"] == namespace
    assert ask("GET", f"activations/{done.body['activationId']}").status == 200
    assert ask("GET", "actions", namespace=ow.namespace).status == 403
    assert ow.ask("GET", "actions", namespace=namespace).status == 403
    assert ask("GET", "actions", namespace="_").status == 403
    assert ask("GET", "actions", token="made-up").status == 401
    with ow.changed("limits", token_life=0.5):
        short = ow.token().json()["access_token"]
    deadline = time.monotonic() + 10
    while ask("GET", "actions", token=short).status == 200:
        assert time.monotonic() < deadline, "the token does not expire"
        threading.Event().wait(0.1)
    assert ask("GET", "actions", token=short).status == 401
    assert ask("GET", "actions").status == 200


class _Nobody:
    """Credentials that change nothing."""

    def __call__(self, request):
        return request


# --- invocations


def test_a_blocking_invocation(ow, action):
    answer = ow.invoke(action, a=1)
    assert answer.status == 200
    body = answer.body
    assert answer.headers["x-openwhisk-activation-id"] == body["activationId"]
    assert re.fullmatch("[0-9a-f]{32}", body["activationId"])
    assert body["response"] | {"result": None, "size": 0} == {
        "status": "success",
        "success": True,
        "result": None,
        "size": 0,
    }
    assert answer.result["params"] == {"a": 1}
    assert (body["namespace"], body["name"], body["subject"]) == (ow.namespace, action, "guest")
    assert body["end"] - body["start"] == body["duration"]
    assert body["logs"] == []
    assert annotation(body, "path") == f"{ow.namespace}/{action}"
    assert annotation(body, "kind") == KIND
    assert annotation(body, "limits") == {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1}
    assert annotation(body, "timeout") is False
    assert annotation(body, "waitTime") >= 0
    only = ow.invoke(action, query="&result=true", a=2)
    assert only.body["params"] == {"a": 2}


def test_an_invocation_without_parameters(ow, action):
    answer = ow.ask("POST", f"actions/{action}?blocking=yes&result=1")
    assert answer.body["params"] == {}


def test_warm_and_cold(ow):
    name = ow.make()
    first, second = ow.invoke(name), ow.invoke(name)
    assert [first.result["calls"], second.result["calls"]] == [1, 2]
    assert annotation(first.body, "initTime") > 0
    assert annotation(second.body, "initTime") is None
    ow.ask("PUT", f"actions/{name}?overwrite=true", {"limits": {"memory": 128}})
    assert ow.invoke(name).result["calls"] == 1
    with ow.changed("limits", idle=0.0):
        deadline = time.monotonic() + 10
        while ow.own("state")["sandboxes"]:
            assert time.monotonic() < deadline, "idle sandboxes stay"
            threading.Event().wait(0.05)
    assert ow.invoke(name).result["calls"] == 1


def test_an_invocation_that_is_not_waited_for(ow, action, tmp_path):
    answer = ow.invoke(action, False, do="await", until=str(tmp_path / "go"))
    assert answer.status == 202
    assert answer.body == {"activationId": answer.headers["x-openwhisk-activation-id"]}
    missing = ow.ask("GET", f"activations/{answer.body['activationId']}")
    assert (missing.status, missing.error) == (404, NOTHING)
    (tmp_path / "go").touch()
    record = ow.record(answer.body["activationId"])
    assert record["response"]["result"]["params"]["do"] == "await"


def test_a_blocking_invocation_that_takes_long(ow, action, tmp_path):
    until = {"do": "await", "until": str(tmp_path / "go")}
    began = time.monotonic()
    answer = ow.invoke(action, query="&timeout=300", **until)
    assert answer.status == 202
    assert 0.3 <= time.monotonic() - began < 20
    with ow.changed("limits", wait=0.2):
        assert ow.invoke(action, **until).status == 202
        longer = ow.invoke(action, query="&timeout=201", **until)
        text = "Timeout must be number of milliseconds up to 200."
        assert (longer.status, longer.error) == (400, f"The query parameter 'timeout' was malformed:\n{text}")
    (tmp_path / "go").touch()
    assert ow.record(answer.body["activationId"])["response"]["success"]
    ow.settle()


def test_what_the_action_is_told(ow):
    name = ow.make(
        parameters=[{"key": "HOME_OF_IT", "value": "here", "init": True}, {"key": "N", "value": 1.5, "init": True}],
        annotations=[{"key": "provide-api-key", "value": True}],
    )
    before = time.time()
    answer = ow.ask("POST", f"actions/{name}?blocking=true", {"do": "environment"}, headers={"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    deadline = int(answer.result.pop("__OW_DEADLINE")) / 1000
    assert before + 60 <= deadline <= time.time() + 60
    assert answer.result == {
        "__OW_ACTION_NAME": f"/{ow.namespace}/{name}",
        "__OW_ACTION_VERSION": "0.0.1",
        "__OW_ACTIVATION_ID": answer.body["activationId"],
        "__OW_ALLOW_CONCURRENT": "false",
        "__OW_API_HOST": ow.url,
        "__OW_API_KEY": ow.place["api_key"],
        "__OW_NAMESPACE": ow.namespace,
        "__OW_TRANSACTION_ID": "mine",
    }
    code = "[os.environ['HOME_OF_IT'], os.environ['N'], sorted(params)]"
    assert ow.invoke(name, do="python", code=code).result == {"value": ["here", "1.5", ["code", "do"]]}


def test_final_parameters(ow):
    annotations = [{"key": "final", "value": True}]
    name = ow.make(parameters=[{"key": "a", "value": 1}, {"key": "b", "value": None}], annotations=annotations)
    refused = ow.invoke(name, a=2)
    text = "Request defines parameters that are not allowed (e.g., reserved properties)."
    assert (refused.status, refused.error) == (400, text)
    assert ow.invoke(name, b=2).result["params"] == {"a": 1, "b": 2}
    ow.settle()


def test_zips(ow):
    main = "from other import VALUE\ndef run(params):\n    return {'value': VALUE}\n"
    code = base64.b64encode(zipped({"__main__.py": main, "other.py": "VALUE = 7"})).decode()
    name = "a zip @ 1.0"
    ow.ask("PUT", f"actions/{name}", {"exec": {"kind": KIND, "code": code, "main": "run"}})
    assert ow.invoke(name).result == {"value": 7}
    assert ow.ask("GET", f"actions/{name}?code=false").body["exec"]["binary"] is True
    without = ow.invoke(ow.make(zipped({"other.py": ""})))
    text = "The action failed to generate or locate a binary. See logs for details."
    assert (without.status, without.result) == (502, {"error": text})


@pytest.mark.parametrize(
    ("params", "code", "error"),
    [
        ({"do": "raise"}, "application error", "no"),
        ({"do": "error", "error": {"x": 1}}, "application error", {"x": 1}),
        ({"do": "exit"}, "action developer error", RUN),
        ({"do": "kill"}, "action developer error", RUN),
        ({"do": "value", "json": "7"}, "action developer error", "The action did not return a dictionary or array."),
    ],
)
def test_failures(ow, action, params, code, error):
    answer = ow.invoke(action, **params)
    assert answer.status == 502
    response = answer.body["response"]
    assert (response["status"], response["success"], response["result"]) == (code, False, {"error": error})
    logs = ow.record(answer.body["activationId"])["logs"]
    assert (code == "action developer error") == (bool(logs) and logs[-1].endswith(INCOMPLETE))
    only = ow.invoke(action, query="&result=true", **params)
    assert (only.status, only.body) == (502, {"error": error})
    assert ow.invoke(action).status == 200


def test_a_result_that_is_an_array(ow, action):
    answer = ow.invoke(action, do="value", json="[1, 2]")
    assert (answer.status, answer.body) == (200, [1, 2])  # as OpenWhisk does, without the activation
    record = ow.record(answer.headers["x-openwhisk-activation-id"])
    assert record["response"]["result"] == [1, 2]


def test_a_result_that_is_too_long(ow, action):
    fits = ow.invoke(action, do="large", size=1 << 20)
    assert fits.status == 200
    assert fits.body["response"]["size"] == 1 << 20
    answer = ow.invoke(action, do="large", size=(1 << 20) + 1)
    assert (answer.status, answer.body["response"]["status"]) == (502, "application error")
    text = "The action produced a response that exceeded the allowed length: 1048577 > 1048576 bytes. "
    assert answer.result["error"].startswith(f'{text}The truncated response was: {{"x": "xxx')


def test_an_action_that_takes_too_long(ow):
    name = ow.make(limits={"timeout": 2000})  # within which it must have begun, however slow the machine is
    ow.invoke(name)
    answer = ow.invoke(name, do="sleep", seconds=30)
    assert answer.status == 502
    assert answer.body["response"]["status"] == "action developer error"
    assert answer.result == {"error": "The action exceeded its time limits of 2000 milliseconds."}
    assert annotation(answer.body, "timeout") is True
    assert 2000 <= answer.body["duration"] < 10_000
    assert ow.invoke(name).result["calls"] == 1


@pytest.mark.parametrize(
    ("code", "error", "log"),
    [
        ("raise ValueError('broken')", "Cannot start action. Check logs for details.", "ValueError: broken"),
        ("def other(p): pass", "Cannot start action. Check logs for details.", "no function main"),
        ("def", "The action failed to generate or locate a binary. See logs for details.", "SyntaxError"),
        ("import os; os._exit(1)", "The action did not initialize and exited unexpectedly.", ""),
    ],
)
def test_actions_that_do_not_initialise(ow, code, error, log):
    answer = ow.invoke(ow.make(code))
    assert (answer.status, answer.body["response"]["status"]) == (502, "action developer error")
    assert answer.result == {"error": error}
    logs = ow.record(answer.body["activationId"])["logs"]
    assert logs[-1].endswith(INCOMPLETE)
    assert log in "\n".join(logs)


def test_an_initialisation_that_takes_too_long(ow):
    answer = ow.invoke(ow.make("import time; time.sleep(30)", limits={"timeout": 200}))
    text = "The action exceeded its time limits of 200 milliseconds during initialization."
    assert (answer.status, answer.result) == (502, {"error": text})
    assert annotation(answer.body, "timeout") is True
    assert annotation(answer.body, "initTime") >= 200


# --- logs and records


def test_logs(ow, action):
    first = ow.invoke(action, do="print", text="one\ntwo é").body["activationId"]
    second = ow.invoke(action, do="print", text="three").body["activationId"]
    answer = ow.ask("GET", f"activations/{first}/logs")
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z "
    assert all(re.match(moment, line) for line in answer.body["logs"])
    assert sorted(line[31:] for line in answer.body["logs"]) == ["stderr: to stderr", "stdout: one", "stdout: two é"]
    assert ow.record(first)["logs"] == answer.body["logs"]
    assert sorted(line[31:] for line in ow.record(second)["logs"]) == ["stderr: to stderr", "stdout: three"]


def test_logs_that_are_too_long(ow):
    name = ow.make(limits={"logs": 1})
    long = ow.invoke(name, do="print", text="x" * 1023 + "\n", times=1100).body["activationId"]
    logs = ow.record(long)["logs"]
    assert len(logs) == 1025
    text = "stderr: Logs were truncated because the total bytes size exceeds the limit of 1048576 bytes."
    assert sum(line.endswith(text) for line in logs) == 1
    none = ow.make(limits={"logs": 0})
    assert ow.record(ow.invoke(none, do="print", text="x").body["activationId"])["logs"] == []
    short = ow.invoke(name, do="print", text="x").body["activationId"]
    assert len(ow.record(short)["logs"]) == 2


def test_records(ow):
    ow.ask("PUT", "packages/records", {})
    name = ow.make(package="records")
    simple = name.partition("/")[2]
    ids = [ow.invoke(name, number=number).body["activationId"] for number in range(4)]
    failing = ow.invoke(name, do="raise").body["activationId"]
    listed = ow.ask("GET", f"activations?name={name}").body
    assert [each["activationId"] for each in listed] == [failing, *reversed(ids)]
    assert [each["statusCode"] for each in listed] == [1, 0, 0, 0, 0]
    assert all("response" not in each and "logs" not in each and each["name"] == simple for each in listed)
    assert ow.ask("GET", f"activations?name={simple}").body == []
    assert [each["activationId"] for each in ow.ask("GET", "activations?limit=2&skip=1").body] == [ids[3], ids[2]]
    assert ow.ask("GET", f"activations?name={name}&count=true").body == {"activations": 5}
    full = ow.ask("GET", f"activations?name={name}&docs=true").body
    assert full[0]["response"]["result"] == {"error": "no"}
    start = [each["start"] for each in listed]
    assert len(ow.ask("GET", f"activations?name={name}&since={start[0] + 1}").body) == 0
    assert len(ow.ask("GET", f"activations?name={name}&upto={start[-1] - 1}").body) == 0
    assert len(ow.ask("GET", f"activations?name={name}&since={start[-1]}&upto={start[0]}").body) == 5
    result = ow.ask("GET", f"activations/{failing}/result").body
    assert result == {"status": "application error", "success": False, "result": {"error": "no"}, "size": 15}


def test_records_that_are_not_there(ow):
    def refused(path, status):
        answer = ow.ask("GET", f"activations{path}")
        assert answer.status == status
        return answer.error

    assert refused("/abc", 400) == "Activation id length is 3 but must be 32."
    assert refused(f"/{'g' * 32}", 400) == "The activation id is not valid."
    for more in ("", "/result", "/logs"):
        assert refused(f"/{'a' * 32}{more}", 404) == NOTHING
    assert "badly" in refused("?since=badly", 400)
    assert "a/b/c" in refused("?name=a/b/c", 400)
    assert refused("?docs=true&count=true", 400) == "The parameter 'docs' is not permitted with 'count'."


def test_no_more_records_than_are_to_be_kept(ow, action):
    with ow.changed("limits", records=3):
        ids = [ow.invoke(action).body["activationId"] for _ in range(5)]
        kept = [ow.ask("GET", f"activations/{each}").status for each in ids]
        assert kept == [404, 404, 200, 200, 200]
        assert ow.own("state")["records"] == 3


# --- limits, throttles


def test_limits_are_told(ow):
    with ow.changed("limits", per_minute=77, concurrent=5, max_memory=1024):
        limits = ow.ask("GET", "limits").body
        assert (limits["invocationsPerMinute"], limits["concurrentInvocations"]) == (77, 5)
        assert (limits["minActionMemory"], limits["maxActionMemory"]) == (128, 1024)
        root = ow.ask("GET", f"{ow.url}/", auth=None).body
        assert (root["limits"]["actions_per_minute"], root["limits"]["concurrent_actions"]) == (77, 5)
        assert root["limits"]["max_action_memory"] == 1 << 30
        assert [each["kind"] for each in root["runtimes"]["python"]] == [KIND]
        assert root["api_paths"] == ["/api/v1"]
        ow.make(limits={"memory": 1024})
    assert ow.ask("GET", f"{ow.url}/api/v1", auth=None).body["api_version"] == "1.0.0"


def test_too_many_in_a_minute(ow, action):
    with ow.changed("limits", per_minute=3):
        # The minute is the clock's: when it ends among these requests, some more of them are admitted.
        answers = [ow.invoke(action) for _ in range(8)]
    refused = [each for each in answers if each.status == 429]
    assert len(refused) >= 2
    assert {each.status for each in answers} <= {200, 429}
    pattern = r"Too many requests in the last minute \(count: (\d+), allowed: 3\)\."
    counts = [int(re.fullmatch(pattern, each.error)[1]) for each in refused]
    assert counts == sorted(counts)
    assert counts[0] > 3
    assert ow.own("state")["running"] == 0


def test_too_many_at_a_time(ow, action, tmp_path):
    with ow.changed("limits", concurrent=2):
        until = {"do": "await", "until": str(tmp_path / "go")}
        running = [ow.invoke(action, False, **until) for _ in range(2)]
        refused = ow.invoke(action)
        assert refused.status == 429
        assert refused.error == "Too many concurrent requests in flight (count: 2, allowed: 2)."
        (tmp_path / "go").touch()
        for each in running:
            ow.record(each.body["activationId"])
        ow.settle()
        assert ow.invoke(action).status == 200


def test_many_at_a_time(ow, action):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: ow.invoke(action, number=number), range(100)))
    assert [each.result["params"]["number"] for each in answers] == list(range(100))
    assert len({each.body["activationId"] for each in answers}) == 100


# --- faults


def test_lost_invocations(ow, action, tmp_path):
    with ow.changed("faults", lose=1.0):
        answers = [ow.invoke(action, False, file=str(tmp_path / "ran"))]
        answers.append(ow.invoke(action, query="&timeout=200", file=str(tmp_path / "ran")))
    assert [each.status for each in answers] == [202, 202]
    ow.settle()
    for each in answers:
        assert ow.ask("GET", f"activations/{each.body['activationId']}").status == 404
    assert not (tmp_path / "ran").exists()


def test_crashes(ow, action, tmp_path):
    with ow.changed("faults", crash=1.0, seed=int(time.time())):
        answers = [ow.invoke(action, file=str(tmp_path / "ran")) for _ in range(12)]
    assert {(each.status, each.result["error"]) for each in answers} == {(502, RUN)}
    ran = (tmp_path / "ran").read_text().split()
    assert 0 < len(ran) < 12
    assert set(ran) < {each.body["activationId"] for each in answers}


def test_injected_throttles(ow, action):
    with ow.changed("faults", throttle_rate=1.0):
        assert ow.invoke(action).error.startswith("Too many requests in the last minute (count: 10")
    with ow.changed("faults", throttle_concurrency=1.0):
        assert ow.invoke(action).error == "Too many concurrent requests in flight (count: 100, allowed: 100)."
    assert ow.invoke(action).status == 200


def test_slow_cold_starts(ow):
    with ow.changed("faults", cold_start=0.4):
        answer = ow.invoke(ow.make())
    assert annotation(answer.body, "waitTime") >= 400


def test_the_same_seed_throws_the_same():
    throws = [[Dice(Faults(lose=0.5, seed=seed)).falls("lose") for _ in range(1)] for seed in range(64)]
    again = [[Dice(Faults(lose=0.5, seed=seed)).falls("lose") for _ in range(1)] for seed in range(64)]
    assert throws == again
    assert 10 < sum(each[0] for each in throws) < 54


def test_settings_that_are_none(ow):
    assert "there is no 'loose'" in ow.own("faults", "PUT", loose=1)["error"]
    assert "lose is 2, and must be a number between 0 and 1" in ow.own("faults", "PUT", lose=2)["error"]
    with pytest.raises(ConfigError, match="there is no kind of sandboxes 'vm'; there are docker, process"):
        Sandboxes("vm", "bridge", print)
    with pytest.raises(ConfigError, match="there is no network 'none'; there are bridge, host"):
        Sandboxes("process", "none", print)


def test_what_was_asked_is_counted(ow, action):
    ow.own("requests", "DELETE")
    ow.invoke(action)
    ow.ask("GET", "limits")
    assert ow.own("requests") == {"GET limits": 1, "POST actions": 1}


# --- the rest of HTTP


def test_paths_that_lead_nowhere(ow):
    for path in ("/api/v2", "/api/v1/namespaces/_/things", "/x", "/api/v1/namespaces/_"):
        answer = ow.ask("GET", f"{ow.url}{path}")
        assert (answer.status, answer.error) == (404, "The requested resource could not be found.")
    assert ow.ask("POST", "actions", {}).status == 405
    assert ow.ask("POST", "packages/x", {}).status == 405
    assert ow.ask("PUT", "limits", {}).status == 405
    for collection in ("triggers", "rules"):
        answer = ow.ask("GET", collection)
        assert (answer.status, answer.error) == (501, f"The emulator has no {collection}.")
    assert ow.ask("GET", "actions?count=perhaps").status == 400


def test_a_body_that_does_not_come(ow):
    host, port = ow.url.removeprefix("http://").split(":")
    with ow.changed("limits", patience=0.2), socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"POST /api/v1/namespaces/_/actions/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{")
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "The server timed out waiting for the client's request." in answer


def test_every_answer_is_as_specified(ow, specification):
    """So are those to the other tests."""
    if specification is None:
        pytest.skip(f"{SPECIFICATION} is not set to the file apiv1swagger.json of OpenWhisk: no answer was compared")
    ow.ask("PUT", "packages/specified", {"parameters": [{"key": "a", "value": 1}]})
    name = ow.make(package="specified")
    done = [ow.invoke(name), ow.invoke(name, do="raise"), ow.invoke(name, do="exit")]
    ow.record(ow.invoke(name, False).body["activationId"])
    for more in ("", "/logs", "/result"):
        for each in done:
            ow.ask("GET", f"activations/{each.body['activationId']}{more}")
    for path in ("activations", "actions", f"actions/{name}", f"actions/{name}?code=false", "packages", "limits"):
        assert ow.ask("GET", path).status == 200
    for path in (f"actions/{name}", "packages/specified"):
        assert ow.ask("DELETE", path).status == 200
        assert ow.ask("GET", path).status == 404
    asked = {(method, status) for method, status, _ in specification.checked}
    assert {("GET", 200), ("GET", 404), ("PUT", 200), ("POST", 200), ("POST", 202), ("POST", 502)} < asked
    assert len(specification.checked) >= 17


# --- the process


def test_what_it_prints_and_writes(tmp_path):
    with start_openwhisk(tmp_path, "--sandbox", "process") as emulated:
        assert emulated.lines[1:4] == [
            f"export __OW_API_HOST={emulated.url}\n",
            f"export __OW_API_KEY={emulated.place['api_key']}\n",
            "export __OW_NAMESPACE=guest\n",
        ]
        assert emulated.url.startswith("http://127.0.0.1:")
        assert emulated.profile.stat().st_mode & 0o777 == 0o600
        uuid.UUID(emulated.place["api_key"].partition(":")[0])
        pid = emulated.invoke(emulated.make()).result["pid"]
        emulated.invoke(emulated.make(), False, do="sleep", seconds=60)
        other = subprocess.run(
            [sys.executable, "-m", "lithops_mini", "emulate", "openwhisk", "--port", emulated.url.rpartition(":")[2]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert other.returncode == 1
        assert "cannot be used: Address already in use; choose another" in other.stderr
        validate = [sys.executable, "-m", "lithops_mini", "config", "validate", "-c", str(emulated.profile)]
        checked = subprocess.run(validate, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not Path(f"/proc/{pid}").exists()
    assert any(line.startswith("Not enforced: ") for line in emulated.lines)


# --- output


def test_output_is_cut_at_the_markers():
    output = Output(1 << 20)
    output.feed("stdout", b"one\npart")
    output.feed("stderr", b"err\n" + MARKER + b"\n")
    output.feed("stdout", b"ial\n" + MARKER + b"\nnext\n")
    assert [line[31:] for line in output.collect()] == ["stdout: one", "stderr: err", "stdout: partial"]
    output.end()
    assert [line[31:] for line in output.collect_rest()] == ["stdout: next", INCOMPLETE]


def test_long_lines_are_cut():
    output = Output(1 << 20)
    output.feed("stdout", b"x" * 40_000 + b"\n" + MARKER + b"\n")
    output.feed("stderr", MARKER + b"\n")
    assert [len(line) - 39 for line in output.collect()] == [16384, 16384, 7232]


def test_markers_that_do_not_come():
    output = Output(1 << 20)
    output.feed("stdout", b"one\n" + MARKER + b"\n")
    output.end()
    missing = "stderr: There was an issue while collecting your logs. Data might be missing."
    assert [line[31:] for line in output.collect()] == ["stdout: one", missing]
