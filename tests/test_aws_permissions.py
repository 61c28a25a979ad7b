"""The permissions of docs/backends/aws_lambda.md, tried on the local AWS.

Who has those of a table can do what it is for, and needs all of them. Without one of those of who runs jobs something
fails, and says which.
"""

from __future__ import annotations

import itertools
import json
import os
import re

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY
from lambda_account import BUCKET, LOG_GROUP, Account, start_account
from test_aws_lambda import _wheel
from test_storage_policy import POLICY

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.cli.profile_file import read_profile, write_profile
from lithops_mini.errors import LithopsMiniError, WorkerDied
from lithops_mini.runtimes import function
from lithops_mini.runtimes.aws_account import policy

PAGE = (REPOSITORY / "docs" / "backends" / "aws_lambda.md").read_text()
DATA = "example-com-weather"
JOBS_BUCKETS = "arn:aws:s3:::lithops-mini-*"
ARNS = {
    "`*`": "*",
    "the role": "arn:aws:iam::123456789012:role/*",
    "the bucket of the jobs": JOBS_BUCKETS,
    "all objects of the bucket of the jobs": f"{JOBS_BUCKETS}/*",
    "`aws/lambda/async/lithops-mini-*` of the bucket of the jobs": f"{JOBS_BUCKETS}/aws/lambda/async/lithops-mini-*",
    "`function:lithops-mini-*`": "arn:aws:lambda:*:*:function:lithops-mini-*",
    "`layer:lithops-mini-*`": "arn:aws:lambda:*:*:layer:lithops-mini-*",
    "`repository/lithops-mini`": "arn:aws:ecr:*:*:repository/lithops-mini",
    "the log group": "arn:aws:logs:*:*:log-group:*",
    "the stack": "arn:aws:cloudformation:*:*:stack/lithops-mini-*",
    "the stack and what it has made": "*",
}
STORAGE = {
    action
    for statement in POLICY["Statement"]
    for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
}
NAME = re.compile(r"lithops-mini-3\d+-\w+-[0-9a-f]{12}")  # of a runtime
_numbers = itertools.count()


def tables():
    """Those of the page that name actions: a list of rows (actions, resource, what for) for each, by heading."""
    found = {}
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.startswith("| action "):
            found.setdefault(heading, []).append([])
        elif line.startswith("| `") and heading in found:
            actions, place, what = (cell.strip() for cell in line.strip("|").split("|"))
            found[heading][-1].append((re.findall(r"`([^`]+)`", actions), ARNS[place], what))
    return found


TABLES = tables()
JOBS, SOME_JOBS = TABLES["Of who runs jobs"]
(COMMANDS,) = TABLES["Of `lithops-mini runtime` and `logs`"]
SETUP, SETUP_STACK = TABLES["Of setup"]
TEARDOWN, TEARDOWN_STACK = TABLES["Of teardown"]


def rows(table, word):
    """Those of a table that are for something."""
    found = [row for row in table if word in row[2]]
    assert found
    return found


def named(*tables):
    return {action for table in tables for actions, _, _ in table for action in actions}


def document(*tables, storage=True):
    """The policy that tables say, with that of the storage or without."""
    statements = [
        {"Effect": "Allow", "Action": actions, "Resource": place} for table in tables for actions, place, _ in table
    ]
    if storage:
        statements += json.loads(
            json.dumps(POLICY["Statement"]).replace("arn:aws:s3:::example-com-lithops-mini", JOBS_BUCKETS)
        )
    return {"Version": "2012-10-17", "Statement": statements}


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    with start_account(tmp_path_factory.mktemp("account"), "--retry-wait", "0.02") as account:
        account.aws.client("s3").create_bucket(Bucket=BUCKET)
        yield account


