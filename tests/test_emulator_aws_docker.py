"""Functions of the local AWS in containers: what only a container can enforce."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import tarfile
import threading

import pytest
from aws_emulator import MODULE, Functions, start_aws
from lambda_account import Account

import lithops_mini as lm
from lithops_mini.compute import aws_errors
from lithops_mini.emulators.aws.files import Files
from lithops_mini.emulators.containers import AT_ONCE
from lithops_mini.errors import OutOfMemory, Reason
from lithops_mini.runtimes import engine
from lithops_mini.runtimes.recipe import Recipe


@pytest.fixture(scope="module")
def functions(docker_engine, image, tmp_path_factory):
    with start_aws(tmp_path_factory.mktemp("aws"), "--sandbox", "docker") as emulated:
        yield Functions(emulated)
    assert containers(docker_engine, emulated) == []


def containers(client, emulated):
    """The containers of an emulator."""
    found = client.containers.list(all=True, filters={"label": "lithops-mini=emulator"}, ignore_removed=True)
    return [each for each in found if f"AWS_ENDPOINT_URL={emulated.url}" in each.attrs["Config"]["Env"]]


def python(functions, name, code):
    return functions.invoke(name, {"do": "python", "code": code})["value"]


def test_more_memory_than_the_function_has(functions):
    name = functions.make(MemorySize=128)
    code = "print('words') or len(bytearray(400_000_000))"
    answer = functions.invoke(name, {"do": "python", "code": code}, LogType="Tail")
    request = answer["ResponseMetadata"]["RequestId"]
    assert answer["FunctionError"] == "Unhandled"
    assert answer["value"] == {
        "errorType": "Runtime.OutOfMemory",
        "errorMessage": f"RequestId: {request} Error: Runtime exited with error: signal: killed",
    }
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "Memory Size: 128 MB\tMax Memory Used: 128 MB\t" in log
    assert "\tStatus: error\tError Type: Runtime.OutOfMemory" in log
    assert functions.invoke(name)["value"]["calls"] == 1
    error = aws_errors.failed(json.dumps(answer["value"]).encode(), answer["LogResult"], name)
    assert error.reason == Reason.OUT_OF_MEMORY
    assert f"the function {name} ran out of memory, with 128 of 128 MB in use (Runtime." in str(error)
    assert str(error).endswith("; the end of its log:\n  words")


def test_a_child_with_more_memory_leaves_the_runtime(functions):
    name = functions.make(MemorySize=128)
    code = "__import__('subprocess').call(['python3', '-c', 'len(bytearray(400_000_000))'])"
    assert python(functions, name, code) == -signal.SIGKILL
    assert functions.invoke(name)["value"]["calls"] == 2
    assert functions.invoke(name, {"do": "kill"})["value"]["errorType"] == "Runtime.ExitError"
    assert python(functions, name, code) == -signal.SIGKILL
    answer = functions.invoke(name, {"do": "python", "code": "len(bytearray(400_000_000))"})
    assert answer["value"]["errorType"] == "Runtime.OutOfMemory"


def test_a_runtime_that_is_killed(functions):
    answer = functions.invoke(functions.make(), {"do": "kill"})
    assert answer["value"]["errorType"] == "Runtime.ExitError"
    assert answer["value"]["errorMessage"].endswith("signal: killed")


def test_the_timeout(functions, docker_engine):
    name = functions.make(Timeout=1)
    answer = functions.invoke(name, {"do": "sleep", "seconds": 30})
    assert answer["value"]["errorType"] == "Sandbox.Timedout"
    made = [each.attrs["Config"]["Env"] for each in containers(docker_engine, functions.aws)]
    assert not any(f"AWS_LAMBDA_FUNCTION_NAME={name}" in variables for variables in made)


def test_what_it_prints_is_all_there(functions):
    name = functions.make()
    text = "\n".join(map(str, range(3000)))
    for _ in range(2):
        functions.invoke(name, {"do": "print", "text": text})
    messages = functions.messages(name)
    assert len(messages) == 2 * 3003
    assert messages[1:3001] == [f"{line}\n" for line in text.splitlines()]


def test_the_file_system_is_the_functions(functions):
    name = functions.make(EphemeralStorage={"Size": 600})
    for path in ("/var/task/x", "/opt/x", "/x", "/var/runtime/x"):
        answer = functions.invoke(name, {"do": "python", "code": f"open({path!r}, 'w')"})
        assert "Read-only file system" in answer["value"]["errorMessage"]
    assert python(functions, name, "open('/tmp/x', 'w').write('1')") == 1
    assert python(functions, name, "open('/tmp/x').read()") == "1"
    assert python(functions, name, "(lambda s: s.f_blocks * s.f_frsize)(os.statvfs('/tmp'))") == 600 << 20
    assert python(functions, name, "[os.getuid(), os.getcwd()]") == [993, "/var/task"]


@pytest.mark.parametrize(("memory", "quota"), [(128, 7236), (1769, 100_000), (3538, 200_000)])
def test_the_share_of_the_processors(functions, docker_engine, memory, quota):
    name = functions.make(MemorySize=memory)
    functions.invoke(name)
    (host,) = [
        each.attrs["HostConfig"]
        for each in containers(docker_engine, functions.aws)
        if f"AWS_LAMBDA_FUNCTION_NAME={name}" in each.attrs["Config"]["Env"]
    ]
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, quota)
    assert (host["Memory"], host["MemorySwap"]) == (memory << 20, memory << 20)


@pytest.fixture(scope="module")
def image(docker_engine):
    """An image with a function and AWS's runtime client, as users build them."""
    files = Files(link=False)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in files.runtime.iterdir():
            if not path.name.startswith("boto"):  # which is large
                tar.add(path, f"function/{path.name}")
        info = tarfile.TarInfo("function/module.py")
        info.size = len(MODULE)
        info.mode = 0o644
        tar.addfile(info, io.BytesIO(MODULE.encode()))
    files.close()
    base = engine.base_image(docker_engine, Recipe(base="host"), print)
    container = docker_engine.containers.create(base)
    try:
        container.put_archive("/", archive.getvalue())
        changes = ['ENTRYPOINT ["python3", "-m", "awslambdaric"]', 'CMD ["module.handler"]', "WORKDIR /function"]
        made = container.commit("lithops-mini-test/function", "latest", changes="\n".join(changes))
    finally:
        container.remove()
    yield "lithops-mini-test/function:latest"
    docker_engine.images.remove(made.id, force=True)


