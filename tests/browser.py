"""Headless Chromium, for tests of pages: what became of them, and how they look."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from docker_engine import install_packages

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# It reaches nobody, so that a page that needs anything beside itself is seen to lack it.
_OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run")


@cache
def program() -> str:
    """The browser's path; Debian's is installed if there is none. ``EngineMissing`` if that cannot be done here."""
    if not any(map(shutil.which, _PROGRAMS)):
        install_packages("Chromium", ("chromium",), ("chromium",))
    return next(path for name in _PROGRAMS if (path := shutil.which(name)) is not None)


def document(page: Path, fragment: str = "") -> str:
    """The document that the page has made of itself, as HTML."""
    return _run("--dump-dom", "--virtual-time-budget=5000", f"{page.as_uri()}{fragment}")


def screenshot(page: Path, picture: Path, *, width: int, height: int, dark: bool = False) -> None:
    """Write how the page looks as a PNG."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _run(f"--screenshot={picture}", "--hide-scrollbars", f"--window-size={width},{height}", scheme, page.as_uri())


def _run(*arguments: str) -> str:
    with tempfile.TemporaryDirectory(prefix="lm-browser-") as profile:
        own = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}", *_OFFLINE]
        if os.geteuid() == 0:  # as whom its sandbox does not start
            own.append("--no-sandbox")
        done = subprocess.run(
            [program(), *own, *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
            env=os.environ | {"HOME": profile},
        )
    return done.stdout
