"""Both ways in which replies of AWS Lambda come back: as its answers, and by storage."""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from engines import Engine
from lambda_account import BUCKET, Account, start_account
from proxy import LOST_ANSWER, Proxy

import lithops_mini as lm
from lithops_mini import records
from lithops_mini.compute import aws_errors, aws_lambda, function, inbox
from lithops_mini.errors import ConfigError, Reason, WorkerDied
from lithops_mini.records import NO_REQUESTS
from lithops_mini.runtimes.function import LOSSES_PREFIX
from lithops_mini.testing.compute import ComputeContract
from lithops_mini.worker.aws_lambda import SEAL, seal


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account"), "--idle", "5") as account:
        yield account


@pytest.fixture
def faults(account) -> Iterator[Any]:
    """Sets faults of the local AWS, which are gone after the test."""
    yield lambda **shares: account.aws.own("faults", "PUT", **shares)
    account.aws.own("faults", "PUT", crash=0, duplicate=0, lose=0)


class TestEventContract(ComputeContract):
    lends: ClassVar[bool] = False
    many: ClassVar[int] = 20

    @pytest.fixture
    def executor_settings(self, account: Account, request: pytest.FixtureRequest) -> dict[str, Any]:
        test = os.urandom(4).hex() if "a_worker_is_used_again" in request.node.name else "contract"
        return account.executor(carrier="event", max_workers=2, max_time=30, tags={"test": test})

    # What workers do whatever carries messages, and test_aws_lambda.py has seen
    test_the_environment_is_that_of_the_message = test_output_is_kept = None
    test_of_much_output_both_ends_are_kept = test_a_package_travels_in_the_version_of_its_job = None
    test_an_exception_is_one_calls_failure = test_exceptions_are_tried_again_when_asked = None
    test_executors_in_several_threads = test_an_executor_used_by_several_threads = None


def executor(account: Account, **more: Any) -> lm.FunctionExecutor:
    return lm.function_executor(config={}, **account.executor(max_time=30, **more))


def event(account: Account, **more: Any) -> lm.FunctionExecutor:
    return executor(account, carrier="event", **more)


def counting(seconds: float) -> Any:
    """A function that takes so long, and says how often it has run by now."""

    def count(path):
        import os
        import time

        with open(path, "a") as file:
            file.write("x")
        time.sleep(seconds)
        return os.path.getsize(path)

    return count


def objects(account: Account, prefix: str) -> list[str]:
    found = account.aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [each["Key"] for each in found.get("Contents", ())]


# ---------------------------------------------------------------- events


def test_an_event_is_one_put_by_its_worker_and_one_get_by_the_client(account):
    with event(account, max_workers=8) as ex:
        storage = ex.storage.backend
        ex.get_result(ex.map(abs, range(8), chunksize=1))
        account.aws.own("requests", "DELETE")
        before = storage.requests() or NO_REQUESTS
        assert ex.get_result(ex.map(abs, range(40), chunksize=1)) == list(range(40))
        took = (storage.requests() or NO_REQUESTS).since(before)
        seen = account.aws.own("requests")
        told = len(objects(account, records.executor_prefix(ex.executor_id)))
    assert seen["lambda:InvokeFunction"] == 40
    assert took.gets == 40
    assert seen["s3:PutObject"] <= 40 + told


def test_what_was_read_is_deleted(account):
    with event(account) as ex:
        ex.get_result(ex.map(abs, range(10), chunksize=1))
    assert objects(account, records.inbox_prefix(ex.executor_id)) == [records.inbox_closed_key(ex.executor_id)]


def test_a_sandbox_that_dies_is_told_by_lambda_at_once(account, faults):
    with event(account) as ex:
        ex.get_result(ex.submit(abs, 1))
        faults(crash=1)
        began = time.monotonic()
        futures = ex.map(abs, [1], retries=0)
        with pytest.raises(WorkerDied, match="lost its sandbox") as caught:
            ex.get_result(futures)
        assert f"lithops-mini logs {futures[0].job_id} --call 0 shows its output" in "".join(caught.value.__notes__)
        assert time.monotonic() - began < 10  # and not when its time is over
    assert objects(account, LOSSES_PREFIX) == []


