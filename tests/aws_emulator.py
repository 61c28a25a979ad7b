"""A local AWS for the tests: `lithops-mini emulate aws` in a process of its own, and functions to run there."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from botocore.config import Config

from lithops_mini.storage.s3_session import new_session

RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


MODULE = """
import os, signal, sys, time
calls = 0

def handler(event, context):
    global calls
    calls += 1
    if "file" in event:
        with open(event["file"], "a") as file:
            file.write(context.aws_request_id + "\\n")
    match event.get("do"):
        case "raise":
            raise ValueError("no")
        case "exit":
            os._exit(3)
        case "end":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "sleep":
            time.sleep(event["seconds"])
        case "print":
            print(event["text"])
        case "large":
            return "x" * (event["size"] - 2)
        case "length":
            return len(event["text"])
        case "environment":
            return {name: os.environ.get(name) for name in event["names"]}
        case "await":
            while not os.path.exists(event["until"]):
                time.sleep(0.01)
        case "import":
            return __import__(event["name"]).__name__
        case "value":
            return __import__(event["name"]).VALUE
        case "python":
            return eval(event["code"])
    return {"calls": calls, "pid": os.getpid(), "request": context.aws_request_id}
"""

_numbers = itertools.count()


def policy(*statements: tuple[str | list[str], str | list[str]]) -> str:
    """A document that allows actions on resources."""
    allowed = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed})


def zipped(files: Mapping[str, str]) -> bytes:
    """A zip of modules that everybody may read."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, text)
    return archive.getvalue()


class Emulated:
    """A running emulator."""

    def __init__(self, process: subprocess.Popen[str], profile: Path, lines: list[str]) -> None:
        self.process = process
        self.profile = profile
        self.lines = lines  # what it has printed
        self.account: dict[str, str] = yaml.safe_load(profile.read_text())["profiles"]["emulator"]["aws"]
        self.url = self.account["endpoint_url"]
        self._clients: dict[str, Any] = {}

    def client(self, service: str, **keys: Any) -> Any:
        """A client for the administrator, or for who has the keys, without retries unless a ``config`` says so."""
        if not keys and service in self._clients:
            return self._clients[service]
        names = ("access_key_id", "secret_access_key")
        given = keys or {f"aws_{name}": self.account[name] for name in names}
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=50, read_timeout=60)
        place = {"endpoint_url": self.url, "region_name": self.account["region"]}
        client = new_session("botocore").create_client(service, **place, **{"config": config, **given})
        if not keys:
            self._clients[service] = client
        return client

    def own(self, name: str, method: str = "GET", **values: Any) -> Any:
        """What the emulator says of itself; an error of its is returned too."""
        body = json.dumps(values).encode() if values else None
        request = urllib.request.Request(f"{self.url}/_emulator/{name}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    def settle(self, limit: float = 30.0) -> None:
        """Return when no event waits or runs."""
        deadline = time.monotonic() + limit
        while self.own("state")["events"]:
            assert time.monotonic() < deadline, "events are still there"
            threading.Event().wait(0.01)

    def role(self, name: str, document: str | None = None, trust: Mapping[str, Any] = TRUST) -> str:
        """The ARN of a new role."""
        iam = self.client("iam")
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        if document:
            iam.put_role_policy(RoleName=name, PolicyName="only", PolicyDocument=document)
        return arn

    def user(self, name: str, document: str) -> dict[str, str]:
        """The keys of a new user."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


@contextmanager
def start_aws(directory: Path, *flags: str) -> Iterator[Emulated]:
    """An emulator with these flags, ended with SIGTERM."""
    profile = directory / "emulator.yaml"
    command = [sys.executable, "-m", "lithops_mini", "emulate", "aws", "--profile-file", str(profile), *flags]
    with open(directory / "emulator.log", "w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ)
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(5)]
            assert lines[0].startswith("An emulator of AWS answers at "), Path(errors.name).read_text()
            yield Emulated(process, profile, lines)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.stdout.close()
            process.wait(60)
        assert process.returncode == 0
        assert "Traceback" not in Path(errors.name).read_text(), Path(errors.name).read_text()


class Functions:
    """An emulator, and functions that are made there."""

    def __init__(self, aws: Emulated) -> None:
        self.aws = aws
        self.role = aws.role("worker", policy((["s3:*", "logs:*"], "*")))
        self.client = aws.client("lambda")

    def make(self, module: str = MODULE, **options: Any) -> str:
        """The name of a new function."""
        name = f"function-{next(_numbers)}"
        given = {"Role": self.role, "Runtime": RUNTIME, "Handler": "module.handler", "Timeout": 10, "MemorySize": 256}
        if "ImageUri" not in options.get("Code", {}):
            given["Code"] = {"ZipFile": zipped({"module.py": module})}
        given = {key: value for key, value in (given | options).items() if value is not None}
        self.client.create_function(FunctionName=name, **given)
        return name

    def invoke(self, name: str, event: Any = None, **options: Any) -> dict[str, Any]:
        """The answer, with its payload read: ``value``."""
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(event or {}), **options)
        answer["value"] = json.loads(answer.pop("Payload").read() or "null")
        return answer

    def send(self, name: str, event: Any = None) -> str:
        """Invoke it asynchronously; return the request's id."""
        return self.invoke(name, event, InvocationType="Event")["ResponseMetadata"]["RequestId"]

    def messages(self, name: str) -> list[str]:
        """What is in the log of a function, in order."""
        found = self.aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")
        return [event["message"] for event in found["events"]]
