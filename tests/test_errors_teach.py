"""What somebody reads when calls fail: where, with what, and the line of their own code; never a page of ours."""

from __future__ import annotations

import linecache
import logging
import queue
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

import lithops_mini as lm
from lithops_mini.errors import CallError, CallTimeout, LithopsMiniError, RemoteError, WorkerDied
from lithops_mini.job.settle import RemoteTraceback


def parse(x: Any) -> float:
    return 1 / inner(x)


def inner(x: Any) -> int:
    if x == 3:
        raise ValueError(f"bad record {x}")  # the line that fails
    return int(x)


def raised(future: lm.ResponseFuture[Any], kind: type[BaseException]) -> Any:
    with pytest.raises(kind) as caught:
        future.result()
    return caught.value


# -- notes


def test_the_note_says_which_call_failed_with_what_and_where(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(parse, [1, 3])
    error = raised(futures[1], ValueError)
    worker = executor.config.backend + r"/[\d.]+"
    assert error.args == ("bad record 3",)
    assert len(error.__notes__) == 1
    assert re.fullmatch(
        rf"call 1 of {futures[1].job_id}: parse\(3\), attempt 1, worker {worker}; its output is in future.logs",
        error.__notes__[0],
    )


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ((3, 4), "(3, 4)"),
        ({"x": 3, "y": "text"}, "(x=3, y='text')"),
        ("a" * 10_000, "…"),
        (list(range(10_000)), "(10,000 in all)"),
        (np.zeros((100, 100)), "<ndarray of shape (100, 100), float64>"),
        (None, "(None)"),
    ],
)
def test_inputs_are_shortened(executor: lm.FunctionExecutor, item: Any, shown: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError

    note = raised(executor.map(fail, [item])[0], ValueError).__notes__[0]
    assert shown in note
    assert len(note) < 400


def test_inputs_can_be_hidden() -> None:
    with lm.localhost_executor(max_workers=1, progress=False, show_inputs=False) as executor:
        inputs = ["password-1", "password-2"]
        futures = executor.map(lambda secret: 1 / 0, inputs)
        with pytest.raises(ZeroDivisionError) as caught:
            executor.get_result(futures)
    text = "".join(traceback.format_exception(caught.value))
    assert "password" not in text
    assert "2 of 2 calls failed" in text
    assert futures[0].failure is not None
    assert futures[0].failure.input == ""


def test_an_input_whose_repr_fails_is_no_trouble(executor: lm.FunctionExecutor) -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    error = raised(executor.map(lambda x: 1 / 0, [Rude()])[0], ZeroDivisionError)
    assert "Rude" in error.__notes__[0]


def test_the_attempt_that_counted_is_named(tmp_path: Path) -> None:
    def fail(x: int) -> None:
        raise ValueError(x)

    with lm.localhost_executor(max_workers=1, progress=False) as executor:
        future = executor.map(fail, [1], retries=1, retry_exceptions=ValueError)[0]
        assert "attempt 2" in raised(future, ValueError).__notes__[0]


def test_large_and_dependent_inputs_are_described(executor: lm.FunctionExecutor) -> None:
    def fail(x: Any) -> None:
        raise ValueError

    large, after = executor.map(fail, [bytes(1 << 20), executor.call_async(abs, -1)])
    assert "in storage>" in raised(large, ValueError).__notes__[0]
    assert "results of other calls" in raised(after, ValueError).__notes__[0]


def test_a_partition_is_shown_by_its_name(executor: lm.FunctionExecutor) -> None:
    executor.storage.create_bucket("teach")
    executor.storage.put_object("teach", "lines.txt", b"1\n2\n")

    def fail(obj: Any) -> None:
        raise ValueError

    error = raised(executor.map(fail, "teach/lines.txt", obj_chunk_number=2)[1], ValueError)
    assert "teach" in error.__notes__[0]
    assert "lines.txt" in error.__notes__[0]


# -- tracebacks


def remote(error: BaseException) -> str:
    assert isinstance(error.__cause__, RemoteTraceback)
    return str(error.__cause__)


def test_the_remote_traceback_has_the_users_lines_and_none_of_ours(executor: lm.FunctionExecutor) -> None:
    text = remote(raised(executor.map(parse, [3])[0], ValueError))
    assert "return 1 / inner(x)" in text
    assert 'raise ValueError(f"bad record {x}")  # the line that fails' in text
    assert Path(__file__).name in text
    assert text.count("File ") == 2
    assert "lithops_mini/" not in text


def test_what_is_raised_here_shows_the_remote_lines_once(executor: lm.FunctionExecutor) -> None:
    with pytest.raises(ValueError) as caught:
        executor.get_result(executor.map(parse, [3]))
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("# the line that fails") == 1
    assert "direct cause" in text
    assert text.count("lithops_mini/") <= 2  # get_result, where it is raised


def test_lines_of_functions_without_a_file(executor: lm.FunctionExecutor) -> None:
    source = "def made(x):\n    y = x\n    return y / 0  # made by exec\n"
    name = "<made for this test>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    future = executor.map(namespace["made"], [1])[0]
    assert "return y / 0  # made by exec" in remote(raised(future, ZeroDivisionError))
    assert future.failure is not None
    assert future.failure.user_line == "<made for this test>:3 in made"


def test_causes_and_contexts_are_shown(executor: lm.FunctionExecutor) -> None:
    def fail(x: int) -> None:
        try:
            {}[x]
        except KeyError as error:
            raise RuntimeError("no such thing") from error

    text = remote(raised(executor.map(fail, [7])[0], RuntimeError))
    assert "KeyError: 7" in text
    assert "direct cause" in text
    assert "{}[x]" in text


def test_the_line_in_the_users_code_and_not_in_a_library(executor: lm.FunctionExecutor) -> None:
    def fail(x: int) -> Any:
        import json

        return json.loads("{")  # this line

    future = executor.map(fail, [1])[0]
    error = raised(future, ValueError)
    assert type(error).__name__ == "JSONDecodeError"
    assert "json/decoder.py" in remote(error)
    assert future.failure is not None
    assert re.fullmatch(r"test_errors_teach\.py:\d+ in fail", future.failure.user_line)


def test_a_call_that_does_not_fit_has_no_frames_of_ours(executor: lm.FunctionExecutor) -> None:
    def takes(x: int) -> int:
        return x

    def wrapper(*args: Any) -> Any:
        return takes(*args, 5)

    text = remote(raised(executor.map(wrapper, [1])[0], TypeError))
    assert "takes 1 positional argument" in text or "takes() takes 1" in text
    assert "lithops_mini/" not in text


def test_errors_while_unpickling_the_input(executor: lm.FunctionExecutor) -> None:
    class Spiteful:
        def __reduce__(self) -> Any:
            return spite, ("input",)

    error = raised(executor.map(lambda x: x, [Spiteful()])[0], ArithmeticError)
    assert "spite of input" in str(error)
    assert "def" not in remote(error).splitlines()[-1]
    assert "lithops_mini/" not in remote(error)


def spite(what: str) -> None:
    raise ArithmeticError(f"spite of {what}")


# -- what cannot come back as itself


def test_an_exception_that_cannot_be_rebuilt_is_a_remote_error(executor: lm.FunctionExecutor) -> None:
    class Needy(Exception):
        def __init__(self, code: int, *, reason: str) -> None:
            super().__init__(f"{code}: {reason}")

    def fail(x: int) -> None:
        raise Needy(x, reason="because")  # needs a keyword

    error = raised(executor.map(fail, [7])[0], RemoteError)
    assert error.type_name.endswith("Needy")
    assert str(error).endswith("Needy: 7: because")
    assert "raise Needy(x, reason=" in error.remote_traceback
    assert isinstance(error, CallError)
    assert isinstance(error, LithopsMiniError)
    assert "call 0 of" in error.__notes__[0]


@pytest.mark.parametrize("trouble", ["lock", "liar", "mute"])
def test_exceptions_that_do_not_behave(executor: lm.FunctionExecutor, trouble: str) -> None:
    import threading

    class Locked(Exception):
        def __init__(self) -> None:
            super().__init__("it holds a lock")
            self.lock = threading.Lock()

    class Liar(Exception):
        def __reduce__(self) -> Any:
            return int, ("5",)

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("silent")

    def fail(which: str) -> None:
        raise {"lock": Locked, "liar": Liar, "mute": Mute}[which]

    with pytest.raises(Exception) as caught:
        executor.get_result(executor.map(fail, [trouble]))
    name = {"lock": "Locked", "liar": "Liar", "mute": "Mute"}[trouble]
    if trouble == "mute":
        assert type(caught.value).__name__ == name
    else:
        assert isinstance(caught.value, RemoteError)
        assert caught.value.type_name.endswith(name)
    assert name in remote(caught.value)


def test_a_class_that_exists_only_there(workers: lm.FunctionExecutor) -> None:
    def fail(x: int) -> None:
        class Passing(Exception):
            pass

        raise Passing(x)

    error = raised(workers.map(fail, [5])[0], Exception)
    assert type(error).__name__ == "Passing"
    assert error.args == (5,)


# -- endings that are no exceptions


def test_a_dead_worker_says_how_it_died(workers: lm.FunctionExecutor) -> None:
    def leave(x: int) -> None:
        import os

        print("last words", flush=True)
        os._exit(7)

    future = workers.map(leave, [1], retries=0)[0]
    error = raised(future, WorkerDied)
    assert "exit code 7" in str(error)
    assert "call 0 of" in error.__notes__[0]
    assert future.logs == "last words\n"


def test_a_timeout_says_how_long(workers: lm.FunctionExecutor) -> None:
    def linger(x: int) -> None:
        time.sleep(60)  # longer than it may

    error = raised(workers.map(linger, [1], timeout=0.3)[0], CallTimeout)
    assert "timeout of 0.3 s" in str(error)
    assert isinstance(error, TimeoutError)


# -- many


def test_many_failures_are_a_few_groups(executor: lm.FunctionExecutor) -> None:
    def fail(x: int) -> int:
        if x % 10 == 0:
            raise ValueError(f"bad record {x} in file {x * 7}")
        if x == 55:
            raise KeyError("rare")
        return x

    with pytest.raises(ValueError) as caught:
        executor.get_result(executor.map(fail, range(100)))
    overview = caught.value.__notes__[-1]
    assert overview.startswith("11 of 100 calls failed, in 2 groups.")
    assert "ValueError: bad record # in file #" in overview
    assert re.search(r"10 times at test_errors_teach.py:\d+ in fail, calls 0, 10, 20", overview)
    assert "KeyError: 'rare'" in overview
    assert overview.count("Traceback (most recent call last)") == 2


def test_ten_thousand_failures_are_told_shortly_and_soon(workers: lm.FunctionExecutor) -> None:
    def fail(x: int) -> None:
        raise ValueError(f"bad record {x}: {'payload ' * 20}")

    started = time.monotonic()
    futures = workers.map(fail, range(10_000))
    with pytest.raises(ValueError) as caught:
        workers.get_result(futures)
    elapsed = time.monotonic() - started
    text = "".join(traceback.format_exception(caught.value))
    assert "10,000 of 10,000 calls failed." in text
    assert len(text) < 6000
    assert elapsed < 40  # 5 s on an idle machine


def test_a_program_that_fails_prints_a_page_at_most(tmp_path: Path) -> None:
    """What a user sees at last: the whole output of a script none of whose calls succeed."""
    script = tmp_path / "script.py"
    script.write_text(
        dedent(
            """
            import lithops_mini as lm

            def parse(line):
                number, name = line.split(",")  # their line
                return int(number)

            if __name__ == "__main__":
                with lm.localhost_executor(max_workers=2, progress=False) as executor:
                    executor.map(parse, [f"{n}; name {n}" for n in range(500)])
                    executor.get_result()
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) < 60
    assert sum("# their line" in line for line in lines) == 2  # the traceback, and the group's example
    assert "ValueError: not enough values to unpack (expected 2, got 1)" in lines
    assert any(line.startswith("500 of 500 calls failed") for line in lines)
    assert any("parse('0; name 0')" in line for line in lines)


def test_each_failure_is_a_value_too(executor: lm.FunctionExecutor) -> None:
    futures = executor.map(parse, [1, 3, 0])
    lm.wait(futures)
    failures = [future.failure for future in futures]
    assert failures[0] is None
    assert [(f.call_id, f.type_name, f.message, f.attempt, f.input) for f in failures[1:] if f] == [
        (1, "ValueError", "bad record 3", 1, "3"),
        (2, "ZeroDivisionError", "division by zero", 1, "0"),
    ]


def test_the_same_error_of_several_calls_is_not_one_object(executor: lm.FunctionExecutor) -> None:
    def fail(x: int) -> None:
        raise ValueError("same")

    first, second = executor.map(fail, [1, 2])
    a, b = raised(first, ValueError), raised(second, ValueError)
    assert a is not b
    assert "fail(1)" in a.__notes__[0]
    assert "fail(2)" in b.__notes__[0]


def test_failures_are_logged(executor: lm.FunctionExecutor) -> None:
    messages: queue.Queue[str] = queue.Queue()
    handler = logging.Handler()
    handler.emit = lambda record: messages.put(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lithops_mini")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        future = executor.map(parse, [3])[0]
        while "failed" not in (message := messages.get(timeout=30)):
            continue
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert message == "call 0 of parse failed: ValueError: bad record 3"
    assert future.exception() is not None
