"""Configuration: where settings come from, which one counts, and what is said about a wrong one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lithops_mini import registry
from lithops_mini.compute.localhost import LocalhostOptions
from lithops_mini.config import Config, JobSettings, load
from lithops_mini.config.schema import SCHEMA_NAME, schema, schema_text, template
from lithops_mini.errors import ConfigError, LithopsMiniError

COMMITTED = REPOSITORY / "config"

FILE = """\
default_profile: local
profiles:
  local: {backend: localhost, storage: localhost}
  big:
    backend: localhost
    storage: localhost
    storage_bucket: my-jobs
    retries: 5
    timeout: 60
    include_modules: [a, b.c]
    extra_env: {STAGE: big}
    localhost: {max_workers: 4, storage_path: /data}
"""

PLUGIN = """\
from dataclasses import dataclass, field

@dataclass(frozen=True)
class CloudOptions:
    region: str = field(metadata={"help": "Where it is."})
    role: str = field(default="worker", metadata={"help": "Who the workers are."})
    token: str | None = field(default=None, repr=False, metadata={"help": "The key.", "secret": True})

    def __post_init__(self):
        if self.region == "moon" and self.role != "astronaut":
            raise ValueError("on the moon the role is astronaut")

@dataclass(frozen=True)
class DiskOptions:
    region: str = field(default="earth", metadata={"help": "Where it is."})
    token: str | None = field(default=None, repr=False, metadata={"secret": True})

@dataclass(frozen=True)
class LeakyOptions:
    password: str | None = field(default=None, metadata={"secret": True})

class Cloud:
    Options = CloudOptions
    shared_sections = ("acme",)

class Disk:
    Options = DiskOptions
    shared_sections = ("acme",)

class Leaky:
    Options = LeakyOptions
"""

ENTRY_POINTS = """\
[lithops_mini.compute]
acme_cloud = acme:Cloud
broken = acme_needs_a_package:Broken
leaky = acme:Leaky

