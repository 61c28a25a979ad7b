"""The pictures as files, and as what a notebook shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lithops_mini.destination import try_to_write, writing
from lithops_mini.errors import InputError
from lithops_mini.plots.calls import histogram, timeline
from lithops_mini.plots.progress import stage_progress
from lithops_mini.plots.usage import utilisation
from lithops_mini.plots.workers import worker_lifetimes
from lithops_mini.progress import in_notebook
from lithops_mini.records import NO_ATTEMPTS, Attempts, Stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "timeline": timeline,
    "histogram": histogram,
    "stages": stage_progress,
    "utilisation": utilisation,
    "workers": worker_lifetimes,
}
# Endings that say a format in which nobody here writes a picture; any other dot is part of a name, as in run.v2.
_OTHER_FORMATS = {
    *(".gif", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".eps", ".ps"),
    *(".html", ".htm", ".csv", ".json"),
}
_WAY_OUT = "name another place for the pictures"


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


def plot(
    stages: Stages, dst: str | Path | None = None, *, name: str = "lithops_mini", attempts: Attempts = NO_ATTEMPTS
) -> Pictures:
    """Draw the pictures of ``KINDS`` of these stages, write them, and return their paths, in that order.

    ``dst`` is a directory (one that exists, or ends in ``/``), where they are ``<name>_timeline.png`` and so on; or
    what the paths begin with: ``out/job`` gives ``out/job_timeline.png``. Ending in ``.png``, ``.svg`` or ``.pdf`` it
    also says the format. Default: the current directory, except in a notebook, where nothing is written. Missing
    directories are made, pictures that exist are replaced. ``attempts`` and what is raised as in ``timeline``; before
    anything is drawn ``InputError`` for the suffix of another format, ``LithopsMiniError`` for what cannot be written.
    """
    paths = {} if dst is None and in_notebook() else _paths(dst, name)
    figures = {kind: draw(stages, attempts) for kind, draw in KINDS.items()}
    for kind, path in paths.items():
        with writing(path, _WAY_OUT):
            figures[kind].savefig(path)
    return Pictures(map(str, paths.values()), figures)


def data_url(figure: Figure, kind: str) -> str:
    """The figure as an address that has all of it, for HTML. ``kind``: png or svg."""
    written = io.BytesIO()
    figure.savefig(written, format=kind)
    return picture_url(written.getvalue(), kind)


def picture_url(data: bytes, kind: str) -> str:
    """The same of a picture that has been written."""
    media = "image/svg+xml" if kind == "svg" else f"image/{kind}"
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def _paths(dst: str | Path | None, name: str) -> dict[str, Path]:
    """Where each kind will be written, which has been tried."""
    path = Path("" if dst is None else dst)
    with writing(path, _WAY_OUT):
        prefix, suffix = _destination(path, name, is_directory=path.is_dir() or str(dst).endswith("/"))
        paths = {kind: prefix.with_name(f"{prefix.name}_{kind}{suffix}") for kind in KINDS}
        for each in paths.values():
            try_to_write(each)
    return paths


def _destination(path: Path, name: str, *, is_directory: bool) -> tuple[Path, str]:
    """Return what the files' paths begin with, and their suffix."""
    suffix = path.suffix.lower()
    if is_directory:
        return path / name, ".png"
    if suffix in _OTHER_FORMATS:
        raise InputError(f"pictures are not written as {suffix}: end {str(path)!r} in .png, .svg or .pdf")
    if suffix in (".png", ".svg", ".pdf"):
        return path.with_suffix(""), suffix
    return path, ".png"
