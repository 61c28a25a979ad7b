"""All benchmarks, each in a process of its own: the table, and with a full run also the one in docs/performance.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import Row, machine, table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
BENCHMARKS = (
    "many_calls",
    "scale",
    "one_call",
    "data_in_parts",
    "object_storage",
    "objects_in_parts",
    "containers",
    "aws_lambda",
)


def measure(name: str, options: list[str]) -> list[Row]:
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", *options]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name} failed; nothing was written")
    return [Row(**row) for row in json.loads(done.stdout)]


def write(rows: list[Row]) -> None:
    """Put the table between the marks of the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\nOn {machine()}:\n\n{table(rows)}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="only these; default: all")
    parser.add_argument("--quick", action="store_true", help="less of everything, in five minutes")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += measure(name, ["--quick"] if given.quick else [])
    print(f"{machine()}\n\n{table(rows)}\n")
    missed = [row.what for row in rows if row.met is False]
    print(f"{sum(row.met is True for row in rows)} targets met, {len(missed)} missed")
    if not given.names and not given.quick:
        write(rows)
        print(f"written to {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
