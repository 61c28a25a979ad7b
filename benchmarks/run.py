"""Benchmarks, each in a process of its own: their tables, also in docs/performance.md unless the run is a quick one."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import Row, fill, table

from lithops_mini.study.machine import machine

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BENCHMARKS = (
    "many_calls",
    "scale",
    "one_call",
    "data_in_parts",
    "object_storage",
    "objects_in_parts",
    "containers",
    "aws_lambda",
    "openwhisk",
    "knative",
)


def measure(name: str, options: list[str]) -> list[Row]:
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", *options]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name} failed, and its table is left as it was")
    return [Row(**row) for row in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="only these; default: all")
    parser.add_argument("--quick", action="store_true", help="less of everything, in five minutes; nothing is written")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = measure(name, ["--quick"] if given.quick else [])
        rows += found
        if not given.quick:
            fill(PAGE, name, table(found))
    print(f"{machine()}\n\n{table(rows)}\n")
    missed = [row.what for row in rows if row.met is False]
    print(f"{sum(row.met is True for row in rows)} targets met, {len(missed)} missed")


if __name__ == "__main__":
    main()
