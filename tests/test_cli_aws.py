"""lithops-mini aws setup and teardown, on the local AWS."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

import pytest
import yaml
from click.testing import CliRunner
from lambda_account import Account, start_account

from lithops_mini.cli.app import app
from lithops_mini.cli.profile_file import read_profile, write_profile
from lithops_mini.errors import ConfigError
from lithops_mini.executor import function_executor

BUCKET = "lithops-mini-123456789012-us-east-1"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with start_account(tmp_path_factory.mktemp("account"), "--idle", "5") as account:
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
    # The local AWS has no LoggingConfig: there each function has a group of its own.
    return roles | buckets | functions | {each for each in groups if not each.startswith("/aws/lambda/lithops-mini-")}


def test_from_nothing_to_calls_and_back(account, file):
    before, text = there(account), file.read_text()
    output = run("aws", "setup", "-p", "cloud", "--yes")
    assert output.endswith("Everything works.\n")
    made = there(account) - before
    assert {BUCKET, "/aws/lambda/lithops-mini"} < made
    assert len(made) == 3  # the role has the name of the bucket
    assert read_profile(file, "cloud")["aws_lambda"] == {"role": f"arn:aws:iam::123456789012:role/{BUCKET}"}
    assert read_profile(file, "cloud")["aws"] == account.aws.account
    assert file.read_text().startswith("# mine\n")
    again = run("aws", "setup", "-p", "cloud", "--yes", "--no-test")
    assert requests(again) == []
    assert there(account) - before == made
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert there(account) == before
    assert file.read_text() == text
    assert requests(run("aws", "teardown", "-p", "cloud", "--yes")) == []


def test_a_dry_run_changes_nothing_and_says_every_request_that_would(account, file):
    before, text = there(account), file.read_text()
    output = run("aws", "setup", "-p", "cloud", "--dry-run", "--data", "weather")
    assert there(account) == before
    assert file.read_text() == text
    assert requests(output) == [
        "s3:CreateBucket",
        "s3:PutBucketLifecycleConfiguration",
        "s3:PutBucketTagging",
        "logs:CreateLogGroup",
        "logs:PutRetentionPolicy",
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "lambda:CreateFunction",
        "lambda:PutFunctionEventInvokeConfig",
    ]
    document = json.loads(output[output.index("{\n") : output.index("\n}\n") + 2])
    granted = {statement["Sid"]: statement["Resource"] for statement in document["Statement"]}
    assert granted["ReadData"] == ["arn:aws:s3:::weather/*"]
    assert granted["KeepJobs"] == [f"arn:aws:s3:::{BUCKET}/lithops_mini/*"]
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test")
    made, text = there(account), file.read_text()
    said = requests(run("aws", "teardown", "-p", "cloud", "--dry-run"))
    assert there(account) == made
    assert file.read_text() == text
    assert {"lambda:DeleteFunction", "logs:DeleteLogGroup", "iam:DeleteRole", "s3:DeleteBucket"} <= set(said)
    assert requests(run("aws", "teardown", "-p", "cloud", "--yes")) == said


@pytest.mark.parametrize("operation", ["put_bucket_tagging", "put_retention_policy", "put_role_policy", "tag_resource"])
def test_setup_goes_on_where_it_was_interrupted(account, file, monkeypatch, operation):
    from botocore.client import BaseClient

    before = there(account)
    send = BaseClient._make_api_call

    def broken(self, name, parameters):
        if name.lower() == operation.replace("_", ""):
            raise KeyboardInterrupt
        return send(self, name, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", broken)
        run("aws", "setup", "-p", "cloud", "--yes", "--no-test", code=130)
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test")
    assert requests(run("aws", "setup", "-p", "cloud", "--yes", "--no-test")) == []
    with function_executor(profile="cloud", progress=False) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert there(account) == before


def test_what_was_there_before_stays(account, file):
    s3, iam = account.aws.client("s3"), account.aws.client("iam")
    s3.create_bucket(Bucket="mine")
    run("aws", "setup", "-p", "cloud", "--bucket", "mine", "--yes", "--no-test")
    output = run("aws", "teardown", "-p", "cloud", "--yes")
    assert "kept the bucket mine" in output
    s3.delete_bucket(Bucket="mine")
    output = run("aws", "setup", "-p", "cloud", "--role", "functions", "--yes", code=1)
    assert "there is a role functions that setup did not make" in output
    assert iam.get_role(RoleName="functions")
    run("aws", "teardown", "-p", "cloud", "--yes")


def test_a_bucket_with_other_objects_stays_without_those_of_jobs(account, file):
    s3 = account.aws.client("s3")
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test")
    s3.put_object(Bucket=BUCKET, Key="lithops_mini/jobs/x", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="mine", Body=io.BytesIO(b"data"))
    assert f"kept the bucket {BUCKET}" in run("aws", "teardown", "-p", "cloud", "--yes")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["mine"]
    s3.delete_object(Bucket=BUCKET, Key="mine")
    run("aws", "teardown", "-p", "cloud", "--yes")
    assert BUCKET not in there(account)


def test_data_buckets_stay_named_until_others_are(account, file):
    s3, iam = account.aws.client("s3"), account.aws.client("iam")

    def readable():
        found = iam.get_role_policy(RoleName=BUCKET, PolicyName="lithops-mini")["PolicyDocument"]
        return [each["Resource"] for each in found["Statement"] if each["Sid"] == "ReadData"]

    s3.create_bucket(Bucket="weather")
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", "--data", "weather", "--data", "maps")
    assert readable() == [["arn:aws:s3:::weather/*", "arn:aws:s3:::maps/*"]]
    assert requests(run("aws", "setup", "-p", "cloud", "--yes", "--no-test")) == []
    run("aws", "setup", "-p", "cloud", "--yes", "--no-test", "--data", "maps")
    assert readable() == [["arn:aws:s3:::maps/*"]]
    run("aws", "teardown", "-p", "cloud", "--yes")
    s3.delete_bucket(Bucket="weather")


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
