"""The routes of one job, on real runs: details, live counts, answers, failed rows and actions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, run_dag, submit_arguments
from tests.plugins.job.conftest import Identity, Page

FORMULA = "=cmd|' /C calc'!A0"


@pytest.fixture
def tickets() -> list[Ticket]:
    texts = {"T-1": "fine", "T-2": "[[refuse]]", "T-3": "[[fail:400]]", FORMULA: "[[fail:500]]"}
    return [(name, "Title", text, "bug") for name, text in texts.items()]


@pytest.fixture
def landed(warehouse: Path) -> Identity:
    """Run a job in which one row succeeded. Provide its submit task."""
    job = ClearedJob()
    job.run(wait={"max_attempts": 1})
    return Identity(job.dag_id, job.run_id())


def states_of(identity: Identity) -> dict[str, str | None]:
    """Return the states of the task instances of a run."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        tis = session.scalars(select(TaskInstance).where(TaskInstance.run_id == identity.run_id)).all()
        return {ti.task_id: ti.state for ti in tis if ti.dag_id == identity.dag_id}


def test_the_details_show_the_path_the_reasons_the_models_and_the_first_request(landed: Identity, page: Page) -> None:
    response = page("/job", landed, role="viewer")
    assert response.status_code == 200
    details = response.json()
    assert details["job"]["outcomes"] == {"succeeded": 1, "refused": 1, "failed": 2}
    assert details["job"]["retrying"] == 0
    assert "retries 1 row (1 failed)" in details["next"]
    path = [(task["role"], task["task_id"], task["state"], task["state_text"]) for task in details["path"]]
    assert path == [(role, role, "success", "succeeded") for role in ("submit", "wait", "land")]
    errors = {error["custom_id"]: (error["outcome"], error["rows"]) for error in details["errors"]}
    assert errors == {"T-2": ("refused", 1), "T-3": ("failed", 1), FORMULA: ("failed", 1)}
    (model,) = details["models"]
    assert (model["model"], model["requests"]) == ("gpt-5-mini", 4)
    assert model["cost_usd"] > 0
    assert details["request"]["custom_id"] == min("T-1", FORMULA)
    assert "Title: " in details["request"]["text"]


def test_answers_are_joined_with_their_requests_and_filtered(landed: Identity, page: Page) -> None:
    rows = page("/answers", landed, role="viewer").json()["answers"]
    assert {row["custom_id"]: (row["outcome"], row["input"]) for row in rows} == {
        "T-1": ("succeeded", "Title: fine"),
        "T-2": ("refused", "Title: [[refuse]]"),
        "T-3": ("failed", "Title: [[fail:400]]"),
        FORMULA: ("failed", "Title: [[fail:500]]"),
    }
    refusals = page("/answers", landed, outcome="refused").json()
    assert [row["custom_id"] for row in refusals["answers"]] == ["T-2"]
    assert page("/answers", landed, outcome="sleeping").status_code == 400


def test_failed_rows_are_a_csv_file_in_which_nothing_is_a_formula(landed: Identity, page: Page) -> None:
    response = page("/failed_rows", landed, role="viewer")
    assert response.headers["content-type"].startswith("text/csv")
    assert "attachment; filename=" in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert {row["custom_id"]: row["outcome"] for row in rows} == {
        "T-2": "refused",
        "T-3": "failed",
        f"'{FORMULA}": "failed",
    }
    assert {row["model"] for row in rows} <= {"gpt-5-mini", "gpt-5-mini-2025-08-07"} or all(
        row["model"] for row in rows
    )


def test_a_retry_says_what_it_does_and_clears_the_wait_and_the_tasks_after_it(landed: Identity, page: Page) -> None:
    actions = {action["name"]: action for action in page("/actions", landed).json()["actions"]}
    assert (actions["cancel"]["possible"], actions["retry"]["possible"]) == (False, True)
    assert actions["retry"]["clears"] == ["wait"]
    assert (
        "retries 1 row (1 failed). 2 rows stay as they are: 1 refused, 1 failed for good"
        in (actions["retry"]["explanation"])
    )
    response = page("/actions/retry", landed, method="POST")
    assert response.status_code == 200, response.text
    assert response.json()["result"].startswith("Cleared 2 tasks: land, wait.")
    assert states_of(landed) == {"submit": "success", "wait": None, "land": None}


def test_a_landing_can_be_repeated_without_the_wait(landed: Identity, page: Page) -> None:
    response = page("/actions/land", landed, method="POST")
    assert response.status_code == 200, response.text
    assert response.json()["result"].startswith("Cleared 1 task: land. The landing writes 4 rows")
    assert states_of(landed) == {"submit": "success", "wait": "success", "land": None}


