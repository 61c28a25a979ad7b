"""The acceptance checks that ship: they pass where all is well, and tell what is wrong where it is not."""

from __future__ import annotations

import inspect
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from openwhisk_emulator import start_openwhisk

from lithops_mini import checks
from lithops_mini.checks import CHECKS
from lithops_mini.cli.app import app
from lithops_mini.client import Storage
from lithops_mini.compute.localhost import LocalhostCompute
from lithops_mini.errors import ConfigError
from lithops_mini.executor import FunctionExecutor, docker_executor
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.verify import Verdict, verify


def keys(directory: Path) -> list[str]:
    with Storage(storage_path=str(directory)) as storage:
        return list(storage.list_keys("lithops-mini"))


def verdicts(directory: Path, *names: str, backend: str = "localhost", **settings: Any) -> dict[str, Verdict]:
    settings |= {"backend": backend, "storage": "localhost", "storage_path": str(directory)}
    found = {v.name: v for v in verify(names or None, **settings)}
    assert keys(directory) == []
    return found


def failure(directory: Path, name: str) -> str:
    verdict = verdicts(directory, name)[name]
    assert verdict.outcome == "failed"
    assert verdict.error is not None
    return verdict.reason


def test_localhost_passes_every_check_and_nothing_is_left(tmp_path: Path) -> None:
    began = time.monotonic()
    found = verdicts(tmp_path)
    assert list(found) == list(CHECKS)
    assert {name: v.reason for name, v in found.items() if v.outcome != "ok"} == {}
    assert time.monotonic() - began < 20


def test_inline_passes_or_says_why_a_check_does_not_apply(tmp_path: Path) -> None:
    found = verdicts(tmp_path, backend="inline")
    skipped = {name for name, v in found.items() if v.outcome == "skipped"}
    assert skipped == {"worker_death", "retries", "timeout", "cancel", "logs"}
    assert all("inline" in found[name].reason for name in skipped)
    assert all(v.outcome == "ok" for name, v in found.items() if name not in skipped)


def test_what_needs_a_storage_is_skipped_where_workers_reach_none(tmp_path: Path) -> None:
    """As with the profile that the emulator of OpenWhisk writes."""
    with start_openwhisk(tmp_path, "--sandbox", "process", "--per-minute", "100000") as emulated:
        found = verdicts(tmp_path / "storage", **emulated.openwhisk())
        command = ["verify", "-c", str(emulated.profile), "-t", "large_data", "-t", "call_async"]
        told = CliRunner().invoke(app, command, prog_name="lithops-mini")
    assert {name: v.reason for name, v in found.items() if v.outcome == "failed"} == {}
    storing = {"filled_parameters", "large_data", "buffers", "retries"}
    storing |= {"partitions", "packing", "cloud_objects", "cleaning"}
    skipped = {name: v.reason for name, v in found.items() if v.outcome == "skipped"}
    assert set(skipped) == storing | {"cancel", "composition"}
    reason = "workers of the openwhisk backend do not reach the storage localhost: configure an object storage"
    assert {skipped[name] for name in storing} == {reason}
    assert told.exit_code == 0, told.output
    assert reason in told.output
    assert "2 checks: 1 ok, 0 failed, 1 skipped" in told.output


@pytest.mark.usefixtures("docker_engine")
def test_docker_passes_all_but_executors_in_functions(tmp_path: Path) -> None:
    found = verdicts(tmp_path, backend="docker", max_workers=2, base="host")
    assert list(found) == list(CHECKS)
    assert {name: v.reason for name, v in found.items() if v.outcome != "ok"} == {
        "composition": "functions on the docker backend cannot start executors of their own"
    }


@pytest.mark.usefixtures("docker_engine")
def test_a_function_in_a_container_is_told_why_it_has_no_executor(tmp_path: Path) -> None:
    def compose() -> int:
        from lithops_mini import function_executor

        with function_executor() as executor:
            return executor.get_result(executor.map(abs, [-1]))

    def know_what_is_there() -> bool:
        import lithops_mini

        return issubclass(lithops_mini.RemoteError, lithops_mini.LithopsMiniError)

    with docker_executor(max_workers=1, base="host", storage_path=str(tmp_path), progress=False) as executor:
        assert executor.get_result(executor.submit(know_what_is_there))
        with pytest.raises(ImportError, match="functions that run here cannot start executors of their own"):
            executor.get_result(executor.submit(compose))


