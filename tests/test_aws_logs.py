"""Logs of functions on the local AWS: where they go, what calls print in them, and who reads that."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import yaml
from attempts import until
from aws_emulator import Functions, policy
from click.testing import CliRunner
from lambda_account import BUCKET, Account, start_account

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.compute import aws_errors
from lithops_mini.compute.aws_lambda import LOG_GROUP as LOGS
from lithops_mini.compute.aws_lambda import AwsLambdaCompute, AwsLambdaOptions
from lithops_mini.config import load
from lithops_mini.errors import ConfigError, Reason, WorkerDied
from lithops_mini.runtimes import aws_account
from lithops_mini.storage.localhost import LocalhostStorage
from lithops_mini.testing.messages import Messages
from lithops_mini.worker.output import show_output
from lithops_mini.worker.process import RunnerProcess
from lithops_mini.worker.supervisor import Supervisor

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


# ---------------------------------------------------------------- who reads it


def logs(*arguments, code=0):
    result = CliRunner().invoke(app, ["logs", *arguments], prog_name="lithops-mini")
    assert result.exit_code == code, result.output
    return result


def wait_at(gate, *, then=None):
    """A function that says where it is, waits for a file, and says one thing more, or does ``then``."""

    def work(x):
        print(f"{x} waits", flush=True)
        while not os.path.exists(gate):
            time.sleep(0.01)
        if then is not None:
            os.kill(os.getppid(), then)
            time.sleep(60)
        print(f"{x} goes on", end="")
        return x

    return work


@pytest.mark.timeout(120)
def test_another_process_sees_lines_as_they_are_printed(account, executor, gate):
    other = executor.submit(print, "another job's")
    futures = executor.map(wait_at(str(gate)), range(2), chunksize=1)
    command = [sys.executable, "-W", "error", "-m", "lithops_mini", "logs", "--follow", futures[0].job_id]
    other.result(60)
    until(lambda: len(said(account, futures[0].job_id)) == 2, "both calls have begun")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert {follower.stdout.readline() for _ in range(2)} == {"call 0: 0 waits\n", "call 1: 1 waits\n"}
        assert not any(future.done() for future in futures)
        gate.touch()
        assert executor.get_result(futures) == [0, 1]
        assert sorted(follower.stdout) == ["call 0: 0 goes on\n", "call 1: 1 goes on\n"]
        assert (follower.wait(), follower.stderr.read()) == (0, "")


def test_what_a_call_prints_that_has_not_ended(account, executor, gate):
    future = executor.submit(wait_at(str(gate)), 5)
    executor._recorder.flush()
    until(lambda: said(account, future.job_id), "the call has begun")
    found = logs(future.job_id, "--call", "0")
    assert found.stdout == "5 waits\n"
    assert found.stderr.startswith(f"Not ended: 1 call of {future.job_id}; the job is running")
    gate.touch()
    assert future.result(60) == 5


def test_the_last_words_of_a_call_that_died_with_its_sandbox(account, executor, gate):
    future = executor.call_async(wait_at(str(gate), then=signal.SIGSEGV), (5,), retries=0)
    until(lambda: said(account, future.job_id), "the call has begun")
    gate.touch()
    with pytest.raises(WorkerDied, match="segmentation fault") as caught:
        future.result(60)
    assert str(caught.value).endswith("; the end of its log:\n  call 0: 5 waits")
    executor.shutdown()
    assert logs("--call", "0").stdout == "5 waits\n"
    line = json.loads(logs("--call", "0", "--json").stdout)
    assert line == {"job": future.job_id, "call": 0, "line": "5 waits"}


def test_a_call_that_printed_nothing_is_not_looked_for(account, executor):
    future = executor.submit(abs, -1)
    future.result()
    executor.shutdown()
    account.aws.own("requests", "DELETE")
    found = logs("--call", "0")
    assert (found.stdout, found.stderr) == ("", f"{future.job_id}, abs:\n")
    assert not [action for action in account.aws.own("requests") if action.startswith("logs:")]


def test_the_page_in_the_console(account, here, executor):
    future = executor.submit(print, "x")
    future.result()
    executor.shutdown()
    text = f"what {future.job_id} has printed is on no web page: it is of aws_lambda"
    assert text in logs("--url", code=1).stderr  # an emulator has none
    profile = yaml.safe_load((here / "lithops_mini.yaml").read_text())["profiles"]["only"]
    profile["aws_s3"] = profile.pop("aws")
    profile["aws_lambda"]["region"] = "eu-central-1"
    (here / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    of_all = (
        "https://console.aws.amazon.com/cloudwatch/home?region=eu-central-1"
        "#logsV2:log-groups/log-group/$252Faws$252Flambda$252Flithops-mini"
    )
    assert logs("--url").stdout == f"{of_all}\n"
    stream = future.stats.worker_id.removeprefix("lambda/").rpartition(".")[0]
    name = stream.replace("/", "$252F").replace("[$", "$255B$2524").replace("]", "$255D")
    assert logs("--url", "--call", "0").stdout == f"{of_all}/log-events/{name}\n"
    found = logs("--call", "0")
    assert found.stdout == "x\n"
    assert found.stderr.endswith(f"All that was logged: {of_all}/log-events/{name}\n")


@pytest.mark.parametrize(
    ("region", "console"),
    [
        ("eu-central-1", "console.aws.amazon.com"),
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_consoles_of_partitions(region, console):
    backend = AwsLambdaCompute(AwsLambdaOptions(region=region, log_group="mine"))
    page = f"https://{console}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/mine"
    assert backend.log_url() == page
    assert backend.log_url("lambda/2026/11/21/f[$LATEST]0a.3") == (
        f"{page}/log-events/2026$252F11$252F21$252Ff$255B$2524LATEST$255D0a"
    )
    elsewhere = AwsLambdaOptions(region=region, endpoint_url="http://127.0.0.1:1")
    assert AwsLambdaCompute(elsewhere).log_url() is None


@pytest.fixture
def stream(account, group):
    """A stream of a group: ``put((age, message)...)`` writes to it."""
    client = account.aws.client("logs")
    client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName="s")

    def put(*events):
        now = time.time()
        told = [{"timestamp": int((now - age) * 1000), "message": message} for age, message in events]
        client.put_log_events(logGroupName=group, logStreamName="s", logEvents=told)

    return put


def test_each_line_is_taken_once_also_one_that_comes_late(account, group, stream):
    backend = AwsLambdaCompute(AwsLambdaOptions(**account.aws.account, log_group=group))
    taken = queue.SimpleQueue()
    stream(
        (1000, "x-M000 call 1: too old\n"), (800, "x-M000 call 1: before: it\n"), (1, "x-M000 call 1: a call 2: b\n")
    )
    with backend.tail(lambda *line: taken.put(line)):
        assert [taken.get(timeout=10) for _ in range(2)] == [
            ("x-M000", 1, "before: it"),
            ("x-M000", 1, "a call 2: b"),
        ]
        stream((0, "START RequestId: 1 of a call\n"), (0, "y-C000 call 20: \n"))
        assert taken.get(timeout=10) == ("y-C000", 20, "")
        stream((5, "x-M000 call 1: late\n"))
        assert taken.get(timeout=10) == ("x-M000", 1, "late")
        stream((0, "x-M000 call 1: new"))
        assert taken.get(timeout=10) == ("x-M000", 1, "new")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert taken.empty()
    assert not [thread for thread in threading.enumerate() if thread.name == "lithops_mini-tail"]
    assert list(backend.read_log("x-M000", 1, time.time() - 900)) == ["before: it", "late", "a call 2: b", "new"]
    assert list(backend.read_log("x-M000", 2, 0)) == []


def test_who_may_not_read_is_told(account, group):
    keys = account.aws.user(f"runner-{next(_numbers)}", policy(("lambda:*", "*")))
    given = {**account.aws.account, **{name.removeprefix("aws_"): value for name, value in keys.items()}}
    backend = AwsLambdaCompute(AwsLambdaOptions(**given))
    with pytest.raises(ConfigError, match="logs:FilterLogEvents"), backend.tail(print):
        pass
    with pytest.raises(ConfigError, match="logs:FilterLogEvents"):
        list(backend.read_log("x-M000", 1, 0))
    missing = AwsLambdaCompute(AwsLambdaOptions(**account.aws.account, log_group=group))
    with pytest.raises(ConfigError, match=f"cannot read the log group {group}: ResourceNotFound"), missing.tail(print):
        pass


# ---------------------------------------------------------------- how much is written


@pytest.fixture
def show(monkeypatch, capsys):
    """Print lines of a call, the second given; returns what came out."""
    logger = logging.getLogger("lithops_mini.worker")
    before = logger.level, logger.propagate, logger.handlers[:]
    show_output()

    def printed(call, lines, at):
        monkeypatch.setattr("time.monotonic", lambda: at)
        for line in lines:
            logger.debug("call %d: %s", call, line, extra={"job": "x-M000"})
        return capsys.readouterr().out.splitlines()

    yield printed
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1:]


def test_of_a_call_that_prints_without_end_little_is_written(show):
    lines = ["y" * 1000] * 100
    first = show(1, lines, 100.0)
    assert sum(map(len, first)) < 66 << 10
    assert first[:-1] == [f"x-M000 call 1: {'y' * 1000}"] * 64
    assert first[-1] == "x-M000 call 1: ... from here on only 1 KiB a second, and the rest left out ..."
    assert show(1, lines, 100.1) == []
    assert len(show(1, lines, 103.1)) == 3
    assert show(1, ["last words"], 104.0) == ["x-M000 call 1: last words"]
    assert len(show(2, lines, 104.0)) == 65
    assert show(3, ["é" * 8000], 104.0)[0].encode()[:-4].endswith("é".encode())


def test_lines_of_the_next_call_are_not_taken_for_the_last_one_s(show, tmp_path, monkeypatch, capsys):
    """A call ends, and the next one prints, between the supervisor's look at the log and its reading."""
    config = load(storage="localhost", storage_path=str(tmp_path / "s"))
    storage = LocalhostStorage(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    read = RunnerProcess.read_log

    def read_late(runner, start, size):
        until(lambda: b"of call 1" in read(runner, 0, 100), "the next call prints")
        return read(runner, start, size)

    def speak(x):
        print(f"of call {x}", flush=True)
        time.sleep(0.1)

    monkeypatch.setattr(RunnerProcess, "read_log", read_late)
    supervisor = Supervisor("w", str(tmp_path))
    try:
        supervisor.run(Messages(config, storage).payload(speak, range(2)))
    finally:
        supervisor.close()
    assert re.findall(r"call \d+: .*", capsys.readouterr().out) == ["call 0: of call 0", "call 1: of call 1"]
