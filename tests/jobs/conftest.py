"""Fixtures of the core's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_batch.staging import LocalFolder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    """A job's folder on a real disk."""
    return LocalFolder(tmp_path / "job")
