"""The route that serves reports, in Airflow's own API app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.links.batch import report_page
from airflow_provider_batch.plugins import routes

RUN = "scheduled__2026-11-20T02:00:00+00:00/again?&#%"
PAGE = report_page("nightly_eval", RUN, "group.report", 7)
#: a page that somebody else wrote into staging
FOREIGN = b"<!doctype html><style>body{color:red}</style><script>alert(1)</script>"

Get = Callable[..., Any]


@pytest.fixture(scope="module")
def client(airflow_home: Any) -> TestClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        return TestClient(create_app("core"))


@pytest.fixture
def get(client: TestClient) -> Get:
    """Request a page as a user with a role, or as a user without any permission if the role is None."""

    def get_page(role: str | None, page: str = PAGE) -> Any:
        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
        return client.get(page, headers={"Cookie": f"_token={token}"})

    return get_page


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[JobKey]:
    """Give every task instance a report. The fixture lists the task instances that were looked up."""
    lookups: list[JobKey] = []

    def look_up(key: JobKey) -> bytes:
        lookups.append(key)
        return FOREIGN

    monkeypatch.setattr(routes, "load_report", look_up)
    return lookups


def test_a_user_who_may_not_read_the_dag_gets_no_report(client: TestClient, get: Get, lookups: list[JobKey]) -> None:
    assert client.get(PAGE).status_code == 401
    assert get(None).status_code == 403
    assert lookups == []


def test_a_user_who_may_read_the_dag_gets_the_unchanged_report_in_a_sandbox(get: Get, lookups: list[JobKey]) -> None:
    response = get("viewer")

    assert response.status_code == 200
    assert response.content == FOREIGN
    assert lookups == [JobKey("nightly_eval", "group.report", RUN, 7)]
    policy = response.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "sandbox", "frame-ancestors 'self'", "form-action 'none'"} <= set(policy)
    assert not [rule for rule in policy if rule.startswith("script-src") or "unsafe" in rule]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-type"] == "text/html; charset=utf-8"


def test_a_task_instance_without_a_report_gets_an_explanation(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "load_report", lambda *_: None)

    response = get("viewer")

    assert response.status_code == 404
    assert "No report of this task instance was found." in response.text


def test_a_report_that_cannot_be_read_gets_the_error_escaped(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bytes:
        raise StagingError("Staging: cannot read <b>s3://x</b>.")

    monkeypatch.setattr(routes, "load_report", broken)

    response = get("viewer")

    assert "Cannot read the report. Staging: cannot read &lt;b&gt;s3://x&lt;/b&gt;." in response.text
