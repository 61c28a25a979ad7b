"""The local AWS, asked by AWS's own SDK and by nothing of ours."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from aws_emulator import MODULE, RUNTIME, TRUST, Functions, policy, start_aws, zipped
from botocore.config import Config
from botocore.exceptions import ClientError

from lithops_mini.emulators.aws.faults import Dice
from lithops_mini.emulators.aws.settings import Faults

BUCKET = "example-com-data"


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with start_aws(tmp_path_factory.mktemp("aws"), "--sandbox", "process", "--retry-wait", "0.02") as emulated:
        emulated.client("s3").create_bucket(Bucket=BUCKET)
        yield emulated


@pytest.fixture(scope="module")
def functions(aws):
    return Functions(aws)


@pytest.fixture
def faults(aws):
    """A function that sets faults, which the test's end unsets."""
    yield lambda **given: aws.own("faults", "PUT", **given)
    aws.own("faults", "PUT", cold_start=0, crash=0, duplicate=0, lose=0, seed=0)


def refused(call, *arguments, **options):
    """The status, code and message with which AWS refuses."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    error = caught.value.response["Error"]
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def gone(pid):
    """Return when the process has ended."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} still runs"
        threading.Event().wait(0.02)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


# --- how it starts, and what it prints


def test_it_prints_what_the_profile_says(aws):
    assert aws.lines[0] == f"An emulator of AWS answers at {aws.url}, until Ctrl-C or SIGTERM.\n"
    assert [line.split("=")[1].strip() for line in aws.lines[1:]] == [
        aws.url,
        "us-east-1",
        aws.account["access_key_id"],
        aws.account["secret_access_key"],
    ]
    assert aws.profile.stat().st_mode & 0o777 == 0o600
    identity = aws.client("sts").get_caller_identity()
    assert identity["Arn"] == "arn:aws:iam::123456789012:user/administrator"


# --- synchronous invocations


def test_a_sandbox_is_used_again(functions):
    name = functions.make()
    answers = [functions.invoke(name, LogType="Tail") for _ in range(3)]
    assert [answer["value"]["calls"] for answer in answers] == [1, 2, 3]
    assert len({answer["value"]["pid"] for answer in answers}) == 1
    assert [answer["value"]["request"] for answer in answers] == [
        answer["ResponseMetadata"]["RequestId"] for answer in answers
    ]
    assert {answer["ExecutedVersion"] for answer in answers} == {"$LATEST"}
    inits = ["Init Duration" in base64.b64decode(answer["LogResult"]).decode() for answer in answers]
    assert inits == [True, False, False]


def test_invocations_at_a_time_have_sandboxes_of_their_own(functions, tmp_path):
    name = functions.make()
    with ThreadPoolExecutor(4) as pool:
        event = {"do": "await", "until": str(tmp_path / "go"), "file": str(tmp_path / "started")}
        answers = [pool.submit(functions.invoke, name, event) for _ in range(4)]
        while len(lines(tmp_path / "started")) < 4:
            threading.Event().wait(0.01)
        (tmp_path / "go").touch()
    assert [answer.result()["value"]["calls"] for answer in answers] == [1] * 4
    assert len({answer.result()["value"]["pid"] for answer in answers}) == 4


def test_a_warm_invocation_is_fast(functions):
    name = functions.make()
    functions.invoke(name)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        functions.invoke(name)
        times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.03  # 3 ms on an idle machine; packets that wait for each other take 40


