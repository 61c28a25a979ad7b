"""A Docker engine: connections to it, whose containers it has, and what image builds ask of it, with errors as ours."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import docker
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.transport import UnixHTTPAdapter
from docker.utils import parse_host
from requests.exceptions import RequestException

from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import host
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.recipe import HOST, Recipe, this_python
from lithops_mini.runtimes.wheels import Target

BUILD_LABEL = "lithops-mini.build"
"""The label with a build's own number, on everything that it leaves in the engine."""

_CONNECTIONS = 4096  # that are kept: each container may have one that waits for its end
_SHOWN = 20  # lines of the log of a build that has failed
_QUIET = 3  # times nothing new is found before a build that was broken off is taken to have stopped
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # the engine's words for what uname says
_PROBE = """
import os, platform, sys
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except ValueError:
    libc = "musl 1.2"
print("%d.%d" % sys.version_info[:2], platform.machine(), libc)
"""


class _Adapter(UnixHTTPAdapter):
    """One pool of connections. The SDK has one for each URL, keeps the last 25, and closes the others while in use."""

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:  # noqa: ARG002 - one for all of them
        return super().get_connection("http+docker://localhost", proxies)


def connect(environment: Mapping[str, str], timeout: int) -> DockerClient:
    """A client of the engine that ``DOCKER_HOST`` names, or else this machine's. Raises what the SDK does.

    ``timeout``: seconds for an answer.
    """
    client = docker.from_env(timeout=timeout, environment=environment)
    if client.api.base_url.startswith("http+docker://"):
        client.api.get_adapter(client.api.base_url).close()
        place = str(parse_host(environment.get("DOCKER_HOST")))
        client.api.mount("http+docker://", _Adapter(place, timeout, max_pool_size=_CONNECTIONS))
    return client


def identity(pid: int) -> str:
    """What tells a process from all others, slashes between: host, its boot, number, when it was started."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # it has ended, or there is no /proc
        boot = started = "unknown"
    return f"{socket.gethostname()}/{boot}/{pid}/{started}"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """The SDK's errors in the ``with`` block as ``InvocationError``: the engine cannot be reached, or refused."""
    try:
        yield
    except APIError as error:
        why = error.explanation or str(error)
        raise InvocationError(f"the Docker engine refused to {doing}: {why}", reason=Reason.REFUSED) from error
    except (DockerException, RequestException) as error:
        text = f"the Docker engine could not be asked to {doing}: {error}"
        raise InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True) from error


def inspect(client: DockerClient, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image; ``None`` if it has none of this name."""
    with translated(f"look for the image {name}"):
        try:
            found: dict[str, Any] = client.api.inspect_image(name)  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None
        return found


def base_image(client: DockerClient, recipe: Recipe, tell: Tell, *, renew: bool = False) -> str:
    """The name of the recipe's base image, which is pulled or made if the engine has none, or with ``renew``.

    ``ConfigError`` if neither can be done.
    """
    if recipe.base == HOST:
        return _host_image(client, recipe, tell)
    name = recipe.base_name
    there = inspect(client, name) is not None
    if there and not renew:
        return name
    tell(f"Pulling {name}")
    try:
        client.images.pull(name)
    except (DockerException, RequestException) as error:
        if not there:
            raise ConfigError(
                f"the base image {name} is not on the Docker engine and cannot be pulled; build with '--base IMAGE' "
                "from one that is there, or with '--base host' from the Python of this machine"
            ) from error
        tell(f"{name} cannot be pulled; the one that is there is used")
    return name


def _host_image(client: DockerClient, recipe: Recipe, tell: Tell) -> str:
    if recipe.python != this_python():
        raise ConfigError(f"the base 'host' has this machine's Python {this_python()}, not {recipe.python}")
    name = host.name()
    if inspect(client, name) is None:
        with translated("tell its version"):
            theirs = client.version()["Arch"]
        if _MACHINES.get(host.MACHINE, host.MACHINE) != theirs:
            raise ConfigError(f"the base 'host' is for {host.MACHINE}, and the engine's machine is {theirs}")
        tell(f"Packing Python {this_python()} of this machine into {name}")
        repository, _, tag = name.partition(":")
        with tempfile.TemporaryFile() as archive, translated(f"import {name}"):
            host.pack(archive)
            client.api.import_image_from_data(archive, repository=repository, tag=tag, changes=list(host.CHANGES))
    return name


def probe(client: DockerClient, image: str, build: str) -> Target:
    """What the Python of an image is, found by running it. ``ConfigError`` if there is none."""
    with translated(f"run {image}"):
        container = client.containers.create(
            image, ["-c", _PROBE], entrypoint=["python3"], network_disabled=True, labels={BUILD_LABEL: build}
        )
        try:
            try:
                container.start()
            except APIError as error:
                raise ConfigError(f"the image {image} has no python3 that could be run: {error.explanation}") from error
            code = container.wait()["StatusCode"]
            output = container.logs().decode(errors="replace")
        finally:
            container.remove(force=True)
    if code != 0:
        raise ConfigError(f"the python3 of the image {image} does not work: {output.strip()[-500:]}")
    python, machine, libc, version = output.split()
    major, minor = version.split(".")[:2]
    return Target(python, machine, libc, (int(major), int(minor)))


def build(
    client: DockerClient,
    context: IO[bytes],
    tell: Tell,
    *,
    dockerfile: str,
    arguments: Mapping[str, str],
    offline: bool = False,
) -> str:
    """Build the archive ``context`` and return the image's id. ``ConfigError`` with the end of the log if it fails.

    ``offline``: without network, and without what other builds have left.
    """
    log: deque[str] = deque(maxlen=_SHOWN)
    image = ""
    with translated("build an image"):
        messages = client.api.build(
            fileobj=context,
            custom_context=True,
            dockerfile=dockerfile,
            buildargs=dict(arguments),
            network_mode="none" if offline else None,
            nocache=offline,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for message in messages:
            if "error" in message:
                lines = "".join(f"\n  {line}" for line in log)
                raise ConfigError(f"{dockerfile} cannot be built: {message['error'].strip()}; its log ends with{lines}")
            image = message.get("aux", {}).get("ID", image)
            for line in message.get("stream", message.get("status", "")).splitlines():
                if line.strip():
                    log.append(line.rstrip())
                if line.startswith("Step "):
                    tell(line.strip())
    return image


def discard(client: DockerClient, build: str) -> None:
    """Remove what a build has left that came to no end: containers, and images without a name."""
    # The engine ends a build some time after its client has gone, and does not say when.
    label: dict[str, str | list[str] | bool] = {"label": f"{BUILD_LABEL}={build}"}
    quiet = 0
    with translated("remove what a build has left"):
        while quiet < _QUIET:
            containers = client.containers.list(all=True, filters=label, ignore_removed=True)
            images = client.api.images(filters={**label, "dangling": True}, quiet=True)
            for container in containers:
                _remove(container.remove, force=True)
            for image in images:
                _remove(client.api.remove_image, image, force=True)
            quiet = 0 if containers or images else quiet + 1
            threading.Event().wait(0.1)


def _remove(remove: Any, *arguments: Any, **options: Any) -> None:
    try:
        remove(*arguments, **options)
    except APIError as error:
        if error.status_code not in (404, 409):  # it is gone, or the engine is about to remove it
            raise
