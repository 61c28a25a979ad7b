"""The handler of AWS Lambda's functions, called as Lambda's own runtime calls it."""

from __future__ import annotations

import subprocess
import sys
import time
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from lithops_mini.config import load
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.testing.messages import Messages, outcomes, statuses, worker_id
from lithops_mini.worker import aws_lambda
from lithops_mini.worker.aws_lambda import MAX_MESSAGE, Worker
from lithops_mini.worker.supervisor import Supervisor


class Context:
    """As Lambda tells it: how long the invocation may last."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._until - time.monotonic()) * 1000))


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    config = load(storage="localhost", storage_path=str(tmp_path / "s"))
    storage = LocalhostStorage(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    return Messages(config, storage)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/21/[$LATEST]0123456789abcdef")
    made = Worker()
    yield made
    made.close()


def ask(worker: Worker, payload: bytes, seconds: float = 60) -> bytes:
    answer = worker({"payload": b64encode(payload).decode()}, Context(seconds))
    assert list(answer) == ["reply"], answer
    return b64decode(answer["reply"])


def test_an_event_is_a_message_and_its_answer_the_reply(worker, messages):
    reply = ask(worker, messages.payload(lambda x: x * x, range(5)))
    assert messages.values(reply) == [0, 1, 4, 9, 16]
    assert worker_id(reply) == "lambda/2026/11/21/[$LATEST]0123456789abcdef.1"


def test_what_runs_when_the_invocation_ends_is_stopped_before_lambda_does(worker, messages):
    def sleep_at_one(x: int) -> int:
        if x == 1:
            print("going to sleep", flush=True)
            time.sleep(60)
        return x

    ask(worker, messages.payload(abs, [1]))
    began = time.monotonic()
    reply = ask(worker, messages.payload(sleep_at_one, range(3)), seconds=2)
    assert time.monotonic() - began < 2
    assert statuses(reply) == ["OK", "TIMEOUT", "UNSTARTED"]
    victim = outcomes(reply)[1]
    assert b"when the time of its worker was over" in bytes(victim.data)
    assert bytes(victim.log) == b"going to sleep\n"
    assert messages.values(ask(worker, messages.payload(abs, [-1]))) == [1]


def test_a_message_that_no_runner_takes_is_refused_with_the_reason(worker, messages):
    worker.close()
    answer = worker({"payload": b64encode(messages.payload(abs, [1])).decode()}, Context(60))
    assert answer["refused"]["reason"] == "cancelled"
    assert answer["refused"]["retryable"] is False


def test_calls_whose_results_might_not_fit_are_given_back(messages, tmp_path):
    supervisor = Supervisor("w", str(tmp_path))
    try:
        payload = messages.payload(lambda x: bytes(100 << 10), range(40), inline=128 << 10)
        reply = supervisor.run(payload, room=1 << 20)
        told = statuses(reply)
        count = told.count("OK")
        assert told == ["OK"] * count + ["UNSTARTED"] * (40 - count)
        assert 1 <= count < 40
        assert len(reply) <= 1 << 20
        alone = supervisor.run(messages.payload(lambda x: bytes(2000), [0]), room=1)
        assert statuses(alone) == ["OK"]  # else it would be sent for ever
    finally:
        supervisor.close()


def test_an_answer_that_lambda_would_not_take_is_refused(worker, messages):
    def fail(size: int) -> None:
        raise ValueError(bytes(size))

    answer = worker({"payload": b64encode(messages.payload(fail, [MAX_MESSAGE])).decode()}, Context(60))
    assert answer["refused"]["reason"] == "refused"
    assert "over the platform's limit" in answer["refused"]["text"]


def test_it_imports_little():
    heavy = {"boto3", "botocore", "yaml", "tqdm", "requests", "click", "pydantic", "asyncio", "urllib.request"}
    code = f"import {aws_lambda.__name__}, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
