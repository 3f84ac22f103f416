"""The route that hands out reports, inside Airflow's own API app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.testclient import TestClient

from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.links.batch import job_page, report_page
from airflow_provider_batch.plugins import routes

RUN = "scheduled__2026-11-20T02:00:00+00:00/again?&#%"
PAGE = report_page("nightly_eval", RUN, "group.report", 7)
#: as if somebody had written a page of their own into staging
FOREIGN = b"<!doctype html><style>body{color:red}</style><script>alert(1)</script>"

Get = Callable[..., Any]


@pytest.fixture(scope="module")
def client(airflow_home: Any) -> TestClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "False")
        return TestClient(create_app("core"))


@pytest.fixture
def get(client: TestClient) -> Get:
    """Asks for a page, as a user with this role; None is one who may see nothing."""

    def ask(role: str | None, page: str = PAGE) -> Any:
        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))
        return client.get(page, headers={"Cookie": f"_token={token}"})

    return ask


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Lets every task instance have a report; holds what was looked up."""
    asked: list[tuple[Any, ...]] = []

    def look_up(*task_instance: Any) -> bytes:
        asked.append(task_instance)
        return FOREIGN

    monkeypatch.setattr(routes, "load_report", look_up)
    return asked


def test_nobody_sees_a_report_who_may_not_see_the_dag(
    client: TestClient, get: Get, looked_up: list[tuple[Any, ...]]
) -> None:
    assert client.get(PAGE).status_code == 401
    assert get(None).status_code == 403
    assert looked_up == []


def test_whoever_may_see_the_dag_gets_the_page_as_it_lies_and_nothing_in_it_may_run(
    get: Get, looked_up: list[tuple[Any, ...]]
) -> None:
    answer = get("viewer")

    assert answer.status_code == 200
    assert answer.content == FOREIGN
    assert looked_up == [("nightly_eval", RUN, "group.report", 7)]
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "sandbox", "frame-ancestors 'self'", "form-action 'none'"} <= set(policy)
    assert not [rule for rule in policy if rule.startswith("script-src") or "unsafe" in rule]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_the_tab_of_a_task_without_a_job_shows_the_report_that_it_wrote(
    get: Get, looked_up: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "load_summary", lambda *_: None)

    answer = get("viewer", job_page("nightly_eval", RUN, "group.report", 7))

    assert answer.content == FOREIGN
    assert "sandbox" in answer.headers["content-security-policy"]
    assert looked_up == [("nightly_eval", RUN, "group.report", 7)]


def test_a_task_instance_without_a_report_is_told_in_plain_words(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "load_report", lambda *_: None)

    answer = get("viewer")

    assert answer.status_code == 404
    assert "No report of this task instance is found." in answer.text


def test_staging_that_cannot_be_read_is_told_too(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bytes:
        raise StagingError("Staging: cannot read <b>s3://x</b>.")

    monkeypatch.setattr(routes, "load_report", broken)

    answer = get("viewer")

    assert "The report cannot be read. Staging: cannot read &lt;b&gt;s3://x&lt;/b&gt;." in answer.text
