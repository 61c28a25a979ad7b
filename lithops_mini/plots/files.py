"""The pictures as files, and as what a notebook shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lithops_mini.plots.calls import histogram, timeline
from lithops_mini.plots.progress import stage_progress
from lithops_mini.plots.style import Stages
from lithops_mini.plots.usage import utilisation
from lithops_mini.plots.workers import worker_lifetimes
from lithops_mini.progress import in_notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "timeline": timeline,
    "histogram": histogram,
    "stages": stage_progress,
    "utilisation": utilisation,
    "workers": worker_lifetimes,
}


class Pictures(list[str]):
    """The paths of the pictures, and the pictures: in a notebook they are shown.

    ``figures``: matplotlib's figures, by their kinds.
    """

    def __init__(self, paths: Iterable[str], figures: Mapping[str, Figure]) -> None:
        super().__init__(paths)
        self.figures = dict(figures)

    def _repr_html_(self) -> str:
        return "\n".join(
            f'<img src="{data_url(figure, "png")}" alt="{kind}" style="max-width: 100%; display: block">'
            for kind, figure in self.figures.items()
        )


def plot(stages: Stages, dst: str | Path | None = None, *, name: str = "lithops_mini") -> Pictures:
    """Draw the pictures of ``KINDS`` of these stages, write them, and return their paths, in that order.

    ``dst`` is a directory (one that exists, or ends in ``/``), where they are ``<name>_timeline.png`` and so on; or
    what the paths begin with: ``out/job`` gives ``out/job_timeline.png``. Ending in ``.png``, ``.svg`` or ``.pdf`` it
    also says the format. Default: the current directory, except in a notebook, where nothing is written. Missing
    directories are made, pictures that exist are replaced. Raises what ``timeline`` raises, and ``OSError``.
    """
    figures = {kind: draw(stages) for kind, draw in KINDS.items()}
    if dst is None and in_notebook():
        return Pictures([], figures)
    prefix, suffix = _destination(dst, name)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, figure in figures.items():
        path = prefix.with_name(f"{prefix.name}_{kind}{suffix}")
        figure.savefig(path)
        paths.append(str(path))
    return Pictures(paths, figures)


def data_url(figure: Figure, kind: str) -> str:
    """The figure as an address that has all of it, for HTML. ``kind``: png or svg."""
    written = io.BytesIO()
    figure.savefig(written, format=kind)
    return picture_url(written.getvalue(), kind)


def picture_url(data: bytes, kind: str) -> str:
    """The same of a picture that has been written."""
    media = "image/svg+xml" if kind == "svg" else f"image/{kind}"
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def _destination(dst: str | Path | None, name: str) -> tuple[Path, str]:
    """Return what the files' paths begin with, and their suffix."""
    path = Path("" if dst is None else dst)
    if path.is_dir() or str(dst).endswith("/"):
        return path / name, ".png"
    if path.suffix.lower() in (".png", ".svg", ".pdf"):
        return path.with_suffix(""), path.suffix.lower()
    return path, ".png"
