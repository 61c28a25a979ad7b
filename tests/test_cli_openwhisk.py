"""lithops-mini openwhisk setup and teardown, on the local OpenWhisk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from openwhisk_emulator import KIND, Emulated, start_openwhisk

from lithops_mini.cli.app import app
from lithops_mini.cli.profile_file import read_note, read_profile
from lithops_mini.runtimes.openwhisk_service import Service

FILE = "# mine\ndefault_profile: local\nprofiles:\n  local:\n    backend: localhost\n"


@pytest.fixture(scope="module")
def openwhisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with start_openwhisk(tmp_path_factory.mktemp("openwhisk"), "--sandbox", "process") as openwhisk:
        yield openwhisk


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSK_CONFIG_FILE", str(tmp_path / "wskprops"))
    path = tmp_path / "lithops_mini.yaml"
    path.write_text(FILE)
    return path


def run(*arguments, code=0, **options):
    result = CliRunner().invoke(app, ["openwhisk", *arguments], prog_name="lithops-mini", **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def there(openwhisk):
    """The actions in our package; ``None`` without a package."""
    found = openwhisk.ask("GET", "packages/lithops_mini")
    return None if found.status == 404 else [each["name"] for each in found.body["actions"]]


def given(openwhisk):
    return ("--endpoint", openwhisk.url, "--key", openwhisk.place["api_key"])


def requests(output):
    return [line.partition(" {")[0] for line in output.splitlines() if line.startswith(("PUT", "DELETE", "create"))]


def test_setup_says_what_it_makes_and_teardown_removes_it(openwhisk: Emulated, file: Path) -> None:
    mine = {
        "localhost": {"storage_path": str(file.parent / "storage")},
        "timeout": 60,
        "openwhisk": {"max_workers": 2, "requirements": None},
    }
    file.write_text(f"{FILE}  openwhisk: {json.dumps(mine)}\n")
    before = yaml.safe_load(file.read_text())
    more = (*given(openwhisk), "--storage", "localhost", "--bucket", "made-by-setup", "--yes")

    dry = run("setup", *more, "--dry-run")
    made = requests(dry)
    assert made[:2] == ["create the bucket", "PUT packages/lithops_mini"]
    assert there(openwhisk) is None
    assert yaml.safe_load(file.read_text()) == before
    assert openwhisk.place["api_key"] not in dry

    run("setup", *more, "--no-test")
    assert there(openwhisk) == [made[2].rpartition("/")[2]]
    assert file.read_text().startswith(FILE)
    assert file.stat().st_mode & 0o777 == 0o600
    written = read_profile(file, "openwhisk")
    assert written["openwhisk"] == {
        **mine["openwhisk"],
        "endpoint": openwhisk.url,
        "api_key": openwhisk.place["api_key"],
    }
    state = openwhisk.own("state")
    assert run("setup", "--yes", "--no-test").count("action ") == 0  # all is there
    assert openwhisk.own("state") == state
    assert read_profile(file, "openwhisk") == written

    theirs = {"exec": {"kind": KIND, "code": "def main(params): return {}"}}
    assert openwhisk.ask("PUT", "actions/theirs", theirs).status == 200
    said = requests(run("teardown", "--dry-run"))
    assert said == [f"DELETE {made[2].removeprefix('PUT ')}", "DELETE packages/lithops_mini"]
    assert there(openwhisk) is not None
    assert requests(run("teardown", "--yes")) == said
    assert there(openwhisk) is None
    assert openwhisk.ask("DELETE", "actions/theirs").status == 200
    assert yaml.safe_load(file.read_text()) == before


def test_what_is_not_said_is_asked_for_or_is_wsks(openwhisk: Emulated, file: Path) -> None:
    lines = "".join(f"{line}\n" for line in (openwhisk.url, openwhisk.place["api_key"], "", "y"))
    output = run("setup", "--no-test", input=lines)
    assert openwhisk.place["api_key"] not in output  # nobody sees it typed
    assert "100 activations at a time, 120 activations in a minute, 300 s, 512 MiB, 1,024 KiB of a message" in output
    assert len(there(openwhisk)) == 1
    run("teardown", "--yes")
    assert file.read_text() == FILE

    host, key = openwhisk.url, openwhisk.place["api_key"]
    (file.parent / "wskprops").write_text(f"APIHOST={host}\nAUTH={key}\nNAMESPACE=_\n")
    run("setup", "--no-test", input="\nn\n", code=130)
    assert file.read_text() == FILE
    run("setup", "--yes", "--no-test")
    assert read_note(file, "openwhisk") == "openwhisk.endpoint, openwhisk.api_key, backend, storage"
    run("teardown", "--yes")
    assert file.read_text() == FILE
    assert "nothing to remove" in run("teardown", "--yes")


def test_setup_and_teardown_go_on_where_they_were_interrupted(openwhisk: Emulated, file: Path, monkeypatch) -> None:
    for method, command in (("make_action", "setup"), ("delete_package", "teardown")):
        if command == "teardown":
            assert there(openwhisk) is None
            run("setup", "--yes", "--no-test")
        with monkeypatch.context() as patch:
            patch.setattr(Service, method, lambda *_: exec("raise KeyboardInterrupt"))
            more = (*given(openwhisk), "--no-test") if command == "setup" else ()
            run(command, "--yes", *more, code=130)
    assert there(openwhisk) == []
    run("teardown", "--yes")
    assert there(openwhisk) is None
    assert file.read_text() == FILE


def test_with_tokens_of_iam(openwhisk: Emulated, file: Path) -> None:
    place = openwhisk.ibm
    mine = {"ibm_cf": {"iam_endpoint": place["iam_endpoint"]}}
    file.write_text(f"{FILE}  ibm: {json.dumps(mine)}\n")
    more = ("--endpoint", place["endpoint"], "--key", place["iam_api_key"], "--namespace", place["namespace_id"])
    assert run("setup", "-p", "ibm", "--backend", "ibm_cf", *more, "--yes").endswith("Everything works.\n")
    run("teardown", "-p", "ibm", "--backend", "ibm_cf", "--yes")
    assert read_profile(file, "ibm") == mine


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--key", "wrong:key"), "does not accept the key: check openwhisk.api_key"),
        (("--namespace", "theirs"), "the key is not for this: check openwhisk.namespace"),
        (("--endpoint", "http://127.0.0.1:9"), "does not answer"),
        (("--storage", "nowhere"), "nowhere"),
        (("-p", "local"), "is of localhost, not of openwhisk: name another with -p"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_before_anything_is_made(openwhisk: Emulated, file: Path, more, text) -> None:
    assert text in run("setup", *given(openwhisk), *more, "--yes", code=1)
    assert file.read_text() == FILE
    assert there(openwhisk) is None


def test_without_a_key_and_nobody_to_ask(file: Path) -> None:
    output = run("setup", "--endpoint", "http://127.0.0.1:9", "--yes", code=1)
    assert "openwhisk.api_key is neither in" in output
    assert "--key" in output
