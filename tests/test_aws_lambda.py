"""The aws_lambda backend on the local AWS: functions run by AWS's own runtime client from the zip that is deployed."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
)
from lambda_account import BUCKET, Account, start_account

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.compute import aws_errors
from lithops_mini.compute.aws_lambda import AwsLambdaCompute, AwsLambdaOptions
from lithops_mini.errors import AccessDenied, ConfigError, InvocationError, Reason
from lithops_mini.runtimes import function
from lithops_mini.runtimes.function import Setup
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.testing.compute import ComputeContract
from lithops_mini.worker.aws_lambda import MAX_MESSAGE


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account"), "--idle", "5") as account:
        yield account


class TestContract(ComputeContract):
    lends: ClassVar[bool] = False
    many: ClassVar[int] = 20

    @pytest.fixture
    def executor_settings(self, account: Account, request: pytest.FixtureRequest) -> dict[str, Any]:
        # Tags make functions of its own, whose sandboxes are not warm when a test begins that counts cold starts.
        test = os.urandom(4).hex() if "a_worker_is_used_again" in request.node.name else "contract"
        return account.executor(max_workers=2, max_time=30, tags={"test": test})


# ---------------------------------------------------------------- on the emulator


def functions_of(account):
    found = account.aws.client("lambda").get_paginator("list_functions").paginate().search("Functions[]")
    return {each["FunctionName"]: each for each in found}


def test_a_job_without_large_data_sends_no_request_to_storage_from_its_workers(account):
    with lm.function_executor(**account.executor(max_workers=4)) as executor:
        futures = executor.map(lambda x: x + 1, range(200))
        assert executor.get_result(futures) == list(range(1, 201))
        sent = [(each.stats.storage_puts, each.stats.storage_gets, each.stats.storage_deletes) for each in futures]
    assert set(sent) == {(0, 0, 0)}


def test_workers_have_the_credentials_of_their_role_and_no_others(account):
    def credentials(storage):
        storage.put_object(None, "lithops_mini/mine", b"")
        return [f"{name}={value}" for name, value in os.environ.items()]

    given = account.aws.account
    with lm.function_executor(**account.executor()) as executor:
        found = executor.get_result(executor.submit(credentials))
        assert not any(given["secret_access_key"] in each or given["access_key_id"] in each for each in found)
        assert any(each.startswith("AWS_SESSION_TOKEN=") for each in found)
        with pytest.raises(AccessDenied, match="s3:PutObject"):
            executor.get_result(executor.submit(lambda storage: storage.put_object(None, "elsewhere", b"")))
        with pytest.raises(AccessDenied):
            executor.get_result(executor.submit(lambda storage: storage.get_object("another", "x")))


def test_each_size_of_memory_is_a_function_made_when_needed(account):
    given = account.executor(max_workers=4, tags={"test": os.urandom(4).hex()})
    before = set(functions_of(account))
    with lm.function_executor(**given) as executor:
        sizes = executor.map(
            lambda _: os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], range(4), runtime_memory=512, chunksize=1
        )
        assert executor.get_result(sizes) == ["512"] * 4
        failed = executor.submit(abs, 1)
        assert executor.get_result(failed) == 1
        refused = executor.map(abs, [1], runtime_memory=20_000)
        with pytest.raises(InvocationError, match="at most 10,240 MiB"):
            executor.get_result(refused)
    made = {name: each for name, each in functions_of(account).items() if name not in before}
    assert sorted(each["MemorySize"] for each in made.values()) == [512, 1769]
    assert len({name.rpartition("-")[0] for name in made}) == 1
    for name, each in made.items():
        assert (each["Role"], each["Timeout"], each["PackageType"]) == (account.role, 900, "Zip")
        config = account.aws.client("lambda").get_function_event_invoke_config(FunctionName=name)
        assert config["MaximumRetryAttempts"] == 0


def test_a_function_that_was_deleted_meanwhile_is_made_again(account):
    with lm.function_executor(**account.executor(tags={"test": os.urandom(4).hex()})) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
        ((name, _),) = executor._compute._sizes.there.values()
        account.aws.client("lambda").delete_function(FunctionName=name)
        assert executor.get_result(executor.submit(abs, -2)) == 2
        assert name in functions_of(account)


def test_a_function_that_was_left_half_made_is_made_ready(account):
    given = account.executor(tags={"test": os.urandom(4).hex()})
    with lm.function_executor(**given) as executor:
        ((name, _),) = executor._compute._sizes.there.values()
    client = account.aws.client("lambda")
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    client.untag_resource(Resource=arn, TagKeys=["lithops-mini.ready"])
    client.delete_function_event_invoke_config(FunctionName=name)
    with lm.function_executor(**given) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
    assert client.get_function_event_invoke_config(FunctionName=name)["MaximumRetryAttempts"] == 0
    assert "lithops-mini.ready" in client.list_tags(Resource=arn)["Tags"]


def test_a_call_ends_with_its_invocation_and_is_not_tried_again(account):
    import time

    given = account.executor(max_time=3, retries=2, tags={"test": os.urandom(4).hex()})
    with lm.function_executor(**given) as executor:
        executor.get_result(executor.submit(abs, -1))
        with pytest.raises(lm.errors.CallTimeout, match="time of its worker was over"):
            executor.get_result(executor.submit(time.sleep, 60))


def test_a_role_that_is_none_is_an_error_before_anything_runs(account, monkeypatch):
    monkeypatch.setattr("lithops_mini.runtimes.aws_lambda._ROLE_LIMIT", 0.0)
    missing = account.role.rpartition("/")[0] + "/nobody"
    with pytest.raises(ConfigError, match="cannot use the function lithops-mini-"):
        lm.function_executor(**account.executor(role=missing, tags={"test": "role"}))
    with pytest.raises(ConfigError, match="lithops-mini aws setup"):
        lm.function_executor(**account.executor(role=None))


def test_layers_bring_packages_and_leave_with_the_last_function(account, tmp_path, capsys):
    wheel = _wheel(tmp_path)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{wheel}\n")

    def red():
        import colours  # type: ignore[import-not-found]

        return colours.red

    given = account.executor(requirements=str(requirements), exclude_modules=["colours"])
    with lm.function_executor(**given) as executor:
        assert executor.get_result(executor.submit(red)) == "#f00"
        assert executor.get_result(executor.map(lambda _: red(), [0], runtime_memory=256)) == ["#f00"]
        runtimes = executor._compute.runtimes(BUCKET)
        name = runtimes.name(runtimes.recipe(("botocore",)))
        (found,) = [each for each in runtimes.list() if each.name == name]
        assert found.current
        assert found.packages == ("colours==1.0",)
        layers = account.aws.client("lambda").list_layers()["Layers"]
        assert len(layers) == 1
        runtimes.delete(name)
        assert name not in [each.name for each in runtimes.list()]
        assert account.aws.client("lambda").list_layers()["Layers"] == []
        with pytest.raises(ConfigError, match="there is no runtime"):
            runtimes.delete(name)


def _wheel(directory):
    import zipfile

    path = directory / "colours-1.0-py3-none-any.whl"
    info = "colours-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("colours.py", "red = '#f00'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"colours.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def test_runtime_commands(account, tmp_path, monkeypatch, capsys):
    profile = {
        "backend": "aws_lambda",
        "storage": "aws_s3",
        "storage_bucket": BUCKET,
        "aws": account.aws.account,
        "aws_lambda": {"role": account.role, "tags": {"test": "commands"}},
    }
    (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        app.main(arguments, prog_name="lithops-mini", standalone_mode=False)
        return capsys.readouterr().out

    built = command("runtime", "build")
    assert built.startswith("Built lithops-mini-3")
    name = built.split()[1].rstrip(":")
    assert f"{name} is there" in command("runtime", "build")
    assert name in command("runtime", "list")
    shown = command("runtime", "info")
    assert "current" in shown
    assert "1769 MiB" in shown
    assert command("runtime", "delete", name) == f"Deleted {name}\n"
    assert name not in command("runtime", "list")


# ---------------------------------------------------------------- what errors mean


def service_error(code, status, message="said"):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Invoke")


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (service_error("TooManyRequestsException", 429), Reason.THROTTLED, True),
        (service_error("ServiceException", 500), Reason.UNAVAILABLE, True),
        (service_error("EC2UnexpectedException", 502), Reason.UNAVAILABLE, True),
        (service_error("ResourceConflictException", 409), Reason.UNAVAILABLE, True),
        (service_error("ResourceNotFoundException", 404), Reason.UNAVAILABLE, True),
        (service_error("RequestTooLargeException", 413), Reason.REFUSED, False),
        (service_error("AccessDeniedException", 403), Reason.REFUSED, False),
        (service_error("ExpiredTokenException", 403), Reason.REFUSED, False),
        (EndpointConnectionError(endpoint_url="http://x", error="refused"), Reason.UNAVAILABLE, True),
        (ConnectionClosedError(endpoint_url="http://x"), Reason.DIED, True),
        (ReadTimeoutError(endpoint_url="http://x"), Reason.DIED, True),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), Reason.DIED, True),
        (NoCredentialsError(), Reason.REFUSED, False),
    ],
    ids=lambda value: aws_errors.code_of(value) or type(value).__name__,
)
def test_requests_that_fail(error, reason, retryable):
    found = aws_errors.not_invoked(error, "f")
    assert (found.reason, found.retryable) == (reason, retryable)
    assert "the function f" in str(found)


@pytest.mark.parametrize(
    ("body", "reason", "retryable"),
    [
        ({"errorMessage": "2026-11-21T00:00:00Z 1 Task timed out after 3.00 seconds"}, Reason.TIMEOUT, False),
        ({"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: 1 Error: Task..."}, Reason.TIMEOUT, False),
        ({"errorType": "Runtime.OutOfMemory", "errorMessage": "RequestId: 1 ..."}, Reason.OUT_OF_MEMORY, False),
        (
            {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: signal: killed"},
            Reason.OUT_OF_MEMORY,
            False,
        ),
        (
            {"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: exit status 1"},
            Reason.DIED,
            True,
        ),
        ({"errorType": "Runtime.ImportModuleError", "errorMessage": "No module named 'x'"}, Reason.REFUSED, False),
        ({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": "..."}, Reason.REFUSED, False),
    ],
    ids=lambda value: value.get("errorType") if isinstance(value, dict) else None,
)
def test_functions_that_fail(body, reason, retryable):
    log = b64encode(b"\n".join(b"line %d" % number for number in range(20))).decode()
    found = aws_errors.failed(json.dumps(body).encode(), log, "f")
    assert (found.reason, found.retryable) == (reason, retryable)
    assert body["errorMessage"] in str(found)
    assert str(found).endswith("\n  line 18\n  line 19")
    assert "line 1\n" not in str(found)


def test_a_kill_with_memory_left_is_no_lack_of_memory():
    body = json.dumps({"errorType": "Runtime.ExitError", "errorMessage": "Runtime exited with error: signal: killed"})
    report = "REPORT RequestId: 1\tDuration: 9 ms\tMemory Size: 512 MB\tMax Memory Used: {} MB\t"
    for used, reason in ((100, Reason.DIED), (512, Reason.OUT_OF_MEMORY), (500, Reason.OUT_OF_MEMORY)):
        log = b64encode(report.format(used).encode()).decode()
        assert aws_errors.failed(body.encode(), log, "f").reason == reason


# ---------------------------------------------------------------- without a service


ROLE = "arn:aws:iam::123456789012:role/lithops-mini"


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (WorkerNeeds(environment={"X": "secret"}, packages=("ibm-cos-sdk",)), "set storage to aws_s3"),
        (WorkerNeeds(found=lambda: {"X": "secret"}, packages=("other",)), "set storage to aws_s3"),
        (WorkerNeeds(packages=("botocore",), endpoint="https://minio.example.com"), "leave endpoint_url out"),
    ],
)
def test_a_storage_that_a_role_does_not_open_is_refused(needs, text):
    backend = AwsLambdaCompute(AwsLambdaOptions(role=ROLE, region="us-east-1"))
    with pytest.raises(ConfigError, match=text):
        backend.deploy(needs)
    backend.close()


def test_options_that_belong_together():
    with pytest.raises(ValueError, match="security_groups"):
        AwsLambdaOptions(subnets=("subnet-1",))
    with pytest.raises(ValueError, match="access_key_id"):
        AwsLambdaOptions(access_key_id="x")


def test_no_region_is_an_error_that_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    backend = AwsLambdaCompute(AwsLambdaOptions(role=ROLE))
    with pytest.raises(ConfigError, match=r"set aws\.region"):
        backend.deploy(WorkerNeeds(packages=("botocore",)))
    with pytest.raises(ConfigError, match=r"set aws\.profile"):
        AwsLambdaCompute(AwsLambdaOptions(role=ROLE, profile="nobody"))


def test_the_name_of_a_function_tells_what_is_in_it(tmp_path):
    setup = Setup(role=ROLE)
    name = function.name(Recipe(python="3.12"), setup)
    assert name == function.name(Recipe(python="3.12"), Setup(role=ROLE))
    assert name.startswith("lithops-mini-312-x86_64-")
    assert len(f"{name}-10240") <= 64
    requirements = tmp_path / "r.txt"
    requirements.write_text("numpy==2.4\n")
    others = {
        function.name(Recipe(python="3.13"), setup),
        function.name(Recipe(python="3.12", requirements=str(requirements)), setup),
        function.name(Recipe(python="3.12"), Setup(role=ROLE, architecture="arm64")),
        function.name(Recipe(python="3.12"), Setup(role=ROLE, timeout=60)),
        function.name(Recipe(python="3.12"), Setup(role=ROLE, environment={"A": "b"})),
    }
    assert len(others | {name}) == 6
    with pytest.raises(ConfigError, match="Lambda's own Python"):
        function.check(Recipe(base="python:3.12"), Setup(role=ROLE, package="zip"))


def test_the_zip_is_the_same_each_time_and_small():
    assert function.worker_zip() == function.worker_zip()
    assert len(function.worker_zip()) < 128 << 10


def test_packages_are_cut_into_layers_that_can_be_sent(tmp_path, monkeypatch):
    for number in range(4):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(400_000))
    monkeypatch.setattr(function, "_LARGEST_ZIP", 1_000_000)
    assert len(function.layer_zips(tmp_path)) == 2
    monkeypatch.setattr(function, "_LARGEST_ZIP", 450_000)
    monkeypatch.setattr(function, "_MOST_LAYERS", 3)
    with pytest.raises(ConfigError, match="do not fit into 3 layers"):
        function.layer_zips(tmp_path)
    monkeypatch.setattr(function, "_LARGEST_UNZIPPED", 1_000_000)
    with pytest.raises(ConfigError, match="layers of AWS Lambda may have"):
        function.layer_zips(tmp_path)


def test_messages_fit_into_what_lambda_takes():
    assert len(b'{"payload":""}') + len(b64encode(bytes(MAX_MESSAGE))) <= 6 << 20
