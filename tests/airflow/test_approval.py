"""What a person reads who approves a job, and which jobs need no person (tests/airflow/test_task_groups.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_batch.links.airflow_pages import approval_path, xcoms_page
from airflow_provider_batch.links.batch import job_page
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.operators.approval import JobApprovalOperator
from tests.airflow.jobs import Ticket
from tests.airflow.test_canary import Instance, submit_job


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n} {uuid4()}", "The invoice is wrong", "billing") for n in range(1, 9)]


@pytest.fixture
def ask(warehouse: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that submits a job and returns the approval operator as it is when it waits for a person."""
    monkeypatch.setattr(ApprovalOperator, "execute", lambda self, context: None)

    def run(map_index: int = -1, name: str | None = None, **arguments: Any) -> tuple[Instance, JobApprovalOperator]:
        submit = Instance(map_index=map_index)
        reference = submit_job(submit, stop_after_canary=True)
        approval = JobApprovalOperator(task_id="approve", job=reference, **arguments)
        instance = Instance(task_id="approve", run_id=submit.run_id, map_index=map_index, task=approval)
        context: Any = {"ti": instance, "run_id": submit.run_id, "mapped_name": name}
        approval.execute(context)
        return submit, approval

    return run


def test_the_subject_names_the_dag_the_rows_and_the_cost(ask: Any) -> None:
    _, approval = ask()

    assert approval.subject.startswith("dag: 8 rows, ")
    assert "$0." in approval.subject
    assert approval.subject.endswith(". Send the other 6 requests?")


def test_the_subject_tells_mapped_jobs_apart(ask: Any) -> None:
    assert ask(map_index=1, name="DE")[1].subject.startswith("dag [DE]: 8 rows, ")
    assert ask(map_index=2)[1].subject.startswith("dag [2]: 8 rows, ")


def test_the_text_begins_with_links_to_the_job_and_to_its_requests(ask: Any) -> None:
    submit, approval = ask(body="- **Cost**")

    job = job_page("dag", submit.run_id, "submit")
    requests = xcoms_page("dag", submit.run_id, "submit")
    assert approval.body == f"[The job]({job}) · [Its first requests in full]({requests})\n\n- **Cost**"


def test_the_text_says_who_may_decide(ask: Any) -> None:
    _, approval = ask(assigned_users=[{"id": "1", "name": "ada"}, {"id": "2", "name": "`bob`"}])

    assert "Only ` ada ` and `` `bob` `` can decide." in approval.body


def test_the_approval_has_a_page_of_its_own() -> None:
    assert approval_path("my dag", "manual__2026-01-01T00:00:00+00:00/1", "job.approve", 3) == (
        "/dags/my%20dag/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00%2F1/tasks/job.approve/mapped/3/required_actions"
    )
