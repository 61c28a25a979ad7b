"""The stats of calls as tables for other programs: CSV, JSON Lines, pandas."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lithops_mini.destination import writing
from lithops_mini.errors import ConfigError, InputError
from lithops_mini.records import CallStats, Stages

if TYPE_CHECKING:
    from pandas import DataFrame


FORMATS = ("csv", "jsonl")
COLUMNS = ("stage", *(f.name for f in fields(CallStats)), "function_time")
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(stages: Stages) -> Iterator[dict[str, Any]]:
    """Yield what is known of each settled call, under ``COLUMNS``: its stage, the fields of ``CallStats``, and
    ``function_time``. Times are seconds since the epoch, or ``None``.
    """
    for name, calls in stages:
        for call in calls:
            yield {"stage": name, **call.as_dict()}


def write(stages: Stages, stream: TextIO, form: str) -> None:
    """Write the rows to a text stream, as ``csv`` with a line of headings, or as ``jsonl``, an object on each line.

    In CSV what is not known is empty, and text that a spreadsheet would run as a formula has a quote before it.
    """
    if form == "jsonl":
        stream.writelines(json.dumps(row) + "\n" for row in rows(stages))
        return
    table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows(stages):
        table.writerow({key: _harmless(value) for key, value in row.items()})


def write_file(stages: Stages, dst: str | Path) -> str:
    """``write`` to a file whose name ends in ``.csv`` or ``.jsonl``, and return its path.

    Missing directories are made, a file that exists is replaced. ``InputError`` for any other name,
    ``LithopsMiniError`` if it cannot be written.
    """
    path = Path(dst)
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise InputError(f"the name {str(dst)!r} does not say a format: end it in .csv or .jsonl")
    with writing(path, "name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
            write(stages, stream, form)
    return str(path)


def dataframe(stages: Stages) -> DataFrame:
    """The rows as a pandas ``DataFrame``; times are UTC. ``ConfigError`` if pandas is not installed."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError("a data frame needs pandas, which is not installed: pip install pandas") from error
    frame = pd.DataFrame.from_records(list(rows(stages)), columns=list(COLUMNS))
    for moment in ("submitted", "dispatched", "started", "ended", "settled"):
        frame[moment] = pd.to_datetime(frame[moment].astype("float64"), unit="s", utc=True)
    frame["function_time"] = frame["function_time"].astype("float64")
    return frame


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
