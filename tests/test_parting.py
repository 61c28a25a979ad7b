"""A slow call does not hold up those that travel in the same message."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lithops_mini as lm
from lithops_mini.errors import CallTimeout, WorkerDied

SLOW = 700


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[lm.FunctionExecutor]:
    with lm.localhost_executor(max_workers=2, progress=False, storage_path=str(tmp_path / "storage")) as executor:
        yield executor


def run(x: int, gate: str, log: str, end: str) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b"%d\n" % x)
    os.close(descriptor)
    if x == SLOW:
        print("slow")
        while not os.path.exists(gate):
            time.sleep(0.01)  # the file is made by the test
        if end == "dies":
            os._exit(1)
    return x


@pytest.mark.parametrize("end", ["returns", "dies", "times out", "is cancelled"])
def test_the_others_settle_while_it_runs(executor: lm.FunctionExecutor, tmp_path: Path, end: str) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    futures = executor.map(
        run,
        range(2000),
        chunksize=1000,
        extra_args=(str(gate), str(log), end),
        timeout=3 if end == "times out" else None,
        retries=0,
    )
    slow = futures[SLOW]
    others = futures[:SLOW] + futures[SLOW + 1 :]
    lm.wait(others, timeout=30)
    assert [future.result() for future in others] == [x for x in range(2000) if x != SLOW]
    if end == "returns":
        assert not slow.done()
        gate.touch()
        assert (slow.result(), slow.logs) == (SLOW, "slow\n")
    elif end == "dies":
        gate.touch()
        with pytest.raises(WorkerDied, match="exit code 1"):
            slow.result()
        assert slow.logs == "slow\n"
    elif end == "times out":
        with pytest.raises(CallTimeout):
            slow.result()
    else:
        assert slow.cancel()
    assert executor.call_async(abs, -1).result() == 1
    # Nothing was run twice to get there.
    assert sorted(map(int, log.read_text().split())) == list(range(2000))
