"""Fixtures for the tests of the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_batch.staging.local import LocalFolder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    """Provide a job's folder on a real disk."""
    return LocalFolder(tmp_path / "job")


@pytest.fixture(autouse=True)
def no_vocabulary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the vocabularies of tiktoken, so that estimates are the same on every machine."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "no-vocabulary"))
