"""The lookup of a job from the task instances of a real DAG run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from tests.airflow.jobs import Ticket, run_job


@pytest.fixture
def tickets() -> list[Ticket]:
    # The server fails each text only once, so every test needs a text of its own.
    fails_once = f"[[fail:500:once]] {uuid4()}"
    return [("T-1", "One", "first", "a"), ("T-2", "Two", "[[refuse]]", "b"), ("T-3", "Three", fails_once, "c")]


def run_of(task_id: str) -> tuple[str, str]:
    """Return the dag_id and the run_id of the newest run with such a task."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        statement = select(TaskInstance).where(TaskInstance.task_id == task_id).order_by(TaskInstance.start_date.desc())
        ti = session.scalars(statement).first()
        assert ti is not None
        return ti.dag_id, ti.run_id


def key_of(task_id: str) -> JobKey:
    """Return the key of this task in the newest run that has it."""
    dag_id, run_id = run_of(task_id)
    return JobKey(dag_id=dag_id, run_id=run_id, task_id=task_id)


def load_summary(key: JobKey) -> JobSummary | None:
    from airflow_provider_batch.plugins.lookup import find_job

    ledger = find_job(key)
    return None if ledger is None else summarize(ledger)


@pytest.mark.parametrize("task_id", ["submit", "wait", "land"])
def test_every_task_of_a_job_leads_to_the_job_summary(warehouse: Path, task_id: str) -> None:
    result = run_job()
    summary = load_summary(key_of(task_id))

    assert summary is not None
    assert summary.job_uid == result.return_values["submit"]["job_uid"]
    assert summary.outcomes == {"succeeded": 2, "refused": 1}
    assert [(shard.name, shard.requests, shard.attempt, shard.status) for shard in summary.shards] == [
        ("s0001", 3, 1, "completed"),
        ("r01-0001", 1, 2, "completed"),
    ]
    landed = summary.landed
    assert landed is not None
    assert [(reason.outcome, reason.code, reason.rows) for reason in landed.reasons] == [("refused", "refusal", 1)]
    assert summary.cost_usd == landed.cost_usd
    assert landed.cost_usd is not None
    assert landed.standard_cost_usd is not None
    assert float(landed.standard_cost_usd) == pytest.approx(2 * float(landed.cost_usd))
    assert landed.retried == 1
    assert landed.retried_cost_usd is not None
    assert 0 < float(landed.retried_cost_usd) < float(landed.cost_usd)


def test_the_tasks_of_a_job_at_another_server_have_no_link_to_openai(warehouse: Path) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    from airflow_provider_batch.links.batch import ProviderBatchesLink

    run_job()
    dag_id, run_id = run_of("submit")
    with create_session() as session:
        xcoms = XComModel.get_many(
            run_id=run_id, dag_ids=dag_id, task_ids=["submit", "wait"], key=ProviderBatchesLink().xcom_key
        )
        links = [XComModel.deserialize_value(xcom) for xcom in session.scalars(xcoms)]
    assert links == ["", ""]  # without a link, Airflow shows none


def test_the_job_summary_counts_duplicates_and_reused_rows(warehouse: Path) -> None:
    run_job(sql="SELECT * FROM tickets WHERE id = 'T-1'", land={"table": "labels"})
    query_with_a_duplicate = (
        "SELECT * FROM tickets UNION ALL SELECT 'T-4', title, body, label FROM tickets WHERE id = 'T-3'"
    )
    run_job(sql=query_with_a_duplicate, reuse_from="labels")
    summary = load_summary(key_of("submit"))

    assert summary is not None
    assert (summary.requests, summary.duplicates, summary.reused, summary.reuse_from) == (4, 1, 1, "labels")


def test_a_task_instance_without_a_job_has_none(warehouse: Path) -> None:
    run_job(sql="SELECT * FROM nowhere")

    assert load_summary(key_of("submit")) is None


def test_a_job_of_another_dag_is_not_shown_even_if_its_address_is_in_xcom(warehouse: Path) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_provider_batch.links.batch import LEDGER_KEY

    other = run_job().return_values["submit"]["ledger"]
    run_job()
    key = key_of("submit")
    with create_session() as session:
        ledger_of_run = (
            (XComModel.dag_id == key.dag_id) & (XComModel.run_id == key.run_id) & (XComModel.key == LEDGER_KEY)
        )
        session.execute(update(XComModel).where(ledger_of_run).values(value=other))

    assert load_summary(key) is None


def test_the_progress_of_a_job_can_be_read_from_its_ledger_alone(warehouse: Path) -> None:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
    from airflow_provider_batch.staging.layout import open_folder

    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE tickets SET body = '[[fail:500]]' WHERE id = 'T-1'")
    result = run_job(wait={"max_attempts": 2})

    ledger = open_ledger(open_folder(result.return_values["submit"]["ledger"]))
    assert ledger is not None
    assert (
        outcomes_so_far(ledger.state())
        == result.return_values["land"]["outcomes"]
        == {"succeeded": 1, "refused": 1, "failed": 1}
    )
