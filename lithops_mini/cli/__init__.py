"""The command ``lithops-mini``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, by default that of this process, and exit with its code."""
    try:
        from lithops_mini.cli.app import app

        app.main(arguments, prog_name="lithops-mini")
    except KeyboardInterrupt:  # before a command had begun
        sys.exit(130)
    sys.exit(0)
