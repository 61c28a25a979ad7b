"""Functions of aws_lambda that are images: built here, pushed to the local AWS's registry, run from there."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager

import pytest
from aws_emulator import RUNTIME, start_aws
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from lambda_account import BUCKET, Account, start_account

import lithops_mini as lm
from lithops_mini.compute.aws_lambda import AwsLambdaCompute, AwsLambdaOptions
from lithops_mini.errors import ConfigError, InvocationError
from lithops_mini.runtimes import aws_image, function, host, recipe, wheels
from lithops_mini.runtimes.function import Setup

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
TOLD: list[str] = []


@pytest.fixture(scope="module")
def containers(docker_engine, runtime_image, tmp_path_factory):
    """An account whose functions run in containers; at its end the engine has nothing of its registry."""
    with start_aws(tmp_path_factory.mktemp("aws"), "--sandbox", "docker") as aws:
        account = Account(aws)
        aws.client("ecr").create_repository(repositoryName="another")
        uri = aws.client("ecr").describe_repositories()["repositories"][0]["repositoryUri"]
        registry = uri.partition("/")[0]
        yield account
    assert pulled(docker_engine, registry) == []


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account whose functions run in processes, so that none that is an image can."""
    with start_account(tmp_path_factory.mktemp("aws")) as found:
        yield found


@pytest.fixture
def functions(monkeypatch):
    """Makes the functions of an account, with options of the backend; they tell what they do in ``TOLD``."""
    TOLD.clear()
    backends = []

    def make(account, **options):
        place = {name: account.aws.account[name] for name in ("endpoint_url", "region")}
        keys = {name: account.aws.account[name] for name in ("access_key_id", "secret_access_key")}
        backend = AwsLambdaCompute(AwsLambdaOptions(**{"role": account.role, **place, **keys, **options}))
        backends.append(backend)
        return backend.runtimes(BUCKET)

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def small(monkeypatch):
    """Images without the SDK, which takes seconds to install and to compile."""
    monkeypatch.setattr(function, "_IMAGE_PACKAGES", ("awslambdaric",))


def pulled(engine, registry):
    """The names of images of a registry on the engine."""
    images = engine.api.images()
    names = [name for each in images for name in (each["RepoTags"] or []) + (each["RepoDigests"] or [])]
    return [name for name in names if name.startswith(f"{registry}/")]


def function_images(engine):
    return {each["Id"] for each in engine.api.images(filters={"label": "lithops-mini=function"})}


def build(runtimes):
    return runtimes.build(runtimes.recipe(("botocore",)), TOLD.append)


def requests(account):
    """How often each action was needed since this was last asked."""
    found = account.aws.own("requests")
    account.aws.own("requests", "DELETE")
    return found


def repositories(account):
    found = account.aws.client("ecr").describe_repositories()["repositories"]
    return {each["repositoryName"] for each in found}


