"""Calls in actions of OpenWhisk, on the emulator with sandboxes in processes, beside posting with requests.

Both send messages of one call, which carry the same, to the same action.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import Row, main
from posting import SLOTS, Plain, many_calls, sent, warm, warm_calls

import lithops_mini as lm

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from openwhisk_emulator import Emulated, start_openwhisk


@contextmanager
def executor(openwhisk: Emulated, storage: str) -> Iterator[lm.FunctionExecutor]:
    """One with all its sandboxes warm."""
    place: dict[str, Any] = {**openwhisk.place, "storage_path": storage}
    with lm.openwhisk_executor("localhost", config={}, **place, max_workers=SLOTS, progress=False) as ex:
        warm(ex)
        yield ex


def plain_posts(openwhisk: Emulated, ex: lm.FunctionExecutor) -> Plain:
    (action, params, *_), _ = sent(ex, ex._compute._service, "invoke")
    return Plain(
        lambda answer: "reply" in answer.json()["response"]["result"],
        f"{openwhisk.url}/api/v1/namespaces/_/actions/lithops_mini/{action}?blocking=true&result=false",
        json=params,
        auth=tuple(openwhisk.place["api_key"].split(":")),
    )


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 3) if quick else (1000, 7)
    with tempfile.TemporaryDirectory() as directory:
        flags = ("--sandbox", "process", "--per-minute", "1000000")
        with start_openwhisk(Path(directory), *flags) as openwhisk, executor(openwhisk, directory) as ex:
            plain = plain_posts(openwhisk, ex)
            return [
                warm_calls("OpenWhisk", ex, plain, 20 if quick else 200),
                *many_calls("OpenWhisk", ex, plain, calls, rounds),
            ]


if __name__ == "__main__":
    main(measure)