def test_the_log(functions):
    name = functions.make()
    answer = functions.invoke(name, {"do": "print", "text": "one\ntwo"}, LogType="Tail")
    functions.invoke(name, {"do": "print", "text": "three"})
    request = answer["ResponseMetadata"]["RequestId"]
    messages = functions.messages(name)
    start, *printed, end, report = messages[:5]
    assert start == f"START RequestId: {request} Version: $LATEST\n"
    assert printed == ["one\n", "two\n"]
    assert end == f"END RequestId: {request}\n"
    assert re.fullmatch(
        rf"REPORT RequestId: {request}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t"
        r"Max Memory Used: [1-9]\d* MB\tInit Duration: \d+\.\d\d ms\t\n",
        report,
    )
    assert len(messages) == 9
    assert base64.b64decode(answer["LogResult"]).decode() == "".join(messages[:5])
    tail = functions.invoke(name, {"do": "print", "text": "x" * 10_000}, LogType="Tail")["LogResult"]
    assert len(base64.b64decode(tail)) == 4096
    assert "LogResult" not in functions.invoke(name)


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("end", "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("kill", "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        ("segfault", "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_runtime_that_ends(functions, do, kind, text):
    name = functions.make()
    answer = functions.invoke(name, {"do": do}, LogType="Tail")
    request = answer["ResponseMetadata"]["RequestId"]
    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    assert answer["value"] == {"errorType": kind, "errorMessage": f"RequestId: {request} Error: {text}"}
    assert f"\tStatus: error\tError Type: {kind}" in base64.b64decode(answer["LogResult"]).decode()
    assert functions.invoke(name)["value"]["calls"] == 1


def test_an_exception_leaves_the_sandbox(functions):
    name = functions.make()
    answer = functions.invoke(name, {"do": "raise"})
    assert answer["FunctionError"] == "Unhandled"
    assert (answer["value"]["errorType"], answer["value"]["errorMessage"]) == ("ValueError", "no")
    assert functions.invoke(name)["value"]["calls"] == 2


@pytest.mark.parametrize(
    ("module", "kind"),
    [("import absent", "Runtime.ImportModuleError"), ("1/0", "ZeroDivisionError"), ("", "Runtime.HandlerNotFound")],
)
def test_code_that_cannot_be_loaded(functions, module, kind):
    answer = functions.invoke(functions.make(module))
    assert answer["FunctionError"] == "Unhandled"
    assert answer["value"]["errorType"] == kind


def test_a_module_that_ends_its_process(functions):
    answer = functions.invoke(functions.make("import os; os._exit(4)"))
    assert answer["value"]["errorType"] == "Runtime.ExitError"
    assert answer["value"]["errorMessage"].endswith("exit status 4")


def test_the_timeout(functions, tmp_path):
    name = functions.make(Timeout=1)
    pid = functions.invoke(name)["value"]["pid"]
    began = time.monotonic()
    answer = functions.invoke(name, {"do": "sleep", "seconds": 30}, LogType="Tail")
    assert 1 <= time.monotonic() - began < 20
    request = answer["ResponseMetadata"]["RequestId"]
    assert answer["FunctionError"] == "Unhandled"
    assert answer["value"] == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request} Error: Task timed out after 1.00 seconds",
    }
    log = base64.b64decode(answer["LogResult"]).decode()
    assert re.search(rf"^\S+Z {request} Task timed out after 1.00 seconds$", log, re.MULTILINE)
    assert "Billed Duration: 1000 ms" in log
    assert "\tStatus: timeout" in log
    gone(pid)
    assert functions.invoke(name)["value"]["calls"] == 1


def test_what_a_killed_runtime_has_started_ends_with_it(functions):
    name = functions.make(
        "import subprocess\ndef handler(event, context):\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n    return child.pid\n"
    )
    child = functions.invoke(name)["value"]
    functions.client.delete_function(FunctionName=name)
    gone(child)


@pytest.mark.parametrize(("how", "limit"), [("RequestResponse", 6 * 1024 * 1024), ("Event", 1024 * 1024)])
def test_the_limit_of_requests(functions, how, limit):
    name = functions.make()
    frame = len(json.dumps({"do": "length", "text": ""}))
    largest = {"do": "length", "text": "x" * (limit - frame)}
    answer = functions.invoke(name, largest, InvocationType=how)
    assert answer["value"] == (limit - frame if how == "RequestResponse" else None)
    larger = {"do": "length", "text": "x" * (limit - frame + 1)}
    status, code, text = refused(functions.invoke, name, larger, InvocationType=how)
    assert (status, code) == (413, "RequestTooLargeException")
    assert str(limit) in text
    functions.aws.settle()


def test_the_limit_of_responses(functions):
    name = functions.make()
    limit = 6 * 1024 * 1024 + 100
    assert len(functions.invoke(name, {"do": "large", "size": limit})["value"]) == limit - 2
    answer = functions.invoke(name, {"do": "large", "size": limit + 1})
    assert answer["FunctionError"] == "Unhandled"
    assert answer["value"]["errorType"] == "Function.ResponseSizeTooLarge"
    assert str(limit) in answer["value"]["errorMessage"]


def test_what_cannot_be_invoked(functions):
    status, code, text = refused(functions.invoke, "absent")
    assert (status, code) == (404, "ResourceNotFoundException")
    assert "function:absent" in text
    name = functions.make()
    status, code, _ = refused(functions.client.invoke, FunctionName=name, Payload=b"{")
    assert (status, code) == (400, "InvalidRequestContentException")
    answer = functions.invoke(name, InvocationType="DryRun")
    assert (answer["StatusCode"], answer["value"]) == (204, None)
    assert "streams" not in str(
        functions.aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")
    )
    other = functions.make(Runtime="python3.8")
    assert refused(functions.invoke, other)[:2] == (502, "InvalidRuntimeException")


