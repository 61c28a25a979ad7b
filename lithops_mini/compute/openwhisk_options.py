"""Settings of the backends that speak OpenWhisk's API, and whether a key may go where they say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from lithops_mini.errors import ConfigError


@dataclass(frozen=True)
class OpenWhiskPlace:
    """Where OpenWhisk is, and who one is there."""

    endpoint: str | None = field(
        default=None,
        metadata={"help": "URL of OpenWhisk, as in https://openwhisk.example.com.", "pattern": "^https?://[^/]"},
    )
    api_key: str | None = field(
        default=None, repr=False, metadata={"help": "Key of the namespace, with its colon.", "secret": True}
    )
    namespace: str = field(
        default="_", metadata={"help": "Namespace of the actions; _ is the one that the key is of.", "min_length": 1}
    )


@dataclass(frozen=True)
class ActionOptions:
    """What the backends that speak OpenWhisk's API have in common."""

    max_workers: int = field(
        default=100, metadata={"help": "Activations at once; each takes a thread of the client.", "ge": 1, "le": 10_000}
    )
    memory: int = field(default=256, metadata={"help": "MiB of the actions for jobs without runtime_memory.", "ge": 32})
    max_time: int | None = field(
        default=None,
        metadata={
            "help": "Seconds an activation may take, whatever the timeout of its calls; null for as long as the"
            " namespace permits.",
            "ge": 2,
        },
    )
    carrier: Literal["reply", "event"] = field(
        default="reply",
        metadata={
            "help": "How replies come back: as OpenWhisk's answer, or as an object in storage, for calls of many"
            " minutes."
        },
    )
    requirements: str | None = field(
        default=None, metadata={"help": "A requirements.txt: packages that come in the zip, or in the image."}
    )
    package: Literal["auto", "zip", "image"] = field(
        default="auto",
        metadata={"help": "What actions are: a zip, or an image; auto: a zip if the packages fit, and the Python."},
    )
    image: str | None = field(
        default=None,
        metadata={"help": "Repository of the images, as in name/lithops-mini: OpenWhisk pulls them from there."},
    )
    push: bool = field(
        default=True,
        metadata={"help": "Whether images are pushed; false where OpenWhisk runs on the engine that builds them."},
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "Image with Python that the images are built on; by default python:<version>-slim. `host` packs"
            " the interpreter of this machine."
        },
    )
    dockerfile: str | None = field(
        default=None, metadata={"help": "A Dockerfile whose image the images are built on, instead of base."}
    )
    ca_bundle: str | None = field(
        default=None, metadata={"help": "File of the certificates to trust, for an endpoint with one of its own."}
    )
    insecure: bool = field(
        default=False,
        metadata={"help": "Use the endpoint although its certificate cannot be checked, or it has none."},
    )


@dataclass(frozen=True)
class OpenWhiskOptions(ActionOptions, OpenWhiskPlace):
    """Settings of the openwhisk compute backend."""


def safe_url(url: str, setting: str, *, insecure: bool) -> str:
    """The URL that a setting has; ``ConfigError`` if it is none, or a key on the way there could be read.

    ``insecure``: whether that does not matter.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # of the port, or the brackets of an address
        right = None
    if not right:
        raise ConfigError(f"{setting} is {url}, which is no URL: give one as in https://openwhisk.example.com:443")
    if parts.scheme == "http" and not insecure and not is_here(parts.hostname or ""):
        raise ConfigError(
            f"{url} is not encrypted, and everybody on the way could read the key: begin {setting} with https, or set"
            f" {setting.partition('.')[0]}.insecure to true"
        )
    return url


def trusted(options: ActionOptions, section: str) -> bool | str:
    """Whether certificates are checked, or the file of those to trust. ``ConfigError`` if there are none in it."""
    if options.ca_bundle is None:
        return not options.insecure
    setting = f"{section}.ca_bundle"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(options.ca_bundle)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {options.ca_bundle}: {setting} names certificates to trust") from error
    except ssl.SSLError as error:
        text = f"there is no certificate in {options.ca_bundle}: {setting} names those to trust, as PEM"
        raise ConfigError(text) from error
    except OSError as error:
        raise ConfigError(f"{setting} cannot be read: {error}") from error
    return options.ca_bundle


def is_here(host: str) -> bool:
    """Whether a host is this machine as seen by itself."""
    return host == "localhost" or host.startswith("127.") or host == "::1"
