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
from aws_emulator import Functions, policy, start_aws
from lambda_account import BUCKET, Account, start_account

import lithops_mini as lm
from lithops_mini.compute import aws_errors
from lithops_mini.compute.aws_lambda import LOG_GROUP as LOGS
from lithops_mini.errors import Reason, WorkerDied
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


# ---------------------------------------------------------------- errors

AT_IMPORT = "print('importing', flush=True)\n"
FAILURES = {
    "exit": ("print('words', flush=True) or os._exit(3)", "lost its sandbox", "exit status 3", ["words"]),
    "segfault": ("print('words') or os.kill(os.getpid(), 11)", "lost its sandbox", "segmentation fault", ["words"]),
    "timeout": ("print('words') or time.sleep(9)", "over its time", "Task timed out after 1.00 seconds", ["words"]),
    "call": ("print('0123456789ab-M000 call 7: words') or os._exit(3)", "lost its sandbox", "", ["call 7: words"]),
    "many": ("[print(n) for n in range(99)] and os._exit(3)", "lost its sandbox", "", [str(n) for n in range(91, 99)]),
    "silent": ("os._exit(3)", "lost its sandbox", "exit status 3", []),
    "import": (f"{AT_IMPORT}import absent", "failed (Runtime.ImportModuleError: ", "'absent'", ["importing"]),
    "no handler": ("", "failed (Runtime.HandlerNotFound: ", "'handler' missing", []),
    "exit at import": (f"{AT_IMPORT}import os; os._exit(4)", "lost its sandbox", "exit status 4", ["importing"]),
}


@pytest.mark.parametrize("what", FAILURES)
def test_an_error_has_the_last_words_before_it(functions, what):
    code, text, cause, words = FAILURES[what]
    if "import" in what or not code:
        name = functions.make(code or "x = 1")
        answer = functions.invoke(name, LogType="Tail")
    else:
        name = functions.make(Timeout=1)
        answer = functions.invoke(name, {"do": "python", "code": code}, LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    error = str(aws_errors.failed(json.dumps(answer["value"]).encode(), answer["LogResult"], name))
    first, *lines = error.splitlines()
    assert first.startswith(f"the function {name} ")
    assert text in first
    assert cause in first
    assert first.endswith("; the end of its log:") == bool(words)
    assert lines == [f"  {line}" for line in words]


def test_an_error_at_import_has_its_traceback(functions):
    name = functions.make(f"{AT_IMPORT}raise ValueError(9)")
    answer = functions.invoke(name, LogType="Tail")
    error = str(aws_errors.failed(json.dumps(answer["value"]).encode(), answer["LogResult"], name))
    first, *lines = error.splitlines()
    assert first == f"the function {name} failed (ValueError: 9); the end of its log:"
    assert lines[0] == "  importing"
    assert lines[-2].endswith('/module.py", line 2, in <module>')
    assert lines[-1].strip() == "raise ValueError(9)"
    assert "frozen" not in error


def test_what_only_lambda_writes_is_left_out():
    """Lines that the emulator does not write: of an extension that crashes, of tracing, of a slow start."""
    log = """INIT_START Runtime Version: python:3.12.v30\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:0
EXTENSION\tName: watcher\tState: Started\tEvents: [INVOKE]
START of my program
START RequestId: 1-2 Version: $LATEST
RequestId: 1-2 Error: exit status 1
Extension.Crash
END RequestId: 1-2
REPORT RequestId: 1-2\tDuration: 1.00 ms\tBilled Duration: 1 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t
XRAY TraceId: 1-5\tSegmentId: 6\tSampled: true
"""
    body = {"errorType": "Extension.Crash", "errorMessage": "RequestId: 1-2 Error: exit status 1"}
    error = aws_errors.failed(json.dumps(body).encode(), base64.b64encode(log.encode()).decode(), "f")
    assert (error.reason, error.retryable) == (Reason.DIED, True)
    assert str(error).endswith("; the end of its log:\n  START of my program")


def test_out_of_memory_says_how_much_there_was(tmp_path, docker_engine):
    with start_aws(tmp_path, "--sandbox", "docker") as aws:
        functions = Functions(aws)
        name = functions.make(MemorySize=128)
        code = "print('words') or len([b'x' * (1 << 20) for _ in range(999)])"
        answer = functions.invoke(name, {"do": "python", "code": code}, LogType="Tail")
    error = aws_errors.failed(json.dumps(answer["value"]).encode(), answer["LogResult"], name)
    assert error.reason == Reason.OUT_OF_MEMORY
    assert f"the function {name} ran out of memory, with 128 of 128 MB in use (Runtime." in str(error)
    assert str(error).endswith("; the end of its log:\n  words")
