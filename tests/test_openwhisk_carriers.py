"""Replies of OpenWhisk that come by storage: all of them, or those whose answer was lost. Also of ibm_cf."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from engines import Engine
from openwhisk_emulator import Emulated, start_openwhisk, stored
from proxy import LOST_ANSWER, Proxy

import lithops_mini as lm
from lithops_mini import records
from lithops_mini.compute import function, inbox
from lithops_mini.errors import ConfigError, WorkerDied
from lithops_mini.testing.compute import ComputeContract

_times = iter(range(30, 300))


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    flags = ("--sandbox", "process", "--per-minute", "1000000", "--idle", "20")
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), *flags) as openwhisk:
        yield openwhisk


class TestIbmCfContract(ComputeContract):
    """By events, with tokens that are good for a few seconds, and the id of a namespace."""

    many: ClassVar[int] = 6
    left_running: ClassVar[float] = 3.0

    @pytest.fixture
    def executor_settings(self, openwhisk: Emulated, moto: Engine) -> Iterator[dict[str, Any]]:
        # Another time limit makes another action, so that no sandbox is warm when a test begins.
        more = {"max_workers": 2, "carrier": "event", "max_time": next(_times)}
        with openwhisk.changed("limits", token_life=4.0):
            yield {**openwhisk.ibm_cf(), **stored(moto), **more}


def test_ibms_storage_is_reached_by_actions(openwhisk, moto):
    """Its SDK is published without a wheel."""
    keys = {"access_key_id": moto.access_key_id, "secret_access_key": moto.secret_access_key}
    sections = {
        "ibm": {"region": moto.region},
        "ibm_cf": openwhisk.ibm,  # with the key of IAM, which is not the storage's
        "ibm_cos": {"endpoint": moto.url, **keys},
    }
    config = {"backend": "ibm_cf", "storage": "ibm_cos", "storage_bucket": "jobs", "progress": False, **sections}
    with lm.function_executor(config=config) as executor:
        assert len(executor.get_result(executor.submit(bytes, 2 << 20))) == 2 << 20


@pytest.fixture
def given(openwhisk, moto):
    """Arguments of ``openwhisk_executor``."""
    return {**openwhisk.place, **stored(moto), "max_workers": 3, "progress": False, "max_time": 40}


@pytest.fixture
def impatient(monkeypatch):
    """What takes longer than a quarter of a second is stored, and what does not come is missed soon."""
    for name, value in (("STORED_AFTER", 0.25), ("STARTS", 1.0), ("LATE", 0.5)):
        monkeypatch.setattr(function, name, value)


def counting(seconds):
    """A function that takes so long, and says how often it has run by now."""

    def count(path):
        import os
        import time

        with open(path, "a") as file:
            file.write("x")
        time.sleep(seconds)
        return os.path.getsize(path)

    return count


def told(executor):
    """Keys of the replies in storage."""
    prefix = records.inbox_prefix(executor.executor_id)
    return list(executor.storage.list_keys(None, prefix))


def asked(openwhisk):
    """The requests for activations, of which the emulator has been told since they were last counted."""
    counts = openwhisk.own("requests")
    openwhisk.own("requests", "DELETE")
    return counts.get("GET activations", 0)


def test_all_that_are_waited_for_are_in_one_listing(openwhisk, given):
    with lm.openwhisk_executor(**given, carrier="event") as executor:
        executor.get_result(executor.map(time.sleep, [0.5] * 3, chunksize=1))
        asked(openwhisk)
        assert executor.get_result(executor.map(time.sleep, [2.5] * 3, chunksize=1)) == [None] * 3
        assert asked(openwhisk) < 10
    assert told(executor) == [records.inbox_closed_key(executor.executor_id)]
    with openwhisk.changed("limits", wait=0.1), lm.openwhisk_executor(**given) as executor:
        executor.get_result(executor.map(time.sleep, [0.5] * 3, chunksize=1))
        asked(openwhisk)
        assert executor.get_result(executor.map(time.sleep, [2.0] * 3, chunksize=1)) == [None] * 3
        assert asked(openwhisk) < 3 + 10  # the record of each when it has ended


def test_the_death_of_an_event_is_seen_at_once_and_costs_no_work_that_was_stored(openwhisk, given):
    with lm.openwhisk_executor(**given, carrier="event", retries=0) as executor:
        executor.get_result(executor.submit(abs, 1))
        with openwhisk.changed("faults", crash=1.0):
            began = time.monotonic()
            found = executor.get_result(executor.map(abs, [-1] * 6, chunksize=1), throw_except=False)
            assert time.monotonic() - began < 30  # and not when their 40 s are over
    deaths = [each for each in found if each != 1]
    assert 0 < len(deaths) < 6  # the others had done and stored their work
    assert all(type(each) is WorkerDied and "lost its container" in str(each) for each in deaths)


@pytest.mark.parametrize("carrier", ["reply", "event"])
def test_a_lost_activation_is_missed_when_the_time_of_its_call_is_over(openwhisk, given, impatient, carrier):
    with (
        openwhisk.changed("limits", wait=0.1),
        lm.openwhisk_executor(**given, carrier=carrier) as executor,
        openwhisk.changed("faults", lose=1.0),
    ):
        began, before = time.monotonic(), openwhisk.own("state")["lost"]
        future = executor.map(abs, [-42], timeout=1)[0]
        while openwhisk.own("state")["lost"] == before:
            threading.Event().wait(0.02)
        openwhisk.own("faults", "PUT", lose=0.0)
        assert executor.get_result(future) == 42
        assert time.monotonic() - began < 20
    assert future.stats.attempt == 2


def test_an_answer_that_is_lost_is_found_in_storage(openwhisk, given, impatient, tmp_path):
    with Proxy(Engine(openwhisk.url)) as proxy:
        with lm.openwhisk_executor(**{**given, "endpoint": proxy.engine.url, "max_workers": 2}) as executor:
            executor.get_result(executor.submit(abs, 1))
            left = iter([LOST_ANSWER])
            proxy.reset(lambda request: next(left, None) if "/actions/" in request.key else None)
            future = executor.submit(counting(1.0), str(tmp_path / "runs"))
            assert executor.get_result(future) == 1
            assert future.stats.attempt == 1
        assert proxy.faults == 1
    assert told(executor) == [records.inbox_closed_key(executor.executor_id)]


def test_a_reply_that_cannot_be_stored_is_in_the_record(openwhisk, given, monkeypatch):
    place = inbox.Inbox.place.fget

    def elsewhere(self):
        found = place(self)
        return {**found, "options": {**found["options"], "endpoint_url": "http://127.0.0.1:9"}}

    monkeypatch.setattr(inbox.Inbox, "place", property(elsewhere))
    with lm.openwhisk_executor(**given, carrier="event") as executor:
        future = executor.submit(abs, -3)
        assert executor.get_result(future) == 3
        assert future.stats.attempt == 1


def test_an_event_for_which_nobody_waits_does_not_run(openwhisk, given, tmp_path):
    with lm.openwhisk_executor(**given, carrier="event") as executor:
        executor.get_result(executor.submit(abs, -3))
        (action,) = executor._compute._sizes.there.values()
        with executor._compute._inbox.expect() as expected:
            place = function.event_place(executor._compute._inbox, expected)
    message = {"payload": b64encode(b"no message").decode(), "place": {**place, "sent": time.time() - 60}}
    record = openwhisk.ask("POST", f"actions/lithops_mini/{action}?blocking=true", message)
    assert record.result == {}


def test_events_need_a_storage_that_actions_reach(openwhisk, given):
    with pytest.raises(ConfigError, match=r"openwhisk\.carrier is event.*set storage to aws_s3"):
        lm.openwhisk_executor(**openwhisk.place, storage="localhost", carrier="event")


def test_a_large_result_goes_by_its_own_object(given):
    with lm.openwhisk_executor(**given, carrier="event") as executor:
        assert len(executor.get_result(executor.submit(bytes, 2 << 20))) == 2 << 20
        assert executor.get_result(executor.map(len, [bytes(2 << 20)])) == [2 << 20]
