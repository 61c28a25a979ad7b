"""A runner as its supervisor sees it: a child process with its pipes, its output and its memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from lithops_mini.errors import InvocationError, Reason
from lithops_mini.worker.pipe import HEAD, OPENING, READY

# Longer than any interpreter needs to start, in seconds.
_START_LIMIT = 60.0
# What the pipe of the outcomes may hold, in bytes: those of most messages.
_PIPE = 256 << 10
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOT = """import sys; sys.path.append({root!r})
from lithops_mini.worker.runner import main; main(*{descriptors}, {directory!r})"""


class RunnerProcess:
    """Started when made. Not for several threads at once, but for ``kill`` and ``wake``."""

    def __init__(self, directory: str, python: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        """``directory`` is private and takes unpacked modules. ``InvocationError`` if ``python`` cannot be started."""
        self.buffer = bytearray()  # what drain() has read and nobody has taken
        self.hung_up: float | None = None  # monotonic: when nobody was left that could write outcomes
        self.opening: float | None = None  # monotonic: when it began to open a storage, which it still does
        messages, self._messages = os.pipe()
        self._outcomes, outcomes = os.pipe()
        self._bell, bell = os.pipe()
        lifeline, self._lifeline = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(PermissionError):  # this user has too many large ones already
                fcntl.fcntl(outcomes, fcntl.F_SETPIPE_SZ, _PIPE)
        for descriptor in (self._outcomes, self._bell, self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by reap()
        # Whoever empties the file, the next write goes to its start.
        fcntl.fcntl(self._log, fcntl.F_SETFL, fcntl.fcntl(self._log, fcntl.F_GETFL) | os.O_APPEND)
        self._oom_kills = _oom_kills()
        theirs = (messages, outcomes, bell, lifeline)
        boot = _BOOT.format(root=_ROOT, descriptors=theirs, directory=directory)
        try:
            # -P: the working directory is not on the path, so a module that does not travel is missed here as anywhere.
            self._process = subprocess.Popen(
                [python or sys.executable, "-P", "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=theirs,
                env={**os.environ, **(environment or {})},
                # Without a terminal: a program that asks for a password there fails instead of being stopped for ever.
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            text = f"no worker process could be started with {python or sys.executable!r}: {error}"
            raise InvocationError(text, reason=Reason.REFUSED) from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._pidfd = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        self._poller = select.poll()
        for waited in (self._bell, self._wake_read, self._pidfd):
            if waited is not None:
                self._poller.register(waited, select.POLLIN)

    def wait_ready(self) -> None:
        """Wait until the runner takes messages. Raises ``InvocationError`` with its output if it never will."""
        deadline = time.monotonic() + _START_LIMIT
        while not self.buffer:
            self.wait(deadline - time.monotonic())
            self.drain()
            if not self.buffer and (self.exited() or time.monotonic() > deadline):
                raise InvocationError(self.read_log(0, 4096).decode(errors="replace").strip(), reason=Reason.DIED)
        assert self.buffer == READY
        self.buffer.clear()

    def send(self, payload: bytes | bytearray, deadline: float, room: int) -> None:
        """Hand over one message; calls that have not begun by ``deadline`` (monotonic) come back unstarted, and those
        whose outcomes might not fit into ``room`` bytes.

        Raises ``BrokenPipeError`` if the runner has ended.
        """
        head = HEAD.pack(len(payload), deadline, room)
        for part in (head + payload,) if len(payload) < 65536 else (head, payload):
            view = memoryview(part)
            while view:
                view = view[os.write(self._messages, view) :]

    def wait(self, timeout: float) -> None:
        """Return when outcomes are there, the runner has ended, ``wake`` was called or ``timeout`` seconds are over."""
        # The start of an outcome without its end: the runner is writing, and rings no bell for the rest.
        if self.buffer:
            self._poller.register(self._outcomes, select.POLLIN)
        for descriptor, event in self._poller.poll(max(0.0, timeout) * 1000):
            if descriptor == self._bell and not event & select.POLLIN:
                self._poller.unregister(self._bell)
                self.hung_up = time.monotonic()
            elif descriptor in (self._bell, self._wake_read):
                with contextlib.suppress(BlockingIOError):
                    heard = os.read(descriptor, 4096)
                    if descriptor == self._bell:
                        self.opening = time.monotonic() if heard.endswith(OPENING) else None
        if self.buffer:
            self._poller.unregister(self._outcomes)

    def wake(self) -> None:
        """Make ``wait`` return, from another thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def drain(self) -> None:
        """Read what the runner has written so far into ``buffer``."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._outcomes, _PIPE):
                self.buffer += data
                if len(data) < _PIPE:
                    return

    def exited(self) -> bool:
        # Looked at, not waited for: until reap() its number stays its own.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """End the runner and all it started, now."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Ask an idle runner to end."""
        os.close(self._messages)
        self._messages = -1

    def finish(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for the end that ``end`` asked for, then force it; release everything."""
        deadline = time.monotonic() + grace
        while not self.exited() and (left := deadline - time.monotonic()) > 0:
            self.wait(left)
        self.kill()
        self.reap()

    def reap(self) -> int:
        """Wait for the runner's end, end what it left running, release everything; return its exit code."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        code = self._process.wait()
        self._release()
        if self._pidfd is not None:
            os.close(self._pidfd)
        return code

    def _release(self) -> None:
        for descriptor in (
            self._messages,
            self._outcomes,
            self._bell,
            self._lifeline,
            self._wake_read,
            self._wake_write,
        ):
            if descriptor >= 0:
                os.close(descriptor)
        self._log.close()

    def killed_by_kernel(self) -> bool:
        """Whether the kernel, out of memory, has killed a process since this one started."""
        return _oom_kills() > self._oom_kills

    def memory(self) -> int:
        """Resident bytes of the runner and the processes it started; 0 where the system does not tell."""
        return sum(map(_resident, _tree(self._process.pid)))

    def memory_held(self) -> int:
        """The same, counting shared pages once and mapped files not at all: slower, and never too much."""
        return sum(map(_held, _tree(self._process.pid)))

    def log_size(self) -> int:
        """Bytes of output that no outcome has taken yet."""
        return os.fstat(self._log.fileno()).st_size

    def read_log(self, start: int, size: int) -> bytes:
        return os.pread(self._log.fileno(), size, start)

    def cut_log(self) -> int:
        """Drop the output that no outcome has taken yet; return how many bytes that were, about.

        The runner goes on writing at the file's start. What it writes in this very moment is not counted.
        """
        size = self.log_size()
        os.ftruncate(self._log.fileno(), 0)
        return size


def describe_exit(code: int) -> str:
    """An exit code of subprocess, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"


def _tree(pid: int) -> Iterator[int]:
    """The process and all it started, from whichever of its threads."""
    yield pid
    with contextlib.suppress(OSError):  # ended meanwhile, or no /proc
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                    yield from _tree(int(child))


def _read(path: str) -> bytes:
    with open(path, "rb", 0) as file:
        return file.read()


def _resident(pid: int) -> int:
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # ended meanwhile, or no /proc
        return 0


def _held(pid: int) -> int:
    """As ``_resident``, but of pages shared with other processes a share, and of mapped files nothing."""
    try:
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]
        sizes = {name: int(size) << 10 for name, size, *_ in map(bytes.split, lines)}
        return sizes[b"Pss:"] - sizes[b"Pss_File:"]
    except (OSError, KeyError):  # ended meanwhile, or an older kernel
        return _resident(pid)


def _oom_kills() -> int:
    try:
        with open("/proc/vmstat", "rb") as vmstat:
            return next((int(line.split()[1]) for line in vmstat if line.startswith(b"oom_kill ")), 0)
    except OSError:
        return 0
