"""The frame of a page: one HTML file that needs nothing beside it, neither files nor a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources

from lithops_mini.html.markup import digest, text
from lithops_mini.version import __version__


def document(
    title: str,
    facts: Mapping[str, str],
    parts: Sequence[tuple[str, str]],
    *,
    head: str = "",
    foot: str = "",
    script: str = "",
) -> str:
    """Return a page with ``facts`` under its title, and sections of titles and markup, to which links lead.

    ``head`` and ``foot`` are markup before and after the sections. Of scripts only ``script`` runs, the policy says.
    """
    runs = f"; script-src {digest(script)}" if script else ""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{runs}; base-uri 'none'; form-action 'none'"
    links = "".join(f'<a href="#part-{n}">{text(name)}</a> ' for n, (name, _) in enumerate(parts))
    sections = "".join(
        f'<section id="part-{n}"><h2>{text(name)}</h2>\n{body}</section>\n' for n, (name, body) in enumerate(parts)
    )
    told = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}: report</title>
<style>{resources.files("lithops_mini.html").joinpath("report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{text(title)}</h1>
<dl class=facts>{told}</dl>
{head}
<nav>{links}</nav></header>
<main>
{sections}</main>
<footer>lithops_mini {text(__version__)}, {now} UTC</footer>
{foot}{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""