@pytest.fixture
def become(account: Account, tmp_path, monkeypatch):
    """A function: makes a user with a policy, and the profile ``cloud`` that user's, with changes if there are any.

    Returns the arguments of an executor for the same. The first call makes the profile.
    """
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "lithops_mini.yaml"

    def become(policy, bucket=None, **changes):
        keys = account.aws.user(f"user-{next(_numbers)}", json.dumps(policy))
        mine = account.aws.account | {name.removeprefix("aws_"): value for name, value in keys.items()}
        profile = read_profile(file, "cloud") or {"backend": "aws_lambda", "storage": "aws_s3"}
        profile |= {"storage_bucket": bucket} if bucket else {}
        functions = {"tags": {"test": os.urandom(4).hex()}, "max_time": 30, **profile.get("aws_lambda", {}), **changes}
        write_profile(file, "cloud", {**profile, "aws": mine, "aws_lambda": functions})
        account.aws.own("requests", "DELETE")
        given = {key: profile[key] for key in ("backend", "storage", "storage_bucket") if key in profile}
        return {**given, **mine, **functions, "progress": False, "retries": 0}

    return become


@pytest.fixture
def user(account, become):
    """``become``, for who runs jobs with what somebody else has set up."""
    return lambda policy, **options: become(policy, BUCKET, role=account.role, **options)


def seen(account):
    """The actions that were needed since somebody became who they are, but for one that needs no permission."""
    return set(account.aws.own("requests")) - {"sts:GetCallerIdentity"}


def command(*arguments, code=0):
    result = CliRunner().invoke(app, arguments, prog_name="lithops-mini")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def fail(monkeypatch):
    """The next function that is looked for is found to have failed, as it can on AWS only."""
    from botocore.client import BaseClient

    send = BaseClient._make_api_call
    failed = []

    def broken(self, name, parameters):
        answer = send(self, name, parameters)
        if name == "GetFunction" and not failed:
            answer["Configuration"] |= {"State": "Failed", "StateReason": "its time had come"}
            failed.append(parameters["FunctionName"])
        return answer

    monkeypatch.setattr(BaseClient, "_make_api_call", broken)


# ---------------------------------------------------------------- jobs


def use(given, monkeypatch):
    """What everybody does who runs jobs: with a function that is missing, one that is there, and one that failed."""
    with lm.function_executor(config={}, **given) as executor:
        assert executor.get_result(executor.map(abs, [-1, -2])) == [1, 2]
    with monkeypatch.context() as patch:
        fail(patch)
        with lm.function_executor(config={}, **given):
            pass


def test_who_runs_jobs(account, user, monkeypatch):
    use(user(document(JOBS)), monkeypatch)
    assert named(JOBS) <= seen(account) <= named(JOBS) | STORAGE


@pytest.mark.parametrize("action", sorted(named(JOBS)))
def test_without_an_action_of_who_runs_jobs(account, user, monkeypatch, action):
    less = [([each for each in actions if each != action], place, what) for actions, place, what in JOBS]
    given = user(document([row for row in less if row[0]]))
    with pytest.raises(LithopsMiniError, match=f"these credentials do not permit it: .*: {action}") as caught:
        use(given, monkeypatch)
    assert "user-" in str(caught.value)


def test_when_the_functions_are_there_less_will_do(account, user, monkeypatch):
    with lm.function_executor(config={}, **user(document(JOBS))):
        pass
    less = [row for row in JOBS if "making" not in row[2]]
    assert JOBS[: len(less)] == less
    assert len(JOBS) - len(less) == 3
    with lm.function_executor(config={}, **user(document(less))) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1


def test_who_runs_jobs_by_event(account, user):
    table = rows(SOME_JOBS, "carrier: event")
    given = user(document(JOBS, table), carrier="event")
    with lm.function_executor(config={}, **given) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
        account.aws.own("faults", "PUT", crash=1)
        try:
            with pytest.raises(WorkerDied):
                executor.get_result(executor.submit(abs, -1))
        finally:
            account.aws.own("faults", "PUT", crash=0)
    left = account.aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="aws/lambda/async/")
    assert left["KeyCount"] == 0
    assert seen(account) <= named(JOBS) | STORAGE


# ---------------------------------------------------------------- commands


