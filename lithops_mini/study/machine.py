"""The machine that figures are of."""

from __future__ import annotations

import os
import platform


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """This machine, as far as it matters to the figures."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{processors()} cores, {memory:.0f} GiB, {platform.system()}, {python}"