def test_what_a_function_finds(functions):
    name = functions.make(Environment={"Variables": {"MINE": "1"}}, MemorySize=512)
    names = ["MINE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_REGION", "AWS_ENDPOINT_URL"]
    found = functions.invoke(name, {"do": "environment", "names": names})["value"]
    assert list(found.values()) == ["1", name, "512", "us-east-1", functions.aws.url]
    assert functions.invoke(name, {"do": "import", "name": "boto3"})["value"] == "boto3"
    for absent in ("lithops_mini", "cloudpickle", "moto"):  # this machine has them
        answer = functions.invoke(name, {"do": "import", "name": absent})
        assert answer["value"]["errorType"] == "ModuleNotFoundError"


def test_layers(functions):
    def layer(name, **modules):
        files = {f"python/{module}.py": f"VALUE = {value}" for module, value in modules.items()}
        published = functions.client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped(files)})
        return published["LayerVersionArn"]

    arns = [layer("first", one=1, both=1), layer("second", two=2, both=2)]
    name = functions.make(Layers=arns)
    values = [functions.invoke(name, {"do": "value", "name": each})["value"] for each in ("one", "two", "both")]
    assert values == [1, 2, 2]


def test_other_code_has_other_sandboxes(functions):
    name = functions.make()
    first = functions.invoke(name)["value"]
    functions.client.update_function_code(FunctionName=name, ZipFile=zipped({"module.py": MODULE + "\ncalls = 10"}))
    second = functions.invoke(name)["value"]
    assert (second["calls"], second["pid"] != first["pid"]) == (11, True)
    gone(first["pid"])
    functions.client.update_function_configuration(FunctionName=name, MemorySize=300)
    assert functions.invoke(name)["value"]["calls"] == 11
    functions.client.delete_function(FunctionName=name)
    assert refused(functions.invoke, name)[1] == "ResourceNotFoundException"
    gone(second["pid"])


def test_what_cannot_be_deployed(functions):
    code, text = refused(functions.make, Environment={"Variables": {"A": "x" * 4096}})[1:]
    assert code == "InvalidParameterValueException"
    assert "exceeded the 4KB limit" in text
    assert functions.make(Environment={"Variables": {"A": "x" * 4095}})
    large = zipped({"module.py": MODULE, "data": "x" * (150 << 20)})
    layers = functions.client.publish_layer_version
    layer = layers(LayerName="large", Content={"ZipFile": large})["LayerVersionArn"]
    name = functions.make(Layers=[layer])
    code, text = refused(functions.client.update_function_code, FunctionName=name, ZipFile=large)[1:]
    assert (code, text) == ("InvalidParameterValueException", "Unzipped size must be smaller than 262144000 bytes")
    text = refused(functions.client.update_function_code, FunctionName=name, ZipFile=b"no zip")[2]
    assert text == "Could not unzip uploaded file. Please check your file, then try to upload again."
    status, code, _ = refused(layers, LayerName="large", Content={"ZipFile": bytes((50 << 20) + 1)})
    assert (status, code) == (413, "RequestEntityTooLargeException")


def test_versions(functions):
    name = functions.make()
    arn = functions.client.publish_version(FunctionName=name)["FunctionArn"]
    functions.client.update_function_code(FunctionName=name, ZipFile=zipped({"module.py": MODULE + "\ncalls = 10"}))
    assert functions.invoke(name)["value"]["calls"] == 11
    first = functions.invoke(name, Qualifier="1")
    assert (first["value"]["calls"], first["ExecutedVersion"]) == (1, "1")
    assert functions.invoke(arn)["value"]["calls"] == 2
    functions.send(arn)
    functions.aws.settle()
    assert functions.invoke(arn)["value"]["calls"] == 4


# --- concurrency


def busy(functions, names, tmp_path):
    """Invoke each at the same time; return the reasons of those that are throttled."""
    until = tmp_path / "go"
    started = tmp_path / "started"

    def run(name):
        try:
            functions.invoke(name, {"do": "await", "until": str(until), "file": str(started)})
            return None
        except functions.client.exceptions.TooManyRequestsException as error:
            return error.response["Reason"]

    with ThreadPoolExecutor(len(names)) as pool:
        results = []
        for name in names:  # one after the other has started, or is refused
            results.append(pool.submit(run, name))
            while len(lines(started)) + sum(each.done() for each in results) < len(results):
                threading.Event().wait(0.005)
        until.touch()
    return [each.result() for each in results]