def test_runtimes_and_logs(account, user, tmp_path):
    layers = rows(SOME_JOBS, "packages")
    commands = [row for row in COMMANDS if "images" not in row[2]]
    (tmp_path / "requirements.txt").write_text(f"{_wheel(tmp_path)}\n")
    requirements = str(tmp_path / "requirements.txt")
    user(document(JOBS, layers, commands), requirements=requirements)
    for words in (("build",), ("build",), ("list",), ("info",), ("update",)):
        name = NAME.search(command("runtime", *words))[0]
    with lm.function_executor(profile="cloud", progress=False) as executor:
        future = executor.submit(os._exit, 3)
        with pytest.raises(LithopsMiniError):
            executor.get_result(future)
    command("logs", future.job_id, "--call", "0")
    command("runtime", "delete", name)
    needed = named(layers, commands) | named(JOBS)
    assert needed <= seen(account) <= needed | STORAGE


def test_images(account, user, docker_engine, runtime_image, monkeypatch):
    monkeypatch.setattr(function, "_IMAGE_PACKAGES", ("awslambdaric",))
    images = rows(SOME_JOBS, "images")
    commands = [row for row in COMMANDS if "packages" not in row[2] and "`logs`" not in row[2]]
    user(document(JOBS, images, commands), package="image", base="host")
    for _ in range(2):
        name = NAME.search(command("runtime", "build"))[0]
    command("runtime", "list")
    command("runtime", "delete", name)
    found = seen(account)
    needed = named(images, commands)
    assert needed - found == set()
    assert found - needed <= named(JOBS) | STORAGE


# ---------------------------------------------------------------- setup and teardown


@pytest.mark.parametrize("way", [(), ("--cloudformation",)], ids=["requests", "stack"])
def test_setup_and_teardown(account, become, tmp_path, way):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{_wheel(tmp_path)}\n")
    layers = rows(SOME_JOBS, "packages")
    table = [row for row in SETUP if "without" not in row[2]] + SETUP_STACK if way else SETUP
    options = {"requirements": str(requirements), "log_group": f"/of-setup/{len(way)}"}
    setup = "aws", "setup", "-p", "cloud", "--yes", *way
    found = set()
    if way:
        less = [([each for each in actions if each != "iam:PutRolePolicy"], *rest) for actions, *rest in table]
        become(document(JOBS, layers, less), **options)
        assert "not authorized to perform: iam:PutRolePolicy" in command(*setup, code=1)
        found |= seen(account)
    become(document(JOBS, layers, table), **options)
    command(*setup)
    for data in ((), ("--data", DATA)):
        command(*setup, "--no-test", *data)
    found |= seen(account)
    assert named(table) - found == set()
    assert found - named(table) <= named(JOBS, layers) | STORAGE

    bucket = read_profile(tmp_path / "lithops_mini.yaml", "cloud")["storage_bucket"]
    account.aws.client("s3").create_multipart_upload(Bucket=bucket, Key="lithops_mini/broken-off")
    account.aws.client("s3").put_object(Bucket=bucket, Key="lithops_mini/left")
    table = TEARDOWN + TEARDOWN_STACK if way else TEARDOWN
    found = set()
    if way:
        less = [([each for each in actions if each != "iam:DeleteRole"], *rest) for actions, *rest in table]
        become(document(less, storage=False))
        assert "not authorized to perform: iam:DeleteRole" in command("aws", "teardown", "-p", "cloud", "--yes", code=1)
        found |= seen(account)
    become(document(table, storage=False))
    assert "kept" not in command("aws", "teardown", "-p", "cloud", "--yes")
    found |= seen(account)
    assert found <= named(table)
    # What is left CloudFormation reads in the user's name, on AWS.
    reads = {"iam:GetRole", "iam:GetRolePolicy", "logs:DescribeLogGroups", "logs:ListTagsForResource"}
    assert named(table) - found == (reads if way else set())


def test_the_role_is_described_as_it_is():
    text = PAGE[PAGE.index("### Of functions") : PAGE.index("### Of who runs jobs")]
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            names, actions, _ = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|"))
            if len(names) == 1:
                found[names[0]] = actions
            else:
                found |= {name: [action] for name, action in zip(names, actions, strict=True)}
    expected = policy(BUCKET, [DATA], LOG_GROUP)
    assert found == {statement["Sid"]: statement["Action"] for statement in expected["Statement"]}
