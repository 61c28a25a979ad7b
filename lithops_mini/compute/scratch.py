"""The private directory of a backend's workers, and what becomes of it when the client was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress

_PREFIX = "lithops_mini-"


class Scratch:
    """A directory that only this user can read, and that lives as long as this process at most.

    Who holds its lock is alive: a directory of this user's that nobody holds is removed by the next ``Scratch``.
    """

    def __init__(self) -> None:
        _reap()
        while True:
            self.path = tempfile.mkdtemp(prefix=_PREFIX)  # mode 0700
            try:
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # another process has just taken it for a dead one's
                continue
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if os.path.isdir(self.path):
                return
            os.close(self._lock)

    def close(self) -> None:
        """Remove the directory. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _reap() -> None:
    with os.scandir(tempfile.gettempdir()) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in names:
        with suppress(OSError):  # not ours, in use, or removed meanwhile
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
