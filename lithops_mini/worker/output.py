"""What calls print, on the standard output of the worker: there platforms take their log from.

<job> call <number>: <line>
"""

from __future__ import annotations

import logging
import sys
import time

from lithops_mini.worker.pipe import LOG_HEAD, LOG_TAIL

# Platforms charge for logs. Of a call that prints much it is this many bytes, and then as many a second: so what it has
# said last is there, should nobody be left to tell. A job's record keeps as much.
_AT_ONCE = LOG_HEAD + LOG_TAIL
_A_SECOND = 1 << 10
# Bytes of a line, with its end; what follows is cut off.
_LONGEST = 8 << 10


def show_output() -> None:
    """Have what calls print, from now on, printed by this process too, while they run."""
    logger = logging.getLogger("lithops_mini.worker")
    logger.addHandler(_Output())
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


class _Output(logging.Handler):
    """Takes the lines that a supervisor logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._call = ""
        self._room = 0.0  # bytes
        self._at = 0.0  # monotonic: when there was so much
        self._told = False  # that lines are left out

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{getattr(record, 'job', '')} {record.getMessage()}\n".encode()
        if len(line) > _LONGEST:
            line = line[: _LONGEST - 5] + b" ...\n"
        self._refill(line.partition(b": ")[0].decode())
        if len(line) <= self._room:
            self._room -= len(line)
            self._print(line)
        elif not self._told:
            self._told = True
            text = f"{self._call}: ... from here on only {_A_SECOND >> 10} KiB a second, and the rest left out ...\n"
            self._print(text.encode())

    def _refill(self, call: str) -> None:
        now = time.monotonic()
        if call == self._call:
            self._room = min(_AT_ONCE, self._room + (now - self._at) * _A_SECOND)
        else:
            self._call, self._room, self._told = call, _AT_ONCE, False
        self._at = now

    @staticmethod
    def _print(line: bytes) -> None:
        # Whole lines at a time: whoever reads them takes each for an entry.
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()
