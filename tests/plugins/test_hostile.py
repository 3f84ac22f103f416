"""No parameter and no XCom makes a route fail: it answers, or says in a sentence why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_batch.links.batch import LEDGER_KEY, REPORT_KEY
from airflow_provider_batch.plugins.app import app
from tests.plugins.conftest import FROM_THE_PAGE
from tests.plugins.rows import Run, Task, add_runs

HOSTILE = [
    "",
    "\0",
    "../../etc/passwd",
    "{MAP_INDEX}",
    "%00",
    "~",
    "\u202e",
    "9" * 30,
    "-1",
    "'; --",
    "x" * 5_000,
    "[]",
]

#: (method, path) of every route
ROUTES = [
    (method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in sorted(route.methods)
]


@pytest.fixture(scope="module")
def job(airflow_home: Any) -> dict[str, str]:
    """A job whose every XCom a person has edited."""
    dag_id = f"hostile_{uuid4().hex[:8]}"
    xcoms = {LEDGER_KEY: "file:///\0", REPORT_KEY: ["\ud800"], "return_value": {"cost_usd": "abc", "requests": -1}}
    add_runs([Run(dag_id, "run", [Task(task_id, xcoms=xcoms) for task_id in ("submit", "wait", "land")])])
    return {"dag_id": dag_id, "run_id": "run", "task_id": "submit", "map_index": "-1"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_answers_hostile_requests(
    airflow_api: Any, login: Callable[..., dict[str, str]], job: dict[str, str], method: str, path: str
) -> None:
    client = TestClient(airflow_api)
    requests = [job, *({**job, name: value} for name in job for value in HOSTILE)]
    names = {"name": "cancel", "path": "main.js"}
    for request in requests:
        # what cannot be part of a path is sent in the query
        in_path = {name: value if value.isalnum() else "x" for name, value in (names | request).items()}
        answer = client.request(
            method, f"/batch{path.format_map(in_path)}", params=request, headers=login("admin") | FROM_THE_PAGE
        )
        assert answer.status_code in (200, 400, 404, 409, 503), (request, answer.text)
        if answer.status_code != 200 and path.startswith("/api"):
            assert answer.json()["detail"], request
