"""Fresh interpreters whose stderr is a pipe or a real terminal, for tests of what is shown there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parents[1]

WAIT = """
import sys, time
from lithops_mini.progress import Counters, Progress

def wait(seconds, total=10_000, enabled=None, failed=0, label="map"):
    counters, begin = Counters(total=total), time.monotonic()
    with Progress(lambda: counters, label=label, enabled=enabled) as progress:
        while (spent := time.monotonic() - begin) < seconds:
            counters.done, counters.running = int(total * spent / seconds), 8
            progress.update()
            time.sleep(0.01)
        counters.done, counters.running, counters.failed = total, 0, failed
"""


def child(code: str, *, columns: int | None = None) -> str:
    """Run the code in a fresh interpreter; return its stderr, which is a terminal if ``columns`` are given."""
    command = [sys.executable, "-W", "error", "-c", WAIT + code]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    if columns is None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stderr
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, env=environment, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not chunk:
                break
            seen += chunk
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0, text
    return text


def frames(screen: str) -> list[str]:
    """The successive contents of a terminal's line."""
    return [frame.strip() for frame in re.split(r"[\r\n]+", screen) if frame.strip()]