@pytest.mark.parametrize(("wait", "land"), [("failed", "upstream_failed"), ("deferred", None)])
def test_landing_what_is_there_ends_the_wait(landed: Identity, page: Page, wait: str, land: str | None) -> None:
    set_state(landed, "wait", wait)
    set_state(landed, "land", land)
    response = page("/actions/land", landed, method="POST")
    assert response.status_code == 200, response.text
    assert response.json()["result"].startswith("Marked wait as successful. Cleared 1 task: land.")
    assert states_of(landed) == {"submit": "success", "wait": "success", "land": None}


def set_state(identity: Identity, task_id: str, state: str | None) -> None:
    """Set the state of a task instance, as if it had come so far."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        instance = (TaskInstance.dag_id == identity.dag_id) & (TaskInstance.task_id == task_id)
        session.execute(update(TaskInstance).where(instance).values(state=state))


@pytest.mark.parametrize("name", ["cancel", "retry", "land"])
def test_actions_are_refused_to_viewers_and_to_other_sites(landed: Identity, page: Page, name: str) -> None:
    before = states_of(landed)
    actions = page("/actions", landed, role="viewer").json()["actions"]
    assert not any(action["allowed"] for action in actions)
    assert page(f"/actions/{name}", landed, method="POST", role="viewer").status_code == 403
    other_site = {"X-Requested-With": "llm-batch", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    for headers in ({}, other_site, {"Origin": "https://evil.example"}):
        assert page(f"/actions/{name}", landed, method="POST", headers=headers).status_code == 403
    assert page(f"/actions/{name}", landed, method="POST", role=None).status_code in (401, 403)
    assert states_of(landed) == before


def test_an_action_that_is_not_possible_changes_nothing(landed: Identity, page: Page) -> None:
    response = page("/actions/cancel", landed, method="POST")
    assert response.status_code == 409
    assert response.json()["detail"].startswith("Nothing was changed. ")
    assert page("/actions/dance", landed, method="POST").status_code == 404


@pytest.mark.parametrize("path", ["/job", "/live", "/answers", "/failed_rows", "/actions"])
def test_a_job_that_does_not_exist_is_not_found_and_a_stranger_sees_nothing(
    landed: Identity, page: Page, path: str
) -> None:
    assert page(path, landed._replace(task_id="other")).status_code == 404
    assert page(path, landed, role=None).status_code in (401, 403)


@pytest.fixture
def running(warehouse: Path, slow_server: LocalServer) -> Identity:
    """Submit a job whose only batch is running. Provide its submit task."""
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with DAG(f"job_{uuid4().hex[:8]}", schedule=None) as dag:
        BatchSubmitOperator(**submit_arguments())
    run_dag(dag)
    with create_session() as session:
        run_id = session.scalars(select(DagRun.run_id).where(DagRun.dag_id == dag.dag_id)).one()
    return Identity(dag.dag_id, run_id)


def test_live_counts_come_from_the_provider_and_the_job_can_be_cancelled(
    running: Identity, page: Page, slow_server: LocalServer
) -> None:
    client = client_of(slow_server)
    slow_server.advance(1)
    live = page("/live", running, role="viewer").json()
    (batch,) = live["batches"]
    assert (batch["shard"], batch["total"], batch["problem"]) == ("s0001", 4, None)
    assert batch["status"] in ("validating", "in_progress")
    assert batch["as_of"]

    actions = {action["name"]: action for action in page("/actions", running).json()["actions"]}
    assert "1 batch with 4 requests may still be running" in actions["cancel"]["explanation"]
    assert [action["possible"] for action in actions.values()] == [True, False, False]
    assert page("/actions/cancel", running, method="POST", role="viewer").status_code == 403
    assert client.batches.retrieve(batch["batch_id"]).status in ("validating", "in_progress")

    response = page("/actions/cancel", running, method="POST")
    assert response.json()["result"].startswith("No more requests of this job are sent or retried.")
    assert client.batches.retrieve(batch["batch_id"]).status in ("cancelling", "cancelled")
    assert page("/job", running).json()["job"]["phase"] == "cancelled"


def test_a_provider_that_cannot_be_reached_is_said_and_not_shown_as_empty(
    running: Identity, page: Page, connect: Callable[..., None]
) -> None:
    connect("openai_default", conn_type="openai", password="local", host="http://127.0.0.1:9/v1")
    (batch,) = page("/live", running).json()["batches"]
    assert (batch["status"], batch["completed"]) == (None, None)
    assert "Cannot connect to 127.0.0.1:9" in batch["problem"]
