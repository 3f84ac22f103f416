"""Who may read a job or change it, and which requests name no job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_provider_batch.plugins.access import EditableJob, ReadableDags, ReadableJob, parse_joined_key
from tests.plugins.conftest import FROM_THE_PAGE
from tests.plugins.rows import Run, Task, add_runs

Headers = Callable[..., dict[str, str]]

JOB = {"dag_id": "label", "run_id": "manual__2026-11-20T10:00:00+00:00/a?&#%", "task_id": "group.submit"}
app = FastAPI()


@app.get("/job")
async def read_job(key: ReadableJob) -> list[Any]:
    return [key.dag_id, key.run_id, key.task_id, key.map_index]


@app.post("/job")
async def change_job(key: EditableJob) -> str:
    return key.task_id


@app.get("/jobs")
async def list_jobs(dag_ids: ReadableDags) -> list[str]:
    return sorted(dag_ids)


@pytest.fixture(scope="module")
def client(airflow_api: Any) -> TestClient:
    return TestClient(app)


def test_a_route_of_one_job_requires_that_the_user_may_read_its_dag(client: TestClient, login: Headers) -> None:
    assert client.get("/job", params=JOB).status_code == 401
    assert client.get("/job", params=JOB, headers=login(None)).status_code == 403
    answer = client.get("/job", params={**JOB, "map_index": "7"}, headers=login("viewer"))
    assert answer.json() == [*JOB.values(), 7]
    assert client.get("/job", params=JOB, headers=login("viewer")).json()[3] == -1


def test_a_route_that_changes_a_job_requires_that_the_user_may_edit_its_tasks(
    client: TestClient, login: Headers
) -> None:
    assert client.post("/job", params=JOB, headers=FROM_THE_PAGE).status_code == 401
    assert client.post("/job", params=JOB, headers=login("viewer") | FROM_THE_PAGE).status_code == 403
    assert client.post("/job", params=JOB, headers=login("user") | FROM_THE_PAGE).json() == "group.submit"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Requested-With": "llm-batch", "Sec-Fetch-Site": "cross-site"},
        {"X-Requested-With": "llm-batch", "Sec-Fetch-Site": "same-site"},
        {"X-Requested-With": "llm-batch", "Sec-Fetch-Site": "none"},
        {"X-Requested-With": "llm-batch", "Origin": "https://elsewhere.example"},
        {"X-Requested-With": "llm-batch", "Origin": "null"},
        {"X-Requested-With": "XMLHttpRequest", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
    ],
)
def test_another_site_cannot_change_a_job(client: TestClient, login: Headers, headers: dict[str, str]) -> None:
    answer = client.post("/job", params=JOB, headers=login("admin") | headers)
    assert answer.status_code == 403
    assert answer.json() == {"detail": "Only the page of the job may do this. Nothing was changed."}


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://testserver"}, {"Origin": "http://localhost:8080"}])
def test_a_browser_that_does_not_name_the_site_may_change_a_job(
    client: TestClient, login: Headers, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost:8080/airflow")
    sent = login("admin") | {"X-Requested-With": "llm-batch"} | headers
    assert client.post("/job", params=JOB, headers=sent).status_code == 200


def test_a_list_shows_the_dags_that_the_user_may_read(client: TestClient, login: Headers) -> None:
    add_runs([Run("listed_dag", "run", [Task("submit")])])
    assert client.get("/jobs").status_code == 401
    assert client.get("/jobs", headers=login(None)).status_code == 403
    assert "listed_dag" in client.get("/jobs", headers=login("viewer")).json()


@pytest.mark.parametrize(
    "params",
    [
        {"run_id": ""},
        {"dag_id": ""},
        {"task_id": "x" * 251},
        {"run_id": "a\0b"},
        {"dag_id": "\0"},
        {"map_index": "9" * 30},
        {"map_index": "2147483648"},
        {"map_index": "-2"},
        {"map_index": "1.5"},
        {"map_index": ""},
        {"map_index": "٣"},
        {"map_index": "x"},
    ],
)
def test_a_request_that_can_name_no_job_gets_a_sentence(
    client: TestClient, login: Headers, params: dict[str, str]
) -> None:
    answer = client.get("/job", params=JOB | params, headers=login("viewer"))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{next(iter(params))}: Give ")


def test_a_parameter_that_is_missing_gets_a_sentence(client: TestClient, login: Headers) -> None:
    assert client.get("/job", headers=login("viewer")).json()["detail"].startswith("dag_id: Give ")


def test_the_parts_of_a_joined_key_are_url_encoded() -> None:
    key = parse_joined_key("label|manual%7C1%2F2|group.submit|3")
    assert (key.dag_id, key.run_id, key.task_id, key.map_index) == ("label", "manual|1/2", "group.submit", 3)
