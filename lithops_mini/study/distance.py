"""Storage that is far away: the emulator's own, moved into another region for a while."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lithops_mini.errors import ConfigError

_PATIENCE = 10.0  # seconds


def is_emulator(url: str) -> bool:
    """Whether a local AWS answers there."""
    try:
        return "s3_latency" in _limits(url)
    except ConfigError:
        return False


@contextmanager
def far_away(url: str, latency: float, bandwidth: float) -> Iterator[None]:
    """While this holds, each answer of S3 comes so many seconds later, and no faster than so many bytes a second.

    ``url`` is that of a local AWS, as ``lithops-mini emulate aws`` tells it. ``ConfigError`` if there is none.
    """
    before = _limits(url)
    _limits(url, {"s3_latency": latency, "s3_bandwidth": bandwidth})
    try:
        yield
    finally:
        _limits(url, {name: before[name] for name in ("s3_latency", "s3_bandwidth")})


def _limits(url: str, changes: Mapping[str, float] | None = None) -> dict[str, Any]:
    body = None if changes is None else json.dumps(changes).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/_emulator/limits", body, method="PUT" if body else "GET")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            found: dict[str, Any] = json.load(answer)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{url} is no local AWS, whose storage could be moved: {error}") from error
    return found