def wheel(directory, name="colours", size=0):
    """A wheel of so many bytes that cannot be compressed, and a requirements.txt that names it."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "red = '#f00'\n")
        archive.writestr(f"{name}.bin", os.urandom(size))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}.py,,\n{name}.bin,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{path}\n")
    return str(requirements)


# ---------------------------------------------------------------- images


def test_calls_run_in_an_image_that_all_sizes_of_memory_share(containers, docker_engine):
    given = containers.executor(max_workers=2, package="image", base="host")

    def found(_):
        import boto3

        return boto3.__name__, os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], os.environ["AWS_EXECUTION_ENV"]

    requests(containers)
    with lm.function_executor(**given) as executor:
        assert executor.get_result(executor.map(found, [1])) == [("boto3", "1769", "AWS_Lambda_Image")]
        assert executor.get_result(executor.map(found, [1], runtime_memory=512)) == [
            ("boto3", "512", "AWS_Lambda_Image")
        ]
        large = executor.submit(lambda: bytes(7_000_000))
        assert executor.get_result(large) == bytes(7_000_000)
        runtimes = executor._compute.runtimes(BUCKET)
        (runtime,) = [each for each in runtimes.list() if each.base.startswith("an image")]
    sent = requests(containers)
    assert (sent["ecr:PutImage"], sent["lambda:CreateFunction"]) == (1, 2)
    assert {each.partition("==")[0] for each in runtime.packages} > {"awslambdaric", "boto3", "botocore"}
    assert runtime.current
    assert runtime.base == "an image on x86_64, with 512, 1769 MiB"
    configuration = containers.aws.client("lambda").get_function(FunctionName=f"{runtime.name}-512")
    assert configuration["Configuration"]["PackageType"] == "Image"
    assert "@sha256:" in configuration["Code"]["ImageUri"]
    # Again, nothing is made.
    with lm.function_executor(**given) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
    assert not {"ecr:PutImage", "lambda:CreateFunction"} & set(requests(containers))
    assert "lithops-mini" in repositories(containers)
    runtimes.delete(runtime.name)
    assert repositories(containers) == {"another"}
    assert runtime.name not in [each.name for each in runtimes.list()]
    left = docker_engine.api.images(filters={"label": "lithops-mini=function"})
    assert all(not each["RepoTags"] or each["RepoTags"] == ["<none>:<none>"] for each in left)


def test_packages_over_the_limit_of_layers_make_an_image(containers, docker_engine, functions, tmp_path, monkeypatch):
    """Also after it was interrupted when the image had been pushed; then it is found."""
    monkeypatch.setattr(function, "_LARGEST_UNZIPPED", 1_000_000)
    monkeypatch.setattr(function, "_IMAGE_PACKAGES", ("awslambdaric", "botocore"))
    monkeypatch.setattr(recipe.Recipe, "base_name", host.name())  # the official image would have to be pulled
    runtimes = functions(containers, requirements=wheel(tmp_path, size=2_000_000))
    requests(containers)
    with interrupted(monkeypatch, "CreateFunction"), pytest.raises(KeyboardInterrupt):
        build(runtimes)
    assert any("packages are 1.9 MiB" in each and "must be an image" in each for each in TOLD)
    TOLD.clear()
    built = build(runtimes)
    assert built.new
    assert built.size > 2_000_000
    assert [f"Creating the function {built.name}-1769"] == TOLD
    sent = requests(containers)
    assert (sent["ecr:PutImage"], sent["lambda:CreateFunction"]) == (1, 1)
    assert not build(runtimes).new

    def red():
        import colours  # type: ignore[import-not-found]

        return colours.red

    given = containers.executor(requirements=str(tmp_path / "requirements.txt"), exclude_modules=["colours"])
    with lm.function_executor(**given) as executor:
        assert executor.get_result(executor.submit(red)) == "#f00"
    # Deleting is interrupted when the image is gone, and goes on.
    with interrupted(monkeypatch, "DeleteFunction"), pytest.raises(KeyboardInterrupt):
        runtimes.delete(built.name)
    runtimes.delete(built.name)
    assert repositories(containers) == {"another"}


@contextmanager
def interrupted(monkeypatch, operation):
    """Ctrl-C whenever this request is to be sent."""
    send = BaseClient._make_api_call

    def broken(self, name, parameters):
        if name == operation:
            raise KeyboardInterrupt
        return send(self, name, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", broken)
        yield


def test_an_image_over_lambdas_limit_is_not_pushed(containers, functions, small, docker_engine, monkeypatch):
    monkeypatch.setattr(aws_image, "_LARGEST", 1 << 20)
    before = function_images(docker_engine)
    with pytest.raises(ConfigError, match=r"the image is \d\d(\.\d)? MiB, and a function of AWS Lambda may have 1 MiB"):
        build(functions(containers, package="image", base="host"))
    assert repositories(containers) == {"another"}
    assert function_images(docker_engine) == before


def test_who_may_not_push_is_told_so_and_nothing_is_left(containers, functions, small, docker_engine):
    allowed = ["lambda:*", "iam:PassRole", "ecr:CreateRepository", "ecr:Describe*", "ecr:TagResource"]
    allowed += ["ecr:GetAuthorizationToken", "ecr:InitiateLayerUpload", "ecr:BatchCheckLayerAvailability"]
    statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
    keys = containers.aws.user("builder", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    given = {name.removeprefix("aws_"): value for name, value in keys.items()}
    before = function_images(docker_engine)
    with pytest.raises(ConfigError, match="not authorized to perform: ecr:UploadLayerPart"):
        build(functions(containers, package="image", base="host", **given))
    assert function_images(docker_engine) == before
    containers.aws.client("ecr").delete_repository(repositoryName="lithops-mini")


def test_without_an_engine_the_error_says_what_to_do(account, functions, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(ConfigError, match="the function is to be an image, and no Docker engine answers") as caught:
        build(functions(account, package="image"))
    assert "DOCKER_HOST" in str(caught.value)
    monkeypatch.setattr(function, "_LARGEST_UNZIPPED", 1_000_000)
    requirements = wheel(tmp_path, size=2_000_000)
    with pytest.raises(
        ConfigError, match=r"layers of AWS Lambda may have 976\.6 KiB, so the function must be an image, and"
    ):
        build(functions(account, requirements=requirements))
    with pytest.raises(ConfigError, match=r"require less, or set aws_lambda\.package to auto"):
        build(functions(account, requirements=requirements, package="zip"))
    with pytest.raises(ConfigError, match="leave base and dockerfile out"):
        build(functions(account, base="host", package="zip"))


def test_what_is_in_the_image_is_in_the_name(tmp_path):
    setup = Setup(role="arn:aws:iam::123456789012:role/x")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM python:3.12\n")
    given = recipe.Recipe(python="3.12", dockerfile=str(dockerfile))
    assert function.is_image(given, setup)
    first = function.name(given, setup), function.image_tag(given, setup)
    dockerfile.write_text("FROM python:3.12\nRUN true\n")
    changed = recipe.Recipe(python="3.12", dockerfile=str(dockerfile))
    assert function.name(changed, setup) != first[0]
    assert function.image_tag(changed, setup) != first[1]
    # Settings of functions make another function of the same image.
    other = Setup(role="arn:aws:iam::123456789012:role/x", timeout=60)
    assert function.image_tag(changed, other) == function.image_tag(changed, setup)
    assert function.name(changed, other) != function.name(changed, setup)


# ---------------------------------------------------------------- what Lambda and its registry refuse


class Pusher:
    """Puts images into the registry by its own protocol."""

    def __init__(self, aws, **keys):
        self.ecr = aws.client("ecr", **keys)
        token = self.ecr.get_authorization_token()["authorizationData"][0]
        self.address = token["proxyEndpoint"]
        self.headers = {"Authorization": f"Basic {token['authorizationToken']}"}

    def send(self, method, path, data=None, **headers):
        """Status, headers and body of an answer."""
        url = path if path.startswith("http") else f"{self.address}{path}"
        request = urllib.request.Request(url, data, {**self.headers, **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.status, error.headers, error.read()

    def push(self, name, tag, kind=MANIFEST, size=2):
        """An image of one empty layer, of which the manifest says that it has so many bytes; returns its URI."""
        uri = self.ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        path = f"/v2/{uri.partition('/')[2]}"
        digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
        place = self.send("POST", f"{path}/blobs/uploads/")[1]["Location"]
        assert self.send("PATCH", place, b"{}")[0] == 202
        assert self.send("PUT", f"{place}?digest={digest}")[0] == 201
        part = {"digest": digest, "size": 2, "mediaType": "application/json"}
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": part, "layers": [{**part, "size": size}]}
        status, _, body = self.send("PUT", f"{path}/manifests/{tag}", json.dumps(manifest).encode())
        assert status == 201, body
        return f"{uri}:{tag}"


@pytest.fixture(scope="module")
def pusher(account):
    account.aws.client("ecr").create_repository(repositoryName="team/images")
    return Pusher(account.aws)


def create(account, uri, **keys):
    """Make a function of an image, and delete it; the code and the message of the error, if there is one."""
    client = account.aws.client("lambda", **keys)
    try:
        client.create_function(FunctionName="f", Role=account.role, PackageType="Image", Code={"ImageUri": uri})
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    with pytest.raises(ClientError, match="an image cannot run in a process") as caught:
        client.invoke(FunctionName="f")
    assert caught.value.response["Error"]["Code"] == "InvalidRuntimeException"
    client.delete_function(FunctionName="f")
    return None


def test_images_that_lambda_refuses(account, pusher):
    assert create(account, pusher.push("team/images", "good")) is None
    policy = json.loads(pusher.ecr.get_repository_policy(repositoryName="team/images")["policyText"])
    assert policy["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}
    uri = pusher.push("team/images", "good").partition(":good")[0]
    assert create(account, f"{uri}:none") == (
        "InvalidParameterValueException",
        f"Source image {uri}:none does not exist. Provide a valid source image.",
    )
    index = pusher.push("team/images", "index", "application/vnd.oci.image.index.v1+json")
    assert "media type for the source image" in create(account, index)[1]
    large = pusher.push("team/images", "large", size=(10 << 30) + 1)
    assert "must be smaller than 10737418240 bytes" in create(account, large)[1]


def test_lambda_reads_images_if_the_repository_or_who_makes_a_function_lets_it(account, pusher):
    pusher.ecr.create_repository(repositoryName="closed")
    uri = pusher.push("closed", "1")
    actions = ["lambda:*", "iam:PassRole"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    keys = account.aws.user("maker", json.dumps(document))
    code, text = create(account, uri, **keys)
    assert (code, text.split(".")[0]) == (
        "AccessDeniedException",
        "Lambda does not have permission to access the ECR image",
    )
    pull = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    statement = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": pull}
    pusher.ecr.set_repository_policy(
        repositoryName="closed", policyText=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    assert create(account, uri, **keys) is None


def test_the_registry_knows_who_asks_and_keeps_what_it_is_given(account, pusher):
    uri = pusher.push("team/images", "kept")
    path = f"/v2/{uri.partition('/')[2].rpartition(':')[0]}"
    stranger = Pusher(account.aws)
    stranger.headers = {"Authorization": "Basic QVdTOm5vYm9keQ=="}
    status, headers, _ = stranger.send("GET", "/v2/")
    assert (status, headers["WWW-Authenticate"][:6]) == (401, "Basic ")
    status, headers, body = pusher.send("GET", f"{path}/manifests/kept")
    assert headers["Content-Type"] == MANIFEST
    assert headers["Docker-Content-Digest"] == f"sha256:{hashlib.sha256(body).hexdigest()}"
    status, _, _ = pusher.send("HEAD", f"{path}/blobs/sha256:{'0' * 64}")
    assert status == 404
    status, _, body = pusher.send("PUT", f"{path}/manifests/bad", b'{"layers": [{"digest": "sha256:1"}]}')
    assert (status, json.loads(body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
    place = pusher.send("POST", f"{path}/blobs/uploads/")[1]["Location"]
    status, _, body = pusher.send("PUT", f"{place}?digest=sha256:{'0' * 64}", b"data")
    assert (status, json.loads(body)["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    status, _, body = pusher.send("POST", "/v2/us-east-1/nothing/blobs/uploads/", b"")
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    (details,) = pusher.ecr.describe_images(repositoryName="team/images", imageIds=[{"imageTag": "kept"}])[
        "imageDetails"
    ]
    assert details["imageSizeInBytes"] == 4
    readers = account.aws.user(
        "reader",
        json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": ["ecr:GetAuthorizationToken", "ecr:DescribeRepositories"],
                        "Resource": "*",
                    }
                ],
            }
        ),
    )
    status, _, body = Pusher(account.aws, **readers).send("GET", f"{path}/manifests/kept")
    assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED")
    assert "ecr:BatchGetImage" in json.loads(body)["errors"][0]["message"]


# ---------------------------------------------------------------- arm64, and what else a function has


def test_arm64_gets_layers_of_its_own_wheels(account, functions, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("simplejson\n")
    runtimes = functions(account, architecture="arm64", requirements=str(requirements))
    name = build(runtimes).name
    client = account.aws.client("lambda")
    assert name.startswith(f"lithops-mini-{RUNTIME.removeprefix('python').replace('.', '')}-arm64-")
    configuration = client.get_function_configuration(FunctionName=f"{name}-1769")
    assert configuration["Architectures"] == ["arm64"]
    (layer,) = configuration["Layers"]
    version = {"LayerName": layer["Arn"].split(":")[-2], "VersionNumber": int(layer["Arn"].split(":")[-1])}
    assert client.get_layer_version(**version)["CompatibleArchitectures"] == ["arm64"]
    with pytest.raises(ClientError, match="the function is for arm64") as caught:
        client.invoke(FunctionName=f"{name}-1769")
    assert caught.value.response["Error"]["Code"] == "InvalidRuntimeException"
    given = account.executor(architecture="arm64", requirements=str(requirements), retries=0)
    with lm.function_executor(**given) as executor:
        call = executor.submit(abs, -1)
        with pytest.raises(InvocationError, match="the function is for arm64"):
            executor.get_result(call)
    runtimes.delete(name)


def test_a_binary_wheel_is_the_targets(tmp_path):
    target = function.target(recipe.Recipe(), Setup(role="", architecture="arm64"))
    wheels.install(tmp_path, target, TOLD.append, packages=["simplejson"])
    (library,) = tmp_path.rglob("*.so")
    header = library.read_bytes()[:20]
    assert (header[:4], int.from_bytes(header[18:20], "little")) == (b"\x7fELF", 183)  # AArch64


def test_an_image_for_another_processor_than_the_engines_is_refused(account, functions, docker_engine):
    theirs = docker_engine.version()["Arch"]
    other, own = ("arm64", "x86_64") if theirs == "amd64" else ("x86_64", "arm64")
    with pytest.raises(
        ConfigError, match=f"engine's machine is {theirs}: set aws_lambda.architecture to {own}, or set"
    ):
        build(functions(account, package="image", base="host", architecture=other))


def test_settings_of_functions_arrive(account, functions):
    given = {
        "subnets": ("subnet-1", "subnet-2"),
        "security_groups": ("sg-1",),
        "environment": {"NAME": "value"},
        "tags": {"team": "data"},
        "disk": 2048,
        "memory": 3008,
        "max_time": 60,
        "log_group": "/team/logs",
    }
    runtimes = functions(account, **given)
    name = build(runtimes).name
    found = account.aws.client("lambda").get_function(FunctionName=f"{name}-3008")
    configuration = found["Configuration"]
    assert configuration["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]
    assert configuration["VpcConfig"]["SecurityGroupIds"] == ["sg-1"]
    assert configuration["Environment"]["Variables"] == {"NAME": "value"}
    assert found["Tags"]["team"] == "data"
    assert configuration["EphemeralStorage"] == {"Size": 2048}
    assert (configuration["MemorySize"], configuration["Timeout"]) == (3008, 60)
    assert configuration["LoggingConfig"]["LogGroup"] == "/team/logs"
    runtimes.delete(name)
