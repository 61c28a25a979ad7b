"""Requests to AWS Lambda: as many as the process may have connections, few of which it works on at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aws_emulator import Emulated, Functions, start_aws
from botocore.exceptions import ClientError

from lithops_mini.compute.aws_invoke import ACTIVE, Invocations
from lithops_mini.runtimes.aws import Aws
from lithops_mini.storage.aws_s3 import AwsOptions

TAIL = {"X-Amz-Log-Type": "Tail"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with start_aws(tmp_path_factory.mktemp("aws"), "--sandbox", "process") as started:
        yield started


@pytest.fixture(scope="module")
def name(aws: Emulated) -> str:
    return Functions(aws).make()


def invocations(aws: Emulated, **other: str) -> Invocations:
    account = Aws(AwsOptions(**{**aws.account, **other}))
    client = account.client("lambda", retries={"total_max_attempts": 1}, max_pool_connections=200)
    return Invocations(client, account.credentials())


def test_an_answer_has_its_headers_and_body(aws: Emulated, name: str) -> None:
    event = bytearray(json.dumps({"do": "length", "text": "x" * 100_000}).encode())
    headers, said = invocations(aws).send(name, event, TAIL)
    assert json.loads(said) == 100_000
    assert "x-amz-log-result" in headers
    assert not event


def test_a_large_answer_is_whole(aws: Emulated, name: str) -> None:
    event = bytearray(json.dumps({"do": "large", "size": 3_000_000}).encode())
    assert len(invocations(aws).send(name, event, TAIL)[1]) == 3_000_000


def test_errors_are_those_of_the_client(aws: Emulated) -> None:
    sender = invocations(aws)
    with pytest.raises(ClientError, match="ResourceNotFoundException") as caught:
        sender.send("nobody", bytearray(b"{}"), TAIL)
    assert type(caught.value).__name__ == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_other_clients_are_left_as_they_are(aws: Emulated, name: str) -> None:
    invocations(aws)
    answer = aws.client("lambda").invoke(FunctionName=name, Payload=b"{}")
    assert json.load(answer["Payload"])["calls"]
    assert aws.client("iam", **other_keys(aws)).list_roles()["Roles"]


def other_keys(aws: Emulated) -> dict[str, str]:
    return {f"aws_{name}": aws.account[name] for name in ("access_key_id", "secret_access_key")}


def test_requests_are_signed(aws: Emulated, name: str) -> None:
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|InvalidSignatureException"):
        invocations(aws, secret_access_key="another").send(name, bytearray(b"{}"), TAIL)


def test_more_wait_for_answers_than_are_worked_on(aws: Emulated, name: str, tmp_path: Path) -> None:
    count, seen, until = ACTIVE + 6, tmp_path / "seen", tmp_path / "until"
    sender = invocations(aws)
    event = json.dumps({"do": "await", "file": str(seen), "until": str(until)}).encode()
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(sender.send, name, bytearray(event), TAIL) for _ in range(count)]
        for _ in range(1000):
            if seen.exists() and len(seen.read_text().splitlines()) == count:
                break
            threading.Event().wait(0.05)
        until.touch()
        assert all("calls" in json.loads(answer.result()[1]) for answer in answers)
        assert len(seen.read_text().splitlines()) == count


@pytest.mark.parametrize(("soft", "hard", "says"), [(100, 2000, "1200"), (100, 1000, "at most")])
def test_a_process_may_have_as_many_connections_as_its_workers(soft: int, hard: int, says: str) -> None:
    code = f"""
import resource
from lithops_mini.compute.aws_invoke import allow
from lithops_mini.errors import ConfigError
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
try:
    allow(1000)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert says in done.stdout