def test_an_event_that_is_lost_is_sent_again_when_its_time_is_over(account, faults, monkeypatch):
    monkeypatch.setattr(aws_lambda, "EVENT_AGE", 1)
    monkeypatch.setattr(function, "LATE", 1.0)
    monkeypatch.setattr(function, "STARTS", 1.0)
    with event(account) as ex:
        account.aws.own("requests", "DELETE")
        faults(lose=1)
        future = ex.map(abs, [-42], timeout=1)[0]
        while not account.aws.own("requests").get("lambda:InvokeFunction"):
            threading.Event().wait(0.05)
        faults(lose=0)
        assert ex.get_result(future) == 42
        assert future.stats.attempt == 2


def test_events_that_come_twice_count_once(account, faults):
    with event(account, max_workers=8) as ex:
        faults(duplicate=1)
        futures = ex.map(abs, range(30), chunksize=1)
        assert ex.get_result(futures) == list(range(30))
        assert [future.stats.attempt for future in futures] == [1] * 30


def test_a_second_delivery_after_the_end_does_not_run(account, faults, tmp_path):
    account.aws.own("limits", "PUT", concurrency=1)
    try:
        with event(account) as ex:
            faults(duplicate=1)
            future = ex.submit(counting(6.0), str(tmp_path / "runs"))
            while not os.path.exists(tmp_path / "runs"):
                threading.Event().wait(0.02)
            account.aws.own("limits", "PUT", concurrency=0)
            assert ex.get_result(future) == 1
        account.aws.own("limits", "PUT", concurrency=1)
        account.aws.settle(60)
        assert (tmp_path / "runs").read_text() == "x"
    finally:
        account.aws.own("limits", "PUT", concurrency=1000)


def test_a_large_result_goes_through_storage(account):
    with event(account) as ex:
        assert len(ex.get_result(ex.submit(bytes, 3 << 20))) == 3 << 20
        assert ex.get_result(ex.map(len, [bytes(2 << 20)])) == [2 << 20]


def test_lambda_tells_of_losses_without_the_keys_that_were_in_the_event(account, faults):
    key = os.urandom(32).hex()
    place = {"key": "k", "secret": "5ec4e7"}
    told = json.dumps(seal(key, place, b"the payload"))
    assert "5ec4e7" not in told
    assert b64encode(b"payload").decode().rstrip("=") not in told
    with event(account) as ex:
        (made,) = ex._compute._sizes.there.values()
        variables = account.aws.client("lambda").get_function_configuration(FunctionName=made.name)["Environment"]
        assert variables["Variables"] == {SEAL: made.seal}
        again = event(account)
        assert again._compute._sizes.there == ex._compute._sizes.there
        again.shutdown()


def test_a_reply_that_somebody_else_wrote_is_not_read(account, monkeypatch):
    taken = inbox.Inbox.take

    def forge(self, expected):
        data = self._storage.get(self._bucket, expected.key)
        self._storage.put(self._bucket, expected.key, data[:-1] + bytes([data[-1] ^ 1]))
        return taken(self, expected)

    monkeypatch.setattr(inbox.Inbox, "take", forge)
    with event(account) as ex, pytest.raises(WorkerDied, match="signature"):
        ex.get_result(ex.map(abs, [1], retries=0))


def test_what_waits_when_the_executor_is_closed_never_begins(account, tmp_path):
    """One sandbox may run at once; the event behind it finds that nobody waits."""
    account.aws.own("limits", "PUT", concurrency=1)
    try:
        ex = event(account)
        ex._dispatcher._lanes = ex._dispatcher._share = 2  # more than the account may: Lambda queues the other
        ex.map(counting(6.0), [str(tmp_path / "runs")] * 2, chunksize=1)
        while not os.path.exists(tmp_path / "runs") or account.aws.own("state")["events"] < 2:
            threading.Event().wait(0.02)
        ex.shutdown(wait=False)
        assert objects(account, records.inbox_prefix(ex.executor_id)) == [records.inbox_closed_key(ex.executor_id)]
        account.aws.settle(60)
        assert (tmp_path / "runs").read_text() == "x"
    finally:
        account.aws.own("limits", "PUT", concurrency=1000)


def test_events_need_a_storage_that_functions_reach(account, tmp_path):
    with pytest.raises(ConfigError, match=r"carrier is event.*set storage to aws_s3"):
        event(account, storage="localhost", storage_path=str(tmp_path))


