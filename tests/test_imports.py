"""What imports what: between the layers, and in a fresh interpreter, where every module costs start-up time."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

import lithops_mini

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lithops_mini.__path__, "lithops_mini.")
    if not module.name.endswith("__main__")
)


def modules_after(statement: str, tmp_path: Path) -> set[str]:
    """The modules a fresh interpreter has imported for ``statement``, beyond those of its own start."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    return set(done.stdout.split())


def third_party(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"lithops_mini"}


def test_layers() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = modules_after("import lithops_mini", tmp_path)
    assert third_party(modules) == set()
    assert modules & {"asyncio", "importlib.metadata", "inspect", "logging"} == set()


def test_the_worker_imports_the_standard_library_and_cloudpickle(tmp_path: Path) -> None:
    modules = modules_after("import lithops_mini.worker.runner", tmp_path)
    assert third_party(modules) <= {"cloudpickle"}
    assert modules & {"asyncio", "importlib.metadata", "multiprocessing", "urllib.request"} == set()


# What others have made is loaded once, which takes longest; then each process begins without any module of ours.
IMPORT_EACH = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for name in list(sys.modules):
    if name.partition(".")[0] == "lithops_mini":
        del sys.modules[name]
for name in sys.argv[1:]:
    if not os.fork():
        importlib.import_module(name)
        assert name in sys.modules
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{name} cannot be imported first")
"""


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORT_EACH, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
