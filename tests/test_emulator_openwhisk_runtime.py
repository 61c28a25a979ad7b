"""What runs Python actions of the local OpenWhisk, by the contract that Apache's own tests of runtimes check."""

from __future__ import annotations

import base64
import json

import pytest
from openwhisk_emulator import KIND, zipped

from lithops_mini.emulators.openwhisk.entities import Action, ActionLimits, Exec
from lithops_mini.emulators.openwhisk.output import MISSING
from lithops_mini.emulators.openwhisk.sandbox import Broken, ProcessSandbox

ECHO = "def main(params):\n    return params\n"
RUN = {
    "namespace": "guest",
    "action_name": "/guest/a",
    "action_version": "0.0.1",
    "activation_id": "0" * 32,
    "transaction_id": "x" * 32,
    "api_key": "a:b",
    "deadline": "1900000000000",
}


@pytest.fixture
def runtime():
    action = Action("guest", "a", Exec(KIND), ActionLimits(), {}, {}, "0.0.1", False)
    sandbox = ProcessSandbox(action, "http://127.0.0.1:1")
    yield Runtime(sandbox)
    sandbox.kill()


class Runtime:
    """A runtime that listens."""

    def __init__(self, sandbox):
        self.sandbox = sandbox

    def init(self, code=ECHO, **more):
        value = {"name": "a", "main": "main", "code": code, "binary": False, **more}
        return self.post("/init", {"value": value})

    def run(self, value, **more):
        return self.post("/run", {"value": value, **RUN, **more})

    def post(self, path, value):
        answer = self.sandbox.post(path, value, 10, wait=True)
        return answer.status, json.loads(answer.body)

    def logs(self):
        """What has been printed, up to the markers of both streams."""
        logs = sorted(line[31:] for line in self.sandbox.output.collect())
        assert f"stderr: {MISSING}" not in logs
        return logs


def test_it_runs_what_it_was_given(runtime):
    assert runtime.init() == (200, {"ok": True})
    assert runtime.run({"a": [1, "é"]}) == (200, {"a": [1, "é"]})
    assert runtime.run([1]) == (200, [1])
    assert runtime.run({}) == (200, {})


def test_it_is_initialised_once(runtime):
    runtime.init()
    assert runtime.init("def main(params):\n    return {}") == (
        403,
        {"error": "Cannot initialize the action more than once."},
    )
    assert runtime.run({"a": 1}) == (200, {"a": 1})


def test_it_does_not_run_before(runtime):
    assert runtime.run({}) == (500, {"error": "no action defined yet"})
    assert runtime.init("") == (403, {"error": "Missing main/no code to execute."})
    assert runtime.init() == (200, {"ok": True})


def test_the_environment(runtime):
    runtime.init("import os\ndef main(params):\n    return dict(os.environ)", env={"MINE": "1", "__OW_X": "y"})
    status, found = runtime.run({})
    assert status == 200
    assert (found["MINE"], found["__OW_X"], found["__OW_API_HOST"]) == ("1", "y", "http://127.0.0.1:1")
    for name, value in RUN.items():
        assert found[f"__OW_{name.upper()}"] == value
    assert runtime.run({}, activation_id="1" * 32)[1]["__OW_ACTIVATION_ID"] == "1" * 32


def test_markers_come_after_each_activation_on_both_streams(runtime):
    runtime.init(
        "import sys\nprint('imported')\n"
        "def main(params):\n    print('out é')\n    print('err', file=sys.stderr)\n    return {}"
    )
    runtime.run({})
    assert runtime.logs() == ["stderr: err", "stdout: imported", "stdout: out é"]
    runtime.run({})
    assert runtime.logs() == ["stderr: err", "stdout: out é"]


def test_exceptions_are_errors_of_the_application(runtime):
    runtime.init("def main(params):\n    raise ValueError('no')")
    assert runtime.run({}) == (200, {"error": "no"})
    assert any("ValueError: no" in line for line in runtime.logs())


@pytest.mark.parametrize("value", ["None", "7", "'text'", "{1}", "{'a': object()}"])
def test_results_that_are_none(runtime, value):
    runtime.init(f"def main(params):\n    return {value}")
    status, answer = runtime.run({})
    assert status == 502
    assert answer["error"].startswith("The action did not return a ")
    runtime.logs()


def test_another_main_and_a_zip(runtime):
    files = {"__main__.py": "from pack import mod\ndef other(params):\n    return {'x': mod.X}", "pack/mod.py": "X = 1"}
    code = base64.b64encode(zipped(files)).decode()
    assert runtime.init(code, binary=True, main="other") == (200, {"ok": True})
    assert runtime.run({}) == (200, {"x": 1})


@pytest.mark.parametrize(
    ("code", "binary", "status"),
    [("?", True, 400), ("bm8gemlw", True, 502), ("def", False, 502), ("1 / 0", False, 502), ("x = 1", False, 502)],
)
def test_code_that_is_none(runtime, code, binary, status):
    answered, answer = runtime.init(code, binary=binary)
    assert answered == status
    assert set(answer) == {"error"}
    assert runtime.run({})[0] == 500


def test_an_action_that_exits(runtime):
    runtime.init("import sys\ndef main(params):\n    sys.exit(3)")
    with pytest.raises(Broken):
        runtime.run({})
    assert runtime.sandbox.ended.wait(10)
    assert runtime.sandbox.end.status == "exit status 3"


def test_a_virtual_environment_in_the_zip(runtime):
    activate = "import sys, os\nsys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), 'lib'))"
    files = {
        "__main__.py": "import inside\ndef main(params):\n    return {'x': inside.X}",
        "virtualenv/bin/activate_this.py": activate,
        "virtualenv/lib/inside.py": "X = 2",
    }
    runtime.init(base64.b64encode(zipped(files)).decode(), binary=True)
    assert runtime.run({}) == (200, {"x": 2})
