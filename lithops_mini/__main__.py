"""``python -m lithops_mini`` is ``lithops-mini``."""

from __future__ import annotations

from lithops_mini.cli import main

if __name__ == "__main__":
    main()