def test_there_are_some_twenty_checks_and_each_says_what_it_promises() -> None:
    assert 20 <= len(CHECKS) <= 30
    for name, check in CHECKS.items():
        assert check.promise.endswith(".")
        assert "\n" not in check.promise
        assert check.run is getattr(checks, name)


def test_what_checks_send_does_not_import_them(tmp_path: Path) -> None:
    def modules() -> list[str]:
        import sys

        return [name for name in sys.modules if name.startswith(("lithops_mini.checks", "lithops_mini.verify"))]

    names = [name for name in CHECKS if name != "composition"]
    seen: list[list[str]] = []

    def look(bench: Any) -> None:
        seen.append(bench.value(bench.executor.submit(modules)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHECKS, "look", checks.Check("look", look))
        found = {v.name for v in verify([*names, "look"], max_workers=1, storage_path=str(tmp_path))}
    assert len(found) == len(names) + 1
    assert seen == [[]]


# A broken backend, storage or executor must be found, by the check it concerns: each of these breaks one thing.


def test_a_backend_that_loses_calls_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_reply(self: object, payload: bytes, activation: object) -> bytes:
        return b"\0\0"

    monkeypatch.setattr(LocalhostCompute, "invoke", lose_the_reply)
    assert "WorkerDied" in failure(tmp_path, "call_async")


def test_results_in_another_order_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FunctionExecutor.get_result

    def backwards(self: FunctionExecutor, *args: Any, **kwargs: Any) -> Any:
        found = right(self, *args, **kwargs)
        return found[::-1] if isinstance(found, list) else found

    monkeypatch.setattr(FunctionExecutor, "get_result", backwards)
    assert "instead of" in failure(tmp_path, "map_order")
    assert "instead of" in failure(tmp_path, "none_keeps_its_place")


def test_a_storage_that_changes_bytes_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LocalhostStorage.put

    def flip(self: LocalhostStorage, bucket: str, key: str, body: Any, **options: Any) -> None:
        data = bytearray().join(body if isinstance(body, list) else [body])
        data[len(data) // 2] ^= 1
        right(self, bucket, key, data, **options)

    monkeypatch.setattr(LocalhostStorage, "put", flip)
    assert "IntegrityError" in failure(tmp_path, "large_data")
    assert "lines" in failure(tmp_path, "partitions")


def test_cleaning_that_forgets_something_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionExecutor, "clean", lambda self: None)
    verdict = next(iter(verify(["cleaning"], storage_path=str(tmp_path))))
    assert verdict.outcome == "failed"
    assert "instead of []" in verdict.reason


def test_a_cancel_that_does_not_stop_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lithops_mini.worker.supervisor import Supervisor

    monkeypatch.setattr(Supervisor, "cancel", lambda self, calls: None)
    monkeypatch.setattr(checks, "_LIMIT", 3.0)
    assert failure(tmp_path, "cancel") == "the call goes on"


def test_an_environment_that_stays_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lithops_mini.worker import call

    before = dict(os.environ)
    monkeypatch.setattr(call, "set_environment", os.environ.update)
    try:
        found = next(iter(verify(["extra_env"], backend="inline", storage_path=str(tmp_path))))
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert found.outcome == "failed"
    assert "in the next job" in found.reason


# The checks themselves


def test_a_check_that_goes_wrong_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(bench: Any) -> None:
        raise OSError("the network\nis gone")

    monkeypatch.setitem(CHECKS, "map_order", checks.Check("map_order", bad))
    found = verdicts(tmp_path, "map_order", "call_async")
    assert (found["map_order"].outcome, found["map_order"].reason) == ("failed", "OSError: the network")
    assert found["call_async"].outcome == "ok"


def test_leaving_in_the_middle_cleans_up(tmp_path: Path) -> None:
    running = verify(["filled_parameters", "partitions", "large_data"], storage_path=str(tmp_path))
    assert next(running).outcome == "ok"
    assert any("/verify/" in key for key in keys(tmp_path))
    assert inspect.isgenerator(running)
    running.close()
    assert keys(tmp_path) == []


def test_a_wrong_configuration_is_an_error_not_a_failed_check() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        next(verify(["call_async"], backend="nowhere"))
