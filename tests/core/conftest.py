"""Fixtures for the tests of the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_batch.staging.local import LocalFolder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    """Provide a job's folder on a real disk."""
    return LocalFolder(tmp_path / "job")
