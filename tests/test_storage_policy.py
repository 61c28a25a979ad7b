"""The least-privilege policy of docs/storage/aws_s3.md, tried where IAM is enforced: with all of it jobs work, and
without any action of it something does not, and says which action it lacks.
"""

from __future__ import annotations

import io
import itertools
import json

import pytest
from botocore.session import Session
from conftest import REPOSITORY
from engines import start_moto
from test_docs import blocks

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.errors import AccessDenied, StorageError

PAGE = (REPOSITORY / "docs" / "storage" / "aws_s3.md").read_text()
(POLICY,) = (json.loads(block.text) for block in blocks(PAGE) if block.marks.get("file") == "policy.json")
JOBS, DATA = "example-com-lithops-mini", "example-com-weather"
LINES = b"".join(b"%d\n" % number for number in range(50_000))
LARGE = 9 << 20  # bytes: a result of two parts
FULL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

_numbers = itertools.count()


def actions(statement):
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


class Account:
    """An account with IAM enforced, and data in a bucket."""

    def __init__(self, engine):
        self.engine = engine
        self.administrator = {"access_key_id": "first", "secret_access_key": "first"}
        self.administrator = self.user("administrator", FULL)
        s3 = self._client("s3")
        s3.create_bucket(Bucket=DATA)
        s3.put_object(Bucket=DATA, Key="raw/lines", Body=LINES)

    def _client(self, service):
        keys = {f"aws_{name}": value for name, value in self.administrator.items()}
        place = {"endpoint_url": self.engine.url, "region_name": self.engine.region}
        return Session().create_client(service, **place, **keys)

    def user(self, name, policy):
        """The keys of a new user with this policy."""
        iam = self._client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}

    def uploads(self, bucket):
        return self._client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", [])

    def keys(self, bucket):
        return [found["Key"] for found in self._client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture(scope="module")
def account():
    with start_moto(unchecked=3) as engine:  # those that make the administrator
        yield Account(engine)


@pytest.fixture
def settings(account, tmp_path, monkeypatch):
    """A function: the arguments of an executor for a user with a policy, who has a bucket of jobs to be made."""
    monkeypatch.chdir(tmp_path)

    def settings(policy):
        number = next(_numbers)
        bucket = f"{JOBS}-{number}"
        statements = json.loads(json.dumps(policy["Statement"]).replace(JOBS, bucket))
        # moto wants this on the bucket for a request that deletes several objects; AWS on each object, as the page says
        if any("s3:DeleteObject" in actions(statement) for statement in statements):
            arn = f"arn:aws:s3:::{bucket}"
            statements.append({"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": arn})
        keys = account.user(f"user-{number}", policy | {"Statement": statements})
        place = {"endpoint_url": account.engine.url, "region": account.engine.region}
        profile = {"storage": "aws_s3", "storage_bucket": bucket, "aws_s3": place | keys}
        (tmp_path / "lithops_mini.yaml").write_text(json.dumps({"profiles": {"only": profile}}))
        return {"storage": "aws_s3", "storage_bucket": bucket, "retries": 0, "max_workers": 2} | place | keys

    return settings


def command(*arguments):
    app.main(arguments, prog_name="lithops-mini", standalone_mode=False)


class Breaking(io.BytesIO):
    """A body of which the second part cannot be read."""

    def read(self, size=-1):
        if self.tell() >= 10 << 20:
            raise ZeroDivisionError
        return super().read(size)


def use(settings):
    """What users do with jobs."""
    bucket = settings["storage_bucket"]
    with lm.function_executor("localhost", progress=False, **settings) as executor:
        sums = executor.map_reduce(
            lambda obj: sum(map(int, obj.records())), f"{DATA}/raw/", sum, obj_chunk_size="100KiB"
        )
        assert executor.get_result(sums) == sum(range(50_000))
        large = executor.map(lambda data, size: len(data) * bytes(size), [(bytes(300_000), 1), (b"x", LARGE)])
        assert [len(value) for value in executor.get_result(large)] == [300_000, LARGE]
        with pytest.raises(ZeroDivisionError) as caught:
            executor.storage.put_object(bucket, "lithops_mini/mine", Breaking(bytes(20 << 20)))
        if notes := getattr(caught.value, "__notes__", None):
            raise AccessDenied(*notes)
        name = executor.call_async(lambda storage: storage.put_cloudobject(b"body"), ()).result()
        assert executor.storage.get_cloudobject(name) == b"body"
        executor.clean()
        last = executor.call_async(bytes, 300_000)
        last.result()
    command("jobs", "list")
    command("clean", "--yes")  # of programs that have ended
    command("jobs", "clean", last.job_id, "--yes")


def test_with_the_policy_jobs_work_and_nothing_is_left(settings, account, capsys):
    given = settings(POLICY)
    bucket = given["storage_bucket"]
    use(given)
    assert "bytes" in capsys.readouterr().out
    assert account.keys(bucket) == []
    assert account.uploads(bucket) == []


def without(sid, action):
    """The policy without one action of one statement."""
    statements = []
    for statement in POLICY["Statement"]:
        left = [each for each in actions(statement) if (statement["Sid"], each) != (sid, action)]
        if left:
            statements.append(statement | {"Action": left})
    return POLICY | {"Statement": statements}


EVERY_ACTION = [(statement["Sid"], action) for statement in POLICY["Statement"] for action in actions(statement)]


@pytest.mark.parametrize(("sid", "action"), EVERY_ACTION, ids=map("-".join, EVERY_ACTION))
def test_without_any_action_of_it_something_is_denied(settings, account, sid, action):
    given = settings(without(sid, action))
    place = DATA if sid.endswith("Data") else given["storage_bucket"]
    with pytest.raises(StorageError) as caught:
        use(given)
    told = f"{type(caught.value).__name__}: {caught.value}"
    assert "AccessDenied: " in told  # with its name before it, if it is a worker's
    if action == "s3:AbortMultipartUpload":  # it comes after the failure, of which it is a note
        (upload,) = account.uploads(place)
        assert f"stay in the bucket and cost: abort {upload['UploadId']} (" in told
        assert "AbortMultipartUpload" in told
    else:
        assert f"these credentials do not permit it: they need {action}" in told
        assert repr(place) in told


def test_with_the_policy_nothing_else_can_be_written(settings, account):
    given = settings(POLICY)
    with lm.function_executor("localhost", progress=False, **given) as executor:
        storage = executor.storage
        for bucket, key in ((DATA, "raw/lines"), (DATA, "lithops_mini/x"), (given["storage_bucket"], "other")):
            with pytest.raises(AccessDenied, match=f"{bucket!r}.* s3:PutObject"):
                storage.put_object(bucket, key, b"")
        with pytest.raises(AccessDenied, match=f"{DATA!r}.* s3:DeleteObject"):
            storage.delete_object(DATA, "raw/lines")
        with pytest.raises(AccessDenied, match=r"'example-com-another': .* s3:ListBucket"):
            storage.create_bucket("example-com-another")
        assert storage.get_object(DATA, "raw/lines") == LINES
