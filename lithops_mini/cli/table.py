"""Tables and single words of the command line's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lithops_mini.shorten import printable

Cell = str | int | None


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Yield the lines of a table. Numbers stand right, with separators; ``None`` is a dash."""
    texts = [[_text(cell) for cell in row] for row in rows]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(headings))]
    widths = [max(len(row[i]) for row in (headings, *texts)) for i in range(len(headings))]
    for row in (headings, *texts):
        cells = zip(row, widths, numeric, strict=True)
        yield "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in cells).rstrip()


def count(number: int, what: str) -> str:
    """``"1 job"``, ``"1,200 jobs"``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else printable(cell)
