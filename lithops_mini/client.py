"""The storage of the configuration, outside of any executor."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from lithops_mini import registry
from lithops_mini.config import load
from lithops_mini.storage import api


class Storage(api.Storage):
    """The configured object storage; see ``lithops_mini.storage.api.Storage`` for what it does."""

    def __init__(
        self,
        storage: str | None = None,
        *,
        profile: str | None = None,
        config: Mapping[str, Any] | None = None,
        config_file: str | PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        """The arguments are those of ``function_executor``. Raises ``ConfigError``."""
        found = load(storage=storage, profile=profile, config=config, config_file=config_file, **settings)
        super().__init__(registry.find("storage", found.storage)(found.storage_options), found.job.storage_bucket)
