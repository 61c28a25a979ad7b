"""The command line, run as users run it: as a process where signals, pipes and terminals matter, else in this one."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from lithops_mini import cli
from lithops_mini.cli.app import Commands, app
from lithops_mini.cli.options import config_options
from lithops_mini.cli.storage import path_below
from lithops_mini.config import load
from lithops_mini.errors import InputError

COMMAND = [sys.executable, "-m", "lithops_mini"]

OWN_TERMINAL = """\
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its Ctrl-C is a signal
runpy.run_module("lithops_mini", run_name="__main__")
"""

TWO_PROFILES = """\
default_profile: one
profiles:
  one: {storage_bucket: first, localhost: {storage_path: store}}
  two: {storage_bucket: second, localhost: {storage_path: store}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own, in which a file sends all objects to ./store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lithops_mini.yaml").write_text(TWO_PROFILES)
    return tmp_path


def run(*arguments: str, code: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, arguments, input=stdin, prog_name="lithops-mini")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def process(*arguments: str, **options) -> subprocess.Popen:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*COMMAND, *arguments], **options)


def on_terminal(*arguments: str, answer: bytes = b"") -> tuple[str, int]:
    """Run the command on a terminal, type ``answer`` when it asks, and return what the screen showed and its code."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    options = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    child = subprocess.Popen([sys.executable, "-c", OWN_TERMINAL, *arguments], start_new_session=True, **options)
    os.close(terminal)
    shown, typed = b"", b""
    while True:
        if not select.select([screen], [], [], 2)[0]:
            # A signal that comes just before Python begins to read is seen only when something else is typed.
            os.write(screen, typed)
            continue
        try:
            block = os.read(screen, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            block = b""
        if not block:
            break
        shown += block
        if answer and shown.rstrip().endswith(b"[y/N]:"):
            os.write(screen, answer)
            typed, answer = answer, b""
    os.close(screen)
    return shown.decode().replace("\r\n", "\n"), child.wait(timeout=60)


def every_command(group: click.Group = app, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = (*path, name)
        found += every_command(command, inner) if isinstance(command, click.Group) else [inner]
    return found


# --- the whole


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_help_page_teaches(path):
    for flag in ("-h", "--help"):
        text = run(*path, flag).stdout
        assert f"Usage: {' '.join(('lithops-mini', *path))} [OPTIONS]" in text
        assert f"lithops-mini {' '.join(path)}".strip() in text.partition("Usage")[2].partition("\n")[2], "no example"
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    "path",
    [path for path in every_command() if path[0:1] not in (("completion",), ("emulate",), ("aws",), ("openwhisk",))][
        1:
    ],
    ids=" ".join,
)
def test_commands_that_use_the_configuration_share_its_options(path):
    command = app
    for name in path:
        command = command.get_command(click.Context(command), name)
    options = {option for param in command.params for option in param.opts}
    if isinstance(command, click.Group) or path == ("config", "init"):
        return
    assert {"-c", "--config", "-p", "--profile", "-b", "--backend", "-s", "--storage", "--debug"} <= options


def test_exit_codes_are_in_the_help():
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 pipe closed." in run("-h").stdout


def test_version_needs_nothing_heavy():
    program = (
        "import sys, lithops_mini.cli as cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    import lithops_mini

    assert version == f"lithops-mini {lithops_mini.__version__}"
    assert modules.startswith("0 ")
    assert not {"yaml", "pydantic", "tqdm", "importlib.metadata", "lithops_mini.cli.storage"} & set(modules.split())


def test_a_module_is_all_a_command_takes(tmp_path, monkeypatch):
    directory = tmp_path / "more"
    directory.mkdir()
    (directory / "later.py").write_text(
        "import click\n@click.command()\ndef later(): click.echo('here')\nCOMMANDS = [later]\n"
    )
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(directory)])
    try:
        group = Commands()
        assert group.list_commands(click.Context(group))[-1] == "later"
        assert CliRunner().invoke(group, ["later"]).stdout == "here\n"
    finally:
        sys.modules.pop("lithops_mini.cli.later", None)


def test_wrong_usage_is_2_with_a_hint():
    assert "Did you mean 'config'" in run("confg", code=2).stderr
    run("config", "show", "--no-such-option", code=2)
    run("storage", "get", code=2)


def test_an_error_of_ours_is_one_line():
    result = run("config", "show", "-p", "three", code=1)
    assert result.stderr == "Error: ./lithops_mini.yaml: there is no profile 'three'. Profiles: one, two.\n"
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("--debug", "config", "show"), ("config", "show", "--debug")])
def test_debug_shows_the_traceback(arguments):
    result = run(*arguments, "-p", "three", code=1)
    assert "Traceback" in result.stderr
    assert "there is no profile 'three'" in result.stderr


def test_an_error_of_the_system_is_one_line_too(here):
    (here / "file").write_text("")
    (here / "taken").write_text("")
    run("storage", "put", "--create-bucket", "file", "first")
    assert run("storage", "get", "first/file", "taken/below", code=1).stderr == (
        "Error: cannot write taken/below: taken is a file, not a directory; name another PATH\n"
    )
    assert run("storage", "sync", "--down", "first", "taken", code=1).stderr == (
        "Error: cannot use taken: not a directory\n"
    )
    assert run("storage", "get", "first/file", "/proc/x", code=1).stderr == (
        "Error: cannot write /proc/x: no such file or directory; name another PATH\n"
    )


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    def broken(**_):
        raise ZeroDivisionError

    monkeypatch.setattr("lithops_mini.config.load", broken)
    with pytest.raises(ZeroDivisionError):
        run("config", "show")


def test_the_module_is_the_command():
    done = process("config", "show", "-p", "three")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (1, b"")
    assert err.startswith(b"Error: ")


def test_red_on_a_terminal():
    output, code = on_terminal("config", "show", "-p", "three")
    assert code == 1
    assert "\x1b[31mError: " in output


def test_ctrl_c_ends_with_130_and_one_line(here):
    run("storage", "put", "--create-bucket", "lithops_mini.yaml", "first")
    os.mkfifo("fifo")
    child = process("storage", "put", "fifo", "first/key")
    with open("fifo", "wb"):  # returns when the child has opened it, too
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out, err) == (130, b"", b"\nInterrupted.\n")
    assert run("storage", "list", "first").stdout.endswith("lithops_mini.yaml\n")


def test_a_reader_that_went_away_is_no_error():
    run("storage", "put", "--create-bucket", "lithops_mini.yaml", "first")
    reading, writing = os.pipe()
    child = process("storage", "list", "first", "--json", stdout=writing)
    os.close(reading)
    os.close(writing)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (141, b"")


# --- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    assert "_LITHOPS_MINI_COMPLETE" in run("completion", shell).stdout
    run("completion", "cmd", code=2)


def completed(line: str) -> list[str]:
    words = line.split(" ")
    environment = os.environ | {
        "_LITHOPS_MINI_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [entry.partition(",")[2] for entry in done.stdout.split()]


def test_names_complete(here):
    assert completed("lithops-mini config show -p ") == ["one", "two"]
    assert completed("lithops-mini config show -p t") == ["two"]
    assert completed("lithops-mini storage list --backend loc") == ["localhost"]
    assert "storage" in completed("lithops-mini st")
    (here / "other.yaml").write_text("profiles: {x: }")
    assert completed("lithops-mini config show -c other.yaml -p ") == ["x"]
    (here / "lithops_mini.yaml").write_text("profiles: {")
    assert completed("lithops-mini config show -p ") == []


# --- config


def test_init_begins_a_file_that_is_good(here):
    (here / "lithops_mini.yaml").unlink()
    assert "Wrote lithops_mini.yaml" in run("config", "init").stdout
    assert (here / "lithops_mini.yaml").stat().st_mode & 0o777 == 0o600
    assert load().profile == "local"
    json.loads((here / "lithops_mini.schema.json").read_text())
    assert "profile 'local': good" in run("config", "validate").stdout


def test_init_replaces_nothing_unasked(here):
    assert "exists" in run("config", "init", code=1).stderr
    assert (here / "lithops_mini.yaml").read_text() == TWO_PROFILES
    run("config", "init", "--force")
    assert (here / "lithops_mini.yaml").read_text() == run("config", "init", "-").stdout
    assert sorted(path.name for path in here.iterdir()) == ["lithops_mini.schema.json", "lithops_mini.yaml"]


def test_init_for_the_user(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    run("config", "init", "--user")
    (here / "lithops_mini.yaml").unlink()
    assert load().source == "~/.lithops_mini/config.yaml"
    assert (here / "home" / ".lithops_mini").stat().st_mode & 0o777 == 0o700
    run("config", "init", "--user", "x.yaml", code=2)


def test_init_where_nothing_can_be_written(here, monkeypatch):
    assert run("config", "init", "nowhere/x.yaml", code=1).stderr == (
        f"Error: cannot write nowhere/x.yaml: there is no directory {here}/nowhere; name another FILE\n"
    )
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert run("config", "init", "--user", code=1).stderr.startswith("Error: cannot write /proc/nobody/.lithops_mini/")


def test_show_prints_what_counts(monkeypatch):
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "info")
    text = run("config", "show", "-p", "two", "-b", "inline").stdout
    assert text.startswith("# profile two of ./lithops_mini.yaml\n")
    shown = yaml.safe_load(text)
    assert (shown["backend"], shown["storage_bucket"], shown["log_level"]) == ("inline", "second", "INFO")
    assert json.loads(run("config", "show", "--json").stdout)["profile"] == "one"


def test_show_keeps_values_of_the_environment_to_itself(here):
    (here / "c.yaml").write_text("profiles: {p: {extra_env: {KEY: hush}}}")
    for flags in ((), ("--json",)):
        text = run("config", "show", "-c", "c.yaml", *flags).stdout
        assert "hush" not in text
        assert "KEY" in text


def test_validate_checks_every_profile(here):
    assert run("config", "validate").stdout.count("good") == 2
    bad = "default_profile: a\nprofiles: {a: {}, b: {retires: 3}, c: {timeout: -1}}"
    (here / "bad.yaml").write_text(bad)
    result = run("config", "validate", "-c", "bad.yaml", code=1)
    assert "'a': good" in result.stdout
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == [
        " bad.yaml, profile 'b'",
        " bad.yaml, profile 'c'",
    ]
    run("config", "validate", "-c", "bad.yaml", "-p", "a")
    run("config", "validate", "-c", "bad.yaml", "-p", "d", code=1)
    (here / "lithops_mini.yaml").unlink()
    assert "built-in defaults" in run("config", "validate").stdout


def test_validate_checks_which_profile_is_the_default(here):
    (here / "c.yaml").write_text("default_profile: c\nprofiles: {a: {}, b: {}}")
    result = run("config", "validate", "-c", "c.yaml", code=1)
    assert result.stderr == "Error: c.yaml: default_profile names no profile: 'c'. Profiles: a, b.\n"
    assert result.stdout.count("good") == 2
    (here / "c.yaml").write_text("profiles: {a: {}, b: {}}")
    result = run("config", "validate", "-c", "c.yaml")
    assert result.stderr == "Warning: c.yaml: has no default_profile, so one must be named each time, as in -p a.\n"


def test_a_selection_is_what_executors_take():
    seen = []

    @click.command()
    @config_options
    def show_selection(selection):
        seen.append(selection.arguments())

    assert CliRunner().invoke(show_selection, ["-p", "two", "-s", "localhost"]).exit_code == 0
    assert seen == [{"config_file": None, "profile": "two", "backend": None, "storage": "localhost"}]


# --- storage


@pytest.fixture
def tree(here):
    for name, text in {"data/a.csv": "a", "data/b/c.csv": "cc", "data/b/.hidden": ""}.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "x").write_text("x")
    (here / "data" / "link").symlink_to(here / "elsewhere")
    return here


def keys(where: str = "first") -> list[str]:
    return [json.loads(line)["key"] for line in run("storage", "list", where, "--json").stdout.splitlines()]


def test_a_file_there_and_back(here):
    body = os.urandom(100_000)
    (here / "body").write_bytes(body)
    assert (
        "Stored 1 object, 97.7 KiB: first/dir/body"
        in run("storage", "put", "--create-bucket", "body", "first/dir/").stdout
    )
    run("storage", "put", "body", "first/other.name")
    assert keys() == ["dir/body", "other.name"]
    assert "Wrote back, 97.7 KiB" in run("storage", "get", "first/dir/body", "back").stdout
    assert (here / "back").read_bytes() == body
    assert run("storage", "get", "first/dir/body", "-").stdout_bytes == body
    (here / "sub").mkdir()
    run("storage", "get", "first/other.name", "sub")
    assert (here / "sub" / "other.name").read_bytes() == body


def rows(*arguments: str, **options) -> list[dict]:
    return [json.loads(line) for line in run("storage", *arguments, "--json", **options).stdout.splitlines()]


def test_what_is_moved_is_told_to_programs(tree):
    a, c = {"bucket": "first", "key": "raw/a.csv", "size": 1}, {"bucket": "first", "key": "raw/b/c.csv", "size": 2}
    hidden = {"bucket": "first", "key": "raw/b/.hidden", "size": 0}
    assert rows("put", "-r", "--create-bucket", "data", "first/raw") == [
        a | {"file": "data/a.csv"},
        hidden | {"file": "data/b/.hidden"},
        c | {"file": "data/b/c.csv"},
    ]
    assert rows("get", "first/raw/a.csv", "back/") == [a | {"file": "back/a.csv"}]
    assert rows("get", "-r", "first/raw/b", "back") == [
        hidden | {"file": "back/.hidden"},
        c | {"file": "back/c.csv"},
    ]
    assert rows("put", "-", "first/odd\nkey", stdin=b"piped") == [
        {"bucket": "first", "key": "odd\nkey", "size": 5, "file": "-"}
    ]
    assert rows("delete", "first/raw/a.csv") == [a]
    assert rows("delete", "-r", "-y", "first/raw") == [hidden, c]
    assert rows("delete", "first/raw/a.csv", code=1) == []
    assert "standard output" in run("storage", "get", "--json", "first/x", "-", code=2).stderr


def test_the_bytes_of_a_pipe_are_counted(here):
    os.mkfifo(here / "pipe")
    writer = subprocess.Popen(["sh", "-c", "printf 1234567 > pipe"])
    assert "Stored 1 object, 7 B: first/key" in run("storage", "put", "--create-bucket", "pipe", "first/key").stdout
    assert writer.wait(60) == 0


def test_a_directory_that_is_missing_is_made(here):
    (here / "file").write_text("text")
    run("storage", "put", "--create-bucket", "file", "first/dir/")
    assert "Wrote new/one/file" in run("storage", "get", "first/dir/file", "new/one/").stdout
    assert (here / "new" / "one" / "file").read_text() == "text"


def test_what_is_no_file_is_skipped(tree):
    os.mkfifo(tree / "data" / "pipe")
    (tree / "data" / "dangling").symlink_to("nowhere")
    assert run("storage", "put", "-r", "--create-bucket", "data", "first").stderr == (
        "Skipped data/dangling: it is not a regular file.\nSkipped data/pipe: it is not a regular file.\n"
    )
    assert keys() == ["a.csv", "b/.hidden", "b/c.csv"]
    assert "Skipped data/pipe" in run("storage", "sync", "data", "first").stderr


def test_standard_input(here):
    run("storage", "put", "--create-bucket", "-", "first/key", stdin=b"from a pipe")
    assert run("storage", "get", "first/key", "-").stdout == "from a pipe"
    assert "no name" in run("storage", "put", "-", "first", code=2).stderr


def test_a_tree_there_and_back(tree):
    run("storage", "put", "-r", "--create-bucket", "data", "first/raw")
    assert keys() == ["raw/a.csv", "raw/b/.hidden", "raw/b/c.csv"]
    assert "Wrote 3 files, 3 B: back" in run("storage", "get", "-r", "first/raw", "back").stdout
    assert {str(p.relative_to("back")): p.read_text() for p in Path("back").rglob("*") if p.is_file()} == {
        "a.csv": "a",
        "b/c.csv": "cc",
        "b/.hidden": "",
    }


def test_a_storage_that_cannot_be_made_says_which_directory(here):
    (here / "file").write_text("")
    (here / "c.yaml").write_text("profiles: {p: {localhost: {storage_path: /proc/none/below}}}")
    assert run("storage", "put", "--create-bucket", "-c", "c.yaml", "file", "first", code=1).stderr == (
        "Error: cannot make the directory /proc/none for bucket 'first': /proc takes no directories; "
        "set storage_path to a directory of yours\n"
    )


def test_what_put_refuses(tree):
    assert "--create-bucket" in run("storage", "put", "data/a.csv", "first", code=1).stderr
    assert "-r" in run("storage", "put", "data", "first", code=2).stderr
    assert "several files" in run("storage", "put", "data/a.csv", "data/b/c.csv", "first/x", code=2).stderr
    run("storage", "put", "no-such-file", "first", code=2)
    run("storage", "put", "data/a.csv", "/first", code=2)
    run("storage", "put", "--create-bucket", "data/a.csv", "first/../../x", code=1)
    assert not (tree / "x").exists()


def test_what_get_refuses(tree):
    run("storage", "put", "-r", "--create-bucket", "data", "first")
    assert "'nope'" in run("storage", "get", "first/nope", code=1).stderr
    assert "-r" in run("storage", "get", "first/b/", code=2).stderr
    assert "no object below first/nope/" in run("storage", "get", "-r", "first/nope", code=1).stderr
    run("storage", "get", "-r", "first", "-", code=2)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", ".", "a/\0b"])
def test_keys_cannot_leave_the_directory(key):
    with pytest.raises(InputError):
        path_below("back", key)


def test_list(tree):
    run("storage", "put", "-r", "--create-bucket", "data", "first")
    result = run("storage", "list", "first/b/")
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["b/.hidden", "b/c.csv"]
    assert "2 B" in result.stdout
    assert result.stderr == "2 objects, 2 B\n"
    assert run("storage", "list").stderr == "3 objects, 3 B\n"
    row = json.loads(run("storage", "list", "first/a", "--json").stdout)
    assert (row["bucket"], row["key"], row["size"]) == ("first", "a.csv", 1)
    assert "no bucket 'second'" in run("storage", "list", "-p", "two", code=1).stderr


def test_a_key_cannot_steer_the_terminal(here):
    (here / "file").write_text("")
    run("storage", "put", "--create-bucket", "file", "first/a\x1b[2Jb\nc")
    assert "a\\x1b[2Jb\\nc\n" in run("storage", "list", "first").stdout


def test_delete(tree):
    run("storage", "put", "-r", "--create-bucket", "data", "first")
    assert "'nope'" in run("storage", "delete", "first/a.csv", "first/nope", code=1).stderr
    assert "a.csv" in keys()
    assert "Deleted 1 object, 1 B" in run("storage", "delete", "first/a.csv").stdout
    assert "--yes" in run("storage", "delete", "-r", "first/b", code=2).stderr
    assert "-r" in run("storage", "delete", "first/b/", code=2).stderr
    assert keys() == ["b/.hidden", "b/c.csv"]
    assert "Deleted 2 objects, 2 B: first/b/" in run("storage", "delete", "-r", "-y", "first/b").stdout
    assert "no object below" in run("storage", "delete", "-r", "-y", "first/b", code=1).stderr


def test_delete_takes_a_prefix_for_a_directory(here):
    for key in ("raw/x", "rawer/x"):
        run("storage", "put", "--create-bucket", "lithops_mini.yaml", f"first/{key}")
    run("storage", "delete", "-r", "-y", "first/raw")
    assert keys() == ["rawer/x"]


@pytest.mark.parametrize(
    ("answer", "code", "left", "said"),
    [
        (b"y\n", 0, 0, "Deleted 1 object"),
        (b"n\n", 1, 1, "Nothing was deleted"),
        (b"\n", 1, 1, "Nothing was deleted"),
        (b"\x03", 130, 1, "Interrupted."),
        (b"\x04", 130, 1, "Interrupted."),
    ],
    ids=["yes", "no", "return", "ctrl-c", "ctrl-d"],
)
def test_delete_asks(answer, code, left, said):
    run("storage", "put", "--create-bucket", "lithops_mini.yaml", "first/a/key")
    shown, ended = on_terminal("storage", "delete", "-r", "first/a", answer=answer)
    assert "Delete 1 object, " in shown
    assert said in shown
    assert (ended, len(keys())) == (code, left)


def test_a_large_file_has_a_progress_bar_on_a_terminal(here):
    (here / "large").write_bytes(bytes(9 << 20))
    shown, code = on_terminal("storage", "put", "--create-bucket", "large", "first")
    assert code == 0
    assert "9.00M" in shown
    assert "Stored 1 object, 9 MiB: first/large" in shown
    run("storage", "put", "large", "first")
    assert "9.00M" not in run("storage", "get", "first/large", "copy").stderr
