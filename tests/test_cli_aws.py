"""lithops-mini aws setup and teardown, on the local AWS."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from aws_emulator import policy as allowing
from click.testing import CliRunner
from conftest import REPOSITORY
from lambda_account import LOG_GROUP, Account, start_account

from lithops_mini.cli.app import app
from lithops_mini.cli.profile_file import read_profile, write_profile
from lithops_mini.errors import ConfigError
from lithops_mini.executor import function_executor
from lithops_mini.runtimes.aws_account import TRUST, policy
from lithops_mini.runtimes.aws_stack import stack_name, template

BUCKET = "lithops-mini-123456789012-us-east-1"
LOGS = "/aws/lambda/lithops-mini"
WAYS = pytest.mark.parametrize("way", [(), ("--cloudformation",)], ids=["requests", "stack"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account"), "--idle", "5") as account:
        account.aws.client("logs").delete_log_group(logGroupName=LOGS)  # setup makes it
        yield account


@pytest.fixture
def file(account, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lithops_mini.yaml"
    profiles = {"local": {"backend": "localhost"}, "cloud": profile(account)}
    path.write_text("# mine\n" + yaml.safe_dump({"default_profile": "local", "profiles": profiles}, sort_keys=False))
    return path


def profile(account, **functions):
    more = {"aws_lambda": functions} if functions else {}
    return {"backend": "aws_lambda", "storage": "aws_s3", "aws": account.aws.account, **more}


def run(*arguments, code=0, **options):
    result = CliRunner().invoke(app, arguments, prog_name="lithops-mini", **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def requests(output):
    """The names of the requests that a command says."""
    return re.findall(r"^([a-z0-9]+:[A-Za-z]+) \{", output, re.MULTILINE)


def there(account):
    """Everything in the account that is or may be of setup's making."""
    roles = {each["RoleName"] for each in account.aws.client("iam").list_roles()["Roles"]}
    buckets = {each["Name"] for each in account.aws.client("s3").list_buckets()["Buckets"]}
    groups = {each["logGroupName"] for each in account.aws.client("logs").describe_log_groups()["logGroups"]}
    functions = {each["FunctionName"] for each in account.aws.client("lambda").list_functions()["Functions"]}
    stacks = {f"stack {each['StackName']}" for each in account.aws.client("cloudformation").describe_stacks()["Stacks"]}
    return roles | buckets | functions | stacks | groups


@WAYS
def test_from_nothing_to_calls_and_back(account, file, way):
    before, text = there(account), file.read_text()
    output = run("aws", "setup", "-p", "cloud", "--yes", *way)
    assert output.endswith("Everything works.\n")
    made = there(account) - before
    assert {BUCKET, LOGS} < made
    assert {each for each in made if each.startswith("stack")} == ({f"stack {BUCKET}"} if way else set())
    assert len(made) == 3 + len(way)  # the role has the name of the bucket
    assert read_profile(file, "cloud")["aws_lambda"] == {"role": f"arn:aws:iam::123456789012:role/{BUCKET}"}
    assert read_profile(file, "cloud")["aws"] == account.aws.account
    assert file.read_text().startswith("# mine\n")
    for again in ((), way):
        assert requests(run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *again)) == []
    assert there(account) - before == made
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert there(account) == before
    assert file.read_text() == text
    assert requests(run("aws", "teardown", "-p", "cloud", "--yes")) == []


REQUESTS = [
    "s3:CreateBucket",
    "s3:PutBucketLifecycleConfiguration",
    "s3:PutBucketTagging",
    "logs:CreateLogGroup",
    "logs:PutRetentionPolicy",
    "iam:CreateRole",
    "iam:PutRolePolicy",
]


@WAYS
def test_a_dry_run_changes_nothing_and_says_every_request_that_would(account, file, way):
    before, text = there(account), file.read_text()
    output = run("aws", "setup", "-p", "cloud", "--dry-run", "--data", "weather", *way)
    assert there(account) == before
    assert file.read_text() == text
    making = ["cloudformation:CreateStack"] if way else REQUESTS
    assert requests(output) == [*making, "lambda:CreateFunction", "lambda:PutFunctionEventInvokeConfig"]
    assert (template() in output) == bool(way)
    assert ('{"ParameterKey": "DataBuckets", "ParameterValue": "arn:aws:s3:::weather"}' in output) == bool(way)
    document = json.loads(output[output.index("{\n") : output.index("\n}\n") + 2])
    granted = {statement["Sid"]: statement["Resource"] for statement in document["Statement"]}
    assert granted["ReadData"] == ["arn:aws:s3:::weather/*"]
    assert granted["KeepJobs"] == [f"arn:aws:s3:::{BUCKET}/lithops_mini/*"]
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way)
    made, text = there(account), file.read_text()
    said = requests(run("aws", "teardown", "-p", "cloud", "--dry-run"))
    assert there(account) == made
    assert file.read_text() == text
    removing = {"cloudformation:DeleteStack"} if way else {"logs:DeleteLogGroup", "iam:DeleteRole"}
    assert {"lambda:DeleteFunction", "s3:DeleteBucket"} | removing <= set(said)
    assert requests(run("aws", "teardown", "-p", "cloud", "--yes")) == said


