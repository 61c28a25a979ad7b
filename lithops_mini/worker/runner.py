"""The process that runs user code: reads messages from its supervisor, writes outcomes back, one at a time.

Started as ``main(messages, outcomes, bell, lifeline, directory)`` with four inherited file descriptors. Its standard
output and error are one file, appended to, which is emptied into the outcome of each call.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from typing import NoReturn

from lithops_mini import wire
from lithops_mini.worker.call import Jobs
from lithops_mini.worker.pipe import BELL, HEAD, LOG_HEAD, LOG_TAIL, OPENING, READY, shorten

# Where the output file is positioned while nobody writes to it. Being appended to, it can be positioned anywhere, and
# whatever writes to it moves the position.
_QUIET = 1 << 30


class Outcomes:
    """The way back to the supervisor: a pipe for the outcomes, and a bell that says when to read it.

    It rings at the end of a message, and when much has been written: to be told of every outcome would cost two
    processes a switch, as much as a short call.
    """

    def __init__(self, outcomes: int, bell: int) -> None:
        self._outcomes = outcomes
        self._bell = bell
        self._untold = 0
        # Writing more than a pipe holds without telling the supervisor could block for ever.
        self._most = pipe_size(outcomes) // 2
        os.set_blocking(bell, False)

    def send(self, frame: bytes) -> None:
        left = memoryview(frame)
        if self._untold + len(frame) > self._most:
            # What the pipe cannot hold blocks until it is read: the reader is woken first, sees the start of a frame,
            # and from then on reads without a bell.
            self.ring()
            left = left[os.write(self._outcomes, left[: self._most]) :]
            self.ring()
        self._untold += len(left)
        while left:
            left = left[os.write(self._outcomes, left) :]

    def ring(self, sound: bytes = BELL) -> None:
        with contextlib.suppress(BlockingIOError):  # a full bell has been ringing all along
            os.write(self._bell, sound)
        self._untold = 0


class Output:
    """The file behind standard output and error, emptied into the outcome of each call, whatever that did to them."""

    def __init__(self) -> None:
        self._file = os.dup(1)
        self._identity = self._look(self._file)
        # The last words of a process that dies are worth a system call for each line.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        self._streams = {"stdout": (1, sys.stdout), "stderr": (2, sys.stderr)}
        os.lseek(self._file, _QUIET, os.SEEK_SET)

    def take(self) -> bytes:
        """Empty the file; return what was in it, shortened in the middle."""
        if sys.stdin is None or sys.stdin.closed:  # exit() closes it before it raises
            sys.stdin = open(os.devnull)  # noqa: SIM115 - stays open for all calls to come
        if self._untouched():
            return b""
        for name in self._streams:
            self._restore(name)
        os.lseek(self._file, _QUIET, os.SEEK_SET)
        size = os.fstat(self._file).st_size
        if not size:
            return b""
        if size <= LOG_HEAD + LOG_TAIL:
            log = self._read(size, 0)
        else:
            log = shorten(self._read(LOG_HEAD, 0), self._read(LOG_TAIL, size - LOG_TAIL), size - LOG_HEAD - LOG_TAIL)
        os.ftruncate(self._file, 0)
        return log

    def _untouched(self) -> bool:
        """Whether both streams are as they were and nothing was written to the file, by whatever process."""
        for name, (descriptor, stream) in self._streams.items():
            try:
                stream.flush()
                if getattr(sys, name) is not stream or os.lseek(descriptor, 0, os.SEEK_CUR) != _QUIET:
                    return False
            except (ValueError, OSError):  # closed, or another kind of file
                return False
        return True

    def _read(self, size: int, start: int) -> bytes:
        return os.pread(self._file, size, start)

    def _restore(self, name: str) -> None:
        """Flush a stream; undo what the function did to it, so that the next call's output is not lost or misled."""
        descriptor, stream = self._streams[name]
        with contextlib.suppress(ValueError, OSError, AttributeError):  # closed, or replaced by something else
            getattr(sys, name).flush()
        if self._look(descriptor) != self._identity:
            os.dup2(self._file, descriptor)
        if stream.closed:
            stream = open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
            self._streams[name] = descriptor, stream
        setattr(sys, name, stream)

    @staticmethod
    def _look(descriptor: int) -> tuple[int, int] | None:
        try:
            status = os.fstat(descriptor)
        except OSError:  # closed
            return None
        return status.st_dev, status.st_ino


def pipe_size(descriptor: int) -> int:
    """Bytes a pipe holds."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) if hasattr(fcntl, "F_GETPIPE_SZ") else 16 << 10


def _read(descriptor: int, size: int) -> bytearray | None:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = os.readv(descriptor, [view[filled:]])
        if not count:
            return None
        filled += count
    return data


def _die_with(lifeline: int) -> None:
    """End this process and its children when the supervisor's end of ``lifeline`` closes, whatever runs then."""
    import fcntl

    if hasattr(fcntl, "F_SETSIG"):
        # The kernel itself kills the process group, even while C code holds the interpreter.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    else:
        import threading

        def watch() -> None:
            os.read(lifeline, 1)
            os.killpg(0, signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()


def main(messages: int, outcomes: int, bell: int, lifeline: int, directory: str) -> NoReturn:
    """Serve until the supervisor closes ``messages``."""
    _die_with(lifeline)
    # A function's child processes must not hold our pipes open.
    for descriptor in (messages, outcomes, bell, lifeline):
        os.set_inheritable(descriptor, False)
    faulthandler.enable(2)
    out, output = Outcomes(outcomes, bell), Output()
    jobs = Jobs(directory, lambda begins: out.ring(OPENING if begins else BELL))
    os.write(outcomes, READY)
    out.ring()
    while head := _read(messages, HEAD.size):
        length, deadline, room = HEAD.unpack(head)
        payload = _read(messages, length)
        if payload is None:
            break
        for outcome in jobs.run(payload, output.take, deadline, room):
            out.send(wire.encode_outcome(outcome))
        out.ring()
    sys.exit(0)
