"""Ten thousand calls that do nothing: what a call costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from joblib import Parallel, delayed
from measure import WORKERS, Row, executor, main, ratios, seconds, side_by_side, spread


def nothing(x: int) -> None:
    pass


def measure(quick: bool) -> Sequence[Row]:
    calls, rounds = (2_000, 3) if quick else (10_000, 9)
    with (
        ProcessPoolExecutor(WORKERS) as pool,
        Parallel(n_jobs=WORKERS) as joblib,
    ):
        list(pool.map(time.sleep, [0.1] * WORKERS))  # its workers are forked before ours have threads
        joblib(delayed(nothing)(x) for x in range(1000))
        with executor() as ex:
            ex.get_result(ex.map(nothing, range(1000)))

            def submit() -> None:
                for future in [pool.submit(nothing, x) for x in range(calls)]:
                    future.result()

            ours, peer, chunked, batched = side_by_side(
                rounds,
                lambda: seconds(lambda: ex.get_result(ex.map(nothing, range(calls)))),
                lambda: seconds(submit),
                lambda: seconds(lambda: list(pool.map(nothing, range(calls), chunksize=calls // (8 * WORKERS)))),
                lambda: seconds(lambda: joblib(delayed(nothing)(x) for x in range(calls))),
            )
    rates = [[calls / taken for taken in column] for column in (ours, peer, chunked, batched)]
    mine, *theirs = [spread(column, "{:,.0f}", "/s") for column in rates]
    faster = ratios(peer, ours)
    what = f"{calls:,} calls, map + get_result"
    return [
        Row(
            f"{what}; ProcessPoolExecutor, submit + result",
            mine,
            theirs[0],
            spread(faster, "{:.1f}", " x"),
            "at least 1.0 x, aim at 8 x",
            statistics.median(faster) >= 1,
        ),
        Row(f"{what}; joblib.Parallel", mine, theirs[2], spread(ratios(batched, ours), "{:.2f}", " x")),
        Row(f"{what}; pool.map with chunks", mine, theirs[1], spread(ratios(chunked, ours), "{:.2f}", " x")),
    ]


if __name__ == "__main__":
    main(measure)
