"""Fixtures for the tests of the plugin, which run in a real Airflow API app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from tests.airflow.conftest import airflow_home

__all__ = ["airflow_home"]

#: headers of a request that the page sends to change something
FROM_THE_PAGE = {"X-Requested-With": "llm-batch", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def airflow_api(airflow_home: Path) -> Iterator[Any]:
    """Airflow's own API app, with the plugin that Airflow discovered through the entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        yield create_app("core")


@pytest.fixture(scope="module")
def login(airflow_api: Any) -> Callable[..., dict[str, str]]:
    """Return a function that logs a user with a role in, and returns the headers of the user's requests."""

    def headers(role: str | None = "viewer") -> dict[str, str]:
        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
        return {"Cookie": f"_token={token}"}

    return headers


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty staging root, which is configured."""
    root = (tmp_path / "staging").as_uri()
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", root)
    return root
