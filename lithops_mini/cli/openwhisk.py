"""lithops-mini openwhisk: from the key of a namespace to jobs that run there, and back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lithops_mini import registry
from lithops_mini.cli.options import Callback
from lithops_mini.cli.setup import ask, check_backends, profile_path, say, setup_options, tell, try_profile
from lithops_mini.errors import ConfigError, NoSuchBucket
from lithops_mini.records import OWN_PREFIX
from lithops_mini.storage.base import WorkerNeeds

if TYPE_CHECKING:
    from lithops_mini.compute.openwhisk import OpenWhiskCompute
    from lithops_mini.config import Config
    from lithops_mini.runtimes.openwhisk_service import Limits
    from lithops_mini.storage.base import StorageBackend

Path_ = tuple[str, ...]

# Where the profile has what is asked for, by backend: endpoint, key, namespace.
_PLACES: Mapping[str, Mapping[str, Path_]] = {
    "openwhisk": {
        "endpoint": ("openwhisk", "endpoint"),
        "key": ("openwhisk", "api_key"),
        "namespace": ("openwhisk", "namespace"),
    },
    "ibm_cf": {
        "endpoint": ("ibm_cf", "endpoint"),
        "key": ("ibm", "iam_api_key"),
        "namespace": ("ibm_cf", "namespace_id"),
    },
}
_NEEDED = {"openwhisk": ("endpoint", "key"), "ibm_cf": ("endpoint", "key", "namespace")}
_QUESTIONS = {"endpoint": "URL of the service", "key": "Key", "namespace": "Namespace"}


@click.group()
def openwhisk() -> None:
    """Make what jobs need in a namespace of OpenWhisk, and remove it.

    \b
    Examples:
      lithops-mini openwhisk setup
      lithops-mini openwhisk teardown
    """


_backend = click.option(
    "--backend", type=click.Choice(list(_PLACES)), default="openwhisk", help="Whose key it is. Default: openwhisk."
)
_options = setup_options("openwhisk", _backend)


def _given(function: Callback) -> Callback:
    for option in reversed(
        (
            click.option("--endpoint", metavar="URL", help="OpenWhisk. Default: the profile's, else wsk's."),
            click.option("--key", metavar="KEY", help="Its key, or IAM's. Default: the profile's, else wsk's."),
            click.option("--namespace", metavar="NAME", help="Namespace, or its id. Default: that of the key."),
            click.option("--storage", metavar="NAME", help="Storage of the jobs. Default: the profile's."),
            click.option("--bucket", metavar="NAME", help="Bucket of the jobs. Default: the profile's."),
            click.option("--no-test", is_flag=True, help="Do not run `lithops-mini test` at the end."),
        )
    ):
        function = option(function)
    return function


@openwhisk.command()
@_options
@_given
def setup(
    config_file: str | None,
    profile: str,
    backend: str,
    yes: bool,
    dry_run: bool,
    no_test: bool,
    storage: str | None,
    bucket: str | None,
    **given: str | None,
) -> None:
    """Check endpoint, key, namespace and storage; write the profile; make the action; try it.

    What is neither said nor in the profile is taken from wsk's own file, or asked for. What is there stays as it is, so
    it may be run again, after it was interrupted or with another key. Settings of the storage, such as its keys, are
    those of the profile, or those found on this machine.

    \b
    Examples:
      lithops-mini openwhisk setup --dry-run
      lithops-mini openwhisk setup --storage aws_s3 --bucket my-jobs
      lithops-mini openwhisk setup --backend ibm_cf -p ibm --yes
    """
    from lithops_mini.cli.profile_file import write_profile
    from lithops_mini.compute.inbox import Inbox

    place = _Place.read(config_file, profile, backend)
    for name, path in _PLACES[backend].items():
        place.put(path, given[name] or _found(place, name, yes=yes or dry_run))
    for name, value in (("backend", backend), ("storage", storage), ("storage_bucket", bucket)):
        place.put((name,), value)
    if place.get(("storage",)) is None:
        text = "Storage of the jobs: localhost if all fits into messages, else aws_s3 or ibm_cos"
        place.put(("storage",), "localhost" if yes or dry_run else click.prompt(text, default="localhost", err=True))
    config = place.config()
    with _reached(config) as (compute, stored):
        jobs = config.job.storage_bucket
        limits = compute.limits()
        tell({**_facts(place), "storage": f"{config.storage}, bucket {jobs}", "limits": _limits(limits)})
        needs = _needs(stored, jobs)
        if needs.remote:
            compute.use_inbox(Inbox(config.storage, stored, jobs, os.urandom(6).hex()))
        planned = compute.planned(needs)
        if dry_run:
            _say_what_is_made(stored, jobs, planned)
            return
        ask("Set it up?", yes=yes, dry_run=dry_run)
        write_profile(place.file, place.profile, place.values, ", ".join(place.made))
        click.echo(f"profile {place.profile} of {place.file} written")
        stored.create_bucket(jobs)
        _try_storage(stored, jobs)
        compute.deploy(needs)
        for name in planned:
            click.echo(f"action {name} made")
    if not no_test:
        try_profile(place.file, place.profile)


@openwhisk.command()
@_options
def teardown(config_file: str | None, profile: str, backend: str, yes: bool, dry_run: bool) -> None:
    """Remove the actions of lithops_mini from the namespace, with their package, and what setup wrote in the profile.

    Actions of other programs stay, and so does what jobs have stored, which `lithops-mini clean` removes. It may be run
    again after it was interrupted.

    \b
    Examples:
      lithops-mini openwhisk teardown --dry-run
      lithops-mini openwhisk teardown -p prod --yes
    """
    from lithops_mini.cli.profile_file import write_profile

    place = _Place.read(config_file, profile, backend)
    if not place.values:
        click.echo(f"there is no profile {profile} in {place.file}, and nothing to remove")
        return
    config = place.config()
    with _reached(config) as (compute, _):
        runtimes = compute.runtimes(config.job.storage_bucket)
        found = {each.name: runtimes.names(each.name) for each in runtimes.list()}
        tell({**_facts(place), "actions": ", ".join(name for names in found.values() for name in names) or "none"})
        ask("Remove them?", yes=yes, dry_run=dry_run)
        for runtime, names in found.items():
            for name in names:
                say(f"DELETE actions/lithops_mini/{name}", {})
            if not dry_run:
                runtimes.delete(runtime)
        if found or runtimes.has_package():
            say("DELETE packages/lithops_mini", {})
            if not dry_run:
                runtimes.delete_package()
    if not dry_run:
        write_profile(place.file, place.profile, place.bared())
        click.echo(f"profile {place.profile} of {place.file} is as before setup")


@dataclass
class _Place:
    """A profile, and what setup has put there."""

    file: Path
    profile: str
    backend: str
    values: dict[str, Any]
    made: list[str]  # keys, as `openwhisk.endpoint`

    @staticmethod
    def read(config_file: str | None, profile: str, backend: str) -> _Place:
        from lithops_mini.cli.profile_file import read_note, read_profile

        file = profile_path(config_file)
        written = read_profile(file, profile) or {}
        made = [each for each in read_note(file, profile).split(", ") if each]
        place = _Place(file, profile, backend, written, made)
        if place.get(("backend",)) is not None:
            check_backends(place.config(), f"{file}, profile {profile!r}", backend)
        return place

    def get(self, path: Path_) -> Any:
        value: Any = self.values
        for key in path:
            value = (value or {}).get(key)
        return value

    def put(self, path: Path_, value: str | None) -> None:
        """Set a value, unless it is ``None``; what was not there before is noted."""
        if value is None:
            return
        if self.get(path) is None:
            self.made.append(".".join(path))
        *sections, key = path
        values = self.values
        for section in sections:
            values[section] = dict(values.get(section) or {})
            values = values[section]
        values[key] = value

    def bared(self) -> dict[str, Any] | None:
        """The profile without what setup has put there; ``None`` if nothing is left."""
        left: dict[str, Any] = {
            key: dict(each) if isinstance(each, dict) else each for key, each in self.values.items()
        }
        for name in self.made:
            section, _, key = name.rpartition(".")
            (left.get(section) or {} if section else left).pop(key, None)
            if section and not left.get(section):
                left.pop(section, None)
        return left or None

    def config(self) -> Config:
        from lithops_mini.config import load

        return load(config={"profiles": {self.profile: self.values}}, profile=self.profile)


def _found(place: _Place, name: str, *, yes: bool) -> str | None:
    """What is not said: the profile has it, or wsk's file, or the user is asked. ``ConfigError`` if nobody is."""
    path = _PLACES[place.backend][name]
    if place.get(path) is not None or name not in _NEEDED[place.backend]:
        return None
    if place.backend == "ibm_cf" and name == "endpoint" and place.get(("ibm", "region")) is not None:
        return None
    if place.backend == "openwhisk" and (known := _wsk().get(name)):
        return known
    if yes:
        raise ConfigError(f"{'.'.join(path)} is neither in {place.file}, profile {place.profile!r}, nor said: --{name}")
    answer: str = click.prompt(_QUESTIONS[name], hide_input=name == "key", err=True)
    return answer


