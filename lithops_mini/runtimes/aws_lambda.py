"""Functions of AWS Lambda: made when they are missing, found by names that tell what is in them, listed, deleted."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes import function, wheels
from lithops_mini.runtimes.aws import Aws, denied, message_of, translated
from lithops_mini.runtimes.aws_image import REPOSITORY, FunctionImages
from lithops_mini.runtimes.base import Built, Runtime, Runtimes, Tell
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.function import Setup
from lithops_mini.runtimes.recipe import Recipe, pinned
from lithops_mini.version import __version__
from lithops_mini.worker.aws_lambda import SEAL

TAG = "lithops-mini"
"""Everything of ours has this tag."""

EVENT_AGE = 60
"""Seconds for which Lambda keeps an event that it cannot run yet: the least that it permits."""

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


@dataclass(frozen=True)
class _Contents:
    """What a function is made of."""

    code: Mapping[str, Any]  # arguments of CreateFunction
    packages: Sequence[str] = ()
    told: Mapping[str, int] = field(default_factory=dict)  # what Lambda does not tell of it


class Functions(Runtimes):
    """The functions of one account and region, for one configuration. A runtime has a function for each memory size.

    Its name is what their names begin with. May be used from several threads.
    """

    def __init__(self, aws: Aws, recipe: Recipe, setup: Setup, memory: int) -> None:
        """``memory``: MiB of the function that ``build`` makes."""
        self._lambda = aws.client("lambda", retries={"mode": "standard", "total_max_attempts": 6})
        self._images = FunctionImages(aws)
        self._making = threading.Lock()  # two sizes of memory have the same contents
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

    def seal(self, name: str) -> str:
        """The key of the sealed events of a function that is there."""
        with translated(f"read the configuration of the function {name}"):
            found = self._lambda.get_function_configuration(FunctionName=name)
        return str(found["Environment"]["Variables"][SEAL])

    def concurrency(self) -> int:
        """How many invocations the account may have at once, besides those that are reserved for other functions."""
        with translated("read the account's limits"):
            found = self._lambda.get_account_settings()
        return int(found["AccountLimit"]["UnreservedConcurrentExecutions"])

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
        """What ``build`` would create its function with, besides packages; ``None`` if it is there."""
        function.check(recipe, self._setup)
        name = f"{self.name(recipe)}-{self._memory}"
        with translated(f"look for the function {name}"):
            if self._find(name) is not None:
                return None
        if function.is_image(recipe, self._setup):
            contents = _image_contents(f"{REPOSITORY}:{function.image_tag(recipe, self._setup)}")
        else:
            contents = self._zip_contents(recipe)
            contents = replace(
                contents, code={**contents.code, "Code": {"ZipFile": f"{len(function.worker_zip())} bytes"}}
            )
        return self._arguments(name, recipe, self._memory, contents)

    def functions(self) -> Iterator[Mapping[str, Any]]:
        """The configurations of all functions of ours, whoever made them."""
        with translated("list functions"):
            for page in self._lambda.get_paginator("list_functions").paginate():
                yield from (each for each in page["Functions"] if _NAME.fullmatch(each["FunctionName"]))

    def delete_functions(self, functions: Sequence[Mapping[str, Any]]) -> None:
        """Delete these, and the layers and images of ours that no function has any more."""
        deleted = {each["FunctionName"] for each in functions}
        others = [each for each in self.functions() if each["FunctionName"] not in deleted]
        # Images go first: a function without its image is still there to be deleted, if this is interrupted.
        with translated("delete images"):
            if images := self._image_uris(functions):
                self._images.delete(images - self._image_uris(others))
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
        if error := found.get("TagsError"):  # without its tags nobody knows whether it was left half made
            raise ConfigError(f"cannot read the tags of the function {name}: {denied(error['Message'])}")
        return found

    def _create(self, name: str, recipe: Recipe, memory: int, tell: Tell) -> None:
        function.check(recipe, self._setup)
        with self._making:
            contents = self._contents(recipe, tell)
            tell(f"Creating the function {name}")
            self._send(self._arguments(name, recipe, memory, contents), tell)
        self._await(name)
        self._lambda.put_function_event_invoke_config(FunctionName=name, **self._events())
        arn = self._lambda.get_function_configuration(FunctionName=name)["FunctionArn"]
        self._lambda.tag_resource(Resource=arn, Tags={_READY: __version__})

    def _send(self, arguments: Mapping[str, Any], tell: Tell) -> None:
        """Have Lambda create the function, as soon as it knows the role."""
        deadline = time.monotonic() + _ROLE_LIMIT
        while True:
            try:
                self._lambda.create_function(**arguments)
            except self._lambda.exceptions.ResourceConflictException:  # somebody else makes, or has half made it
                return
            except self._lambda.exceptions.InvalidParameterValueException as error:
                if _UNASSUMABLE not in message_of(error) or time.monotonic() > deadline:
                    raise
                tell("Waiting until Lambda knows the role")
                time.sleep(_ROLE_PAUSE)  # AWS tells nobody when it does
            else:
                return

    def _events(self) -> dict[str, Any]:
        """What Lambda is to do with events."""
        config: dict[str, Any] = {"MaximumRetryAttempts": 0}  # who decides on attempts is not there
        if (bucket := self._setup.losses) is not None:
            destination = f"arn:{self._setup.role.split(':')[1]}:s3:::{bucket}"
            config |= {"MaximumEventAgeInSeconds": EVENT_AGE}
            config |= {"DestinationConfig": {"OnFailure": {"Destination": destination}}}
        return config

    def _arguments(self, name: str, recipe: Recipe, memory: int, contents: _Contents) -> dict[str, Any]:
        setup = self._setup
        variables = {**setup.environment, **({} if setup.losses is None else {SEAL: secrets.token_hex(32)})}
        told = {"version": __version__, "bundle": bundle().digest, "recipe": function.layer_name(recipe, setup)}
        network = {"SubnetIds": list(setup.subnets), "SecurityGroupIds": list(setup.security_groups)}
        return {
            "FunctionName": name,
            "Description": json.dumps({**told, **contents.told}, separators=(",", ":")),
            "Architectures": [setup.architecture],
            **contents.code,
            "Role": setup.role,
            "MemorySize": memory,
            "Timeout": setup.timeout,
            "EphemeralStorage": {"Size": setup.disk},
            "Tags": {**setup.tags, TAG: "runtime", **_package_tags(contents.packages)},
            "LoggingConfig": {"LogGroup": setup.log_group},
            **({"Environment": {"Variables": variables}} if variables else {}),
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

    # -- contents

    def _contents(self, recipe: Recipe, tell: Tell) -> _Contents:
        """What the function is made of; layers or an image are made if they are missing."""
        setup = self._setup
        if function.is_image(recipe, setup):
            return self._image(recipe, "the function is to be an image", tell)
        if not (recipe.requirements or recipe.packages):
            return self._zip_contents(recipe)
        if (found := self._find_layers(function.layer_name(recipe, setup))) is not None:
            return self._zip_contents(recipe, *found)
        if setup.package == "auto" and (image := self._images.find(function.image_tag(recipe, setup))):
            return _image_contents(image.uri, image.size)
        try:
            return self._zip_contents(recipe, *self._layers(recipe, tell))
        except function.TooLarge as error:
            if setup.package == "zip":
                raise ConfigError(f"{error}: require less, or set aws_lambda.package to auto") from error
            return self._image(recipe, f"{error}, so the function must be an image", tell)

    @staticmethod
    def _zip_contents(recipe: Recipe, layers: Sequence[str] = (), packages: Sequence[str] = ()) -> _Contents:
        code = {
            "Runtime": f"python{recipe.python}",
            "Handler": function.HANDLER,
            "Code": {"ZipFile": function.worker_zip()},
            "Layers": list(layers),
        }
        return _Contents(code, packages)

    def _image(self, recipe: Recipe, why: str, tell: Tell) -> _Contents:
        image = self._images.find(function.image_tag(recipe, self._setup))
        if image is None:
            tell(f"{why[0].upper()}{why[1:]}")
            image = self._images.build(recipe, self._setup, why, tell)
        return _image_contents(image.uri, image.size, image.packages)

    def _layers(self, recipe: Recipe, tell: Tell) -> tuple[Sequence[str], Sequence[str]]:
        """Make the layers with the recipe's packages; return their ARNs, and what is in them."""
        name = function.layer_name(recipe, self._setup)
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

    def _image_uris(self, functions: Iterable[Mapping[str, Any]]) -> set[str]:
        """The images of those among the functions that are images."""
        names = (each["FunctionName"] for each in functions if each.get("PackageType") == "Image")
        return {found["Code"]["ImageUri"] for found in map(self._find, names) if found is not None}

    def _runtime(self, name: str, members: Sequence[Mapping[str, Any]]) -> Runtime:
        first = members[0]
        told = _told(first)
        with translated(f"describe the function {first['FunctionName']}"):
            each_tags = [self._lambda.list_tags(Resource=each["FunctionArn"])["Tags"] for each in members]
        # Who finds an image does not know what is in it; who has built it does.
        packages = max((_packages(tags) for tags in each_tags), key=len)
        changed = min(datetime.fromisoformat(each["LastModified"]) for each in members)
        sizes = ", ".join(str(each["MemorySize"]) for each in sorted(members, key=lambda each: int(each["MemorySize"])))
        python = f"3.{_matched(first)[2]}"
        kind = "an image" if first.get("PackageType") == "Image" else f"python{python}"
        return Runtime(
            name=name,
            id=f"{first['FunctionArn'].rpartition(':')[0]}:{name}",
            python=python if _READY in each_tags[0] else "",
            version=told.get("version", ""),
            bundle=told.get("bundle", ""),
            recipe=told.get("recipe", ""),
            base=f"{kind} on {first['Architectures'][0]}, with {sizes} MiB",
            packages=packages,
            size=_size(first),
            created=changed.timestamp(),
        )


