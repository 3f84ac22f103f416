"""Requests of the list of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from airflow_provider_batch.plugins.jobs import snapshot
from tests.plugins.conftest import airflow_api, airflow_home, login, staging

__all__ = ["airflow_api", "airflow_home", "login", "staging"]


@pytest.fixture
def get(airflow_api: Any, login: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that requests the list as it is now, as a viewer: `get(dag_id="label")`."""
    monkeypatch.setattr(snapshot, "MAX_AGE", 0.0)
    client = TestClient(airflow_api)

    def get(path: str = "/batch/api/jobs", /, **params: Any) -> Any:
        response = client.get(path, params=params, headers=login("viewer"))
        assert response.status_code == 200, response.text
        return response.json()

    return get
