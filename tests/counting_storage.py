"""The localhost storage, counting what this process asks of it. Workers are other processes and are not counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lithops_mini import registry
from lithops_mini.storage.localhost import LocalhostStorage

requests: list[tuple[str, str]] = []  # (method, key or prefix), while ``counting`` is on
_lock = threading.Lock()


class CountingStorage(LocalhostStorage):
    pass


def _counted(name: str) -> Any:
    def method(self: CountingStorage, bucket: str, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            requests.append((name, args[0] if args and isinstance(args[0], str) else ""))
        return getattr(LocalhostStorage, name)(self, bucket, *args, **kwargs)

    return method


for _name in ("put", "get", "open", "head", "list", "delete", "create_bucket", "head_bucket"):
    setattr(CountingStorage, _name, _counted(_name))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The requests of executors made from now on."""
    monkeypatch.setitem(registry._BUILTIN["storage"], "localhost", "counting_storage:CountingStorage")
    requests.clear()
    yield requests
    requests.clear()