@pytest.mark.parametrize(
    ("operation", "way"),
    [
        ("put_bucket_tagging", ()),
        ("put_retention_policy", ()),
        ("put_role_policy", ()),
        ("tag_resource", ()),
        ("create_stack", ("--cloudformation",)),
        ("describe_stacks", ("--cloudformation",)),
        ("tag_resource", ("--cloudformation",)),
    ],
)
def test_setup_goes_on_where_it_was_interrupted(account, file, monkeypatch, operation, way):
    from botocore.client import BaseClient

    before = there(account)
    send = BaseClient._make_api_call

    def broken(self, name, parameters):
        waits = name != "DescribeStacks" or parameters["StackName"].startswith("arn:")
        if name.lower() == operation.replace("_", "") and waits:
            raise KeyboardInterrupt
        return send(self, name, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", broken)
        run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way, code=130)
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way)
    assert requests(run("aws", "setup", "-p", "cloud", "--yes", "--no-test")) == []
    with function_executor(profile="cloud", progress=False) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert there(account) == before


@WAYS
def test_what_was_there_before_stays(account, file, way):
    s3, iam, logs = (account.aws.client(service) for service in ("s3", "iam", "logs"))
    mine = f"mine-{len(way)}"  # moto keeps the tags of groups that are gone
    s3.create_bucket(Bucket=mine)
    logs.create_log_group(logGroupName=mine)
    write_profile(file, "cloud", profile(account, log_group=mine))
    for _ in range(2):
        run("aws", "setup", "-p", "cloud", "--bucket", mine, "--yes", "--no-test", *way)
    output = run("aws", "teardown", "-p", "cloud", "--yes")
    assert f"kept the bucket {mine}" in output
    assert f"kept the log group {mine}" in output
    s3.delete_bucket(Bucket=mine)
    logs.delete_log_group(logGroupName=mine)
    output = run("aws", "setup", "-p", "cloud", "--role", "functions", "--yes", *way, code=1)
    assert f"there is a role functions{', which no stack has made' if way else ' that setup did not make'}" in output
    assert iam.get_role(RoleName="functions")
    run("aws", "teardown", "-p", "cloud", "--yes")


@WAYS
def test_a_bucket_with_other_objects_stays_without_those_of_jobs(account, file, way):
    s3 = account.aws.client("s3")
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way)
    for key in ("lithops_mini/jobs/x", "aws/lambda/async/lithops-mini-x/y"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    s3.put_object(Bucket=BUCKET, Key="mine", Body=io.BytesIO(b"data"))
    assert f"kept the bucket {BUCKET}" in run("aws", "teardown", "-p", "cloud", "--yes")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["mine"]
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way)
    s3.delete_object(Bucket=BUCKET, Key="mine")
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert BUCKET not in there(account)


@WAYS
def test_data_buckets_stay_named_until_others_are(account, file, way):
    s3, iam = account.aws.client("s3"), account.aws.client("iam")

    def readable():
        found = iam.get_role_policy(RoleName=BUCKET, PolicyName="lithops-mini")["PolicyDocument"]
        return [each["Resource"] for each in found["Statement"] if each["Sid"] == "ReadData"]

    s3.create_bucket(Bucket="weather")
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *way, "--data", "weather", "--data", "maps")
    assert readable() == [["arn:aws:s3:::weather/*", "arn:aws:s3:::maps/*"]]
    assert requests(run("aws", "setup", "-p", "cloud", "--yes", "--no-test")) == []
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", "--data", "maps")
    assert readable() == [["arn:aws:s3:::maps/*"]]
    run("aws", "teardown", "-p", "cloud", "--yes")
    s3.delete_bucket(Bucket="weather")


def described(account):
    """What bucket, log group and role of setup are."""
    s3, iam, logs = (account.aws.client(service) for service in ("s3", "iam", "logs"))
    role = iam.get_role(RoleName=BUCKET)["Role"]
    (group,) = logs.describe_log_groups(logGroupNamePrefix=LOGS)["logGroups"]
    return {
        "policies": iam.list_role_policies(RoleName=BUCKET)["PolicyNames"],
        "policy": iam.get_role_policy(RoleName=BUCKET, PolicyName="lithops-mini")["PolicyDocument"],
        "trust": role["AssumeRolePolicyDocument"],
        "retention": group["retentionInDays"],
        "lifecycle": s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"],
        "tags": (
            role["Tags"],
            s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"],
            logs.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"],
        ),
    }