def _matched(configuration: Mapping[str, Any]) -> re.Match[str]:
    found = _NAME.fullmatch(configuration["FunctionName"])
    assert found is not None
    return found


def _image_contents(uri: str, size: int = 0, packages: Sequence[str] = ()) -> _Contents:
    return _Contents({"PackageType": "Image", "Code": {"ImageUri": uri}}, packages, {"size": size})


def _told(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a function's description tells of it."""
    text = configuration.get("Description", "")
    told: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
    return told


def _size(configuration: Mapping[str, Any]) -> int:
    """Bytes of the function's zip and its layers', or of its image."""
    layers = sum(int(layer["CodeSize"]) for layer in configuration.get("Layers", ()))
    return int(_told(configuration).get("size", int(configuration["CodeSize"]) + layers))


def _packages(tags: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(" ".join(tags[key] for key in sorted(tags) if key.startswith(_PACKAGES)).split())


def _package_tags(packages: Iterable[str]) -> dict[str, str]:
    """The packages in the values of as many tags as they need."""
    lines = [""]
    for package in packages:
        if len(lines[-1]) + len(package) >= _LONGEST_TAG:
            lines.append("")
        lines[-1] = f"{lines[-1]} {package}".strip()
    return {f"{_PACKAGES}.{number:02}": line for number, line in enumerate(lines[:_MOST_TAGS]) if line}
