"""The openwhisk backend on the local OpenWhisk, whose actions run from the zip that is deployed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from engines import Engine
from openwhisk_emulator import KIND, Emulated, start_openwhisk, stored

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.compute.base import Activation
from lithops_mini.compute.openwhisk import OpenWhiskCompute, OpenWhiskOptions
from lithops_mini.errors import CallTimeout, ConfigError, InputError, InvocationError, Reason
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.testing.compute import ComputeContract
from lithops_mini.testing.messages import Messages

_times = iter(range(30, 300))


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """A local OpenWhisk whose throttles are out of the way."""
    flags = ("--sandbox", "process", "--per-minute", "1000000", "--idle", "20")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as openwhisk:
        yield openwhisk


class TestContract(ComputeContract):
    many: ClassVar[int] = 8
    left_running: ClassVar[float] = 3.0

    @pytest.fixture
    def executor_settings(self, openwhisk: Emulated, moto: Engine) -> dict[str, Any]:
        # Another time limit makes another action, so that no sandbox is warm when a test begins.
        return {**openwhisk.openwhisk(), **stored(moto), "max_workers": 2, "max_time": next(_times)}


# ---------------------------------------------------------------- jobs


@pytest.fixture
def executor(openwhisk):
    with lm.openwhisk_executor(**local(openwhisk)) as executor:
        yield executor


def local(openwhisk, **more):
    """Arguments of ``openwhisk_executor``, for jobs that need no storage."""
    return {"storage": "localhost", **openwhisk.place, "max_workers": 4, "progress": False, **more}


def actions_of(openwhisk):
    found = openwhisk.ask("GET", "packages/lithops_mini")
    return [] if found.status == 404 else [each["name"] for each in found.body["actions"]]


def action_of(openwhisk, executor):
    """The action that an executor uses, with what is in it."""
    (name,) = executor._compute._sizes.there.values()
    return openwhisk.ask("GET", f"actions/lithops_mini/{name}").body


def test_a_job_without_large_data_needs_no_storage(executor):
    assert executor.get_result(executor.map(lambda x: x + 1, range(200))) == list(range(1, 201))
    with pytest.raises(InputError, match="configure an object storage"):
        executor.map(len, [bytes(2 << 20)])


def test_what_is_bound_is_credentials_and_nothing_of_the_namespace(openwhisk, moto):
    given = {**local(openwhisk), **stored(moto)}
    with lm.openwhisk_executor(**given) as executor:
        action = action_of(openwhisk, executor)
        found = executor.get_result(executor.submit(lambda: list(os.environ.items())))
    bound = {each["key"]: each["value"] for each in action["parameters"]}
    assert list(bound) == ["environment"]
    assert sorted(bound["environment"].values()) == sorted([moto.access_key_id, moto.secret_access_key])
    assert moto.secret_access_key not in action["name"]
    assert {"key": "provide-api-key", "value": False} in action["annotations"]
    secret = openwhisk.place["api_key"].partition(":")[2]
    assert not any(secret in value for _, value in found)
    assert dict(found)["__OW_NAMESPACE"] == openwhisk.namespace


def test_other_credentials_are_in_another_action_of_the_same_code(openwhisk, moto):
    first, second = ({**local(openwhisk), **stored(moto), "secret_access_key": key} for key in ("one", "two"))
    names = []
    for given in (first, second, first):
        with lm.openwhisk_executor(**given) as executor:
            names.append(action_of(openwhisk, executor)["name"])
    assert names[0] == names[2]
    assert names[0] != names[1]
    assert names[0].rpartition("-")[0] == names[1].rpartition("-")[0]
    codes = [openwhisk.ask("GET", f"actions/lithops_mini/{name}").body["exec"]["code"] for name in names]
    assert len(set(codes)) == 1


def test_each_size_of_memory_is_an_action_made_when_needed(openwhisk):
    before = set(actions_of(openwhisk))
    with lm.openwhisk_executor(**local(openwhisk, max_time=29)) as executor:
        futures = executor.map(abs, [-1], runtime_memory=300)
        assert executor.get_result(futures) == [1]
        assert executor.get_result(executor.map(abs, [-2], runtime_memory=64)) == [2]
        with pytest.raises(InvocationError, match=r"runtime_memory is 600 MiB, .* at most 512 MiB"):
            executor.get_result(executor.map(abs, [-3], runtime_memory=600))
    made = sorted(set(actions_of(openwhisk)) - before)
    assert [name.rpartition("-")[0].rpartition("-")[2] for name in made] == ["128", "256", "300"]
    assert all(name.endswith("-29s") for name in made)


def test_limits_are_the_services(openwhisk, moto):
    with openwhisk.changed("limits", concurrent=3, max_timeout=20_000, max_memory=300):
        backend = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place))
        backend.deploy(WorkerNeeds(environment={"X": "y" * 1000}))
        assert backend.concurrency == 3
        assert backend.max_time == 20
        (name,) = backend._sizes.there.values()
        backend.close()
        assert openwhisk.ask("GET", f"actions/lithops_mini/{name}").body["limits"]["timeout"] == 20_000
        for wrong, text in (({"max_time": 21}, "is 21 s, and .* permits 20 s"), ({"memory": 301}, "to 300 MiB")):
            other = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place, **wrong))
            with pytest.raises(ConfigError, match=text):
                other.deploy(WorkerNeeds())
            other.close()
    plain = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place))
    plain.deploy(WorkerNeeds())
    assert plain.max_payload - backend.max_payload > 750
    plain.close()


def test_an_action_that_was_deleted_meanwhile_is_made_again(openwhisk, executor):
    assert executor.get_result(executor.submit(abs, -1)) == 1
    name = action_of(openwhisk, executor)["name"]
    openwhisk.ask("DELETE", f"actions/lithops_mini/{name}")
    assert executor.get_result(executor.submit(abs, -2)) == 2
    assert name in actions_of(openwhisk)


def test_a_call_ends_with_its_activation_and_is_not_tried_again(openwhisk):
    with lm.openwhisk_executor(**local(openwhisk, max_time=3, retries=2)) as executor:
        executor.get_result(executor.submit(abs, -1))
        with pytest.raises(CallTimeout, match="time of its worker was over"):
            executor.get_result(executor.submit(time.sleep, 60))
        with pytest.raises(InputError, match=r"openwhisk\.max_time"):
            executor.map(abs, [1], timeout=4)
        with pytest.raises(InputError, match="the service of openwhisk permits 300 s at most"):
            executor.map(abs, [1], timeout=999)


# ---------------------------------------------------------------- answers that come later, or never


def test_an_activation_that_outlives_the_wait_is_followed_by_its_record(openwhisk, executor):
    def wait(seconds):
        time.sleep(seconds)
        return seconds

    with openwhisk.changed("limits", wait=0.2):
        assert executor.get_result(executor.map(wait, [1.0, 0.01, 0.6], chunksize=1)) == [1.0, 0.01, 0.6]


def test_the_failure_of_a_followed_activation_is_told_too(openwhisk):
    with (
        openwhisk.changed("limits", wait=0.1),
        openwhisk.changed("faults", crash=1.0),
        lm.openwhisk_executor(**local(openwhisk, retries=1)) as executor,
        pytest.raises(lm.errors.WorkerDied, match="lost its container"),
    ):
        executor.get_result(executor.submit(time.sleep, 0.3))


def test_closing_ends_the_wait_for_a_record(openwhisk, messages):
    backend = OpenWhiskCompute(OpenWhiskOptions(**openwhisk.place, max_time=20))
    with openwhisk.changed("limits", wait=0.1), ThreadPoolExecutor(1) as pool:
        backend.deploy(WorkerNeeds())
        sent = pool.submit(backend.invoke, messages.payload(time.sleep, [2.5]), Activation())
        while not openwhisk.own("state")["running"]:
            assert not sent.done()
            threading.Event().wait(0.01)
        threading.Event().wait(0.3)
        began = time.monotonic()
        backend.close()
        with pytest.raises(InvocationError) as caught:
            sent.result(10)
        assert time.monotonic() - began < 3
    assert caught.value.reason == Reason.CANCELLED
    openwhisk.settle()


@pytest.fixture
def messages(tmp_path):
    from lithops_mini.storage.localhost import LocalhostStorage

    config = lm.config.load(storage="localhost", storage_path=str(tmp_path / "s"))
    return Messages(config, LocalhostStorage(config.storage_options))


# ---------------------------------------------------------------- logs


def test_what_calls_print_is_in_the_records_of_their_activations(openwhisk, executor, capsys):
    def speak(x):
        print(f"hello {x}")
        print("a second line")

    futures = executor.map(speak, range(3), chunksize=1)
    executor.get_result(futures)
    since = time.time() - 60
    for number, future in enumerate(futures):
        lines = list(executor._compute.read_log(future.job_id, number, since))
        assert lines == [f"hello {number}", "a second line"]
    assert list(executor._compute.read_log(futures[0].job_id, 1, time.time() + 60)) == []
    with pytest.raises(ConfigError, match="when their activation has ended"):
        executor._compute.tail(print)


# ---------------------------------------------------------------- runtimes


def test_runtime_commands(openwhisk, tmp_path, monkeypatch, capsys):
    profile = {"backend": "openwhisk", "openwhisk": {**openwhisk.place, "requirements": str(requirements(tmp_path))}}
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        app.main(arguments, prog_name="lithops-mini", standalone_mode=False)
        return capsys.readouterr().out

    built = command("runtime", "deploy")
    assert built.startswith("Built python3.")
    name = built.split()[1].rstrip(":")
    assert f"{name} is there" in command("runtime", "build")
    assert command("runtime", "build", "--force").startswith(f"Built {name}")
    assert name in command("runtime", "list")
    shown = command("runtime", "info")
    assert "current" in shown
    assert "256 MiB" in shown
    assert "colours==1.0" in shown
    assert command("runtime", "delete", name) == f"Deleted {name}\n"
    assert name not in command("runtime", "list")


def test_packages_come_in_the_zip(openwhisk, tmp_path):
    def red():
        import colours  # type: ignore[import-not-found]

        return colours.red

    given = local(openwhisk, requirements=str(requirements(tmp_path)), exclude_modules=["colours"])
    with lm.openwhisk_executor(**given) as executor:
        assert executor.get_result(executor.submit(red)) == "#f00"


def requirements(directory):
    import zipfile

    path = directory / "colours-1.0-py3-none-any.whl"
    info = "colours-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("colours.py", "red = '#f00'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"colours.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    (directory / "requirements.txt").write_text(f"{path}\n")
    return directory / "requirements.txt"


def test_the_last_runtime_takes_the_package_along(tmp_path_factory):
    with start_openwhisk(tmp_path_factory.mktemp("empty"), "--sandbox", "process") as fresh:
        backend = OpenWhiskCompute(OpenWhiskOptions(**fresh.place))
        runtimes = backend.runtimes("")
        assert runtimes.list() == []
        built = runtimes.build(runtimes.recipe(()), print)
        assert built.new
        assert built.size > 50_000
        (found,) = runtimes.list()
        assert found.current
        mine = {"exec": {"kind": KIND, "code": "def main(params): return {}"}}
        assert fresh.ask("PUT", "actions/lithops_mini/mine", mine).status == 200
        runtimes.delete(found.name)
        assert actions_of(fresh) == ["mine"]
        with pytest.raises(ConfigError, match="there is no runtime"):
            runtimes.delete(found.name)
        runtimes.build(runtimes.recipe(()), print)
        fresh.ask("DELETE", "actions/lithops_mini/mine")
        runtimes.delete(found.name)
        assert fresh.ask("GET", "packages/lithops_mini").status == 404
        backend.close()
