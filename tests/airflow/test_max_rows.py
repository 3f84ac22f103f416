"""`max_rows`, and what a form gives for fields that were left empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError
from tests.airflow.jobs import Ran, Ticket, query, run_dag, run_job, submit_arguments


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"t{n}", f"title {n}", f"body {n}", "x") for n in range(5)]


@pytest.mark.parametrize(("max_rows", "asked"), [(2, 2), ("3", 3), (9, 5), (5, 5), (0, 0), (None, 5), ("", 5)])
def test_at_most_so_many_rows_are_asked_the_first_ones(warehouse: Path, max_rows: Any, asked: int) -> None:
    ran = run_job(preview=True, max_rows=max_rows)

    assert ran.returned["submit"]["requests"] == asked


@pytest.mark.parametrize(("max_rows", "told"), [(4, True), (5, False)])
def test_the_log_says_that_there_are_more_rows(
    warehouse: Path, max_rows: int, told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = run_job(max_rows=max_rows)

    assert query(warehouse, "SELECT custom_id FROM answers ORDER BY 1") == [(f"t{n}",) for n in range(max_rows)]
    assert ran.state == "success"
    printed = "".join(capfd.readouterr())
    assert (f"max_rows is {max_rows}: the query has more rows, which are not asked" in printed) == told


@pytest.mark.parametrize("max_rows", [-1, 1.5, "many", True])
def test_what_is_no_number_of_rows_is_refused_while_the_dag_is_parsed(max_rows: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError, match="max_rows"):
        BatchSubmitOperator(
            task_id="t", sql="SELECT 1 AS id", custom_id="{{ row.id }}", model="m", prompt="p", max_rows=max_rows
        )


def preview(**form: Any) -> Ran:
    """A preview of what a form gives: its fields are known when the task runs."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with DAG(f"form_{uuid4().hex[:8]}", schedule=None, params=dict.fromkeys(form)) as dag:
        BatchSubmitOperator(**submit_arguments(preview=True, **{name: dag.param(name) for name in form}))
    return run_dag(dag, conf=form)


@pytest.mark.parametrize("empty", [None, "", " \n", {}], ids=repr)
def test_a_field_that_was_left_empty_is_as_if_it_were_not_given(warehouse: Path, empty: Any) -> None:
    names = ["system", "output_schema", "body", "request", "reuse_from", "metadata", "parameters"]
    numbers = {} if empty == {} else dict.fromkeys(["max_cost_usd", "max_rows", "canary"], empty)

    ran = preview(**dict.fromkeys(names, empty), **numbers)

    assert ran.state == "success"
    assert ran.returned["submit"] == run_job(preview=True).returned["submit"]


@pytest.mark.parametrize("name", ["sql", "custom_id", "prompt", "model", "endpoint", "warehouse_conn_id"])
def test_a_field_that_must_be_given_is_named_when_it_was_left_empty(warehouse: Path, name: str) -> None:
    for empty in (None, ""):
        ran = preview(**{name: empty})

        assert ran.states["submit"] == "failed"
        assert name in ran.error()
