"""Calls in warm containers of a Docker engine, on this machine or another."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

import docker
import docker.errors
from docker.types import DeviceRequest, LogConfig, Mount

from lithops_mini.compute import docker_tail
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.container import ENGINE_ERRORS, Container
from lithops_mini.compute.ssh import Tunnel
from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes import engine, image
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds

logger = logging.getLogger("lithops_mini.docker")

_TIMEOUT = 60  # seconds for an answer of the engine
# What a container holds besides its call, in bytes: the worker that serves it.
_OWN_MEMORY = 64 << 20
# Where no uid of ours has to be the same inside: nobody.
_NOBODY = "65534:65534"
_LABEL, _OWNER_LABEL = "lithops-mini", "lithops-mini.owner"


@dataclass(frozen=True)
class DockerOptions:
    """Settings of the docker compute backend."""

    max_workers: int | None = field(
        default=None,
        metadata={"help": "Containers at once; by default one for each processor of the engine.", "ge": 1},
    )
    host: str | None = field(
        default=None,
        metadata={
            "help": "The engine: unix:///path, ssh://user@host or tcp://host:2376; by default DOCKER_HOST, else the"
            " engine of this machine. DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are heeded."
        },
    )
    runtime: str | None = field(
        default=None,
        metadata={"help": "Image of the workers, made by `lithops-mini runtime build`; by default the one that fits."},
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "Image with Python that the runtime is built on; by default python:<version>-slim. `host` packs"
            " the interpreter of this machine."
        },
    )
    dockerfile: str | None = field(
        default=None, metadata={"help": "A Dockerfile whose image the runtime is built on, instead of base."}
    )
    requirements: str | None = field(
        default=None, metadata={"help": "A requirements.txt: packages that are installed in the runtime."}
    )
    cpus: float | None = field(
        default=None, metadata={"help": "Processors a container may use; by default all.", "gt": 0}
    )
    pids: int = field(default=1024, metadata={"help": "Processes and threads a container may have.", "ge": 16})
    disk: int = field(
        default=1024,
        metadata={"help": "MiB a call may write to /tmp, the only place where it may; they count as memory.", "ge": 16},
    )
    network: str = field(
        default="bridge",
        metadata={
            "help": "Network of the containers: bridge, none, host or the name of one.",
            "min_length": 1,
        },
    )
    gpus: str | None = field(
        default=None,
        metadata={"help": "GPUs of a container: all, or how many.", "pattern": "^(all|[1-9][0-9]*)$"},
    )


class DockerCompute(ComputeBackend):
    """A pool of containers, started as they are needed and kept until ``close``.

    A container has one call at a time, no capabilities and no way to more privileges, a root file system that is
    read-only, limited memory and processes, and of this machine's files the storage at most.
    """

    Options = DockerOptions
    # Streams have no limit; what is larger is written to storage once and read there, instead of copied many times.
    max_payload = 1 << 20
    max_reply = 1 << 20
    shows_output: ClassVar[bool] = True
    composes: ClassVar[bool] = False  # a runtime has the worker only, and no engine

    def __init__(self, options: DockerOptions) -> None:
        self._options = options
        host = options.host or os.environ.get("DOCKER_HOST", "")
        self._tunnel = Tunnel(host) if host.startswith("ssh://") else None
        try:
            self._client = _connect(self._tunnel.url if self._tunnel else options.host, host)
            told = self._client.info()
        except BaseException:
            if self._tunnel:
                self._tunnel.close()
            raise
        self._concurrency: int = options.max_workers or told["NCPU"]
        self.usual_memory: int = told["MemTotal"] // self._concurrency - _OWN_MEMORY
        self.most_memory = told["MemTotal"] - _OWN_MEMORY
        self._needs = WorkerNeeds()
        self._image = options.runtime or ""
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[Container] = []
        self._all: set[Container] = set()
        self._lost: set[Container] = set()  # those that could not be removed yet
        self._starting = 0
        self._numbers = itertools.count()
        self._name = f"lithops-mini-{os.urandom(4).hex()}"
        self._owner = engine.identity(os.getpid())

    @property
    def concurrency(self) -> int:
        return self._concurrency

    @property
    def reaches_files(self) -> bool:
        return self._tunnel is None and self._client.api.base_url.startswith(("http+docker://localhost", "npipe:"))

    def deploy(self, needs: WorkerNeeds) -> None:
        self._needs = needs
        self._check_endpoint()
        if needs.paths and self.reaches_files and os.getuid() == 0:
            logger.info("you are root, and so are calls in containers, without root's capabilities")
        if self._options.runtime:
            image.check(self._client, self._options.runtime)
        else:
            recipe = self._images().recipe(needs.packages)
            self._image = image.ensure(self._client, recipe, _Teller(recipe.name)).name
        self._reap()

    def runtimes(self, bucket: str) -> image.Images:
        return self._images()

    def _images(self) -> image.Images:
        options = self._options
        recipe = Recipe(base=options.base or "", dockerfile=options.dockerfile, requirements=options.requirements)
        return image.Images(self._client, recipe, options.runtime)

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        limit = (self.usual_memory if activation.memory is None else activation.memory) + _OWN_MEMORY
        try:
            container = self._take(limit)
        except ENGINE_ERRORS as error:
            raise self._translated(error) from error
        healthy = False
        try:
            reply = container.run(payload, activation)
            healthy = True
            return reply
        except InvocationError:
            if self._closed:
                raise InvocationError("the docker backend was closed", reason=Reason.CANCELLED) from None
            raise
        finally:
            activation.end()
            self._give_back(container, healthy)

    def tail(self, take: Callable[[str, int, str], object]) -> AbstractContextManager[None]:
        return docker_tail.tail(self._client, f"{_LABEL}=worker", take)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            left = list(self._all | self._lost)
            self._idle.clear()
        if left:
            with ThreadPoolExecutor(min(16, len(left))) as pool:
                list(pool.map(self._remove, left))
        if self._lost:
            names = ", ".join(sorted(container.name for container in self._lost))
            logger.warning("%s could not be removed; the next executor of this machine removes them", names)
        self._client.close()
        if self._tunnel:
            self._tunnel.close()

    # -- containers

    def _take(self, memory: int) -> Container:
        """A container that is idle, or a new one."""
        with self._lock:
            if self._closed:
                raise InvocationError("the docker backend was closed", reason=Reason.CANCELLED)
            if self._idle:
                # The one used last is the warmest.
                fitting = (n for n in reversed(range(len(self._idle))) if self._idle[n].memory == memory)
                container = self._idle.pop(next(fitting, -1))
            elif len(self._all) + self._starting >= self._concurrency:
                text = f"all {self._concurrency} containers are busy"
                raise InvocationError(text, reason=Reason.THROTTLED, retryable=True)
            else:
                container = None
                self._starting += 1
        if container is None:
            return self._start(memory)
        try:
            container.limit_memory(memory)
        except BaseException:
            self._give_back(container, healthy=False)
            raise
        return container

    def _start(self, memory: int) -> Container:
        try:
            name = f"{self._name}-{next(self._numbers)}"
            setup = {
                "name": f"docker/{name.removeprefix('lithops-mini-')}",
                "environment": {**self._needs.found(), **self._needs.environment},
                "show_output": logger.isEnabledFor(logging.DEBUG),
            }
            container = Container(self._client, self._arguments(name, memory), memory, setup)
        finally:
            with self._lock:
                self._starting -= 1
        with self._lock:
            self._all.add(container)
            closed = self._closed
        try:
            if closed:
                raise InvocationError("the docker backend was closed", reason=Reason.CANCELLED)
            container.start()
        except BaseException:
            self._remove(container)
            raise
        return container

    def _give_back(self, container: Container, healthy: bool) -> None:
        with self._lock:
            if healthy and not self._closed:
                self._idle.append(container)
                return
        self._remove(container)

    def _remove(self, container: Container) -> None:
        with self._lock:
            self._all.discard(container)
            self._lost.add(container)
        try:
            container.remove()
        except ENGINE_ERRORS as error:  # an engine that restarts will be there when we close
            logger.info("the container %s cannot be removed now: %s", container.name, error)
        else:
            with self._lock:
                self._lost.discard(container)

    def _arguments(self, name: str, memory: int) -> dict[str, Any]:
        """What the SDK's ``create_container`` is told."""
        options, needs = self._options, self._needs
        paths = needs.paths if self.reaches_files else ()
        host = self._client.api.create_host_config(
            init=True,
            log_config=LogConfig(type="none"),  # messages travel on the standard streams
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=None if options.cpus is None else round(options.cpus * 1e9),
            pids_limit=options.pids,
            network_mode=options.network,
            read_only=True,
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={options.disk}m"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mounts=[Mount(p.path, p.path, type="bind", read_only=not p.writable) for p in paths],
            device_requests=None if options.gpus is None else [_gpus(options.gpus)],
        )
        return {
            "image": self._image,
            "name": name,
            "hostname": name,
            "user": f"{os.getuid()}:{os.getgid()}" if paths else _NOBODY,
            "working_dir": "/tmp",
            "environment": {"HOME": "/tmp", "TMPDIR": "/tmp"},
            "stdin_open": True,
            "healthcheck": {"test": ["NONE"]},  # the client itself asks whether it is there
            "labels": {_LABEL: "worker", _OWNER_LABEL: self._owner},
            "host_config": host,
        }

    def _check_endpoint(self) -> None:
        host = urlsplit(self._needs.endpoint or "").hostname or ""
        if self._options.network != "host" and (host == "localhost" or host.startswith("127.") or host == "::1"):
            raise ConfigError(
                f"containers cannot reach the storage at {self._needs.endpoint}, which is this machine as seen by"
                " itself; set docker.network to host, or let the storage listen on an address that containers see"
            )

    def _translated(self, error: Exception) -> InvocationError:
        if isinstance(error, InvocationError):
            return error
        if isinstance(error, docker.errors.ImageNotFound):
            text = f"the runtime {self._image} is gone from the engine; lithops-mini runtime build makes it again"
            return InvocationError(text, reason=Reason.REFUSED)
        if isinstance(error, docker.errors.APIError):
            text = f"the Docker engine refused a container: {error.explanation or error}"
            return InvocationError(text, reason=Reason.REFUSED, retryable=error.is_server_error())
        text = f"the Docker engine does not answer: {error}"
        return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)

    # -- what others left

    def _reap(self) -> None:
        """Remove the containers of clients of this machine that have ended without doing so."""
        host, *_ = self._owner.split("/")
        for found in self._client.containers.list(all=True, ignore_removed=True, filters={"label": f"{_LABEL}=worker"}):
            owner = found.labels.get(_OWNER_LABEL, "").split("/")
            if owner[0] == host and len(owner) == 4 and "/".join(owner) != engine.identity(int(owner[2])):
                logger.info("removing the container %s: its client has ended", found.name)
                with suppress(docker.errors.NotFound):
                    found.remove(force=True, v=True)


class _Teller:
    """Says once what takes so long, and logs the steps."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def __call__(self, line: str) -> None:
        if self._name is not None:
            logger.warning("building the runtime %s; that is done once", self._name)
            self._name = None
        logger.info("%s", line)


def _connect(url: str | None, named: str) -> docker.DockerClient:
    """A client of the engine at ``url``, or where the environment says. An error calls it what the user has."""
    environment = dict(os.environ) | ({"DOCKER_HOST": url} if url else {})
    try:
        return engine.connect(environment, _TIMEOUT)
    except (*ENGINE_ERRORS, ValueError) as error:
        where = named or "of this machine"
        raise ConfigError(
            f"no Docker engine {where} answers ({error}): start it, or set docker.host or DOCKER_HOST"
        ) from error


def _gpus(wanted: str) -> DeviceRequest:
    return DeviceRequest(count=-1 if wanted == "all" else int(wanted), capabilities=[["gpu"]])
