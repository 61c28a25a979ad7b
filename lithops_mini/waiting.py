"""Waiting for futures and reading them: for any futures, of one executor or of several."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import as_completed as _as_completed
from operator import itemgetter
from typing import Any

from lithops_mini.errors import InputError, WaitTimeout
from lithops_mini.failures import describe
from lithops_mini.job.future import ResponseFuture, resolve
from lithops_mini.job.job import Job
from lithops_mini.job.settle import add_notes
from lithops_mini.progress import Counters, Progress
from lithops_mini.shorten import shorten

ALL_COMPLETED = "ALL_COMPLETED"
ANY_COMPLETED = "ANY_COMPLETED"
ALWAYS = "ALWAYS"

# How long a wait sleeps at most before it looks whether to draw, in seconds.
_LOOK = 0.05

# What a bar has in front, in characters: the numbers behind it say more.
_LABEL = 32

Futures = ResponseFuture[Any] | Iterable[ResponseFuture[Any]]


class FutureList(list[ResponseFuture[Any]]):
    """The futures of one submission. ``bare``: they stand for one value, so ``get_result`` returns no list."""

    def __init__(
        self,
        futures: Iterable[ResponseFuture[Any]],
        *,
        bare: bool = False,
        map_futures: Sequence[ResponseFuture[Any]] = (),
    ) -> None:
        super().__init__(futures)
        self.bare = bare
        self.map_futures = list(map_futures)  # those a reducer's futures depend on

    def _repr_html_(self) -> str:
        from lithops_mini.html.notebook import futures_html

        failures = [future.failure for future in self if future.failure is not None]
        return futures_html(_label(self), _counters(self, _jobs(self)), failures)

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels as what it stands for: one future, or a plain list of them."""
        return itemgetter(0) if self.bare else list, (list(self),)


def wait(
    fs: Futures,
    return_when: str | float = ALL_COMPLETED,
    timeout: float | None = None,
    *,
    show_progress: bool | None = None,
) -> tuple[list[ResponseFuture[Any]], list[ResponseFuture[Any]]]:
    """Wait for futures; return those done and those not, each in the order given.

    ``return_when``: ``ALL_COMPLETED``; ``ANY_COMPLETED``, at least one; ``ALWAYS``, at once; or a number over 0 and up
    to 100, the percentage that must be done. A future is done when it has a value, an exception or was cancelled.
    ``timeout`` in seconds: ``WaitTimeout`` when they are over; the calls go on. ``show_progress``: see ``Progress``;
    default: if it takes long. Ctrl-C cancels the futures.
    """
    futures = listed(fs)
    needed = _needed(return_when, len(futures))
    if needed:
        _wait_for(futures, needed, timeout, show_progress)
    done = [future for future in futures if future.done()]
    return done, [future for future in futures if not future.done()] if len(done) < len(futures) else []


def get_result(
    fs: Futures,
    throw_except: bool = True,
    timeout: float | None = None,
    *,
    show_progress: bool | None = None,
) -> Any:
    """Wait for futures and return their values in the order given: a list, or the bare value for a single future.

    The first exception, in that order, is raised after all have ended; with ``throw_except=False`` each exception
    stands in its call's place instead. The values of the others stay readable on their futures. ``timeout`` in
    seconds: ``WaitTimeout``. A future that a call has returned is replaced by its own value.
    """
    futures = listed(fs)
    _wait_for(futures, len(futures), timeout, show_progress)
    values: list[Any] = []
    first: BaseException | None = None
    for future in futures:
        try:
            values.append(resolve(future.result()))
        except (Exception, CancelledError) as error:  # noqa: BLE001 - the user's own exception, as itself
            values.append(error)
            first = error if first is None else first
    if first is not None and throw_except:
        _add_overview(first, futures)
        raise first.with_traceback(None)
    return values[0] if isinstance(fs, ResponseFuture) or (isinstance(fs, FutureList) and fs.bare) else values


def as_completed(fs: Futures, timeout: float | None = None) -> Iterator[ResponseFuture[Any]]:
    """Yield the futures as they end, like ``concurrent.futures.as_completed``."""
    return _as_completed(listed(fs), timeout)  # type: ignore[return-value]