[lithops_mini.storage]
acme_disk = acme:Disk
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A working directory and a home without files, an environment without our variables."""
    for name in ("CONFIG", "CONFIG_FILE", "PROFILE", "BACKEND", "STORAGE", "LOG_LEVEL"):
        monkeypatch.delenv(f"LITHOPS_MINI_{name}", raising=False)
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    return work


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """An installed distribution that adds backends by entry points."""
    site = tmp_path / "site"
    info = site / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "acme.py").write_text(PLUGIN)
    (site / "acme_needs_a_package.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("acme", None)


@pytest.fixture
def file(nowhere):
    path = nowhere / "lithops_mini.yaml"
    path.write_text(FILE)
    return path


def wrong(**arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**arguments)
    assert isinstance(caught.value, LithopsMiniError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_file(text: str, **arguments) -> str:
    Path("lithops_mini.yaml").write_text(text)
    return wrong(**arguments)


def profile(text: str) -> str:
    return in_file(f"profiles:\n  p: {text}\n")


# --- where it comes from


def test_without_anything_all_is_localhost():
    found = load()
    assert (found.backend, found.storage, found.profile, found.source) == (
        "localhost",
        "localhost",
        None,
        "built-in defaults",
    )
    assert found.job == JobSettings()
    assert found.compute_options == LocalhostOptions()


def test_a_file_without_arguments_gives_its_default_profile(file):
    found = load()
    assert (found.profile, found.source) == ("local", "./lithops_mini.yaml")


def test_a_profile_is_all_its_keys(file):
    found = load(profile="big")
    assert found.job == JobSettings(
        storage_bucket="my-jobs",
        retries=5,
        timeout=60,
        include_modules=("a", "b.c"),
        extra_env={"STAGE": "big"},
    )
    assert isinstance(found.job.timeout, float)
    assert found.compute_options.max_workers == 4
    assert found.storage_options.storage_path == "/data"


def test_the_file_is_looked_for_in_order(tmp_path, monkeypatch):
    def put(path: Path, name: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"profiles: {{{name}: }}")
        return path

    put(tmp_path / "home" / ".lithops_mini" / "config.yaml", "home")
    assert (load().profile, load().source) == ("home", "~/.lithops_mini/config.yaml")
    put(tmp_path / "work" / "lithops_mini.yaml", "here")
    assert load().profile == "here"
    monkeypatch.setenv("LITHOPS_MINI_CONFIG_FILE", str(put(tmp_path / "variable.yaml", "variable")))
    assert load().profile == "variable"
    assert load(config_file=put(tmp_path / "argument.yaml", "argument")).profile == "argument"
    assert load(config={}).profile is None


def test_the_profile_is_chosen_in_order(file, monkeypatch):
    assert load().profile == "local"
    monkeypatch.setenv("LITHOPS_MINI_PROFILE", "big")
    assert load().profile == "big"
    assert load(profile="local").profile == "local"


def test_one_profile_needs_no_default(nowhere):
    (nowhere / "lithops_mini.yaml").write_text("profiles: {only: {retries: 1}}")
    assert load().job.retries == 1


def test_arguments_before_environment_before_file(nowhere, monkeypatch):
    (nowhere / "lithops_mini.yaml").write_text("profiles: {p: {backend: localhost, log_level: INFO, retries: 1}}")
    assert (load().backend, load().job.log_level) == ("localhost", "INFO")
    monkeypatch.setenv("LITHOPS_MINI_BACKEND", "inline")
    monkeypatch.setenv("LITHOPS_MINI_STORAGE", "localhost")
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "debug")
    assert (load().backend, load().job.log_level) == ("inline", "DEBUG")
    found = load(backend="localhost", log_level="ERROR", retries=7)
    assert (found.backend, found.job.log_level, found.job.retries) == ("localhost", "ERROR", 7)


def test_a_config_argument_counts_before_the_environment(monkeypatch):
    monkeypatch.setenv("LITHOPS_MINI_BACKEND", "inline")
    assert load(config={"backend": "localhost"}).backend == "localhost"
    assert load(config={}).backend == "inline"


def test_an_empty_variable_is_not_set(file, monkeypatch):
    for name in ("CONFIG", "CONFIG_FILE", "PROFILE", "BACKEND", "STORAGE", "LOG_LEVEL"):
        monkeypatch.setenv(f"LITHOPS_MINI_{name}", "")
    assert load().profile == "local"


def test_settings_reach_whoever_has_them():
    found = load(max_workers=2, storage_path="/elsewhere", runtime_memory=512)
    assert found.compute_options.max_workers == 2
    assert found.storage_options.storage_path == "/elsewhere"
    assert found.job.runtime_memory == 512


def test_a_path_object_is_a_path(tmp_path):
    assert load(storage_path=tmp_path).storage_options.storage_path == str(tmp_path)


def test_a_config_argument_like_a_file(monkeypatch):
    document = {"default_profile": "a", "profiles": {"a": {"retries": 1}, "b": {"retries": "${N}"}}}
    before = json.dumps(document)
    assert load(config=document).job.retries == 1
    monkeypatch.setenv("N", "9")
    assert load(config=document, profile="b").job.retries == 9
    assert json.dumps(document) == before


def test_the_variable_of_workers_counts_before_files_and_other_variables(file, monkeypatch):
    outer = load(profile="big", backend="inline", storage_path="/x", extra_env={"A": "${not a reference}"})
    monkeypatch.setenv("LITHOPS_MINI_CONFIG", json.dumps(outer.as_profile()))
    monkeypatch.setenv("LITHOPS_MINI_PROFILE", "no-such-profile")
    monkeypatch.setenv("LITHOPS_MINI_BACKEND", "localhost")
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "DEBUG")
    inner = load()
    assert dataclasses.replace(inner, profile="big", source=outer.source) == outer
    assert inner.source == "environment variable LITHOPS_MINI_CONFIG"
    assert load(profile="local").source == "./lithops_mini.yaml"
    assert load(config_file=file, profile="local").source == str(file)
    assert load(config={}).source == "argument config"


# --- ${NAME}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${HERE}", "here"),
        ("a-${HERE}-${HERE}", "a-here-here"),
        ("${GONE:-spare}", "spare"),
        ("${EMPTY:-spare}", "spare"),
        ("${HERE:-spare}", "here"),
        ("b${GONE:-}", "b"),
        ("$${HERE}", "${HERE}"),
        ("$HERE", "$HERE"),
    ],
)
def test_variables_in_values(nowhere, monkeypatch, text, value):
    monkeypatch.setenv("HERE", "here")
    monkeypatch.setenv("EMPTY", "")
    (nowhere / "lithops_mini.yaml").write_text(f"profiles: {{p: {{include_modules: ['{text}']}}}}")
    assert load().job.include_modules == (value,)


def test_variables_become_what_the_key_is(nowhere, monkeypatch):
    for name, value in {"N": "3", "T": "1.5", "B": "true", "M": "pandas", "BACK": "inline"}.items():
        monkeypatch.setenv(name, value)
    (nowhere / "lithops_mini.yaml").write_text(
        "profiles:\n  p: {backend: '${BACK}', retries: '${N}', timeout: '${T}', retry_exceptions: '${B}',"
        " include_modules: ['${M}'], extra_env: {X: '${N}'}}\n"
    )
    found = load()
    assert found.backend == "inline"
    assert (found.job.retries, found.job.timeout, found.job.retry_exceptions) == (3, 1.5, True)
    assert (found.job.include_modules, found.job.extra_env) == (("pandas",), {"X": "3"})
    monkeypatch.setenv("N", "three")
    assert "retries must be a whole number, not 'three'" in wrong()


def test_an_unset_variable_names_file_profile_and_key():
    message = profile("{localhost: {storage_path: '${NO_SUCH_VARIABLE}/x'}}")
    for part in ("./lithops_mini.yaml", "'p'", "localhost.storage_path", "NO_SUCH_VARIABLE", "not set"):
        assert part in message


def test_a_broken_reference_is_an_error():
    assert "storage_bucket" in profile("{storage_bucket: 'x${1}'}")


def test_other_profiles_need_not_have_their_variables(nowhere):
    (nowhere / "lithops_mini.yaml").write_text(
        "default_profile: a\nprofiles: {a: {retries: 1}, b: {storage_bucket: '${NO_SUCH_VARIABLE}'}}"
    )
    assert load().job.retries == 1


# --- wrong files


def test_a_file_that_was_named_must_be_there(monkeypatch):
    assert "nowhere.yaml: No such file" in wrong(config_file="nowhere.yaml")
    monkeypatch.setenv("LITHOPS_MINI_CONFIG_FILE", "/not/there.yaml")
    assert "/not/there.yaml: No such file" in wrong()


@pytest.mark.parametrize(
    ("text", "line"),
    [("profiles:\n  a: {\n  b: [", 3), ("profiles:\n\ta: 1", 2), ("profiles:\n  a: {}\n  b: {}\n  a: {}\n", 4)],
)
def test_malformed_yaml_names_the_line(text, line):
    assert in_file(text).startswith(f"./lithops_mini.yaml, line {line}: ")


@pytest.mark.parametrize(
    "text", ["", "just text", "[a]", "profiles:", "profiles: []", "profiles: {}", "profiles: {p: 3}", "backend: x"]
)
def test_a_file_of_the_wrong_shape(text):
    message = in_file(text)
    assert "./lithops_mini.yaml" in message
    assert "profile" in message


def test_bytes_that_are_no_text(nowhere):
    (nowhere / "lithops_mini.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    assert "./lithops_mini.yaml" in wrong()


def test_yaml_cannot_make_objects(nowhere):
    marker = nowhere / "made"
    assert "not valid YAML" in in_file(f"profiles: !!python/object/apply:os.mkdir ['{marker}']")
    assert not marker.exists()


def test_an_unknown_profile_lists_those_there_are(file, monkeypatch):
    message = wrong(profile="bigg")
    assert "'bigg'" in message
    assert "local, big" in message
    monkeypatch.setenv("LITHOPS_MINI_PROFILE", "other")
    assert "LITHOPS_MINI_PROFILE" in wrong()


def test_a_profile_without_a_file(monkeypatch):
    assert "no configuration file" in wrong(profile="x")
    assert "no 'profiles'" in wrong(profile="x", config={})


def test_several_profiles_need_a_choice():
    assert "Profiles: a, b" in in_file("profiles: {a: {}, b: {}}")


def test_two_whole_configurations_are_one_too_many(file):
    assert "both" in wrong(config={}, config_file=file)
    assert "config_file" in wrong(config="lithops_mini.yaml")


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_the_variable_of_workers_must_be_an_object(monkeypatch, text):
    monkeypatch.setenv("LITHOPS_MINI_CONFIG", text)
    assert "LITHOPS_MINI_CONFIG" in wrong()


# --- wrong keys and values


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{retires: 3}", ("'retires'", "'retries'", "runtime_memory")),
        ("{max_workers: 3}", ("max_workers", "section 'localhost'")),
        ("{localhost: {max_worker: 3}}", ("section 'localhost'", "'max_worker'", "'max_workers'", "storage_path")),
        ("{localhst: {}}", ("'localhst'", "'localhost'")),
        ("{inline: {max_workers: 3}}", ("section 'inline'", "max_workers")),
        ("{localhost: 3}", ("localhost", "section")),
        ("{backend: localhots}", ("'localhots'", "'localhost'", "inline")),
        ("{storage: s4}", ("'s4'", "localhost")),
        ("{backend: 3}", ("backend", "3")),
        ("{default_profile: p}", ("default_profile",)),
        ("{3: 4}", ("'3'",)),
    ],
)
def test_an_unknown_key_or_name_is_met_with_the_known(text, parts):
    message = profile(text)
    for part in ("./lithops_mini.yaml", "profile 'p'", *parts):
        assert part in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{retries: '4'}", "retries must be a whole number, not '4'"),
        ("{retries: true}", "retries must be a whole number, not True"),
        ("{retries: 1.5}", "retries must be a whole number, not 1.5"),
        ("{retries: }", "retries must be a whole number, not None"),
        ("{retries: -1}", "retries must be greater than or equal to 0, not -1"),
        ("{retries: [1]}", "retries must be a whole number, not [1]"),
        ("{timeout: 0}", "timeout must be greater than 0, not 0"),
        ("{timeout: true}", "timeout must be a number, not True"),
        ("{timeout: .inf}", "timeout must be a finite number"),
        ("{timeout: .nan}", "timeout must be "),
        ("{runtime_memory: 63}", "runtime_memory must be greater than or equal to 64, not 63"),
        ("{retry_exceptions: 1}", "retry_exceptions must be true or false, not 1"),
        ("{data_cleaner: 'yes'}", "data_cleaner must be true or false, not 'yes'"),
        ("{storage_bucket: 3}", "storage_bucket must be text, not 3; put it in quotes"),
        ("{storage_bucket: a/b}", "storage_bucket must be text that matches ^[A-Za-z0-9]"),
        ("{storage_bucket: ''}", "storage_bucket must be text of 1 or more characters"),
        ("{storage_bucket: 2024-01-01}", "storage_bucket"),
        ("{include_modules: pandas}", "include_modules must be a list, not 'pandas'"),
        ("{include_modules: [pandas, 3]}", "include_modules[1] must be text, not 3"),
        ("{extra_env: {A: 1}}", "extra_env.A must be text, not int; put it in quotes"),
        ("{extra_env: {on: 'x'}}", "extra_env: the key True must be text"),
        ("{log_level: LOUD}", "log_level must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL', not 'LOUD'"),
        ("{localhost: {max_workers: 0}}", "localhost.max_workers must be greater than or equal to 1, not 0"),
        ("{backend: inline, localhost: {max_workers: many}}", "localhost.max_workers must be a whole number"),
    ],
)
def test_a_wrong_value_says_what_would_be_right(text, expected):
    assert profile(text).startswith(f"./lithops_mini.yaml, profile 'p': {expected}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_worker": 3}, "unknown key 'max_worker'. Did you mean 'max_workers'?"),
        ({"backend": "inline", "max_workers": 3}, "unknown key 'max_workers'"),
        ({"max_workers": "3"}, "max_workers must be a whole number, not '3'"),
        ({"retries": object()}, "retries: <object object"),
        ({"backend": "nope"}, "there is no compute backend named 'nope'"),
    ],
)
def test_wrong_arguments(arguments, expected):
    assert wrong(**arguments).startswith(f"arguments: {expected}")


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("LITHOPS_MINI_BACKEND", "nope")
    assert wrong().startswith("environment variable LITHOPS_MINI_BACKEND: there is no compute backend named 'nope'")
    monkeypatch.delenv("LITHOPS_MINI_BACKEND")
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "loud")
    assert wrong().startswith("environment variable LITHOPS_MINI_LOG_LEVEL: log_level must be")


# --- sections


def test_a_section_may_set_how_its_backends_jobs_run(nowhere):
    (nowhere / "lithops_mini.yaml").write_text(
        "profiles: {p: {retries: 1, timeout: 9, localhost: {retries: 4, max_workers: 2}}}"
    )
    assert (load().job.retries, load().job.timeout) == (4, 9)
    assert load(backend="inline").job.retries == 1
    assert load(retries=8).job.retries == 8


def test_a_section_that_serves_both_may_be_half_in_use(nowhere):
    (nowhere / "lithops_mini.yaml").write_text(
        "profiles: {p: {backend: inline, localhost: {max_workers: 2, storage_path: /data}}}"
    )
    assert load().storage_options.storage_path == "/data"


def test_plugins_are_backends_like_ours(plugins):
    found = load(backend="acme_cloud", storage="acme_disk", config={"acme": {"region": "mars"}})
    assert found.compute_options.region == found.storage_options.region == "mars"


def test_a_backends_own_section_counts_before_the_shared_one(plugins):
    config = {
        "backend": "acme_cloud",
        "storage": "acme_disk",
        "acme": {"region": "mars", "role": "a"},
        "acme_cloud": {"region": "venus"},
    }
    found = load(config=config)
    assert (found.compute_options.region, found.compute_options.role) == ("venus", "a")
    assert found.storage_options.region == "mars"
    assert load(config=config, region="pluto").storage_options.region == "pluto"


def test_sections_of_other_backends_are_checked_too(plugins):
    assert load(config={"acme": {"region": "x"}, "acme_cloud": {"role": "y"}, "acme_disk": None}).backend == "localhost"
    assert "'regoin'. Did you mean 'region'" in wrong(config={"acme": {"regoin": "x"}})
    assert "acme_cloud.role must be text" in wrong(config={"acme_cloud": {"role": 3}})


def test_a_backend_that_cannot_be_imported(plugins):
    assert load(config={"broken": {"whatever": 1}}).backend == "localhost"
    message = wrong(backend="broken")
    assert "'broken' cannot be used here" in message
    assert "a_package_nobody_has" in message


def test_a_missing_key(plugins):
    message = wrong(config={"backend": "acme_cloud"})
    assert "acme_cloud.region is missing (Where it is)" in message


def test_fields_that_do_not_go_together(plugins):
    assert "acme_cloud: on the moon the role is astronaut" in wrong(backend="acme_cloud", region="moon")


# --- secrets


def test_secrets_appear_nowhere(plugins):
    config = {"backend": "acme_cloud", "storage": "acme_disk", "acme": {"region": "mars", "token": "HUSH"}}
    found = load(config=config, extra_env={"KEY": "HUSH"})
    assert found.compute_options.token == found.storage_options.token == "HUSH"
    assert found.secrets() == ["acme_cloud.token", "acme_disk.token"]
    for shown in (repr(found), str(found.as_shown()), repr(found.job), repr(found.compute_options)):
        assert "HUSH" not in shown
    assert found.as_profile()["extra_env"] == {"KEY": "HUSH"}
    assert "token" not in json.dumps(found.as_profile())
    assert "HUSH" not in wrong(config={"acme_cloud": {"token": ["HUSH"]}})
    assert "HUSH" not in wrong(extra_env={"A": ["HUSH"]})


def test_a_secret_that_would_be_shown_is_refused(plugins):
    assert "repr=False" in wrong(backend="leaky")


# --- what comes out


def test_nothing_of_it_can_be_changed():
    found = load()
    for instance, name in ((found, "backend"), (found.job, "retries"), (found.compute_options, "max_workers")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, name, None)


profiles = st.fixed_dictionaries(
    {},
    optional={
        "backend": st.sampled_from(["localhost", "inline"]),
        "storage_bucket": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
        "runtime_memory": st.none() | st.integers(64, 10**6),
        "timeout": st.none() | st.floats(min_value=1e-3, allow_infinity=False),
        "retries": st.integers(0, 100),
        "retry_exceptions": st.booleans(),
        "extra_env": st.dictionaries(st.text(), st.text()),
        "include_modules": st.lists(st.text()),
        "log_level": st.sampled_from([None, "DEBUG", "ERROR"]),
        "progress": st.none() | st.booleans(),
        "localhost": st.fixed_dictionaries(
            {}, optional={"max_workers": st.none() | st.integers(1, 99), "storage_path": st.text(min_size=1)}
        ),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(profiles)
def test_as_profile_is_the_same_configuration_again(config):
    config = json.loads(json.dumps(config))
    found = load(config=config)
    again: Config = load(config=json.loads(json.dumps(found.as_profile())))
    assert again == found


# --- the files in config/, and what editors need


@pytest.fixture
def without_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_entry_points", lambda kind: [])


def test_the_committed_files_are_current(without_plugins):
    renew = "renew them: lithops-mini config init --force config/lithops_mini.yaml"
    assert (COMMITTED / "lithops_mini.yaml").read_text() == template(), renew
    assert (COMMITTED / SCHEMA_NAME).read_text() == schema_text(), renew


def test_the_template_configures_what_no_file_does(nowhere, without_plugins):
    before = load()
    (nowhere / "lithops_mini.yaml").write_text(template())
    assert load() == dataclasses.replace(before, profile="local", source="./lithops_mini.yaml")


def test_the_templates_keys_are_all_keys_with_their_defaults(nowhere, without_plugins):
    keys = [f"    # {f.name}: " for f in dataclasses.fields(JobSettings)]
    keys += [f"    #   {name}: " for name in ("max_workers", "python", "storage_path")]
    text = template()
    lines, section = [], ""
    for line in text.splitlines():
        section = line if line.startswith("    # ") and line.endswith(":") else section
        wanted = line == "    # localhost:" or (line.startswith(tuple(keys)) and section in ("", "    # localhost:"))
        lines.append(line.replace("# ", "", 1) if wanted else line)
    assert sum(a != b for a, b in zip(lines, text.splitlines(), strict=True)) == len(keys) + 1
    (nowhere / "lithops_mini.yaml").write_text("\n".join(lines))
    found = load()
    assert (found.job, found.compute_options, found.storage_options) == (
        JobSettings(),
        load(config={}).compute_options,
        load(config={}).storage_options,
    )


def test_the_schema_agrees_with_load(plugins):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())

    def errors(text: str) -> list[str]:
        return [error.message for error in validator.iter_errors(yaml.safe_load(text))]

    assert errors(FILE) == []
    assert errors(template()) == []
    assert errors("profiles: {p: {retries: '${N}', acme: {token: '${T}', region: x}, localhost: {retries: 3}}}") == []
    for text in (
        "{}",
        "profiles: {}",
        "profiles: {p: {retries: '3'}}",
        "profiles: {p: {retries: -1}}",
        "profiles: {p: {retires: 3}}",
        "profiles: {p: {localhost: {max_worker: 3}}}",
        "profiles: {p: {acme: {regoin: x}}}",
        "profiles: {p: }\nother: 1",
    ):
        assert errors(text), text


def test_every_key_is_explained(without_plugins):
    profile_schema = schema()["$defs"]["profile"]["properties"]
    for key, described in profile_schema.items():
        assert described.get("description"), key
        for inner, property_ in described.get("properties", {}).items():
            assert property_.get("description"), f"{key}.{inner}"


def test_every_key_is_documented(without_plugins):
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    profile_schema = schema()["$defs"]["profile"]["properties"]
    sections = [described["properties"] for described in profile_schema.values() if "properties" in described]
    for properties in (profile_schema, *sections):
        for key, described in properties.items():
            if "properties" in described:
                assert f"### `{key}`" in page
                continue
            default = None if described.get("writeOnly") else described["default"]
            shown = f"`{default}`" if default not in (None, True, False) and not isinstance(default, int) else ""
            shown = shown or json.dumps(default)
            assert any(line.startswith(f"| `{key}` |") and f"| {shown} |" in line for line in page.splitlines()), key
    for name in ("CONFIG_FILE", "PROFILE", "BACKEND", "STORAGE", "LOG_LEVEL", "CONFIG"):
        assert f"| `LITHOPS_MINI_{name}` |" in page


# --- how long it takes


def test_without_a_file_nothing_heavy_is_imported():
    program = "import sys; from lithops_mini.config import load; load(config=load().as_profile()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "yaml", "click", "tqdm", "importlib.metadata"} & set(done.stdout.split())


def test_plain_settings_need_no_pydantic():
    program = (
        "import sys; from lithops_mini.config import load;"
        " load(config={}, backend='localhost', max_workers=2, storage_path='/x', progress=False);"
        " print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pydantic" not in done.stdout.split()
