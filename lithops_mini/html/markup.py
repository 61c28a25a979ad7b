"""Text from anywhere as HTML. Nothing else of this package turns text into markup."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence

from lithops_mini.shorten import printable


def text(value: object) -> str:
    """Return what stands there as text, in an element as in an attribute in double quotes."""
    return html.escape(printable(str(value), keep="\n\t"))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Return a table of texts, with headings above and, in the first column, before each row."""
    head = "".join(f'<th scope="col">{text(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    named = f' class="{text(kind)}"' if kind else ""
    return f"<div class=wide><table{named}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"


def data(value: object) -> str:
    """Return JSON that may stand in a ``script`` element: it cannot end it."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def digest(source: str) -> str:
    """What a page's policy names a script by, so that no other script runs in it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
