"""What travels with a function: local modules, classes and functions of a script, closures and arrays of any size."""

from __future__ import annotations

import importlib
import importlib.resources
import itertools
import linecache
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lithops_mini as lm
from lithops_mini.errors import InputError
from lithops_mini.worker.call import set_environment


class Local:
    """A directory on ``sys.path`` whose modules are forgotten afterwards."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._patch = patch
        self.on_path(root)

    def on_path(self, directory: Path) -> None:
        self._patch.syspath_prepend(directory)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        importlib.invalidate_caches()
        return path

    def load(self, name: str) -> ModuleType:
        return importlib.import_module(name)

    def forget(self, name: str) -> None:
        for loaded in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[loaded]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    before, path = set(sys.modules), list(sys.path)
    # Two versions written within a second have one time stamp: byte code must not stand for the other.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    root = tmp_path / "local"
    root.mkdir()
    yield Local(root, monkeypatch)
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path[:] = path


def run_script(directory: Path, text: str, *arguments: str, name: str = "script.py") -> str:
    """Run a program of its own; return what it prints. Without arguments the program is ``name`` itself."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    done = subprocess.run(
        [sys.executable, "-W", "error", *(arguments or (str(path),))],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- local modules


def test_a_module(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write(
        "shapes_a.py",
        """
        import constants_a

        def area(x):
            return constants_a.FACTOR * x
        """,
    )
    local.write("constants_a.py", "FACTOR = 3\n")
    assert executor.get_result(executor.map(local.load("shapes_a").area, [1, 2])) == [3, 6]


def test_a_package_travels_whole(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write("pack_b/__init__.py", "from .core import public\n")
    local.write(
        "pack_b/core.py",
        """
        import importlib
        import importlib.resources
        import os
        from . import sibling
        from .sub.deep import depth

        def public(x):
            from pack_b import late
            later = importlib.import_module("pack_b.sub.later")
            with open(os.path.join(os.path.dirname(__file__), "data", "beside.txt")) as file:
                beside = file.read()
            resource = importlib.resources.files("pack_b").joinpath("data/beside.txt").read_text()
            return sibling.NAME, depth(), late.NAME, later.NAME, beside, resource, x
        """,
    )
    for module in ("sibling", "late", "sub/later"):
        local.write(f"pack_b/{module}.py", f"NAME = {module!r}\n")
    local.write("pack_b/sub/__init__.py", "")
    local.write("pack_b/sub/deep.py", "from ..sibling import NAME\ndef depth(): return NAME * 2\n")
    local.write("pack_b/data/beside.txt", "data")
    expected = ("sibling", "siblingsibling", "late", "sub/later", "data", "data", 5)
    assert executor.get_result(executor.call_async(local.load("pack_b").public, 5)) == expected


def test_the_module_that_runs_is_the_one_that_travelled(workers: lm.FunctionExecutor, local: Local) -> None:
    local.write("where_c.py", "def where(_): return __file__\n")
    where = workers.get_result(workers.call_async(local.load("where_c").where, 1))
    assert not Path(where).is_relative_to(local.root)


def test_a_module_named_like_one_of_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("def mean(x): return ['mine', x]\n")
    output = run_script(
        tmp_path,
        """
        import lithops_mini as lm
        import statistics
        if __name__ == "__main__":
            with lm.localhost_executor(max_workers=1, progress=False) as ex:
                print(ex.get_result(ex.map(statistics.mean, [5])))
        """,
    )
    assert output == "[['mine', 5]]\n"


def test_a_module_only_an_argument_needs(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write(
        "kinds_d.py",
        """
        import enum, dataclasses
        class Colour(enum.Enum):
            RED = 1
        @dataclasses.dataclass(frozen=True)
        class Thing:
            name: str
            colour: Colour = Colour.RED
        class Broken(Exception):
            def __init__(self, code):
                super().__init__(f"code {code}")
                self.code = code
            def __reduce__(self):
                return Broken, (self.code,)
        """,
    )
    kinds = local.load("kinds_d")
    things = [kinds.Thing("a"), {"x": [kinds.Thing("b")]}]
    first, second = executor.get_result(executor.map(lambda x: x, things))
    assert first == kinds.Thing("a")
    assert type(second[0]) is kinds.Thing
    assert second[0].colour is kinds.Colour.RED
    assert executor.get_result(executor.map(lambda x: x.RED, [kinds.Colour])) == [kinds.Colour.RED]
    assert executor.get_result(executor.map(lambda error: error.code, [kinds.Broken(5)])) == [5]
    broken = kinds.Broken

    def fail(x: int) -> None:
        raise broken(x)

    with pytest.raises(kinds.Broken, match="code 7"):
        executor.get_result(executor.map(fail, [7]))


def test_a_lambda_and_a_closure_of_a_module(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write(
        "lambdas_e.py",
        """
        import functools
        def helper(x): return x + 1
        twice = lambda x: 2 * helper(x)
        def adder(n):
            def add(x): return helper(x) + n
            return add
        def decorate(function):
            @functools.wraps(function)
            def wrapper(*args): return ["wrapped", function(*args)]
            return wrapper
        @decorate
        def decorated(x): return helper(x)
        class Model:
            def __init__(self, k): self.k = k
            def predict(self, x): return helper(x) * self.k
        """,
    )
    module = local.load("lambdas_e")
    assert executor.get_result(executor.map(module.twice, [1])) == [4]
    assert executor.get_result(executor.map(module.adder(5), [1])) == [7]
    assert executor.get_result(executor.map(module.decorated, [1])) == [["wrapped", 2]]
    assert executor.get_result(executor.map(module.Model(3).predict, [1])) == [6]


def test_namespace_packages(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write("space_f/inner/module.py", "from space_f.other import VALUE\ndef value(x): return VALUE + x\n")
    local.write("space_f/other.py", "VALUE = 40\n")
    function = local.load("space_f.inner.module").value
    assert executor.get_result(executor.map(function, [2])) == [42]


def test_a_module_imported_only_in_the_function(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write("late_g.py", "import later_g\nVALUE = later_g.VALUE\n")
    local.write("later_g.py", "VALUE = 7\n")

    def function(x: int) -> int:
        import late_g  # type: ignore[import-not-found]

        return late_g.VALUE + x

    assert executor.get_result(executor.map(function, [1])) == [8]


def test_include_modules_for_what_cannot_be_seen(workers: lm.FunctionExecutor, local: Local) -> None:
    local.write("hidden_h.py", "VALUE = 7\n")

    def function(name: str) -> int:
        return importlib.import_module(name).VALUE

    with pytest.raises(ModuleNotFoundError, match="hidden_h"):
        workers.get_result(workers.map(function, ["hidden_h"]))
    assert workers.get_result(workers.map(function, ["hidden_h"], include_modules=["hidden_h"])) == [7]


def test_exclude_modules_and_submodules(workers: lm.FunctionExecutor, local: Local) -> None:
    local.write("pack_i/__init__.py", "")
    local.write("pack_i/kept.py", "VALUE = 1\n")
    local.write("pack_i/heavy.py", "VALUE = 2\n")
    local.write("pack_i/vast/__init__.py", "VALUE = 3\n")
    names = ["pack_i.kept", "pack_i.heavy", "pack_i.vast"]

    def function(name: str) -> str:
        import pack_i  # type: ignore[import-not-found]  # noqa: F401

        try:
            return str(importlib.import_module(name).VALUE)
        except ImportError as error:
            return type(error).__name__

    assert workers.get_result(workers.map(function, names)) == ["1", "2", "3"]
    values = workers.get_result(workers.map(function, names, exclude_modules=["pack_i.heavy", "pack_i.vast"]))
    assert values == ["1", "ModuleNotFoundError", "ModuleNotFoundError"]
    with (
        lm.localhost_executor(max_workers=1, progress=False, exclude_modules=["pack_i"]) as others,
        pytest.raises(ModuleNotFoundError, match="pack_i"),
    ):
        others.get_result(others.map(function, names))


@pytest.mark.parametrize("name", ["no_such_module", "numpy", "json", "sys"])
def test_what_cannot_be_included_is_refused(workers: lm.FunctionExecutor, name: str) -> None:
    with pytest.raises(InputError, match=f"no local module named '{name}'"):
        workers.map(lambda x: x, [1], include_modules=[name])


def test_installed_modules_do_not_travel(workers: lm.FunctionExecutor) -> None:
    def places(_: int) -> list[str]:
        return [np.__file__, pd.__file__, pytest.__file__, lm.__file__ or ""]

    assert workers.get_result(workers.map(places, [1])) == [[np.__file__, pd.__file__, pytest.__file__, lm.__file__]]


def test_an_edited_module_runs_as_it_is_now(workers: lm.FunctionExecutor, local: Local) -> None:
    for version in (1, 2, 3):
        local.write("edited_j.py", f"def version(x): return [{version}, x]\n")
        local.forget("edited_j")
        function = local.load("edited_j").version
        assert workers.get_result(workers.map(function, range(4))) == [[version, x] for x in range(4)]


def test_versions_of_a_module_do_not_mix(workers: lm.FunctionExecutor, local: Local) -> None:
    functions = []
    for version in ("old", "new"):
        local.write(f"{version}/versioned_k/__init__.py", "from .part import name\ndef function(x): return name(x)\n")
        local.write(f"{version}/versioned_k/part.py", f"def name(x): return {version!r}\n")
    for version in ("old", "new"):
        local.on_path(local.root / version)
        local.forget("versioned_k")
        functions.append(local.load("versioned_k").function)
        # Both are at work at the same time, on the same workers.
        futures = [workers.map(functions[-1], range(6), chunksize=1)]
    old = "old"
    local.on_path(local.root / old)
    local.forget("versioned_k")
    again = workers.map(local.load("versioned_k").function, range(6), chunksize=1)
    assert workers.get_result(futures[0]) == ["new"] * 6
    assert workers.get_result(again) == ["old"] * 6


def test_inline_calls_leave_the_path_alone(local: Local) -> None:
    local.write("module_l.py", "def function(x):\n    import late_l\n    return late_l.VALUE\n")
    local.write("late_l.py", "VALUE = 1\n")
    path = list(sys.path)
    with lm.function_executor("inline", progress=False) as executor:
        assert executor.get_result(executor.map(local.load("module_l").function, [1])) == [1]
        assert sys.path == path
    assert Path(sys.modules["late_l"].__file__ or "").is_relative_to(local.root)


def test_environments_of_inline_calls_that_overlap_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLAP_HERE", "client")
    before = dict(os.environ)
    for order in itertools.permutations(range(3)):
        restores = [set_environment({"OVERLAP_HERE": f"job {n}", "OVERLAP_NEW": f"job {n}"}) for n in range(3)]
        running = {0, 1, 2}
        for n in order:
            assert (os.environ["OVERLAP_HERE"], os.environ["OVERLAP_NEW"]) == (f"job {max(running)}",) * 2
            restores[n]()
            running.remove(n)
        assert dict(os.environ) == before


def test_a_large_package_is_quick(workers: lm.FunctionExecutor, local: Local) -> None:
    local.write("many_m/__init__.py", "def count(x):\n    from .m999 import VALUE\n    return VALUE + x\n")
    for number in range(1000):
        (local.root / f"many_m/m{number}.py").write_text(f'"""Module {number}."""\nVALUE = {number}\n' * 20)
    function = local.load("many_m").count
    assert workers.get_result(workers.map(function, [1])) == [1000]
    started = time.monotonic()
    assert workers.get_result(workers.map(function, range(10))) == [999 + x for x in range(10)]
    assert time.monotonic() - started < 2


def test_too_much_to_send_is_refused(workers: lm.FunctionExecutor, local: Local) -> None:
    local.write("vast_n/__init__.py", "def function(x): return x\n")
    with open(local.root / "vast_n/data.bin", "wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(InputError, match=r"over 64 MiB, 'vast_n'.*exclude_modules"):
        workers.map(local.load("vast_n").function, [1])


def test_broken_files_of_a_package_are_nobodys_business(executor: lm.FunctionExecutor, local: Local) -> None:
    local.write("odd_o/__init__.py", "def function(x): return x\n")
    local.write("odd_o/template.py", "class {{ name }}:\n")
    (local.root / "odd_o" / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nNAME = 'é'\n".encode("latin-1"))
    (local.root / "odd_o" / "not_text.py").write_bytes(b"\0\xff\xfe")
    os.symlink("nowhere", local.root / "odd_o" / "dangling.py")
    assert executor.get_result(executor.map(local.load("odd_o").function, [1])) == [1]


# -- scripts, notebooks, python -m


def test_everything_a_script_defines(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def helper(x): return x + 1\n")
    output = run_script(
        tmp_path,
        """
        import dataclasses, enum, functools
        from collections import namedtuple
        import lithops_mini as lm
        import beside

        SCALE = 2

        @dataclasses.dataclass
        class Point:
            x: int
            def __add__(self, other): return Point(self.x + other.x)

        class Colour(enum.Enum):
            RED = 1

        Pair = namedtuple("Pair", "left right")

        class Base:
            def __init__(self, k): self.k = k
            def run(self, x): return self.k * x

        class Derived(Base):
            def run(self, x): return super().run(x) + 1
            @property
            def name(self): return "derived"
            @functools.cached_property
            def costly(self): return self.k * 100

        class Refused(Exception):
            pass

        @functools.singledispatch
        def kind(x): return "object"
        @kind.register
        def kind_of_int(x: int): return "int"
        class Kinds:
            @functools.singledispatchmethod
            def of(self, x): return "object"
            @of.register
            def _(self, x: int): return "int"
            @functools.lru_cache
            def costly(self, x): return [x]
            half = functools.partialmethod(lambda self, x: x / 2)

        def scaled(x): return SCALE * beside.helper(x)
        def recursive(n): return 1 if n < 2 else n * recursive(n - 1)
        @functools.lru_cache
        def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
        @functools.lru_cache(maxsize=None)
        def cached(x): return x + 1
        def uses_cached(x): return cached(x), fibonacci(x)
        def decorate(f):
            @functools.wraps(f)
            def wrapper(*args): return -f(*args)
            return wrapper
        @decorate
        def negative(x): return x
        def refuse(x): raise Refused(x)

        if __name__ == "__main__":
            with lm.localhost_executor(max_workers=2, progress=False) as ex:
                def run(function, *items): return ex.get_result(ex.map(function, items))
                assert run(scaled, 1, 2) == [4, 6]
                SCALE = 10
                assert run(scaled, 1) == [20]
                assert run(recursive, 5) == [120]
                assert run(fibonacci, 30) == [832040]
                assert run(cached, 1) == [2]
                assert run(uses_cached, 10) == [(11, 55)]
                assert run(negative, 3) == [-3]
                assert run(kind, 3, "a") == ["int", "object"]
                assert run(Kinds().of, 3, "a") == ["int", "object"]
                assert run(Kinds().costly, 3) == [[3]]
                assert run(Kinds().half, 3) == [1.5]
                assert run(Derived(3).run, 2) == [7]
                assert run(lambda d: (d.name, d.costly, type(d).__base__), Derived(3)) == [("derived", 300, Base)]
                [point] = run(lambda p: p + Point(1), Point(4))
                assert type(point) is Point and point == Point(5)
                [derived] = run(Derived, 5)
                assert type(derived) is Derived and derived.costly == 500
                [colour] = run(lambda c: [c, c is Colour.RED], Colour.RED)
                assert colour == [Colour.RED, True] and colour[0] is Colour.RED
                [pair] = run(lambda x: Pair(x, x), 1)
                assert type(pair) is Pair
                assert ex.get_result(ex.map_reduce(scaled, [1, 2], lambda rs: Point(sum(rs)))) == Point(50)
                try:
                    run(refuse, 1)
                except Refused as error:
                    assert error.args == (1,)
                Point.label = "changed"
                assert run(lambda p: type(p).label, Point(1)) == ["changed"]
                print("done")
        """,
    )
    assert output == "done\n"


def test_a_module_run_with_dash_m(tmp_path: Path) -> None:
    for name, text in {"__init__": "", "sibling": "NAME = 'sibling'", "late": "NAME = 'late'"}.items():
        (tmp_path / "app_p").mkdir(exist_ok=True)
        (tmp_path / "app_p" / f"{name}.py").write_text(text)
    output = run_script(
        tmp_path,
        """
        import lithops_mini as lm
        from . import sibling
        from .sibling import NAME

        class Thing: pass

        def function(x):
            from .late import NAME as late
            from . import late as module
            return sibling.NAME, NAME, late, module.NAME, x

        if __name__ == "__main__":
            with lm.localhost_executor(max_workers=1, progress=False) as ex:
                print(ex.get_result(ex.call_async(function, 5)))
                assert type(ex.get_result(ex.call_async(lambda x: Thing(), 5))) is Thing
        """,
        "-m",
        "app_p.main",
        name="app_p/main.py",
    )
    assert output == "('sibling', 'sibling', 'late', 'late', 5)\n"


def test_a_program_from_standard_input(tmp_path: Path) -> None:
    program = dedent(
        """
        import lithops_mini as lm
        class Thing: pass
        def function(x): return Thing()
        with lm.localhost_executor(max_workers=1, progress=False) as ex:
            assert type(ex.get_result(ex.call_async(function, 1))) is Thing
            print("done")
        """
    )
    for arguments, stdin in ((["-c", program], ""), (["-"], program)):
        done = subprocess.run(
            [sys.executable, *arguments], input=stdin, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stdout == "done\n", done.stderr


def test_a_cell_of_a_notebook(executor: lm.FunctionExecutor) -> None:
    cell = "def cell_function(x):\n    y = x - 1\n    return 1 / y  # the line that fails\n"
    name = "<ipython-input-1-abc>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(cell, name, "exec"), namespace)
    assert executor.get_result(executor.map(namespace["cell_function"], [2])) == [1.0]
    with pytest.raises(ZeroDivisionError) as caught:
        executor.get_result(executor.map(namespace["cell_function"], [1]))
    assert "return 1 / y  # the line that fails" in str(caught.value.__cause__)


def test_a_worker_started_elsewhere_does_not_find_modules_by_chance(tmp_path: Path) -> None:
    """The directory the client stands in is not on a worker's path: it would not be anywhere else either."""
    (tmp_path / "chance_q.py").write_text("VALUE = 1\n")
    output = run_script(
        tmp_path,
        """
        import importlib
        import lithops_mini as lm
        def function(name):
            try:
                return importlib.import_module(name).VALUE
            except ModuleNotFoundError:
                return "not there"
        if __name__ == "__main__":
            with lm.localhost_executor(max_workers=1, progress=False) as ex:
                print(ex.get_result(ex.call_async(function, "chance_q")))
        """,
    )
    assert output == "not there\n"


# -- closures and code


def test_large_closures_and_code(executor: lm.FunctionExecutor) -> None:
    data = os.urandom(20 << 20)
    table = np.arange(1 << 20)
    source = "def long_function(x):\n" + "".join(f"    x = x + {n} - {n}\n" for n in range(5000)) + "    return x\n"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    long_function = namespace["long_function"]

    def function(x: int) -> tuple[int, int, int]:
        return len(data), int(table[-1]), long_function(x)

    assert executor.get_result(executor.map(function, [1, 2])) == [(20 << 20, (1 << 20) - 1, x) for x in (1, 2)]


def test_the_function_travels_once_for_many_jobs(workers: lm.FunctionExecutor) -> None:
    data = os.urandom(1 << 20)
    prefix = f"lithops_mini/jobs/{workers.executor_id}/code/"
    before = set(workers.storage.list_keys(workers.config.job.storage_bucket, prefix))
    for x in range(3):
        assert workers.get_result(workers.map(lambda x: (x, len(data)), [x])) == [(x, 1 << 20)]
    after = set(workers.storage.list_keys(workers.config.job.storage_bucket, prefix))
    assert len(after - before) == 1


def test_a_global_that_changes_between_maps(executor: lm.FunctionExecutor) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "SETTING": 1}
    exec("def function(x): return SETTING * x", namespace)
    assert executor.get_result(executor.map(namespace["function"], [5])) == [5]
    namespace["SETTING"] = 2
    assert executor.get_result(executor.map(namespace["function"], [5])) == [10]


# -- arrays


ARRAYS = {
    "small": np.arange(10),
    "large": np.arange(100_000, dtype=np.float64),
    "two dimensions": np.arange(60_000).reshape(200, 300),
    "column order": np.asfortranarray(np.arange(60_000).reshape(200, 300)),
    "strided": np.arange(100_000)[::3],
    "transposed": np.arange(60_000).reshape(200, 300).T,
    "scalar": np.array(5.0),
    "empty": np.empty((0, 3)),
    "objects": np.array([1, "two", None, [3]], dtype=object),
    "text": np.array(["a", "bcd"]),
    "structured": np.zeros(20_000, dtype=[("a", "i4"), ("b", "f8")]),
    "times": np.array(["2024-01-01", "NaT"], dtype="datetime64[s]"),
    "big endian": np.arange(50_000, dtype=">i8"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_and_go_equal_and_writable(executor: lm.FunctionExecutor, name: str) -> None:
    array = ARRAYS[name]

    def change(given: Any) -> tuple[Any, bool, Any]:
        same = given.copy()
        writable = given.flags.writeable
        given[...] = given.flat[0] if given.size else 0
        return same, writable, given

    same, writable, changed = executor.get_result(executor.call_async(change, array))
    assert writable
    for result in (same, changed):
        assert (result.dtype, result.shape) == (array.dtype, array.shape)
        assert result.flags.writeable
    assert np.array_equal(same, array, equal_nan=array.dtype.kind in "fM")
    assert np.array_equal(array, ARRAYS[name], equal_nan=array.dtype.kind in "fM")


def test_what_a_call_does_to_its_array_stays_with_it(executor: lm.FunctionExecutor) -> None:
    def spoil(array: Any) -> float:
        array += 1
        return float(array.sum())

    array = np.zeros(100_000)
    assert executor.get_result(executor.map(spoil, [array, array])) == [100_000.0] * 2
    shared = executor.get_result(executor.map(lambda x: array + x, [0]))[0]
    assert shared.sum() == array.sum() == 0


def test_frames(executor: lm.FunctionExecutor) -> None:
    frame = pd.DataFrame({"a": np.arange(50_000), "b": ["x", "y"] * 25_000, "c": pd.date_range("2024", periods=50_000)})

    def change(given: Any) -> Any:
        given["d"] = given.a * 2
        given.loc[0, "a"] = 99
        return given

    result = executor.get_result(executor.call_async(change, frame))
    expected = frame.assign(d=frame.a * 2)
    expected.loc[0, "a"] = 99
    pd.testing.assert_frame_equal(result, expected)
    assert "d" not in frame


def test_big_arrays_are_not_copied_in_the_client(tmp_path: Path) -> None:
    """200 MB go, 200 MB come: the client holds those and little else."""
    output = run_script(
        tmp_path,
        """
        import numpy as np
        import lithops_mini as lm

        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

        if __name__ == "__main__":
            array = np.ones(200 << 17)
            with lm.localhost_executor(max_workers=1, progress=False) as ex:
                before = peak()
                future = ex.call_async(lambda x: x + 1, array)
                lm.wait(future)
                sent = peak() - before
                result = future.result()
                received = peak() - before
                assert result.flags.writeable and result[0] == result[-1] == 2
                print(sent >> 20, received >> 20)
        """,
    )
    sent, received = map(int, output.split())
    assert sent < 40, "the arguments were copied"
    assert received < 240, "the result was copied"


def test_bytearrays_and_large_bytes(executor: lm.FunctionExecutor) -> None:
    for value in (bytearray(b"ab") * 200_000, b"ab" * 200_000, "ä" * 300_000):
        result = executor.get_result(executor.call_async(lambda x: [x, x], value))
        assert result == [value, value]
        assert type(result[0]) is type(value)
        assert result[0] is result[1]


def run_both(function: Callable[..., Any]) -> list[Any]:
    results = []
    for backend in ("localhost", "inline"):
        with lm.function_executor(backend, progress=False) as executor:
            results.append(executor.get_result(executor.call_async(function, 1)))
    return results


def test_a_future_in_a_closure_is_a_future_in_the_worker(executor: lm.FunctionExecutor) -> None:
    future = executor.call_async(lambda x: x + 1, 4)
    futures = executor.map(lambda x: x, [1, 2])

    def function(x: int) -> Any:
        return x + future.result(), [each.result() for each in futures]

    assert executor.get_result(executor.map(function, [10])) == [(15, [1, 2])]
