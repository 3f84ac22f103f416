"""`max_rows`, and form fields that were left empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError
from tests.airflow.jobs import DagRunResult, Ticket, query, run_dag, run_job, submit_arguments


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"t{n}", f"title {n}", f"body {n}", "x") for n in range(5)]


@pytest.mark.parametrize(
    ("max_rows", "expected_requests"), [(2, 2), ("3", 3), (9, 5), (5, 5), (0, 0), (None, 5), ("", 5)]
)
def test_only_the_first_max_rows_rows_are_sent(warehouse: Path, max_rows: Any, expected_requests: int) -> None:
    result = run_job(preview=True, max_rows=max_rows)

    assert result.return_values["submit"]["requests"] == expected_requests


@pytest.mark.parametrize(("max_rows", "is_logged"), [(4, True), (5, False)])
def test_the_log_reports_that_the_query_returns_more_rows(
    warehouse: Path, max_rows: int, is_logged: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(max_rows=max_rows)

    assert query(warehouse, "SELECT custom_id FROM answers ORDER BY 1") == [(f"t{n}",) for n in range(max_rows)]
    assert result.state == "success"
    output = "".join(capfd.readouterr())
    assert (f"There are more than max_rows={max_rows} rows; the rest are not sent" in output) == is_logged


@pytest.mark.parametrize("max_rows", [-1, 1.5, "many", True])
def test_an_invalid_max_rows_is_rejected_when_the_dag_is_parsed(max_rows: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError, match="max_rows"):
        BatchSubmitOperator(
            task_id="t", sql="SELECT 1 AS id", custom_id="{{ row.id }}", model="m", prompt="p", max_rows=max_rows
        )


def preview(**form: Any) -> DagRunResult:
    """Run a preview with the values of a form, which are resolved when the task runs."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with DAG(f"form_{uuid4().hex[:8]}", schedule=None, params=dict.fromkeys(form)) as dag:
        BatchSubmitOperator(**submit_arguments(preview=True, **{name: dag.param(name) for name in form}))
    return run_dag(dag, conf=form)


@pytest.mark.parametrize("blank", [None, "", " \n", {}], ids=repr)
def test_an_empty_field_is_treated_as_not_set(warehouse: Path, blank: Any) -> None:
    names = ["system", "output_schema", "body", "request", "reuse_from", "metadata", "parameters"]
    numbers = {} if blank == {} else dict.fromkeys(["max_cost_usd", "max_rows", "canary"], blank)

    result = preview(**dict.fromkeys(names, blank), **numbers)

    assert result.state == "success"
    assert result.return_values["submit"] == run_job(preview=True).return_values["submit"]


@pytest.mark.parametrize("name", ["sql", "custom_id", "prompt", "model", "endpoint", "warehouse_conn_id"])
def test_the_error_for_an_empty_required_field_names_the_field(warehouse: Path, name: str) -> None:
    for blank in (None, ""):
        result = preview(**{name: blank})

        assert result.states["submit"] == "failed"
        assert name in result.error()
