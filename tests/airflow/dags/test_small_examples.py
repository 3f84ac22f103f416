"""The example DAGs without a page: each shows one thing that people copy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo import documents, tickets
from tests.airflow.dags.warehouses import Warehouse
from tests.airflow.jobs import DagRunResult

#: shows `first_job`, and a query for its answers
FIRST_JOB_PAGE = Path(__file__).parents[3] / "docs" / "start" / "first-job.md"

pytestmark = pytest.mark.usefixtures("offline")


def test_first_job_labels_tickets(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse]
) -> None:
    warehouse = warehouse_of("sqlite", lambda path: tickets.seed(path, tickets.load()))

    assert run_example("first_job").state == "success"

    (query,) = re.findall(r"```sql\n(.*?)```", FIRST_JOB_PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    rows = warehouse.execute(query)
    assert len(rows) == 20
    labels = {label for _, outcome, label, *_ in rows if outcome == "succeeded"}
    assert labels
    assert labels <= {"billing", "login", "shipping", "other"}


def test_rows_from_a_task_lands_a_translation_of_each_row(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse]
) -> None:
    warehouse = warehouse_of("sqlite", lambda path: None)

    assert run_example("rows_from_a_task").state == "success"

    assert warehouse.execute("SELECT custom_id, outcome FROM translations ORDER BY custom_id") == [
        (name, "succeeded") for name in ("empty", "greeting", "sent")
    ]


def test_job_per_market_labels_the_reviews_of_each_market(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse]
) -> None:
    warehouse = warehouse_of("sqlite", lambda path: None)

    result = run_example("job_per_market")

    assert result.state == "success"
    assert [result.return_values[f"label_reviews.land[{index}]"]["requests"] for index in range(3)] == [2, 1, 2]
    assert warehouse.execute("SELECT custom_id FROM review_labels ORDER BY custom_id") == [
        (name,) for name in ("DE-0", "DE-1", "FR-0", "US-0", "US-1")
    ]


def test_mail_when_done_tells_the_person_in_the_form(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], mails: list[Any]
) -> None:
    warehouse_of("sqlite", documents.seed)

    assert run_example("mail_when_done", to="me@example.com").state == "success"

    (mail,) = mails
    assert mail["To"] == "me@example.com"
    assert mail["Subject"].startswith("mail_when_done.batch_job.land: ")
    assert " succeeded, " in mail["Subject"]
