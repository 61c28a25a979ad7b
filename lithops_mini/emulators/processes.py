"""Processes in which an emulator runs code of others: each ends with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PYTHON = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
"""The interpreter of sandboxes that are processes: this one, without the packages of an environment."""


@dataclass(frozen=True)
class End:
    """How a process has ended."""

    status: str  # "exit status 1", "signal: killed"; empty: it exited with 0
    out_of_memory: bool = False
    code: int = 0  # as shells and container engines tell it: 137 for SIGKILL


class ProcessGroup:
    """A process, and what it starts. Its files are those of ``subprocess.Popen``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def wait(self) -> End:
        """Return when the process has ended; what it has started is killed then, as in a container."""
        code = self.process.wait()
        self._kill_group()
        if code < 0:
            return End(f"signal: {signal_name(-code)}", code=128 - code)
        return End(f"exit status {code}" if code else "", code=code)

    def stop(self) -> None:
        """Kill all of it, and return when it is gone; also twice."""
        if self.process.poll() is None:
            self._kill_group()
        self.process.wait()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def signal_name(number: int) -> str:
    """As Go's runtime writes it, in which clouds are written: ``"killed"``, ``"segmentation fault"``."""
    return (signal.strsignal(number) or f"signal {number}").lower()
