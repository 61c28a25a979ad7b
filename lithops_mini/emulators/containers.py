"""Containers of a Docker engine of this machine in which an emulator runs code of others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import DockerClient
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from lithops_mini.emulators.processes import End, signal_name
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import engine
from lithops_mini.runtimes.base import Tell
from lithops_mini.runtimes.recipe import HOST, Recipe

LABEL = "lithops-mini"
"""Every container has this label, with the value ``"emulator"``."""
OWNER = "lithops-mini.process"
"""And this one: what tells the emulator from all others, those included that had its process's number before."""
AT_ONCE = 2 * (os.cpu_count() or 1)
"""So many containers are started at a time: with more, none is ready before nearly all are."""
ERRORS = (DockerException, RequestException)
"""What the SDK raises if the engine refuses, or does not answer."""

_TIMEOUT = 600  # seconds for an answer of the engine


class Ending(DockerException):
    """No container is started any more."""


class Engine:
    """The engine of this machine, for the containers of one emulator.

    ``ConfigError`` if none answers, or it is another machine's. Removes what emulators have left that were killed.
    """

    def __init__(self) -> None:
        self.client = connect()
        self.api = self.client.api
        self.owner = f"{engine.identity(os.getpid())}/{os.urandom(4).hex()}"
        self._changed = threading.Condition()
        self._starting = 0
        self._ending = False
        with engine.translated("remove what killed emulators have left"):
            self._remove_orphans()

    def base_image(self, tell: Tell) -> str:
        """The image for functions that are zips: this machine's Python, packed when it is first asked for."""
        return engine.base_image(self.client, Recipe(base=HOST), tell)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """A container is made and started in the ``with`` block, which begins when not too many others are.

        ``Ending`` after ``end``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._starting < AT_ONCE)
            if self._ending:
                raise Ending("the emulator ends, and starts no container any more")
            self._starting += 1
        try:
            yield
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify()

    def end(self) -> None:
        """Start no container any more; who waits for its turn is told so."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def close(self) -> None:
        """Remove every container that is left, and leave the engine."""
        for found in self._containers(f"{OWNER}={self.owner}"):
            self.remove(found["Id"])
        self.client.close()

    def remove(self, container: str) -> None:
        """Remove the container of this id; also one that is gone, or that somebody is removing."""
        try:
            self.api.remove_container(container, force=True)
        except APIError as error:
            if error.status_code not in (404, 409):
                raise

    def _remove_orphans(self) -> None:
        host, *_ = self.owner.split("/")
        for found in self._containers(f"{LABEL}=emulator"):
            owner = found["Labels"].get(OWNER, "").split("/")
            # Of a process of another host, which has an engine with us, it is not known here whether it lives.
            if len(owner) == 5 and owner[0] == host and "/".join(owner[:4]) != engine.identity(int(owner[2])):
                self.remove(found["Id"])

    def _containers(self, label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.containers(all=True, filters={"label": label})
        return found


def connect() -> DockerClient:
    """A client of the engine of this machine. ``ConfigError`` if none answers, or it is another machine's."""
    try:
        client = engine.connect(os.environ, _TIMEOUT)
        client.ping()
    except ERRORS as error:
        raise ConfigError(f"no Docker engine answers ({error}); start one, or take --sandbox process") from error
    if not client.api.base_url.startswith(("http+docker://", "unix://")):
        client.close()
        raise ConfigError(
            "the Docker engine is another machine's, and sandboxes share files with it: unset DOCKER_HOST"
        )
    return client


class Container:
    """A container that is made, and started when ``start`` says so: both while ``engine.starting()``."""

    def __init__(self, engine: Engine, image: str, host_config: Any, **settings: Any) -> None:
        """``settings``: those of the engine's API for a new container."""
        self._engine = engine
        labels = {LABEL: "emulator", OWNER: engine.owner}
        made = engine.api.create_container(image, labels=labels, host_config=host_config, **settings)
        self.id: str = made["Id"]
        self._begun = 0.0  # when it was given what it runs now, by the clock

    def begin(self) -> None:
        """It is given something to run: it does not end for lack of memory because it has lacked some before."""
        self._begun = time.time()

    def start(self) -> dict[str, Any]:
        """Start it, and return what the engine knows of it then."""
        self._engine.api.start(self.id)
        found: dict[str, Any] = self._engine.api.inspect_container(self.id)
        return found

    def wait(self) -> End:
        """Return when it has ended."""
        code = self._engine.api.wait(self.id, timeout=None)["StatusCode"]
        # Of a container in which any process was ever out of memory, the engine says so whatever has ended it.
        if self._engine.api.inspect_container(self.id)["State"]["OOMKilled"] and self._lacks_memory():
            return End("signal: killed", out_of_memory=True, code=code)
        if code > 128:
            return End(f"signal: {signal_name(code - 128)}", code=code)
        return End(f"exit status {code}" if code else "", code=code)

    def _lacks_memory(self) -> bool:
        """Whether a process in it was out of memory since ``begin``."""
        asked: dict[str, Any] = {"since": self._begun, "until": time.time()}
        events = self._engine.api.events(**asked, filters={"container": self.id, "event": "oom"}, decode=True)
        return bool(list(events))

    def kill(self) -> None:
        """Kill it; also if it has ended by itself."""
        try:
            self._engine.api.kill(self.id)
        except APIError as error:
            if error.status_code not in (404, 409):
                raise

    def remove(self) -> None:
        """Remove it; also twice."""
        self._engine.remove(self.id)
