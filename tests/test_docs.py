"""The code in README.md and docs/*.md runs as it stands there.

The ```python blocks of a page run in order, as one script, in an empty directory; then the lines ``$ lithops-mini ...``
of its ```console blocks, which must succeed. Two comments on the line before a block change that:

    <!-- skip: why it cannot run here -->
    <!-- file: name -->       the block, of whatever language, is a file of that name in the directory
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
FENCE = re.compile(r"^ *```(\w*)")
MARK = re.compile(r"^ *<!-- (skip|file): (.+) -->$")


@dataclass(frozen=True)
class Block:
    language: str
    line: int  # of its first line of code, from 1
    text: str
    marks: dict[str, str]


def blocks(page: str) -> Iterator[Block]:
    lines = page.splitlines()
    start = None
    for number, line in enumerate(lines):
        if not (fence := FENCE.match(line)):
            continue
        if start is None:
            start, language = number, fence[1]
            continue
        mark = MARK.match(lines[start - 1])
        text = textwrap.dedent("\n".join(lines[start + 1 : number])) + "\n"
        yield Block(language, start + 2, text, {mark[1]: mark[2]} if mark else {})
        start = None
    assert start is None, f"the block of line {start} has no end"


def as_script(python: list[Block]) -> str:
    """The blocks as one script in which every line has the number it has on the page."""
    lines: list[str] = []
    for block in python:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HOME": str(directory),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_code_of_the_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if page.stem == "docker":
        request.getfixturevalue("docker_engine")
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if "skip" not in block.marks]
    for block in found:
        if name := block.marks.get("file"):
            (tmp_path / name).write_text(block.text, encoding="utf-8")
    python = [block for block in found if block.language == "python" and not block.marks]
    name = page.stem.replace("-", "_")
    hides = importlib.util.find_spec(name) is not None  # as docker.py would hide the module docker
    script = tmp_path / f"{name}{'_page' if hides else ''}.py"
    script.write_text(as_script(python), encoding="utf-8")
    done = run([sys.executable, "-W", "error", script.name], tmp_path)
    if done.returncode != 0:
        lines = re.findall(rf'{re.escape(script.name)}", line (\d+)', done.stderr)
        pytest.fail(
            f"{page.name}:{lines[-1] if lines else '?'} ended with {done.returncode}\n{done.stderr}", pytrace=False
        )
    for block in found:
        if block.language != "console" or block.marks:
            continue
        for number, line in enumerate(block.text.splitlines(), block.line):
            if line.startswith("$ lithops-mini "):
                done = run(shlex.split(line.removeprefix("$ ")), tmp_path)
                if done.returncode != 0:
                    report = f"{page.name}:{number} {line!r} ended with {done.returncode}\n{done.stdout}{done.stderr}"
                    pytest.fail(report, pytrace=False)


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_blocks_keep_the_line_numbers_of_their_page() -> None:
    page = (
        "# Page\n\n```python\na = 1\n```\ntext\n<!-- skip: no cloud here -->\n```python\nb\n```\n\n"
        "- item\n\n  ```python\n  c = a\n  ```\n"
    )
    found = list(blocks(page))
    assert [(block.line, block.marks) for block in found] == [(4, {}), (9, {"skip": "no cloud here"}), (15, {})]
    script = as_script([block for block in found if not block.marks]).splitlines()
    assert (script[3], script[14]) == ("a = 1", "c = a")
    assert not "".join(script[4:14])
