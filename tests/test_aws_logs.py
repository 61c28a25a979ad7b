"""Logs of functions on the local AWS: where they go, what calls print in them, and who reads that."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterator

import pytest
from aws_emulator import Functions, policy
from lambda_account import Account, start_account

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
