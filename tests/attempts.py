"""Calls that count their attempts in files and end as a plan says: which call, on which attempt, how. Plain Python.

Workers import this module, so it imports nothing that takes long.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn


def segfault() -> None:
    ctypes.string_at(0)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> NoReturn:
    os._exit(7)


def close_everything() -> None:
    os.closerange(3, 256)


def fail() -> NoReturn:
    raise ValueError("as planned")


def sleep_long() -> None:
    time.sleep(60)


def exit_politely() -> NoReturn:
    sys.exit("as planned")


def interrupt() -> NoReturn:
    raise KeyboardInterrupt("as planned")


class Plan:
    """A function of the number of a call: it returns ten times that, unless the plan has another end for it.

    ``ends`` gives, for some calls, the end of each attempt in turn; attempts after the last of them return. A single
    end is that of every attempt.
    """

    def __init__(self, directory: Path, ends: Mapping[int, Callable[[], None] | Sequence[Callable[[], None] | None]]):
        self.directory = directory
        self.ends = ends
        directory.mkdir(exist_ok=True)

    def __call__(self, call: int) -> int:
        attempt = self.note(call)
        ends = self.ends.get(call, ())
        if callable(ends):
            ends()
        elif attempt <= len(ends) and (end := ends[attempt - 1]) is not None:
            end()
        return 10 * call

    def note(self, call: int) -> int:
        """Count one more attempt of a call, whatever process it runs in; return its number."""
        attempt = 1
        while True:
            try:
                os.close(os.open(self.directory / f"{call}.{attempt}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                attempt += 1
            else:
                return attempt

    def attempts(self, calls: int) -> list[int]:
        """How often each of the first ``calls`` calls was entered."""
        numbers = [int(path.name.partition(".")[0]) for path in self.directory.iterdir()]
        assert all(number < calls for number in numbers)
        return [numbers.count(call) for call in range(calls)]


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> float:
    """Look again and again until the condition holds; return the seconds that took. Fails when time is over."""
    began = time.monotonic()
    pause = threading.Event()
    while not condition():
        assert time.monotonic() - began < seconds, f"after {seconds:g} s: not {what}"
        pause.wait(0.005)
    return time.monotonic() - began


def alive(pid: int) -> bool:
    """Whether the process is there and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