def test_records_of_losses_say_what_happened():
    record = {
        "requestContext": {"functionArn": "arn:aws:lambda:r:1:function:f:$LATEST", "condition": "RetriesExhausted"},
        "requestPayload": {"sealed": "", "key": "lithops_mini/jobs/x/inbox/1"},
        "responsePayload": {"errorType": "Runtime.OutOfMemory", "errorMessage": "out"},
    }
    key, error = aws_errors.lost_event(json.dumps(record).encode()) or ("", None)
    assert (key, error.reason, error.retryable) == ("lithops_mini/jobs/x/inbox/1", Reason.OUT_OF_MEMORY, False)
    del record["responsePayload"]
    record["requestContext"]["condition"] = "EventAgeExceeded"
    _, error = aws_errors.lost_event(json.dumps(record).encode())
    assert (error.reason, error.retryable) == (Reason.THROTTLED, True)
    for other in (b"", b"[]", b"{}", b'{"requestPayload": 1}'):
        assert aws_errors.lost_event(other) is None


# ---------------------------------------------------------------- answers that are lost


@pytest.fixture
def proxy(account) -> Iterator[Proxy]:
    """Between the client and the account."""
    with Proxy(Engine(account.aws.url)) as proxy:
        yield proxy
    assert proxy.errors == []


def through(proxy: Proxy, account: Account, **more: Any) -> lm.FunctionExecutor:
    return executor(account, endpoint_url=proxy.engine.url, **more)


def lose_answers(proxy: Proxy, count: int) -> None:
    left = iter([LOST_ANSWER] * count)
    proxy.reset(lambda request: next(left, None) if request.key.endswith("/invocations") else None)


def test_an_answer_that_is_lost_is_found_in_storage(account, proxy, monkeypatch, tmp_path):
    monkeypatch.setattr(function, "STORED_AFTER", 0.5)
    with through(proxy, account) as ex:
        ex.get_result(ex.submit(abs, 1))
        lose_answers(proxy, 1)
        future = ex.submit(counting(1.0), str(tmp_path / "runs"))
        assert ex.get_result(future) == 1
        assert future.stats.attempt == 1
    assert proxy.faults == 1
    assert objects(account, records.inbox_prefix(ex.executor_id)) == [records.inbox_closed_key(ex.executor_id)]


def test_a_short_call_whose_answer_is_lost_is_run_again(account, proxy, tmp_path):
    with through(proxy, account) as ex:
        ex.get_result(ex.submit(abs, 1))
        lose_answers(proxy, 1)
        future = ex.submit(counting(0.0), str(tmp_path / "runs"))
        assert ex.get_result(future) == 2
        assert future.stats.attempt == 2


def test_the_stored_reply_of_a_call_whose_answer_came_is_deleted(account, monkeypatch):
    monkeypatch.setattr(function, "STORED_AFTER", 0.2)
    with executor(account) as ex:
        account.aws.own("requests", "DELETE")
        assert ex.get_result(ex.submit(time.sleep, 0.5)) is None
    assert account.aws.own("requests")["s3:PutObject"] == 3  # the reply, the manifest, the progress
    assert objects(account, records.inbox_prefix(ex.executor_id)) == []


# ---------------------------------------------------------------- throttling


def test_as_many_messages_are_sent_as_the_account_takes(account):
    account.aws.own("limits", "PUT", concurrency=4)
    try:
        with executor(account, max_workers=40) as ex:
            assert ex._dispatcher._lanes == 4
        with executor(account, max_workers=3) as ex:
            assert ex._dispatcher._lanes == 3
    finally:
        account.aws.own("limits", "PUT", concurrency=1000)


def test_a_service_that_throttles_is_sent_less(account):
    with executor(account, max_workers=40) as ex:
        assert ex._dispatcher._lanes == 40
        account.aws.own("limits", "PUT", concurrency=4)
        try:
            before = account.aws.own("state")["throttles"]
            assert ex.get_result(ex.map(time.sleep, [0.05] * 200, chunksize=1)) == [None] * 200
            throttles = account.aws.own("state")["throttles"] - before
            assert ex._dispatcher._share < 10
            assert throttles < 150, throttles
        finally:
            account.aws.own("limits", "PUT", concurrency=1000)
        ex.get_result(ex.map(abs, range(400), chunksize=1))
        assert ex._dispatcher._share > 15  # and more again when it takes more
