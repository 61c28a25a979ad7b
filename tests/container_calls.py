"""Calls of the tests of containers. Workers import this module there, so it needs nothing but the standard library."""

from __future__ import annotations

import time
from typing import Any

MARKS = "lithops_mini/test/"


def waits_the_first_time(storage: Any) -> str:
    if list(storage.list_keys(None, MARKS)):
        return "again"
    storage.put_object(None, f"{MARKS}begun", b"")
    time.sleep(50)
    return "never"


def fill_disk_and_memory(mebibytes: int) -> int:
    """Files in /tmp are memory that ends with the container, not with the process that wrote them."""
    with open("/tmp/large", "wb") as file:
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    return mebibytes
