"""The files of the study: for each metric a picture and a table, and one page with all of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from lithops_mini.durations import format_duration
from lithops_mini.html.document import document
from lithops_mini.html.markup import table, text
from lithops_mini.plots.files import picture_url
from lithops_mini.sizes import format_size
from lithops_mini.study.grid import OTHER, Measurement, Run
from lithops_mini.study.machine import machine
from lithops_mini.study.pictures import metrics_of

_HEADINGS = (
    *("engine", "workers", "data", "region", "run", "time", "map", "reduce", "to distribute", "processor", "read/s"),
    *("memory", "cold", "retries", "requests", "GB-seconds", "dollars", "against the truth"),
)


def write(directory: Path, runs: Sequence[Run]) -> list[Path]:
    """Write all pictures and tables of these runs, and ``report.html``; return its path first, then the others."""
    paths = [directory / "report.html"]
    sections = []
    for metric in metrics_of(runs):
        figure = metric.draw(runs)
        picture, rows = directory / f"{metric.name}.png", directory / f"{metric.name}.csv"
        figure.savefig(picture)
        with open(rows, "w", newline="", encoding="utf-8") as file:
            headings, values = metric.table(runs)
            csv.writer(file).writerows([headings, *values])
        image = f'<figure><img src="{picture_url(picture.read_bytes(), "png")}" alt="{text(metric.title)}">'
        sections.append((metric.title, f"{image}<figcaption>{text(metric.caption)}</figcaption></figure>"))
        paths += [picture, rows]
    measured = [run.measured for run in runs]
    sections.append(("Measurements", table(_HEADINGS, [_row(each) for each in measured], kind="numbers")))
    paths[0].write_text(document("OpenAQ study", facts(measured), sections), encoding="utf-8")
    return paths


def facts(measured: Sequence[Measurement]) -> dict[str, str]:
    """Where and when it was, and of what."""
    first = measured[0]
    most = max(measured, key=lambda each: each.bytes_read)
    checked = sum(each.checked for each in measured)
    return {
        "backend": first.backend,
        "storage": first.storage,
        "client": machine(),
        "data": f"up to {format_size(most.bytes_read)}, {most.lines:,} measurements, {most.averages:,} averages",
        "runs": f"{len(measured):,}, of which {checked:,} were compared with the truth and agree",
    }


def _row(each: Measurement) -> list[str]:
    return [
        each.engine,
        f"{each.workers:,}",
        f"{each.gigabytes:g} GB",
        "another" if each.region == OTHER else "the same",
        f"{each.repeat}",
        format_duration(each.wall_time),
        format_duration(each.map_time),
        format_duration(each.reduce_time),
        format_duration(each.distribution_time),
        f"{each.cpu_share:.0%}",
        format_size(round(each.bytes_per_second)),
        format_size(each.peak_memory),
        f"{each.cold_starts:,}",
        f"{each.retries:,}",
        f"{each.storage_requests:,}",
        f"{each.gb_seconds:,.3f}",
        f"{each.dollars:.6f}",
        "agrees" if each.checked else "not compared",
    ]