@pytest.mark.parametrize("data", [(), ("weather", "maps")])
def test_a_stack_is_the_same_as_what_requests_make(account, file, data):
    named = [word for bucket in data for word in ("--data", bucket)]
    found = []
    for way in ((), ("--cloudformation",)):
        run("aws", "setup", "-p", "cloud", "--yes", "--no-test", *named, *way)
        found.append(described(account))
        run("aws", "teardown", "-p", "cloud", "--yes")
    assert found[0] == found[1]
    assert found[0]["policy"] == policy(BUCKET, data, LOG_GROUP)
    assert found[0]["trust"] == TRUST


def test_a_stack_that_fails_is_told_in_cloudformations_words_and_made_anew(account, file):
    before = there(account)
    actions = ["cloudformation:*", "s3:*", "logs:*", "lambda:*", "iam:GetRole", "iam:GetRolePolicy"]
    keys = account.aws.user("no-maker-of-roles", allowing((actions, "*")))
    mine = {name.removeprefix("aws_"): value for name, value in keys.items()}
    write_profile(file, "less", {**profile(account), "aws": account.aws.account | mine})
    output = run("aws", "setup", "-p", "less", "--cloudformation", "--yes", code=1)
    assert f"the stack {BUCKET} is ROLLBACK_COMPLETE; CloudFormation says:\n  FunctionsRole CREATE_FAILED:" in output
    assert "user/no-maker-of-roles is not authorized to perform: iam:CreateRole" in output
    assert there(account) == before | {f"stack {BUCKET}"}
    output = run("aws", "setup", "-p", "cloud", "--cloudformation", "--yes", "--no-test")
    assert requests(output)[:2] == ["cloudformation:DeleteStack", "cloudformation:CreateStack"]
    output = run("aws", "teardown", "-p", "less", "--yes", code=1)
    assert f"the stack {BUCKET} is DELETE_FAILED; CloudFormation says:" in output
    assert "FunctionsPolicy DELETE_FAILED:" in output
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert there(account) == before


def test_a_stack_of_somebody_else_is_left_alone(account, file):
    stacks = account.aws.client("cloudformation")
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "theirs"}}
    stacks.create_stack(StackName="theirs", TemplateBody=json.dumps({"Resources": {"Group": group}}))
    for command in ("setup", "teardown"):
        output = run("aws", command, "-p", "cloud", "--role", "theirs", "--yes", code=1)
        assert "there is a stack theirs that setup did not make: name another role with --role" in output
    stacks.delete_stack(StackName="theirs")


def test_names_of_stacks():
    assert stack_name("lithops-mini-a") == "lithops-mini-a"
    assert stack_name("1.a_b@c") == "lithops-mini-1-a-b-c"


def test_the_template_is_one_that_aws_takes():
    command = [Path(sys.executable).with_name("cfn-lint"), REPOSITORY / "runtimes" / "aws_lambda" / "template.yaml"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_without_a_yes_nothing_is_done(account, file):
    before = there(account)
    run("aws", "setup", "-p", "cloud", input="n\n", code=130)
    run("aws", "setup", "-p", "cloud", code=130)  # nobody is there to answer
    assert there(account) == before
    assert "name another with -p" in run("aws", "setup", "-p", "local", "--yes", code=1)


# ---------------------------------------------------------------- the file


FILE = """\
# the team's
default_profile: a
profiles:
    a:
        backend: inline  # for now
        # of a

    # about b
    b: {backend: localhost}
    c:
        timeout: 5
"""


def test_a_profile_is_written_and_the_rest_stays(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(FILE)
    write_profile(path, "d", {"backend": "inline", "extra_env": {"A": "${B}"}})
    assert path.read_text().startswith(FILE)
    assert read_profile(path, "d") == {"backend": "inline", "extra_env": {"A": "${B}"}}
    write_profile(path, "d", None)
    assert path.read_text() == FILE
    write_profile(path, "b", {"timeout": 7})
    assert read_profile(path, "b") == {"timeout": 7}
    assert "# about b" in path.read_text()
    assert "# for now" in path.read_text()
    write_profile(path, "a", None)
    assert yaml.safe_load(path.read_text()) == {"profiles": {"b": {"timeout": 7}, "c": {"timeout": 5}}}


def test_a_file_comes_with_its_first_profile_and_leaves_with_its_last(tmp_path):
    path = tmp_path / "new" / "f.yaml"
    write_profile(path, "a", None)
    assert not path.exists()
    write_profile(path, "a", {"backend": "inline"})
    assert yaml.safe_load(path.read_text()) == {"default_profile": "a", "profiles": {"a": {"backend": "inline"}}}
    assert path.stat().st_mode & 0o777 == 0o600
    write_profile(path, "a", None)
    assert not path.exists()


def test_a_file_that_is_written_otherwise_is_left_alone(tmp_path):
    path = tmp_path / "f.yaml"
    text = "profiles: {a: {backend: inline}, b: {}}\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match="one below the other"):
        write_profile(path, "a", {"timeout": 1})
    assert path.read_text() == text
