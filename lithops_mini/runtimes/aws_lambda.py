"""Functions of AWS Lambda: made when they are missing, found by names that tell what is in them, listed, deleted."""

from __future__ import annotations

import json
import re
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import function, wheels
from lithops_mini.runtimes.aws import Aws, message_of, translated
from lithops_mini.runtimes.base import Built, Runtime, Runtimes, Tell
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.function import Setup
from lithops_mini.runtimes.recipe import Recipe, pinned
from lithops_mini.version import __version__

TAG = "lithops-mini"
"""Everything of ours has this tag."""

_NAME = re.compile(r"(lithops-mini-3(\d+)-(x86_64|arm64)-[0-9a-f]{12})-(\d+)")
_READY = f"{TAG}.ready"  # the last tag that a function gets: one without it was left half made
_PACKAGES = f"{TAG}.packages"
_LONGEST_TAG = 256  # characters of a value
_LONGEST_INFO = 512  # characters: no other text about a layer can be as long, so it has the packages
_MOST_TAGS = 20  # of ours, of the 50 that AWS permits
# Seconds until every part of AWS knows a role that has just been made.
_ROLE_LIMIT = 20.0
_ROLE_PAUSE = 2.0
_UNASSUMABLE = "cannot be assumed by Lambda"


class Functions(Runtimes):
    """The functions of one account and region, for one configuration. A runtime has a function for each memory size.

    Its name is what their names begin with. May be used from several threads.
    """

    def __init__(self, aws: Aws, recipe: Recipe, setup: Setup, memory: int) -> None:
        """``memory``: MiB of the function that ``build`` makes."""
        self._lambda = aws.client("lambda", retries={"mode": "standard", "total_max_attempts": 6})
        self._recipe = recipe
        self._setup = setup
        self._memory = memory

    def recipe(self, packages: Iterable[str]) -> Recipe:
        return replace(self._recipe, packages=pinned(each for each in packages if not function.provided(each)))

    def name(self, recipe: Recipe) -> str:
        return function.name(recipe, self._setup)

    def build(self, recipe: Recipe, tell: Tell, *, force: bool = False) -> Built:
        began = time.monotonic()
        if force and any(each.name == self.name(recipe) for each in self.list()):
            self.delete(self.name(recipe))
        name, new = self._ensure(recipe, self._memory, tell)
        with translated(f"describe the function {name}"):
            size = _size(self._lambda.get_function_configuration(FunctionName=name))
        return Built(self.name(recipe), size, time.monotonic() - began, new)

    def ensure(self, recipe: Recipe, memory: int, tell: Tell) -> str:
        """The name of the function with so many MiB, made if it is missing. ``ConfigError`` if it cannot be."""
        return self._ensure(recipe, memory, tell)[0]

    def list(self) -> list[Runtime]:
        found = sorted(self.functions(), key=lambda each: str(each["FunctionName"]))
        groups = groupby(found, lambda each: _matched(each)[1])
        runtimes = [self._runtime(name, list(members)) for name, members in groups]
        return sorted(runtimes, key=lambda runtime: runtime.created, reverse=True)

    def delete(self, name: str) -> None:
        members = [each for each in self.functions() if _matched(each)[1] == name]
        if not members:
            raise ConfigError(f"there is no runtime {name} in this account and region")
        self.delete_functions(members)

    # -- for the command line

    def planned(self, recipe: Recipe) -> dict[str, Any] | None:
        """What ``build`` would create its function with, besides layers; ``None`` if it is there."""
        function.check(recipe)
        name = f"{self.name(recipe)}-{self._memory}"
        with translated(f"look for the function {name}"):
            if self._find(name) is not None:
                return None
        size = len(function.worker_zip())
        return self._arguments(name, recipe, self._memory, (), ()) | {"Code": {"ZipFile": f"{size} bytes"}}

    def functions(self) -> Iterator[Mapping[str, Any]]:
        """The configurations of all functions of ours, whoever made them."""
        with translated("list functions"):
            for page in self._lambda.get_paginator("list_functions").paginate():
                yield from (each for each in page["Functions"] if _NAME.fullmatch(each["FunctionName"]))

    def delete_functions(self, functions: Sequence[Mapping[str, Any]]) -> None:
        """Delete these, and the layers of ours that no function has any more."""
        for each in functions:
            with translated(f"delete the function {each['FunctionName']}"):
                self._delete(each["FunctionName"])
        layers = {layer["Arn"] for each in functions for layer in each.get("Layers", ())}
        used = {layer["Arn"] for each in self.functions() for layer in each.get("Layers", ())}
        for arn in sorted(layers - used):
            *_, name, version = arn.split(":")
            if name.startswith(f"{TAG}-"):
                with translated(f"delete the layer {name}"):
                    self._lambda.delete_layer_version(LayerName=name, VersionNumber=int(version))

    # -- making

    def _ensure(self, recipe: Recipe, memory: int, tell: Tell) -> tuple[str, bool]:
        name = f"{self.name(recipe)}-{memory}"
        with translated(f"use the function {name}"):
            found = self._find(name)
            if found is not None and found["Configuration"].get("State") == "Failed":
                tell(f"Replacing {name}, which failed: {found['Configuration'].get('StateReason')}")
                self._delete(name)
                found = None
            if found is not None and _READY in found.get("Tags", {}):
                self._await(name)
                return name, False
            self._create(name, recipe, memory, tell)
        return name, True

    def _find(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._lambda.get_function(FunctionName=name)
        except self._lambda.exceptions.ResourceNotFoundException:
            return None
        return found

    def _create(self, name: str, recipe: Recipe, memory: int, tell: Tell) -> None:
        function.check(recipe)
        layers, packages = self._layers(recipe, tell)
        tell(f"Creating the function {name}")
        arguments = self._arguments(name, recipe, memory, layers, packages)
        deadline = time.monotonic() + _ROLE_LIMIT
        while True:
            try:
                self._lambda.create_function(**arguments)
                break
            except self._lambda.exceptions.ResourceConflictException:  # somebody else makes, or has half made it
                break
            except self._lambda.exceptions.InvalidParameterValueException as error:
                if _UNASSUMABLE not in message_of(error) or time.monotonic() > deadline:
                    raise
                tell("Waiting until Lambda knows the role")
                time.sleep(_ROLE_PAUSE)  # AWS tells nobody when it does
        self._await(name)
        # Which attempts are made is decided in one place, and that is not there.
        self._lambda.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
        arn = self._lambda.get_function_configuration(FunctionName=name)["FunctionArn"]
        self._lambda.tag_resource(Resource=arn, Tags={_READY: __version__})

    def _arguments(
        self, name: str, recipe: Recipe, memory: int, layers: Sequence[str], packages: Sequence[str]
    ) -> dict[str, Any]:
        setup = self._setup
        told = {"version": __version__, "bundle": bundle().digest, "recipe": function.layer_name(recipe, setup)}
        network = {"SubnetIds": list(setup.subnets), "SecurityGroupIds": list(setup.security_groups)}
        return {
            "FunctionName": name,
            "Description": json.dumps(told, separators=(",", ":")),
            "Runtime": f"python{recipe.python}",
            "Architectures": [setup.architecture],
            "Handler": function.HANDLER,
            "Code": {"ZipFile": function.worker_zip()},
            "Role": setup.role,
            "MemorySize": memory,
            "Timeout": setup.timeout,
            "EphemeralStorage": {"Size": setup.disk},
            "Layers": list(layers),
            "Tags": {**setup.tags, TAG: "runtime", **_package_tags(packages)},
            "LoggingConfig": {"LogGroup": setup.log_group},
            **({"Environment": {"Variables": dict(setup.environment)}} if setup.environment else {}),
            **({"VpcConfig": network} if setup.subnets else {}),
        }

    def _await(self, name: str) -> None:
        """Wait until the function can be invoked; at once if it can."""
        from botocore.exceptions import WaiterError

        try:
            self._lambda.get_waiter("function_active_v2").wait(FunctionName=name)
        except WaiterError as error:
            reason = getattr(error, "last_response", {}).get("Configuration", {}).get("StateReason") or error
            raise ConfigError(f"AWS Lambda could not make the function {name} ready: {reason}") from error

    def _delete(self, name: str) -> None:
        try:
            self._lambda.delete_function(FunctionName=name)
        except self._lambda.exceptions.ResourceNotFoundException:  # somebody else did
            return

    def _layers(self, recipe: Recipe, tell: Tell) -> tuple[Sequence[str], Sequence[str]]:
        """The ARNs of the layers with the recipe's packages, made if they are missing; and what is in them."""
        if not (recipe.requirements or recipe.packages):
            return [], []
        name = function.layer_name(recipe, self._setup)
        if found := self._find_layers(name):
            return found
        machine = function.target(recipe, self._setup)
        with tempfile.TemporaryDirectory(prefix="lithops-mini-build-") as directory:
            tell(f"Installing packages for {machine}")
            there = Path(directory)
            installed = wheels.install(there, machine, tell, requirements=recipe.requirements, packages=recipe.packages)
            zips = function.layer_zips(there)
        arns = []
        # The first comes last: where it is, all are.
        for number in range(len(zips), 0, -1):
            tell(f"Publishing the layer {name}-{number}, {len(zips[number - 1]) >> 20} MiB")
            made = self._lambda.publish_layer_version(
                LayerName=f"{name}-{number}",
                Description=f"{number} of {len(zips)}",
                LicenseInfo=textwrap.shorten(" ".join(installed), _LONGEST_INFO, placeholder=""),
                Content={"ZipFile": zips[number - 1]},
                CompatibleRuntimes=[f"python{recipe.python}"],
                CompatibleArchitectures=[self._setup.architecture],
            )
            arns.append(made["LayerVersionArn"])
        return arns[::-1], installed

    def _find_layers(self, name: str) -> tuple[Sequence[str], Sequence[str]] | None:
        first = self._newest_layer(f"{name}-1")
        if first is None:
            return None
        count = int(first["Description"].rpartition(" ")[2])
        others = [self._newest_layer(f"{name}-{number}") for number in range(2, count + 1)]
        arns = [each["LayerVersionArn"] for each in (first, *others) if each is not None]
        return (arns, first.get("LicenseInfo", "").split()) if len(arns) == count else None

    def _newest_layer(self, name: str) -> Mapping[str, Any] | None:
        try:
            found = self._lambda.list_layer_versions(LayerName=name, MaxItems=1)["LayerVersions"]
        except self._lambda.exceptions.ResourceNotFoundException:
            return None
        return found[0] if found else None

    # -- looking

    def _runtime(self, name: str, members: Sequence[Mapping[str, Any]]) -> Runtime:
        first = members[0]
        told = json.loads(first["Description"]) if first.get("Description", "").startswith("{") else {}
        with translated(f"describe the function {first['FunctionName']}"):
            tags = self._lambda.list_tags(Resource=first["FunctionArn"])["Tags"]
        packages = " ".join(tags[key] for key in sorted(tags) if key.startswith(_PACKAGES)).split()
        changed = min(datetime.fromisoformat(each["LastModified"]) for each in members)
        sizes = ", ".join(str(each["MemorySize"]) for each in sorted(members, key=lambda each: int(each["MemorySize"])))
        return Runtime(
            name=name,
            id=f"{first['FunctionArn'].rpartition(':')[0]}:{name}",
            python=first["Runtime"].removeprefix("python") if _READY in tags else "",
            version=told.get("version", ""),
            bundle=told.get("bundle", ""),
            recipe=told.get("recipe", ""),
            base=f"{first['Runtime']} on {first['Architectures'][0]}, with {sizes} MiB",
            packages=tuple(packages),
            size=_size(first),
            created=changed.timestamp(),
        )


def _matched(configuration: Mapping[str, Any]) -> re.Match[str]:
    found = _NAME.fullmatch(configuration["FunctionName"])
    assert found is not None
    return found


def _size(configuration: Mapping[str, Any]) -> int:
    """Bytes of the function's zip and its layers'."""
    return int(configuration["CodeSize"]) + sum(int(layer["CodeSize"]) for layer in configuration.get("Layers", ()))


def _package_tags(packages: Iterable[str]) -> dict[str, str]:
    """The packages in the values of as many tags as they need."""
    lines = [""]
    for package in packages:
        if len(lines[-1]) + len(package) >= _LONGEST_TAG:
            lines.append("")
        lines[-1] = f"{lines[-1]} {package}".strip()
    return {f"{_PACKAGES}.{number:02}": line for number, line in enumerate(lines[:_MOST_TAGS]) if line}