def test_a_function_that_is_an_image(functions, image):
    given = {"Code": {"ImageUri": image}, "PackageType": "Image", "Runtime": None, "Handler": None}
    name = functions.make(**given)
    assert [functions.invoke(name)["value"]["calls"] for _ in range(2)] == [1, 2]
    other = functions.make(**given, ImageConfig={"Command": ["module.absent"]})
    assert functions.invoke(other)["value"]["errorType"] == "Runtime.HandlerNotFound"


def test_memory_of_a_sandbox_that_is_full(functions):
    """Containers have the function's memory: the runner is killed, and the worker lives to tell."""

    def fill(mebibytes):
        return len([bytearray(os.urandom(1 << 10) * (1 << 10)) for _ in range(mebibytes)])

    account = Account(functions.aws)
    with lm.function_executor(**account.executor(max_workers=2, memory=256)) as executor:
        values = executor.get_result(executor.map(fill, [10, 600, 20], chunksize=1), throw_except=False)
        assert type(values[1]) is OutOfMemory
        assert (values[0], values[2]) == (10, 20)
        doubled = executor.map(fill, [400], runtime_memory=300)
        with pytest.raises(OutOfMemory):
            executor.get_result(doubled)
    with lm.function_executor(**account.executor(max_workers=2, on_oom="double")) as executor:
        assert executor.get_result(executor.map(fill, [400], runtime_memory=300)) == [400]


def test_the_end_in_the_middle_of_cold_starts(docker_engine, tmp_path):
    with start_aws(tmp_path, "--sandbox", "docker") as emulated:
        functions = Functions(emulated)
        name = functions.make()
        for _ in range(40):
            functions.send(name, {"do": "sleep", "seconds": 5})
        while len(containers(docker_engine, emulated)) < AT_ONCE:
            threading.Event().wait(0.05)
    assert containers(docker_engine, emulated) == []
