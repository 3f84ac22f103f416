"""The page of a job, found from the task instances of a real run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.airflow.jobs import Ticket, run_job


@pytest.fixture
def tickets() -> list[Ticket]:
    # the server remembers which text it failed once
    once = f"[[fail:500:once]] {uuid4()}"
    return [("T-1", "One", "first", "a"), ("T-2", "Two", "[[refuse]]", "b"), ("T-3", "Three", once, "c")]


def run_of(task_id: str) -> tuple[str, str]:
    """dag_id and run_id of the newest run with such a task."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        statement = select(TaskInstance).where(TaskInstance.task_id == task_id).order_by(TaskInstance.start_date.desc())
        ti = session.scalars(statement).first()
        assert ti is not None
        return ti.dag_id, ti.run_id


@pytest.mark.parametrize("task_id", ["submit", "wait", "land"])
def test_every_task_of_a_job_leads_to_its_account(warehouse: Path, task_id: str) -> None:
    from airflow_provider_batch.plugins.lookup import load_summary

    result = run_job()
    view = load_summary(*run_of(task_id), task_id, -1)

    assert view is not None
    assert view.job_uid == result.return_values["submit"]["job_uid"]
    assert view.outcomes == {"succeeded": 2, "refused": 1}
    assert [(shard.name, shard.requests, shard.attempt, shard.status) for shard in view.shards] == [
        ("s0001", 3, 1, "completed"),
        ("r01-0001", 1, 2, "completed"),
    ]
    landed = view.landed
    assert landed is not None
    assert [(reason.outcome, reason.code, reason.rows) for reason in landed.reasons] == [("refused", "refusal", 1)]
    assert view.cost_usd == landed.cost_usd
    assert landed.cost_usd is not None
    assert landed.standard_cost_usd is not None
    assert float(landed.standard_cost_usd) == pytest.approx(2 * float(landed.cost_usd))
    assert landed.retried == 1
    assert landed.retried_cost_usd is not None
    assert 0 < float(landed.retried_cost_usd) < float(landed.cost_usd)


def test_the_page_of_a_job_counts_the_rows_that_are_asked_for_others_too_or_were_known(warehouse: Path) -> None:
    from airflow_provider_batch.plugins.lookup import load_summary

    run_job(sql="SELECT * FROM tickets WHERE id = 'T-1'", land={"table": "labels"})
    twice = "SELECT * FROM tickets UNION ALL SELECT 'T-4', title, body, label FROM tickets WHERE id = 'T-3'"
    run_job(sql=twice, reuse_from="labels")
    view = load_summary(*run_of("submit"), "submit", -1)

    assert view is not None
    assert (view.requests, view.duplicates, view.reused, view.reuse_from) == (4, 1, 1, "labels")


def test_a_task_instance_without_a_job_has_none(warehouse: Path) -> None:
    from airflow_provider_batch.plugins.lookup import load_summary

    run_job(sql="SELECT * FROM nowhere")

    assert load_summary(*run_of("submit"), "submit", -1) is None


def test_a_job_of_another_run_is_not_shown(warehouse: Path) -> None:
    """Whoever may write XCom of one DAG cannot show the job of another there."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from airflow_provider_batch.links.batch import LEDGER_KEY
    from airflow_provider_batch.plugins.lookup import load_summary

    other = run_job().return_values["submit"]["ledger"]
    run_job()
    dag_id, run_id = run_of("submit")
    with create_session() as session:
        of_run = (XComModel.dag_id == dag_id) & (XComModel.run_id == run_id) & (XComModel.key == LEDGER_KEY)
        session.execute(update(XComModel).where(of_run).values(value=other))

    assert load_summary(dag_id, run_id, "submit", -1) is None


def test_the_ledger_alone_tells_how_far_a_job_is(warehouse: Path) -> None:
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
