"""Fixtures for the routes of one job: real runs at the local batch server, and requests to Airflow's own API app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from tests.airflow.conftest import (
    _no_certificates,
    _openai_clients,
    _plain_http,
    connect,
    offline,
    serve,
    server,
    slow_server,
    tickets,
    wait_until,
    warehouse,
)
from tests.plugins.conftest import FROM_THE_PAGE

__all__ = [
    "_no_certificates",
    "_openai_clients",
    "_plain_http",
    "connect",
    "offline",
    "serve",
    "server",
    "slow_server",
    "tickets",
    "wait_until",
    "warehouse",
]


class Identity(NamedTuple):
    """The submit task of a job, as a request names it."""

    dag_id: str
    run_id: str
    task_id: str = "submit"


Page = Callable[..., Any]


@pytest.fixture
def page(airflow_api: Any, login: Callable[..., dict[str, str]]) -> Page:
    """Return a function that sends a request about a job: `page("/live", identity, role="viewer", offset=0)`."""
    client = TestClient(airflow_api)

    def send(
        path: str,
        identity: Identity,
        *,
        role: str | None = "user",
        method: str = "GET",
        headers: dict[str, str] | None = None,
        **parameters: Any,
    ) -> Any:
        headers = {**login(role), **(FROM_THE_PAGE if headers is None else headers)}
        query = {**identity._asdict(), **parameters}
        return client.request(method, f"/batch/api{path}", params=query, headers=headers)

    return send
