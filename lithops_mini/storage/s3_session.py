"""Sessions of an SDK of the S3 family. What the SDK knows of its services is read once in a process."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


def new_session(sdk: str, profile: str | None = None) -> Any:
    """Return a session of this SDK, as its own configuration and ``profile`` of it say.

    A session of the SDK would read and parse all descriptions of services again, which takes much longer than anything
    else about a client. Raises what the SDK does: ``ImportError`` without it, ``ProfileNotFound``.
    """
    session = importlib.import_module(f"{sdk}.session").Session(profile=profile)
    session.register_component("data_loader", _loader(sdk, session.get_config_variable("data_path")))
    return session


@cache
def _loader(sdk: str, path: str | None) -> Any:
    return importlib.import_module(f"{sdk}.loaders").create_loader(path)