def _wsk() -> dict[str, str]:
    """What OpenWhisk's own command is configured with: endpoint and key, if it is."""
    file = Path(os.environ.get("WSK_CONFIG_FILE") or "~/.wskprops").expanduser()
    if not file.exists():
        return {}
    pairs = (line.partition("=") for line in file.read_text(encoding="utf-8").splitlines())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    host = found.get("APIHOST", "")
    endpoint = host if not host or "://" in host else f"https://{host}"
    return {"endpoint": endpoint, "key": found.get("AUTH", "")}


@contextmanager
def _reached(config: Config) -> Iterator[tuple[OpenWhiskCompute, StorageBackend]]:
    stored: StorageBackend
    with closing(registry.find("storage", config.storage)(config.storage_options)) as stored:
        compute: OpenWhiskCompute
        with closing(registry.find("compute", config.backend)(config.compute_options)) as compute:
            yield compute, stored


def _needs(stored: StorageBackend, bucket: str) -> WorkerNeeds:
    try:
        return stored.worker_needs(bucket)
    except NoSuchBucket:  # a directory of this machine that is still to be made, and is nothing to actions
        return WorkerNeeds()


def _try_storage(stored: StorageBackend, bucket: str) -> None:
    """Put an object, read it and delete it. Raises ``StorageError``."""
    key = f"{OWN_PREFIX}setup-{secrets.token_hex(8)}"
    stored.put(bucket, key, b"lithops_mini")
    try:
        stored.get(bucket, key)
    finally:
        stored.delete(bucket, [key])


def _say_what_is_made(stored: StorageBackend, bucket: str, planned: Mapping[str, Mapping[str, Any]]) -> None:
    try:
        stored.head_bucket(bucket)
    except NoSuchBucket:
        say("create the bucket", {"bucket": bucket})
    for name, action in planned.items():
        say("PUT packages/lithops_mini", {})
        say(f"PUT actions/lithops_mini/{name}", action)


def _facts(place: _Place) -> dict[str, str]:
    paths = _PLACES[place.backend]
    endpoint = place.get(paths["endpoint"]) or f"that of {place.get(('ibm', 'region'))}"
    return {"endpoint": endpoint, "namespace": place.get(paths["namespace"]) or "that of the key"}


def _limits(limits: Limits) -> str:
    told = (
        ("activations at a time", limits.concurrency),
        ("activations in a minute", limits.per_minute),
        ("s", limits.most_time and limits.most_time / 1000),
        ("MiB", limits.most_memory),
        ("KiB of a message", limits.payload >> 10),
        ("KiB of a result", limits.reply >> 10),
    )
    return ", ".join(f"{number:,.10g} {what}" for what, number in told if number is not None)


COMMANDS = [openwhisk]
