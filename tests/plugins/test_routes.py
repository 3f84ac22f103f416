"""The route that serves the page of a job, in Airflow's own API app."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.records import Reason
from airflow_provider_batch.core.lifecycle.summary import JobSummary
from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.links.batch import job_page
from airflow_provider_batch.plugins import routes
from airflow_provider_batch.plugins.app import app
from airflow_provider_batch.plugins.page import HEADERS
from tests.plugins.test_page import HOSTILE, JOB, LANDED

RUN = "manual__2026-11-20T10:00:00+00:00/again?&#%"
PAGE = job_page("label_tickets", RUN, "group.submit", 7)


@pytest.fixture(scope="module")
def airflow(airflow_home: Path) -> Iterator[TestClient]:
    """Airflow's own API app, with the plugin that Airflow discovered through the entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        yield TestClient(create_app("core"))


def login(role: str | None) -> dict[str, str]:
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
    return {"Cookie": f"_token={token}"}


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[JobKey]:
    """Give every task instance the job JOB, with markup in a failure. The fixture lists what was looked up."""
    lookups: list[JobKey] = []
    landed = msgspec.structs.replace(LANDED, reasons=[Reason("failed", "", HOSTILE, 1)])

    def look_up(key: JobKey) -> JobSummary:
        lookups.append(key)
        return msgspec.structs.replace(JOB, landed=landed)

    monkeypatch.setattr(routes, "load_summary", look_up)
    return lookups


def test_a_user_who_is_not_logged_in_gets_no_page(airflow: TestClient, lookups: list[JobKey]) -> None:
    response = airflow.get(PAGE)
    assert response.status_code == 401
    assert "label_tickets" not in response.text
    assert airflow.get(PAGE, headers={"Authorization": "Bearer nonsense"}).status_code in (401, 403)
    assert lookups == []


def test_a_user_who_may_not_read_the_dag_gets_no_page(airflow: TestClient, lookups: list[JobKey]) -> None:
    assert airflow.get(PAGE, headers=login(None)).status_code == 403
    assert lookups == []


def test_a_user_who_may_read_the_dag_gets_the_escaped_page_with_a_strict_policy(
    airflow: TestClient, lookups: list[JobKey]
) -> None:
    response = airflow.get(PAGE, headers=login("viewer"))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.text
    assert "<script" not in response.text


def test_the_job_is_looked_up_for_the_task_instance_in_the_url(airflow: TestClient, lookups: list[JobKey]) -> None:
    airflow.get(PAGE, headers=login("viewer"))
    airflow.get(job_page("d", "r", "t"), headers=login("viewer"))
    airflow.get("/batch/job/d/t/{MAP_INDEX}?run_id=r", headers=login("viewer"))
    assert lookups == [JobKey("label_tickets", "group.submit", RUN, 7), JobKey("d", "t", "r"), JobKey("d", "t", "r")]


def test_a_task_instance_without_a_job_gets_an_explanation(
    airflow: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "load_summary", lambda *_: None)
    response = airflow.get(PAGE, headers=login("viewer"))
    assert response.status_code == 200
    assert "This task instance has no job yet." in response.text


def test_a_record_that_cannot_be_read_gets_the_error_escaped(
    airflow: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise LedgerError("The ledger at <b>s3://x</b> is of version 9.")

    monkeypatch.setattr(routes, "load_summary", broken)
    response = airflow.get(PAGE, headers=login("viewer"))
    assert response.status_code == 200
    assert (
        "Cannot read the record of this job. The ledger at &lt;b&gt;s3://x&lt;/b&gt; is of version 9." in response.text
    )
    assert response.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_every_route_of_the_plugin_requires_a_login(airflow: TestClient) -> None:
    for route in app.routes:
        assert isinstance(route, APIRoute)
        if route.path == "/ui/{name}":
            continue  # the files of the page, which contain no data
        path = route.path.format(dag_id="d", task_id="t", map_index="-1")
        assert airflow.get(f"/batch{path}", params={"run_id": "r"}).status_code == 401, path
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert airflow.get(f"/batch{path}").status_code == 404


def test_airflow_shows_the_page_in_the_left_bar_and_as_a_tab_of_a_run(airflow: TestClient) -> None:
    plugins = airflow.get("/api/v2/plugins", params={"limit": 100}, headers=login("admin")).json()["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "batch"]
    (view,) = plugin["external_views"]
    assert (view["destination"], view["url_route"]) == ("task_instance", "batch-job")
    assert view["href"] == "/batch/job/{DAG_ID}/{TASK_ID}/{MAP_INDEX}?run_id={RUN_ID}"
    assert {(page["destination"], page["url_route"]) for page in plugin["react_apps"]} >= {
        ("nav", "llm-batch"),
        ("dag_run", "llm-batch-run"),
    }
    for page in plugin["react_apps"]:
        # Airflow before 3.4 ignores `applies_to`, and would show the tab on every task of every DAG.
        assert page["destination"] != "task_instance" or "applies_to" in page
        assert airflow.get(page["bundle_url"]).headers["Content-Type"].startswith("application/javascript")


def test_loading_the_plugin_does_not_import_the_api_server() -> None:
    code = (
        "import sys, airflow_provider_batch.plugins.batch; "
        "print([name for name in ('fastapi', 'airflow.api_fastapi') if name in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert completed.stdout.splitlines()[-1] == "[]"
