"""Where our log records go: to the handlers the user has configured, otherwise to stderr, above progress bars."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from typing import Any

from lithops_mini.errors import ConfigError

LOGGER = "lithops_mini"
LEVEL_VARIABLE = "LITHOPS_MINI_LOG_LEVEL"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def setup(level: str | int | None = None) -> None:
    """Give the logger ``lithops_mini`` its level and, when nobody handles its records, a handler. May be repeated.

    The level is ``level``, else that of the environment variable ``LITHOPS_MINI_LOG_LEVEL``: a name in any case, or a
    number. When neither is given it stays what it is: WARNING, unless the program has set it. ``ConfigError`` for what
    is no level.
    """
    source = "log_level"
    if level is None:
        level, source = os.environ.get(LEVEL_VARIABLE) or None, LEVEL_VARIABLE
    logger = logging.getLogger(LOGGER)
    if level is not None:
        logger.setLevel(_parse(level, source))
    if not logger.hasHandlers():
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


def _parse(level: object, source: str) -> int:
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    if isinstance(level, str):
        name = level.strip().upper()
        if name.isdecimal():
            return int(name)
        if (number := logging.getLevelNamesMapping().get(name)) is not None:
            return number
    raise ConfigError(f"{source} is {level!r}, which is no log level; the levels are {', '.join(_LEVELS)}")


class _StandardError(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment; silent once the user has handlers of his own on the root."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None or logging.getLogger().handlers:
            return
        try:
            with _bars_aside(stream):
                stream.write(self.format(record) + "\n")
                stream.flush()
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - logging's own rule: handleError reports it, the program goes on
            self.handleError(record)


def _bars_aside(stream: Any) -> Any:
    """A context in which the bars on the terminal, whoever drew them, are cleared; they are drawn again after it."""
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    return nullcontext() if tqdm is None else tqdm.external_write_mode(file=stream)
