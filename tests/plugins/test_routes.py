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

from airflow_provider_batch.core.ledger.records import Reason
from airflow_provider_batch.core.lifecycle.summary import JobSummary
from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.links.batch import job_page
from airflow_provider_batch.plugins import routes
from airflow_provider_batch.plugins.page import HEADERS
from tests.plugins.test_page import HOSTILE, JOB, LANDED

RUN = "manual__2026-11-20T10:00:00+00:00/again?&#%"
PAGE = job_page("label_tickets", RUN, "group.submit", 7)


@pytest.fixture(scope="module")
def airflow(airflow_home: Path) -> Iterator[TestClient]:
    """Airflow's own API app, with the plugin as Airflow found it through the provider's entry point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        yield TestClient(create_app("core"))


def login(role: str | None) -> dict[str, str]:
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
    return {"Cookie": f"_token={token}"}


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Lets every task instance have the job JOB, with a hostile failure; holds what was looked up."""
    asked: list[tuple[Any, ...]] = []
    landed = msgspec.structs.replace(LANDED, reasons=[Reason("failed", "", HOSTILE, 1)])

    def look_up(*task_instance: Any) -> JobSummary:
        asked.append(task_instance)
        return msgspec.structs.replace(JOB, landed=landed)

    monkeypatch.setattr(routes, "load_summary", look_up)
    return asked


def test_without_login_there_is_no_page(airflow: TestClient, record: list[tuple[Any, ...]]) -> None:
    answer = airflow.get(PAGE)
    assert answer.status_code == 401
    assert "label_tickets" not in answer.text
    assert airflow.get(PAGE, headers={"Authorization": "Bearer nonsense"}).status_code in (401, 403)
    assert record == []


def test_a_user_who_may_not_see_the_dag_is_refused(airflow: TestClient, record: list[tuple[Any, ...]]) -> None:
    assert airflow.get(PAGE, headers=login(None)).status_code == 403
    assert record == []


def test_a_user_who_may_see_the_dag_gets_the_page_escaped_and_with_a_strict_policy(
    airflow: TestClient, record: list[tuple[Any, ...]]
) -> None:
    answer = airflow.get(PAGE, headers=login("viewer"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "<script" not in answer.text


def test_the_job_is_looked_up_by_exactly_the_task_instance_of_the_address(
    airflow: TestClient, record: list[tuple[Any, ...]]
) -> None:
    airflow.get(PAGE, headers=login("viewer"))
    airflow.get(job_page("d", "r", "t"), headers=login("viewer"))
    airflow.get("/batch/job/d/t/{MAP_INDEX}?run_id=r", headers=login("viewer"))
    assert record == [("label_tickets", RUN, "group.submit", 7), ("d", "r", "t", -1), ("d", "r", "t", -1)]


def test_a_task_instance_without_a_job_is_told_in_plain_words(
    airflow: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "load_summary", lambda *_: None)
    answer = airflow.get(PAGE, headers=login("viewer"))
    assert answer.status_code == 200
    assert "No job is recorded for this task instance (yet)." in answer.text


def test_a_record_that_cannot_be_read_is_told_too(airflow: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise LedgerError("The ledger at <b>s3://x</b> is of version 9.")

    monkeypatch.setattr(routes, "load_summary", broken)
    answer = airflow.get(PAGE, headers=login("viewer"))
    assert answer.status_code == 200
    assert "cannot be read. The ledger at &lt;b&gt;s3://x&lt;/b&gt; is of version 9." in answer.text
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_no_route_of_the_plugin_is_open(airflow: TestClient) -> None:
    for route in routes.app.routes:
        assert isinstance(route, APIRoute)
        path = route.path.format(dag_id="d", task_id="t", map_index="-1")
        assert airflow.get(f"/batch{path}", params={"run_id": "r"}).status_code == 401, path
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert airflow.get(f"/batch{path}").status_code == 404


def test_airflow_offers_the_page_as_a_tab_of_a_task_instance(airflow: TestClient) -> None:
    plugins = airflow.get("/api/v2/plugins", params={"limit": 100}, headers=login("admin")).json()["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "batch"]
    (view,) = plugin["external_views"]
    assert (view["destination"], view["url_route"]) == ("task_instance", "batch-job")
    assert view["href"] == "/batch/job/{DAG_ID}/{TASK_ID}/{MAP_INDEX}?run_id={RUN_ID}"


def test_loading_the_plugin_does_not_load_the_api_server() -> None:
    code = (
        "import sys, airflow_provider_batch.plugins.batch; "
        "print([name for name in ('fastapi', 'airflow.api_fastapi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
