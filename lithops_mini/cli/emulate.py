"""lithops-mini emulate: a cloud on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import FileIO
from pathlib import Path
from typing import Any

import click

from lithops_mini.cli.options import Callback, debug_option
from lithops_mini.emulators.aws.settings import Faults, Limits
from lithops_mini.errors import ConfigError

_REGION = "us-east-1"


@click.group()
def emulate() -> None:
    """Run an emulator of a cloud on this machine.

    \b
    Examples:
      lithops-mini emulate aws
      lithops-mini emulate aws --profile-file aws.yaml
    """


def _number_options(function: Callback) -> Callback:
    """A flag for each of the limits and the faults."""
    for each in reversed((*fields(Limits), *fields(Faults))):
        flag, text = f"--{each.name.replace('_', '-')}", each.metadata["help"]
        kind = type(each.default)
        function = click.option(flag, type=kind, default=each.default, show_default=True, metavar="N", help=text)(
            function
        )
    return function


@emulate.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port on loopback; 0: a free one.")
@click.option(
    "--sandbox",
    type=click.Choice(["docker", "process"]),
    help="What functions run in. Default: containers where a Docker engine answers, else processes.",
)
@click.option(
    "--profile-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write a configuration with a profile 'emulator' there, once it answers.",
)
@_number_options
@debug_option
def aws(port: int, sandbox: str | None, profile_file: str | None, **given: Any) -> None:
    """A local AWS: S3, IAM, STS, Lambda, CloudWatch Logs, CloudFormation, DynamoDB, EventBridge.

    An emulator, made of moto and of AWS's own runtime client for Python. It prints its endpoint once it answers, and
    runs until Ctrl-C or SIGTERM. Then nothing of it is left.

    \b
    Examples:
      lithops-mini emulate aws --port 4566
      lithops-mini emulate aws --profile-file aws.yaml
      lithops-mini emulate aws --crash 0.1 --seed 7
    """
    try:
        from lithops_mini.emulators.aws.server import Emulator, Settings
    except ImportError as error:
        raise ConfigError(
            f"the emulator needs packages that are not installed ({error}): pip install 'lithops_mini[emulators]'"
        ) from error

    limits = Limits(**{each.name: given[each.name] for each in fields(Limits)})
    faults = Faults(**{each.name: given[each.name] for each in fields(Faults)})
    settings = Settings(port, sandbox or _best_sandbox(), limits, faults)
    with _signals() as signals:
        emulator = Emulator(settings, lambda line: click.echo(line, err=True))
        try:
            keys = emulator.administrator
            if profile_file:
                _write_profile(Path(profile_file), emulator.url, keys.access_key_id, keys.secret_access_key)
            click.echo(f"An emulator of AWS answers at {emulator.url}, until Ctrl-C or SIGTERM.")
            place = {"AWS_ENDPOINT_URL": emulator.url, "AWS_DEFAULT_REGION": _REGION}
            for name, value in {**place, **keys.variables()}.items():
                click.echo(f"export {name}={value}")
            for line in emulator.not_enforced:
                click.echo(f"Not enforced: {line}.")
            signals.read(1)
        finally:
            emulator.close()


@contextmanager
def _signals() -> Iterator[FileIO]:
    """A file that has a byte for each SIGTERM and SIGINT.

    A signal may come to any thread, and a main thread that waits for a lock would not notice.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(write)
    try:
        with open(read, "rb", buffering=0) as file:
            yield file
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)


def _best_sandbox() -> str:
    try:
        from lithops_mini.emulators.containers import connect

        connect().close()
    except (ConfigError, ImportError):
        return "process"
    return "docker"


def _write_profile(path: Path, url: str, access_key_id: str, secret_access_key: str) -> None:
    import yaml

    account = {"endpoint_url": url, "region": _REGION}
    account |= {"access_key_id": access_key_id, "secret_access_key": secret_access_key}
    profile = {"backend": "aws_lambda", "storage": "aws_s3", "aws": account}
    document = {"default_profile": "emulator", "profiles": {"emulator": profile}}
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(beside, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        yaml.safe_dump(document, file, sort_keys=False)
    beside.replace(path)  # whoever waits for it finds it complete


COMMANDS = [emulate]