def test_reserved_concurrency(functions, tmp_path):
    name = functions.make()
    reserve = functions.client.put_function_concurrency
    reserve(FunctionName=name, ReservedConcurrentExecutions=2)
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert busy(functions, [name] * 5, tmp_path) == [None, None, reason, reason, reason]
    reserve(FunctionName=name, ReservedConcurrentExecutions=0)
    assert refused(functions.invoke, name)[:2] == (429, "TooManyRequestsException")
    functions.client.delete_function_concurrency(FunctionName=name)
    assert functions.invoke(name)["StatusCode"] == 200


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An account with little of everything."""
    flags = ("--concurrency", "4", "--scaling", "3", "--idle", "0.2", "--retry-wait", "100", "--sandbox", "process")
    with start_aws(tmp_path_factory.mktemp("small"), *flags) as emulated:
        emulated.client("s3").create_bucket(Bucket=BUCKET)
        yield Functions(emulated)


def test_the_concurrency_of_the_account(small, tmp_path):
    names = [small.make() for _ in range(3)]
    reason = "ConcurrentInvocationLimitExceeded"
    assert busy(small, [names[0], names[0], names[1], names[1], names[2]], tmp_path) == [None] * 4 + [reason]


def test_what_is_reserved_is_not_for_others(small, tmp_path):
    reserved, other = small.make(), small.make()
    small.client.put_function_concurrency(FunctionName=reserved, ReservedConcurrentExecutions=2)
    reason = "ConcurrentInvocationLimitExceeded"
    assert busy(small, [other, other, other, reserved], tmp_path) == [None, None, reason, None]
    small.client.delete_function_concurrency(FunctionName=reserved)


def test_the_rate_of_new_sandboxes(small):
    name = small.make()
    for _ in range(3):
        assert small.invoke(name, {"do": "exit"})["FunctionError"] == "Unhandled"
    assert refused(small.invoke, name)[:2] == (429, "TooManyRequestsException")
    assert small.aws.own("state")["throttles"] >= 1


def test_limits_that_change(small, tmp_path):
    limits = {"concurrency": 4, "scaling": 3, "idle": 0.2, "retry_wait": 100.0, "s3_latency": 0.0, "s3_bandwidth": 0.0}
    assert small.aws.own("limits") == limits
    assert small.aws.own("limits", "PUT", concurrency=1) == limits | {"concurrency": 1}
    name = small.make()
    reason = "ConcurrentInvocationLimitExceeded"
    assert busy(small, [name] * 3, tmp_path) == [None, reason, reason]
    assert "scaling is 0.5, and must be a whole number" in small.aws.own("limits", "PUT", scaling=0.5)["error"]
    assert small.aws.own("limits", "PUT", concurrency=4) == limits


def test_what_the_account_may_have(small):
    def told():
        found = small.client.get_account_settings()
        limit = found["AccountLimit"]
        return limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"], found["AccountUsage"]

    small.aws.own("requests", "DELETE")
    *limits, before = told()
    assert limits == [4, 4]
    assert small.aws.own("requests") == {"lambda:GetAccountSettings": 1}
    name = small.make()
    size = small.client.get_function(FunctionName=name)["Configuration"]["CodeSize"]
    small.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)
    assert small.aws.own("limits", "PUT", concurrency=10)["concurrency"] == 10
    count, total = before["FunctionCount"], before["TotalCodeSize"]
    assert told() == (10, 7, {"FunctionCount": count + 1, "TotalCodeSize": total + size})
    small.client.delete_function(FunctionName=name)
    small.aws.own("limits", "PUT", concurrency=4)
    assert told() == (4, 4, before)
    nobody = small.aws.client("lambda", **small.aws.user("nobody", policy(("s3:*", "*"))))
    status, code, text = refused(nobody.get_account_settings)
    assert (status, code) == (403, "AccessDeniedException")
    assert "lambda:GetAccountSettings" in text


def test_unused_sandboxes_are_removed(small):
    gone(small.invoke(small.make())["value"]["pid"])
    small.aws.settle()


# --- asynchronous invocations


def destination(functions, name, **options):
    functions.client.put_function_event_invoke_config(
        FunctionName=name, DestinationConfig={"OnFailure": {"Destination": f"arn:aws:s3:::{BUCKET}"}}, **options
    )


def failures(functions, name):
    """The keys and contents of what was told of failures of a function."""
    s3 = functions.aws.client("s3")
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"aws/lambda/async/{name}/").get("Contents", [])
    return [(each["Key"], json.load(s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"])) for each in found]


def test_an_event_is_answered_before_it_runs(functions, tmp_path):
    name = functions.make()
    event = {"do": "await", "until": str(tmp_path / "go"), "file": str(tmp_path / "runs")}
    answer = functions.invoke(name, event, InvocationType="Event")
    assert (answer["StatusCode"], answer["value"]) == (202, None)
    assert functions.aws.own("state")["events"] == 1
    (tmp_path / "go").touch()
    functions.aws.settle()
    assert lines(tmp_path / "runs") == [answer["ResponseMetadata"]["RequestId"]]


@pytest.mark.parametrize("retries", [None, 0, 1, 2])
def test_events_that_fail_are_tried_again(functions, tmp_path, retries):
    name = functions.make()
    destination(functions, name, **({} if retries is None else {"MaximumRetryAttempts": retries}))
    attempts = (2 if retries is None else retries) + 1
    event = {"do": "raise", "file": str(tmp_path / "runs")}
    request = functions.send(name, event)
    functions.aws.settle()
    assert lines(tmp_path / "runs") == [request] * attempts
    ((key, record),) = failures(functions, name)
    assert re.fullmatch(rf"aws/lambda/async/{name}/\d{{4}}/\d\d/\d\d/[\d-]+T\d\d\.\d\d\.\d\d-[0-9a-f-]{{36}}", key)
    assert record["requestContext"] == {
        "requestId": request,
        "functionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": attempts,
    }
    assert record["requestPayload"] == event
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorType"] == "ValueError"


def test_the_destination_needs_the_roles_permission(functions):
    role = functions.aws.role("without-destination", policy(("s3:PutObject", "arn:aws:s3:::other/*")))
    name = functions.make(Role=role)
    destination(functions, name, MaximumRetryAttempts=0)
    functions.send(name, {"do": "kill"})
    functions.aws.settle()
    assert failures(functions, name) == []


def test_events_that_are_too_old(small, tmp_path):
    name = small.make()
    destination(small, name, MaximumEventAgeInSeconds=60)  # another try would come after a hundred
    small.send(name, {"do": "raise", "file": str(tmp_path / "runs")})
    small.aws.settle()
    ((_, record),) = failures(small, name)
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert len(lines(tmp_path / "runs")) == 1


def test_events_that_are_throttled_wait(functions, tmp_path):
    name = functions.make()
    functions.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    before = functions.aws.own("state")["throttles"]
    request = functions.send(name, {"file": str(tmp_path / "runs")})
    while functions.aws.own("state")["throttles"] == before:
        threading.Event().wait(0.01)
    functions.client.delete_function_concurrency(FunctionName=name)
    functions.aws.settle()
    assert lines(tmp_path / "runs") == [request]


# --- faults


def test_events_are_duplicated_and_lost_as_the_dice_fall(functions, faults, tmp_path):
    name = functions.make()
    given = {"duplicate": 0.3, "lose": 0.2, "seed": 5}
    dice = Dice(Faults(**given))
    copies = [dice.copies() for _ in range(40)]
    assert {0, 1, 2} == set(copies)
    assert faults(**given) == {"cold_start": 0, "crash": 0, **given}
    requests = [functions.send(name, {"file": str(tmp_path / "runs")}) for _ in copies]
    functions.aws.settle()
    runs = lines(tmp_path / "runs")
    assert [runs.count(request) for request in requests] == copies


def test_sandboxes_crash_as_the_dice_fall(functions, faults, tmp_path):
    name = functions.make()
    dice = Dice(Faults(crash=0.5, seed=3))
    expected = [dice.crash() for _ in range(12)]
    assert {None, "event", "response"} == set(expected)
    faults(crash=0.5, seed=3)
    found = []
    for number, crash in enumerate(expected):
        file = tmp_path / str(number)
        answer = functions.invoke(name, {"file": str(file)})
        found.append("FunctionError" in answer)
        if "FunctionError" in answer:
            assert answer["value"]["errorType"] == "Runtime.ExitError"
            assert answer["value"]["errorMessage"].endswith("signal: killed")
        if crash == "response":
            assert len(lines(file)) == 1  # it has done its work, and nobody is told
    assert found == [crash is not None for crash in expected]


def test_slow_cold_starts(functions, faults):
    name = functions.make()
    faults(cold_start=0.5)
    first, second = (functions.invoke(name, LogType="Tail") for _ in range(2))
    assert float(re.search(r"Init Duration: ([\d.]+)", base64.b64decode(first["LogResult"]).decode())[1]) >= 500
    assert "Init Duration" not in base64.b64decode(second["LogResult"]).decode()


def test_faults_that_are_none(aws):
    assert "there is no 'crush'; there are cold_start, crash" in aws.own("faults", "PUT", crush=1)["error"]
    assert aws.own("faults", "PUT", crash=1.5) == {"error": "crash is 1.5, and must be a number between 0 and 1"}
    assert "there are GET /_emulator/faults" in aws.own("other")["error"]
    assert aws.own("faults") == {"cold_start": 0, "crash": 0, "duplicate": 0, "lose": 0, "seed": 0}


# --- signatures


@pytest.mark.parametrize(
    ("service", "operation", "wrong", "unknown"),
    [
        ("s3", "list_buckets", "SignatureDoesNotMatch", "InvalidAccessKeyId"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch", "InvalidClientTokenId"),
        ("lambda", "list_functions", "InvalidSignatureException", "UnrecognizedClientException"),
        ("logs", "describe_log_groups", "InvalidSignatureException", "UnrecognizedClientException"),
    ],
)
def test_who_is_not_let_in(aws, service, operation, wrong, unknown):
    key, secret = aws.account["access_key_id"], aws.account["secret_access_key"]

    def attempt(key, secret, token=None):
        keys = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
        return refused(getattr(aws.client(service, **keys), operation))[:2]

    assert attempt(key, secret[:-1] + "!") == (403, wrong)
    assert attempt("AKIAAAAAAAAAAAAAAAAA", secret) == (403, unknown)
    assert attempt(key, secret, "token") == (403, unknown)
    getattr(aws.client(service), operation)()


def test_requests_without_a_signature(aws):
    for path in ("/", f"/{BUCKET}/key", "/moto-api/data.json", "/2015-03-31/functions"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{aws.url}{path}", timeout=10)
        with caught.value as error:
            assert error.code == 403


@pytest.mark.parametrize("key", ["plain", "a b+c/ü%20 =&?#", "//double", "~tilde*(')"])
def test_any_key_can_be_signed(aws, key):
    s3 = aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"body", Metadata={"name": "value"})
    found = s3.get_object(Bucket=BUCKET, Key=key)
    assert (found["Body"].read(), found["Metadata"]) == (b"body", {"name": "value"})
    assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == 4
    assert key in [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=key[:1])["Contents"]]
    with urllib.request.urlopen(presigned(aws, "get_object", key), timeout=10) as answer:
        assert answer.read() == b"body"
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})
    assert refused(s3.get_object, Bucket=BUCKET, Key=key)[:2] == (404, "NoSuchKey")


def presigned(aws, operation, key, seconds=60):
    keys = {f"aws_{name}": aws.account[name] for name in ("access_key_id", "secret_access_key")}
    client = aws.client("s3", **keys, config=Config(signature_version="s3v4"))
    return client.generate_presigned_url(operation, {"Bucket": BUCKET, "Key": key}, seconds)


def test_signed_urls(aws):
    body = {"data": b"mine", "headers": {"Content-Type": "text/plain"}, "method": "PUT"}
    with urllib.request.urlopen(urllib.request.Request(presigned(aws, "put_object", "url"), **body), timeout=10):
        assert aws.client("s3").get_object(Bucket=BUCKET, Key="url")["Body"].read() == b"mine"
    url = presigned(aws, "get_object", "url")
    late = presigned(aws, "get_object", "url", -1)
    for wrong in (url.replace("/url?", "/other?"), url.replace("Expires=60", "Expires=600"), late):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong, timeout=10)
        with caught.value as error:
            assert error.code == 403
            assert (b"Request has expired" in error.read()) == (wrong is late)


def test_an_object_that_is_written_and_read_at_the_same_time(aws):
    s3 = aws.client("s3")
    bodies = [bytes([number]) * 50_000 for number in range(8)]

    def write_and_read(body):
        for _ in range(10):
            s3.put_object(Bucket=BUCKET, Key="busy", Body=body)
            assert s3.get_object(Bucket=BUCKET, Key="busy")["Body"].read() in bodies

    with ThreadPoolExecutor(len(bodies)) as pool:
        list(pool.map(write_and_read, bodies))


# --- permissions


def test_the_role_of_a_function_counts(functions):
    s3 = functions.aws.client("s3")
    for key in ("open/a", "closed/a"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"body")
    arn = f"arn:aws:s3:::{BUCKET}"
    allowed = policy((["s3:GetObject", "s3:DeleteObject"], f"{arn}/open/*"), ("s3:PutObject", f"{arn}/open/new"))
    name = functions.make(Role=functions.aws.role("reader", allowed))

    def attempt(operation, **arguments):
        code = f"__import__('boto3').client('s3').{operation}(Bucket='{BUCKET}', **{arguments!r})['ResponseMetadata']"
        answer = functions.invoke(name, {"do": "python", "code": f"{code}['HTTPStatusCode']"})
        return answer["value"]["errorMessage"] if "FunctionError" in answer else answer["value"]

    assert attempt("get_object", Key="open/a") == 200
    assert attempt("put_object", Key="open/new", Body=b"") == 200
    assert attempt("delete_objects", Delete={"Objects": [{"Key": "open/a"}]}) == 200
    for operation, arguments, action in (
        ("get_object", {"Key": "closed/a"}, "s3:GetObject"),
        ("put_object", {"Key": "open/other", "Body": b""}, "s3:PutObject"),
        ("list_objects_v2", {}, "s3:ListBucket"),
        ("delete_objects", {"Delete": {"Objects": [{"Key": "open/b"}, {"Key": "closed/a"}]}}, "s3:DeleteObject"),
    ):
        text = attempt(operation, **arguments)
        assert "(AccessDenied)" in text
        assert f"is not authorized to perform: {action} on resource: {arn}" in text
    assert "(AccessDenied)" in attempt("get_object", Key="open/absent")  # who may not list is not told
    assert "(403)" in attempt("head_object", Key="open/absent")


def test_sessions(functions):
    aws = functions.aws
    trust = TRUST["Statement"][0] | {"Principal": {"AWS": "*"}}
    role = aws.role("assumed", policy(("s3:*", "*")), TRUST | {"Statement": [trust]})

    def session(**options):
        made = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="mine", **options)["Credentials"]
        return {
            "aws_access_key_id": made["AccessKeyId"],
            "aws_secret_access_key": made["SecretAccessKey"],
            "aws_session_token": made["SessionToken"],
        }

    aws.client("s3", **session()).list_objects_v2(Bucket=BUCKET)
    narrow = aws.client("s3", **session(Policy=policy(("s3:Get*", "*"))))
    assert refused(narrow.list_objects_v2, Bucket=BUCKET)[:2] == (403, "AccessDenied")
    narrow.get_bucket_location(Bucket=BUCKET)
    other = session()["aws_session_token"]
    assert refused(aws.client("s3", **session() | {"aws_session_token": other}).list_buckets)[0] == 403


def test_conditions_and_denials(aws):
    condition = {"StringLike": {"s3:prefix": "b*"}}
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
            {
                "Effect": "Deny",
                "Action": "s3:ListBucket",
                "Resource": "*",
                "Condition": condition,
            },
            {"Effect": "Deny", "NotAction": ["s3:List*", "s3:Get*"], "Resource": "*"},
        ],
    }
    s3 = aws.client("s3", **aws.user("conditional", json.dumps(document)))
    s3.list_objects_v2(Bucket=BUCKET, Prefix="a")
    assert refused(s3.list_objects_v2, Bucket=BUCKET, Prefix="b")[:2] == (403, "AccessDenied")
    assert refused(s3.put_object, Bucket=BUCKET, Key="a")[:2] == (403, "AccessDenied")


def test_actions_of_other_services_are_permitted_too(functions):
    aws = functions.aws
    allowed = policy((["lambda:CreateFunction", "lambda:ListFunctions"], "*"), ("iam:PassRole", functions.role))
    client = aws.client("lambda", **aws.user("deployer", allowed))
    client.list_functions()
    status, code, text = refused(client.invoke, FunctionName=functions.make())
    assert (status, code) == (403, "AccessDeniedException")
    assert "arn:aws:iam::123456789012:user/deployer is not authorized to perform: lambda:InvokeFunction" in text

    def create(role):
        code = {"ZipFile": zipped({"module.py": MODULE})}
        name = f"deployed-{role.rpartition('/')[2]}"
        client.create_function(FunctionName=name, Runtime=RUNTIME, Handler="module.handler", Role=role, Code=code)

    create(functions.role)
    status, code, text = refused(create, aws.role("not-passed"))
    assert (status, code) == (403, "AccessDeniedException")
    assert "iam:PassRole" in text


def test_a_role_must_trust_lambda(functions):
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
    role = functions.aws.role("of-another", trust=trust)
    status, code, text = refused(functions.make, Role=role)
    assert (status, code) == (400, "InvalidParameterValueException")
    assert text == "The role defined for the function cannot be assumed by Lambda."


def test_requests_are_counted(aws):
    aws.own("requests", "DELETE")
    aws.client("sts").get_caller_identity()
    for _ in range(2):
        aws.client("s3").list_objects_v2(Bucket=BUCKET)
    aws.client("lambda").list_functions()
    assert aws.own("requests") == {"lambda:ListFunctions": 1, "s3:ListBucket": 2, "sts:GetCallerIdentity": 1}


# --- other services


def test_a_stack_makes_a_role_and_a_function(functions):
    aws = functions.aws
    aws.client("s3").put_object(Bucket=BUCKET, Key="code.zip", Body=zipped({"module.py": MODULE}))
    role = {"AssumeRolePolicyDocument": TRUST}
    function = {"FunctionName": "stacked", "Runtime": RUNTIME, "Handler": "module.handler", "MemorySize": 192}
    function |= {"Role": {"Fn::GetAtt": ["Role", "Arn"]}, "Code": {"S3Bucket": BUCKET, "S3Key": "code.zip"}}
    resources = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": role},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
    }
    stacks = aws.client("cloudformation")
    stacks.create_stack(
        StackName="stack", TemplateBody=json.dumps({"Resources": resources}), Capabilities=["CAPABILITY_IAM"]
    )
    assert stacks.describe_stacks(StackName="stack")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    found = functions.invoke("stacked", {"do": "environment", "names": ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]})
    assert found["value"] == {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "192"}
    stacks.delete_stack(StackName="stack")
    assert refused(functions.invoke, "stacked")[1] == "ResourceNotFoundException"


def test_notifications_of_other_services_come_to_functions(functions):
    name = functions.make("def handler(event, context):\n    print(event['Records'][0]['s3']['object']['key'])\n")
    arn = functions.client.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    s3 = functions.aws.client("s3")
    s3.create_bucket(Bucket="example-com-notified")
    wanted = [{"LambdaFunctionArn": arn, "Events": ["s3:ObjectCreated:*"]}]
    s3.put_bucket_notification_configuration(
        Bucket="example-com-notified", NotificationConfiguration={"LambdaFunctionConfigurations": wanted}
    )
    s3.put_object(Bucket="example-com-notified", Key="new")
    functions.aws.settle()
    assert functions.messages(name)[1] == "new\n"


def test_rules_are_kept(aws):
    events = aws.client("events")
    events.put_rule(Name="rule", ScheduleExpression="rate(1 day)")
    target = {"Id": "1", "Arn": "arn:aws:lambda:us-east-1:123456789012:function:any"}
    events.put_targets(Rule="rule", Targets=[target])
    assert events.list_targets_by_rule(Rule="rule")["Targets"] == [target]


def test_tables(aws):
    tables = aws.client("dynamodb")
    tables.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    tables.put_item(TableName="table", Item={"key": {"S": "a"}, "value": {"N": "1"}})
    assert tables.get_item(TableName="table", Key={"key": {"S": "a"}})["Item"]["value"] == {"N": "1"}


# --- how it ends


def processes(aws):
    """The processes of the sandboxes of an emulator."""
    mine = f"AWS_ENDPOINT_URL={aws.url}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended
            if mine in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left(tmp_path, number, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with start_aws(tmp_path, "--sandbox", "process") as emulated:
        functions = Functions(emulated)
        functions.invoke(functions.make())
        name = functions.make()
        for _ in range(10):
            functions.send(name, {"do": "sleep", "seconds": 100, "file": str(tmp_path / "runs")})
        while not lines(tmp_path / "runs"):  # then others are still being made
            threading.Event().wait(0.01)
        assert len(processes(emulated)) >= 2
        os.kill(emulated.process.pid, number)
        emulated.process.wait(30)
        assert processes(emulated) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["emulator.log", "emulator.yaml", "runs"]


def test_a_port_that_is_taken(aws, tmp_path):
    port = aws.url.rpartition(":")[2]
    command = [sys.executable, "-m", "lithops_mini", "emulate", "aws", "--sandbox", "process", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: port {port} cannot be used: Address already in use; choose another\n"


def test_packages_that_are_missing():
    program = "import sys; sys.modules['moto'] = None; from lithops_mini.cli import main; main()"
    command = [sys.executable, "-c", program, "emulate", "aws", "--sandbox", "process"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith("pip install 'lithops_mini[emulators]'\n")
    assert ended.stderr.startswith("Error: the emulator needs packages that are not installed (")
