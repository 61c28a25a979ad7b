"""Logs of functions on the local AWS: where they go, what calls print in them, and who reads that."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator

import pytest
from aws_emulator import Functions, policy
from lambda_account import BUCKET, Account, start_account

import lithops_mini as lm
from lithops_mini.compute.aws_lambda import LOG_GROUP as LOGS
from lithops_mini.errors import WorkerDied
from lithops_mini.runtimes import aws_account

GROUPS = "arn:aws:logs:us-east-1:123456789012:log-group:"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.fixture(scope="module")
def functions(account):
    return Functions(account.aws)


@pytest.fixture
def group():
    """The name of a group of logs that nobody else has; it is not there yet."""
    return f"/test/group-{next(_numbers)}"


def messages(account, group):
    found = account.aws.client("logs").filter_log_events(logGroupName=group)
    return [event["message"].rstrip("\n") for event in found["events"]]


def groups(account):
    found = account.aws.client("logs").describe_log_groups()["logGroups"]
    return {each["logGroupName"] for each in found}


# ---------------------------------------------------------------- the emulator's


def test_the_log_is_in_the_group_that_the_function_names(account, functions, group):
    name = functions.make(LoggingConfig={"LogGroup": group})
    variables = {"do": "environment", "names": ["AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"]}
    found = functions.invoke(name, variables)["value"]
    assert found["AWS_LAMBDA_LOG_GROUP_NAME"] == group
    assert re.fullmatch(rf"\d{{4}}/\d\d/\d\d/{name}\[\$LATEST\][0-9a-f]{{32}}", found["AWS_LAMBDA_LOG_STREAM_NAME"])
    (stream,) = account.aws.client("logs").describe_log_streams(logGroupName=group)["logStreams"]
    assert stream["logStreamName"] == found["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert [line.split()[0] for line in messages(account, group)] == ["START", "END", "REPORT"]
    assert f"/aws/lambda/{name}" not in groups(account)


def test_the_group_can_be_changed(account, functions, group):
    name = functions.make()
    client = functions.client
    assert client.get_function_configuration(FunctionName=name)["LoggingConfig"]["LogGroup"] == f"/aws/lambda/{name}"
    functions.invoke(name, {"do": "print", "text": "before"})
    client.update_function_configuration(FunctionName=name, LoggingConfig={"LogGroup": group})
    functions.invoke(name, {"do": "print", "text": "after"})
    assert client.get_function(FunctionName=name)["Configuration"]["LoggingConfig"] == {
        "LogFormat": "Text",
        "LogGroup": group,
    }
    assert "before" in functions.messages(name)[1]
    assert "after" in messages(account, group)


def test_a_log_is_written_as_far_as_the_role_permits(account, functions, group):
    """The policy that setup makes lets functions write in a group, and not make one."""
    logs = account.aws.client("logs")

    def printed(role):
        name = functions.make(Role=role, LoggingConfig={"LogGroup": group})
        answer = functions.invoke(name, {"do": "print", "text": f"by {name}"}, LogType="Tail")
        assert f"by {name}\n" in base64.b64decode(answer["LogResult"]).decode()  # this needs no permission
        return group in groups(account) and f"by {name}" in messages(account, group)

    number = next(_numbers)
    document = aws_account.policy("jobs", [], GROUPS + group)
    as_of_setup = account.aws.role(f"setup-{number}", json.dumps(document))
    assert not printed(as_of_setup)
    assert group not in groups(account)
    logs.create_log_group(logGroupName=group)
    assert printed(as_of_setup)
    others = aws_account.policy("jobs", [], f"{GROUPS}{group}-of-others")
    assert not printed(account.aws.role(f"others-{number}", json.dumps(others)))
    streams_only = policy(("logs:CreateLogStream", "*"))
    assert not printed(account.aws.role(f"streams-{number}", streams_only))
    assert not printed(account.aws.role(f"nothing-{number}"))
    logs.delete_log_group(logGroupName=group)
    assert printed(account.aws.role(f"everything-{number}", policy(("logs:*", "*"))))


# ---------------------------------------------------------------- what calls print


@pytest.fixture
def here(account, tmp_path, monkeypatch):
    """A working directory with a profile of the account, and a home of its own."""
    given = {"backend": "aws_lambda", "storage": "aws_s3", "storage_bucket": BUCKET, "aws": account.aws.account}
    given["aws_lambda"] = {"role": account.role}
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": given}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def executor(here):
    with lm.function_executor(max_workers=4, progress=False) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


@pytest.fixture
def gate(here):
    """A file that functions wait for, and what makes it."""
    path = here / "gate"
    yield path
    path.touch()


def said(account, job_id):
    """What calls of a job have printed: call and line."""
    lines = (line.removeprefix(f"{job_id} call ") for line in messages(account, LOGS) if line.startswith(job_id))
    return [(int(call), text) for call, _, text in (line.partition(": ") for line in lines)]


def test_what_calls_print_is_in_the_log(account, executor):
    def speak(x):
        print(f"out {x}")
        print(f"  err {x}\n", file=sys.stderr)

    futures = executor.map(speak, range(3))
    executor.get_result(futures)
    expected = [(call, line) for call in range(3) for line in (f"out {call}", f"  err {call}", "")]
    assert sorted(said(account, futures[0].job_id), key=lambda each: each[0]) == expected
    assert futures[1].logs == "out 1\n  err 1\n\n"


def test_the_last_words_of_a_process_are_in_the_log(account, executor):
    def leave(x):
        print("last words", flush=True)
        os._exit(3)

    future = executor.call_async(leave, (0,), retries=0)
    with pytest.raises(WorkerDied):
        future.result()
    assert said(account, future.job_id) == [(0, "last words")]
