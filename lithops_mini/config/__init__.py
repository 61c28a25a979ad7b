"""Settings: one YAML file with named profiles, the environment and arguments, made into frozen dataclasses once.

``load`` is the way in. ``docs/configuration.md`` lists every key.
"""

from __future__ import annotations

from lithops_mini.config.model import Config, JobSettings
from lithops_mini.config.resolve import load

__all__ = ["Config", "JobSettings", "load"]