def listed(fs: Futures) -> list[ResponseFuture[Any]]:
    """The futures as a list. Raises ``InputError`` for anything else."""
    if not isinstance(fs, ResponseFuture | Iterable):
        raise InputError(f"{fs!r} is neither a future of lithops_mini nor several of them")
    futures = [fs] if isinstance(fs, ResponseFuture) else list(fs)
    for future in futures:
        if not isinstance(future, ResponseFuture):
            raise InputError(f"{future!r} is not a future of lithops_mini")
    return futures


def _needed(return_when: str | float, total: int) -> int:
    if return_when == ALL_COMPLETED:
        return total
    if return_when == ANY_COMPLETED:
        return min(1, total)
    if return_when == ALWAYS:
        return 0
    if isinstance(return_when, int | float) and not isinstance(return_when, bool) and 0 < return_when <= 100:
        return -int(-total * return_when // 100)
    raise InputError(
        f"return_when is {return_when!r}: give ALL_COMPLETED, ANY_COMPLETED, ALWAYS or a percentage over 0, up to 100"
    )


def _wait_for(futures: list[ResponseFuture[Any]], needed: int, timeout: float | None, show: bool | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    jobs = _jobs(futures)
    try:
        with Progress(lambda: _counters(futures, jobs), label=_label(futures), enabled=show) as progress:
            if needed == len(futures):
                _wait_for_all(futures, deadline, progress)
            else:
                _wait_for_some(futures, needed, deadline, progress)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        raise
    except WaitTimeout:
        left = sum(not future.done() for future in futures)
        raise WaitTimeout(
            f"after {timeout:g} s {left:,} of {len(futures):,} calls have not ended; they go on"
        ) from None


def _wait_for_all(futures: list[ResponseFuture[Any]], deadline: float | None, progress: Progress) -> None:
    for future in futures:
        while not future.done():
            future.rest(_pause(deadline))
            progress.update()


def _wait_for_some(futures: list[ResponseFuture[Any]], needed: int, deadline: float | None, progress: Progress) -> None:
    condition = threading.Condition()
    done = 0

    def one_done(_: object) -> None:
        nonlocal done
        with condition:
            done += 1
            condition.notify()

    try:
        for future in futures:
            future.add_done_callback(one_done)
        while True:
            with condition:
                if done >= needed or condition.wait_for(lambda: done >= needed, _pause(deadline)):
                    return
            progress.update()
    finally:
        for future in futures:
            future.remove_done_callback(one_done)


def _pause(deadline: float | None) -> float:
    if deadline is None:
        return _LOOK
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout
    return min(_LOOK, left)


def _jobs(futures: Iterable[ResponseFuture[Any]]) -> list[Job]:
    """The jobs of these futures, after those they wait for."""
    jobs: dict[Job, None] = {}
    for future in futures:
        if future.job is not None and future.job not in jobs:
            jobs |= dict.fromkeys([*future.job.upstream, future.job])
    return list(jobs)


def _label(futures: Sequence[ResponseFuture[Any]]) -> str:
    names = dict.fromkeys(job.name for job in _jobs(futures))
    return shorten(", ".join(names), _LABEL) or "calls"


def _counters(futures: list[ResponseFuture[Any]], jobs: list[Job]) -> Counters:
    """What a bar shows: whole jobs by their counters, anything else future by future."""
    total = sum(job.counters.total for job in jobs)
    own = sum(job.counters.total for job in jobs if not any(job in other.upstream for other in jobs))
    if own != len(futures):
        done = sum(future.done() for future in futures)
        return Counters(len(futures), done, sum(job.counters.running for job in jobs))
    counters = Counters(total)
    for job in jobs:
        counters.done += job.counters.done
        counters.running += job.counters.running
        counters.failed += job.counters.failed
        counters.retried += job.counters.retried
    return counters


def _add_overview(error: BaseException, futures: Sequence[ResponseFuture[Any]]) -> None:
    failures = [future.failure for future in futures if future.failure is not None]
    if len(failures) > 1:
        add_notes(error, [describe(failures, len(futures))])
