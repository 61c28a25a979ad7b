"""The shipped contract of compute backends, on ours and on one that only an entry point knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("lithops_mini.testing.compute")
from lithops_mini.testing.compute import ComputeContract  # noqa: E402


class TestLocalhost(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": "localhost", "max_workers": 3, "storage": "localhost", "storage_path": str(tmp_path / "s")}


class TestInline(ComputeContract):
    @pytest.fixture
    def executor_settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": "inline", "storage": "localhost", "storage_path": str(tmp_path / "s")}
