"""What a function of AWS Lambda is made of: a name that tells what is in it, the worker's zip, layers, or an image."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.bundle import bundle
from lithops_mini.runtimes.recipe import Recipe, requirement_lines
from lithops_mini.runtimes.wheels import Target
from lithops_mini.sizes import format_size

HANDLER = "lithops_mini_function.handler"
LOSSES_PREFIX = "aws/lambda/async/"
"""Below it, and the function's name, Lambda tells of events that came to nothing."""
ENTRY_FILE = "lithops_mini_function.py"

IMAGE_LINES = f"""\
LABEL lithops-mini=function
HEALTHCHECK NONE
ENTRYPOINT ["python3", "-P", "-m", "awslambdaric"]
CMD ["{HANDLER}"]
"""
"""The end of the Dockerfile of a function's image: AWS's own runtime client is what Lambda starts."""

ENTRY = b"""\
from lithops_mini.worker.aws_lambda import Worker
from lithops_mini.worker.output import show_output

show_output()
handler = Worker()
"""
# What the Python of Lambda has anyway, and what an image must have: any version, so that users may ask for theirs.
_PROVIDED = ("boto3", "botocore")
_IMAGE_PACKAGES = ("awslambdaric", "boto3")
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
# Of the C library, by minor versions of Python: up to 3.11 on Amazon Linux 2, later ones on Amazon Linux 2023.
_OLD_PYTHON, _OLD_GLIBC, _GLIBC = 11, (2, 26), (2, 34)
# Lambda's limits, in bytes: all of a function's files, and a zip that is sent along (50 MB with its envelope).
_LARGEST_UNZIPPED = 250 << 20
_LARGEST_ZIP = 48 << 20
_MOST_LAYERS = 5
_MODIFIED = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Setup:
    """What a function has besides its contents and its memory."""

    role: str  # ARN
    architecture: str = "x86_64"
    timeout: int = 900  # seconds
    disk: int = 512  # MiB of /tmp
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    log_group: str = ""
    losses: str | None = None  # bucket where Lambda tells of events that came to nothing; without one it takes none
    package: str = "auto"  # or "zip", with layers, or "image"


class TooLarge(ConfigError):
    """The packages do not fit into layers."""


def provided(package: str) -> bool:
    """Whether Lambda's Python has this distribution anyway."""
    return package in _PROVIDED


def check(recipe: Recipe, setup: Setup) -> None:
    """Raise ``ConfigError`` for what can be in an image, and not in a function that is to be a zip."""
    if setup.package == "zip" and (recipe.base or recipe.dockerfile):
        raise ConfigError(
            "a function of AWS Lambda that is a zip has Lambda's own Python: leave base and dockerfile out, or set"
            " aws_lambda.package to image"
        )


def is_image(recipe: Recipe, setup: Setup) -> bool:
    """Whether the function is to be an image, however large its packages are."""
    return setup.package == "image" or bool(recipe.base or recipe.dockerfile)


def name(recipe: Recipe, setup: Setup) -> str:
    """The name that functions of this recipe and setup begin with; what has it is right."""
    parts = {"layers": layer_name(recipe, setup), "image": image_tag(recipe, setup)}
    parts |= {"bundle": bundle().digest, "entry": ENTRY.decode()}
    return f"lithops-mini-{_kind(recipe, setup)}-{_digest(parts | asdict(setup))}"


def layer_name(recipe: Recipe, setup: Setup) -> str:
    """The name that the layers with the recipe's packages begin with."""
    lines = requirement_lines(recipe.requirements) if recipe.requirements else []
    parts = {"kind": _kind(recipe, setup), "requirements": lines, "packages": sorted(recipe.packages)}
    return f"lithops-mini-{_kind(recipe, setup)}-packages-{_digest(parts)}"


def image_recipe(recipe: Recipe) -> Recipe:
    """What the recipe's image is built of: with AWS's runtime client and SDK, which zips find in Lambda's Python."""
    return replace(recipe, packages=(*recipe.packages, *_IMAGE_PACKAGES))


def image_tag(recipe: Recipe, setup: Setup) -> str:
    """The tag of the recipe's image in the account's registry; what has it is right."""
    parts = {"recipe": image_recipe(recipe).digest, "lines": IMAGE_LINES, "entry": ENTRY.decode()}
    return f"{_kind(recipe, setup)}-{_digest(parts)}"


def _kind(recipe: Recipe, setup: Setup) -> str:
    return f"{recipe.python.replace('.', '')}-{setup.architecture}"


def _digest(parts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def target(recipe: Recipe, setup: Setup) -> Target:
    """The machine that packages must be for."""
    old = int(recipe.python.partition(".")[2]) <= _OLD_PYTHON
    return Target(recipe.python, _MACHINES[setup.architecture], "glibc", _OLD_GLIBC if old else _GLIBC)


def worker_zip() -> bytes:
    """The function's own zip: the worker and cloudpickle. The same files make the same bytes."""
    files = {ENTRY_FILE: ENTRY, **bundle().files}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, data in files.items():
            archive.writestr(_entry(path, 0o644), data)
    return file.getvalue()


def layer_zips(directory: Path) -> list[bytes]:
    """Zips of layers that together have the packages in ``directory``, each small enough to be sent to Lambda.

    ``TooLarge`` if a function cannot have so much in layers.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    if (size := sum(path.stat().st_size for path in files)) > _LARGEST_UNZIPPED:
        raise TooLarge(
            f"the packages are {format_size(size)}, and layers of AWS Lambda may have {format_size(_LARGEST_UNZIPPED)}"
        )
    zips = list(_zips(directory, files))
    if len(zips) > _MOST_LAYERS or any(len(data) > _LARGEST_ZIP for data in zips):
        raise TooLarge(f"the packages do not fit into {_MOST_LAYERS} layers of {format_size(_LARGEST_ZIP)}, zipped")
    return zips


def _zips(directory: Path, files: list[Path]) -> Iterator[bytes]:
    file = io.BytesIO()
    archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
    for path in files:
        # What a file takes is known when it is in: one that may not fit begins another.
        if file.tell() and file.tell() + path.stat().st_size > _LARGEST_ZIP:
            archive.close()
            yield file.getvalue()
            file = io.BytesIO()
            archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        archive.writestr(_entry(f"python/{path.relative_to(directory).as_posix()}", mode), path.read_bytes())
    archive.close()
    yield file.getvalue()


def _entry(path: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, _MODIFIED)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    info.create_system = 3  # Unix, whatever wrote it
    return info
