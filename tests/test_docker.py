"""The docker backend on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lithops_mini.testing.compute import ComputeContract


class TestContract(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {
            "backend": "docker",
            "storage": "localhost",
            "storage_path": str(tmp_path / "s"),
            "max_workers": 2,
            "base": "host",
        }
