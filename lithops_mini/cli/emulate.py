"""lithops-mini emulate: a cloud on this machine, until Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from lithops_mini.cli.options import Callback, debug_option
from lithops_mini.destination import writing
from lithops_mini.emulators.aws import settings as aws_settings
from lithops_mini.emulators.knative import settings as knative_settings
from lithops_mini.emulators.openwhisk import settings as openwhisk_settings
from lithops_mini.emulators.settings import Numbers
from lithops_mini.errors import ConfigError

_REGION = "us-east-1"
_PROFILE = "emulator"
_OTHER_FILE = "choose another --profile-file"


class _Emulator(Protocol):
    @property
    def not_enforced(self) -> tuple[str, ...]: ...

    @property
    def url(self) -> str: ...

    def close(self) -> None: ...


Running = TypeVar("Running", bound=_Emulator)


@click.group()
def emulate() -> None:
    """Run an emulator of a cloud on this machine.

    \b
    Examples:
      lithops-mini emulate aws
      lithops-mini emulate aws --profile-file aws.yaml
      lithops-mini emulate openwhisk
      lithops-mini emulate knative
    """


def _options(limits: Any, faults: Any) -> Callable[[Callback], Callback]:
    """What every emulator can be told: where it listens, what it runs code in, and a flag for each number."""

    def add(function: Callback) -> Callback:
        for each in reversed((*fields(limits), *fields(faults))):
            flag, text = f"--{each.name.replace('_', '-')}", each.metadata["help"]
            kind = type(each.default)
            function = click.option(flag, type=kind, default=each.default, show_default=True, metavar="N", help=text)(
                function
            )
        for option in reversed(_COMMON):
            function = option(function)
        return debug_option(function)

    return add


_COMMON = (
    click.option(
        "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port on loopback; 0: a free one."
    ),
    click.option(
        "--sandbox",
        type=click.Choice(["docker", "process"]),
        help="What functions run in. Default: containers where a Docker engine answers, else processes.",
    ),
    click.option(
        "--profile-file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Write a profile 'emulator' into this configuration, once it answers; its other profiles stay.",
    ),
)


@emulate.command()
@_options(aws_settings.Limits, aws_settings.Faults)
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
    with _installed():
        from lithops_mini.emulators.aws.server import Emulator, Settings

    limits, faults = _chosen(aws_settings.Limits, given), _chosen(aws_settings.Faults, given)
    settings = Settings(port, sandbox or _best_sandbox(), limits, faults)

    def begin(emulator: Emulator) -> tuple[dict[str, str], dict[str, Any]]:
        keys = emulator.administrator
        place = {"AWS_ENDPOINT_URL": emulator.url, "AWS_DEFAULT_REGION": _REGION}
        account = {"endpoint_url": emulator.url, "region": _REGION}
        account |= {"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key}
        profile = {"backend": "aws_lambda", "storage": "aws_s3", "aws": account}
        return {**place, **keys.variables()}, profile

    _run("AWS", lambda: Emulator(settings, _tell), begin, profile_file)


@emulate.command()
@_options(openwhisk_settings.Limits, openwhisk_settings.Faults)
@click.option(
    "--network",
    type=click.Choice(["bridge", "host"]),
    default="bridge",
    show_default=True,
    help="Of containers of images; 'host': this machine's, where they listen on the port that PORT names.",
)
def openwhisk(port: int, sandbox: str | None, network: str, profile_file: str | None, **given: Any) -> None:
    """A local OpenWhisk: packages, actions, activations and their logs, limits, and tokens as of IBM's IAM.

    An emulator, whose actions run in containers of the Docker engine, by OpenWhisk's own contract for them. It prints
    its endpoint once it answers, and runs until Ctrl-C or SIGTERM. Then nothing of it is left.

    \b
    Examples:
      lithops-mini emulate openwhisk --port 3233
      lithops-mini emulate openwhisk --profile-file openwhisk.yaml
      lithops-mini emulate openwhisk --lose 0.1 --seed 7
    """
    with _installed():
        from lithops_mini.emulators.openwhisk.server import Emulator, Settings

    limits, faults = _chosen(openwhisk_settings.Limits, given), _chosen(openwhisk_settings.Faults, given)
    settings = Settings(port, sandbox or _best_sandbox(), network, limits, faults)

    def begin(emulator: Emulator) -> tuple[dict[str, str], dict[str, Any]]:
        guest, iam = emulator.identities.guest, emulator.identities.iam
        variables = {"__OW_API_HOST": emulator.url, "__OW_API_KEY": guest.key, "__OW_NAMESPACE": guest.namespace}
        place = {"endpoint": emulator.url, "namespace": guest.namespace, "api_key": guest.key}
        ibm = {"endpoint": emulator.url, "iam_endpoint": emulator.url, "namespace_id": iam.namespace}
        profile: dict[str, Any] = {"backend": "openwhisk", "storage": "localhost", "openwhisk": place, "ibm_cf": ibm}
        profile["ibm"] = {"iam_api_key": emulator.identities.iam_api_key}
        return variables, profile

    _run("OpenWhisk", lambda: Emulator(settings, _tell), begin, profile_file)


@emulate.command()
@_options(knative_settings.Limits, knative_settings.Faults)
@click.option(
    "--ingress-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port on loopback where services are called; 0: a free one.",
)
@click.option(
    "--network",
    type=click.Choice(["host", "bridge"]),
    default="host",
    show_default=True,
    help="Of containers; 'host': this machine's, where they listen on the port that PORT names.",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="A directory that containers see too, at the same path; they run as you then. May be repeated.",
)
def knative(
    port: int,
    ingress_port: int,
    sandbox: str | None,
    network: str,
    mounts: tuple[str, ...],
    profile_file: str | None,
    **given: Any,
) -> None:
    """A local Kubernetes with Knative Serving: an API server, and services that run and scale from and to zero.

    An emulator, whose pods are containers of the Docker engine. It prints the address of its API server once that
    answers, and runs until Ctrl-C or SIGTERM. Then nothing of it is left.

    \b
    Examples:
      lithops-mini emulate knative --port 6443
      lithops-mini emulate knative --profile-file knative.yaml
      lithops-mini emulate knative --crash 0.1 --seed 7
    """
    with _installed():
        from lithops_mini.emulators.knative.server import Emulator, Settings

    kind = sandbox or _best_sandbox()
    storage = Path("~/.lithops_mini/storage").expanduser()
    if profile_file and kind == "docker":  # so that what it configures works
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts += (str(storage),)
    settings = Settings(
        port,
        ingress_port,
        kind,
        network,
        mounts,
        Path(profile_file).absolute().with_suffix(".kubeconfig") if profile_file else None,
        _chosen(knative_settings.Limits, given),
        _chosen(knative_settings.Faults, given),
    )

    def begin(emulator: Emulator) -> tuple[dict[str, str], dict[str, Any]]:
        section: dict[str, Any] = {"kubeconfig": str(emulator.kubeconfig), "ingress": emulator.ingress, "push": False}
        section["shared_files"] = True
        if kind == "process":
            section["image"] = "none:needed"
        profile = {"backend": "knative", "storage": "localhost", "localhost": {"storage_path": str(storage)}}
        return {"KUBECONFIG": str(emulator.kubeconfig), "INGRESS": emulator.ingress}, {**profile, "knative": section}

    _run("Knative", lambda: Emulator(settings), begin, profile_file)


def _run(
    what: str,
    start: Callable[[], Running],
    begin: Callable[[Running], tuple[dict[str, str], dict[str, Any]]],
    profile_file: str | None,
) -> None:
    """Start an emulator, say where it is, and end it when a signal comes.

    ``begin`` returns the variables that lead programs to it, and a profile that leads us to it.
    """
    if profile_file:
        _check_place(Path(profile_file))
    with _signals() as signals:
        emulator = start()
        try:
            variables, profile = begin(emulator)
            if profile_file:
                _write_profile(Path(profile_file), profile)
            click.echo(f"An emulator of {what} answers at {emulator.url}, until Ctrl-C or SIGTERM.")
            for name, value in variables.items():
                click.echo(f"export {name}={value}")
            for line in emulator.not_enforced:
                click.echo(f"Not enforced: {line}.")
            signals.read(1)
        finally:
            emulator.close()


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _chosen(kind: type[Numbers], given: dict[str, Any]) -> Numbers:
    return kind(**{each.name: given[each.name] for each in fields(kind)})


@contextmanager
def _installed() -> Iterator[None]:
    """What cannot be imported in the ``with`` block is said to be installed."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"the emulator needs packages that are not installed ({error}): pip install 'lithops_mini[emulators]'"
        ) from error


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


def _check_place(path: Path) -> None:
    """Refuse now what could not be written once the emulator answers."""
    from lithops_mini.cli.profile_file import read_profile

    with writing(path, _OTHER_FILE):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such directory", str(path.parent))
        read_profile(path, _PROFILE)


def _write_profile(path: Path, profile: dict[str, Any]) -> None:
    from lithops_mini.cli.profile_file import write_profile
    from lithops_mini.config.source import read_file

    with writing(path, _OTHER_FILE):
        write_profile(path, _PROFILE, profile)
        default = read_file(str(path)).get("default_profile")
    if default != _PROFILE:
        click.echo(f"Take -p {_PROFILE}: the default profile of {path} is {default}.", err=True)


COMMANDS = [emulate]
