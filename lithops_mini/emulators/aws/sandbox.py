"""Execution environments: a process or a container in which AWS's runtime client runs one function."""

from __future__ import annotations

import os
import select
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from queue import Empty
from typing import ClassVar

from lithops_mini.emulators.aws.files import Files
from lithops_mini.emulators.aws.functions import Function
from lithops_mini.emulators.aws.logs import Log
from lithops_mini.emulators.aws.runtime_api import Invocation, Outcome, RuntimeApi
from lithops_mini.emulators.processes import PYTHON, End, ProcessGroup

_BUFFER = 65536


class NoRuntime(Exception):
    """A function that cannot run here; the text says why."""


class Sandbox(ABC):
    """A runtime that takes one event after the other.

    ``environment``: variables with which the runtime starts, besides those of the sandbox itself. ``not_enforced``:
    what is otherwise than on AWS.
    """

    not_enforced: ClassVar[tuple[str, ...]]

    def __init__(self, function: Function, files: Files, environment: Mapping[str, str]) -> None:
        self.function = function
        self.files = files
        self.log = Log(function)
        self.last_used = time.monotonic()
        self.end: End | None = None  # how the runtime has ended, once ``ended`` is set
        self.ended = threading.Event()
        self.directory = files.empty()
        self.api = RuntimeApi(function.arn)
        self._kill_lock = threading.Lock()
        self._killed = False
        self.output, self._input = self.open_output()
        os.set_blocking(self.output, False)
        self._reading = threading.Lock()
        self._quit, self._quit_now = os.pipe()
        threading.Thread(target=self._read_output, name="sandbox-output", daemon=True).start()
        try:
            self.start({**self._variables(), **environment})
        except BaseException:
            self.kill()
            raise
        threading.Thread(target=self._watch, name="sandbox-end", daemon=True).start()

    @abstractmethod
    def open_output(self) -> tuple[int, int]:
        """File descriptors: where to read what the runtime prints, and one to be closed with the sandbox."""

    @abstractmethod
    def start(self, environment: dict[str, str]) -> None:
        """Start the runtime."""

    @abstractmethod
    def ready(self) -> None:
        """The runtime is ready: from now on it has no more than the function's share of the processors."""

    @abstractmethod
    def wait(self) -> End:
        """Return when the runtime has ended."""

    @abstractmethod
    def stop(self) -> None:
        """Kill everything in the sandbox, and return when it is gone; also twice, or before ``start``."""

    @abstractmethod
    def peak_memory(self) -> int:
        """The most memory that was used, in MB; 0 if that is not known any more."""

    def next(self, limit: float) -> Outcome | None:
        """What the runtime tells next; ``None`` if that takes more than ``limit`` seconds."""
        try:
            return self.api.outcomes.get(timeout=max(limit, 0.0))
        except Empty:
            return None

    def send(self, invocation: Invocation) -> None:
        self.api.events.put(invocation)

    def drain(self) -> None:
        """Read what the runtime has printed until now: it prints before it posts, so nothing is missing."""
        with self._reading:
            while not self._killed and (data := self._read()):
                self.log.write(data)

    def kill(self) -> None:
        """End it and remove what belongs to it; also twice."""
        with self._kill_lock:
            if self._killed:
                return
            self.stop()
            with self._reading:
                self._killed = True
            self.api.close()
            os.write(self._quit_now, b"\0")
            shutil.rmtree(self.directory)

    def _read_output(self) -> None:
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(self._quit, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._quit in ready:
                break
            with self._reading:
                data = self._read()
                if data:
                    self.log.write(data)
            if data == b"":  # nobody can print any more
                poll.unregister(self.output)
        for descriptor in {self.output, self._input, self._quit, self._quit_now}:
            os.close(descriptor)

    def _read(self) -> bytes | None:
        """What can be read now; empty at the end, ``None`` if there is nothing yet."""
        try:
            return os.read(self.output, _BUFFER)
        except BlockingIOError:
            return None

    def _watch(self) -> None:
        self.end = self.wait()
        self.ended.set()
        self.api.outcomes.put(Outcome("exit"))

    def _variables(self) -> dict[str, str]:
        function = self.function
        return {
            **dict(function.environment),
            "AWS_LAMBDA_RUNTIME_API": self.api.address,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.log.stream,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}" if function.runtime else "AWS_Lambda_Image",
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
            "_HANDLER": function.handler,
            "TZ": ":UTC",
            "LANG": "C.UTF-8",
        }


class ProcessSandbox(Sandbox):
    """A process of this machine: nothing limits its memory, its processors or the files it may write."""

    not_enforced: ClassVar[tuple[str, ...]] = (
        "a function's memory and share of the processors",
        "a file system of its own: it sees this machine's, and its temporary directory is not /tmp",
        "the size of that directory",
    )
    _group: ProcessGroup | None = None

    def open_output(self) -> tuple[int, int]:
        return os.pipe()

    def start(self, environment: dict[str, str]) -> None:
        task = self.files.task(self.function)
        environment |= {
            "PATH": f"{os.path.dirname(PYTHON)}:{os.defpath}",
            "LAMBDA_TASK_ROOT": str(task),
            "LAMBDA_RUNTIME_DIR": str(self.files.runtime),
            "LITHOPS_MINI_OPT": str(self.files.layers(self.function)),
            "PYTHONDONTWRITEBYTECODE": "1",  # as if the code could not be written
            "PYTHONPATH": str(self.files.runtime),
            "TMPDIR": str(self.directory),
        }
        self._group = ProcessGroup(
            [PYTHON, "-S", str(self.files.runtime / "bootstrap.py")],
            directory=task,
            environment=environment,
            stdout=self._input,
            stderr=self._input,
        )

    def ready(self) -> None:
        pass

    def wait(self) -> End:
        assert self._group is not None
        return self._group.wait()

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()

    def peak_memory(self) -> int:
        try:
            with open(f"/proc/{self._group.process.pid if self._group else 0}/status") as status:
                return next((int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:")), 0)
        except OSError:  # it has ended, or this is no Linux
            return 0
