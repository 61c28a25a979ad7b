"""Calls in services of Knative, on the emulator with pods in processes, beside posting with requests.

Both send messages of one call, which carry the same, to the same service.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from measure import Row, main, seconds, side_by_side
from posting import SLOTS, Plain, beside, many_calls, one_call, sent, warm, warm_calls

import lithops_mini as lm

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from knative_emulator import Emulated, start_knative, wait_until


@contextmanager
def executor(knative: Emulated, storage: str) -> Iterator[lm.FunctionExecutor]:
    """One with all its pods warm."""
    place: dict[str, Any] = yaml.safe_load(knative.profile.read_text())["profiles"]["emulator"]["knative"]
    place |= {"storage_path": storage, "max_workers": SLOTS, "max_scale": SLOTS, "progress": False}
    with lm.knative_executor("localhost", config={}, **place) as ex:
        warm(ex)
        yield ex


def plain_posts(ex: lm.FunctionExecutor) -> Plain:
    (_, url, headers, payload, *_), _ = sent(ex, ex._compute._client, "send")
    return Plain(lambda answer: answer.status_code == 200 and bool(answer.content), url, data=payload, headers=headers)


def cold_starts(knative: Emulated, ex: lm.FunctionExecutor, plain: Plain, rounds: int) -> Row:
    """From no pod to the first result, or to the answer."""

    def from_zero(call: Callable[[], None]) -> float:
        with knative.limits(idle=0.1):
            wait_until(lambda: knative.own("state")["pods"] == 0)
        return seconds(call)

    ours, bare = side_by_side(rounds, lambda: from_zero(lambda: one_call(ex)), lambda: from_zero(plain.post))
    return beside("from no pod on Knative to the first result; posting with requests", ours, bare)


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (200, 3) if quick else (1000, 7)
    with tempfile.TemporaryDirectory() as directory:
        start = start_knative(Path(directory), "--sandbox", "process")
        with start as knative, executor(knative, directory) as ex:
            plain = plain_posts(ex)
            return [
                warm_calls("Knative", ex, plain, 20 if quick else 200),
                *many_calls("Knative", ex, plain, calls, rounds),
                cold_starts(knative, ex, plain, rounds),
            ]


if __name__ == "__main__":
    main(measure)
