"""`rows`: jobs whose rows come from lists and from the outputs of tasks, on a real Airflow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from pydantic import BaseModel

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import DagRunResult, client_of, query, run_dag, run_job, submit_arguments

TICKETS: list[dict[str, Any]] = [
    {"id": f"T-{n}", "title": f"Ticket {n}", "body": "The invoice is wrong", "label": "billing"} for n in range(1, 6)
]
#: arguments of `run_job` for a job that reads no warehouse
NO_SQL: dict[str, Any] = {"sql": ..., "warehouse_conn_id": ...}


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None], offline: None) -> Path:
    """Point the connection `warehouse` to an empty SQLite file. Return its path."""
    path = tmp_path / "warehouse.sqlite"
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def new_dag(**arguments: Any) -> Any:
    from airflow.sdk import DAG

    return DAG(f"rows_{uuid4().hex[:8]}", schedule=None, **arguments)


def group_arguments(**changes: Any) -> dict[str, Any]:
    arguments = submit_arguments(sql=..., warehouse_conn_id=..., task_id=..., table="answers") | changes
    return {name: value for name, value in arguments.items() if value is not ...}


def run_group(load: Callable[[], Any], **changes: Any) -> DagRunResult:
    """Run a `batch_job` over what a task returns."""
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(**group_arguments(rows=task(task_id="load")(load)(), **changes))
    return run_dag(dag)


def custom_ids(path: Path) -> list[str]:
    return [row[0] for row in query(path, "SELECT custom_id FROM answers ORDER BY custom_id")]


def test_a_list_of_dicts_is_sent_and_lands_under_its_own_keys(warehouse: Path) -> None:
    result = run_job(**NO_SQL, rows=TICKETS, carry=["label"])

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT custom_id, label, outcome FROM answers ORDER BY custom_id") == [
        (f"T-{n}", "billing", "succeeded") for n in range(1, 6)
    ]


def test_the_output_of_a_task_is_sent_with_the_types_of_its_values(warehouse: Path) -> None:
    def load() -> list[dict[str, Any]]:
        return [
            {"id": n, "amount": Decimal("1.10"), "at": datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "tags": ["a"]}
            for n in range(3)
        ]

    result = run_group(load, prompt="{{ row.amount }} at {{ row.at }}", carry=["id", "amount", "at", "tags"])

    assert result.state == "success", result.errors
    rows = query(warehouse, "SELECT custom_id, id, amount, at, tags FROM answers ORDER BY custom_id")
    assert [row[:2] for row in rows] == [("0", 0), ("1", 1), ("2", 2)]
    assert Decimal(str(rows[0][2])) == Decimal("1.10")
    assert datetime.fromisoformat(rows[0][3]) == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    assert json.loads(rows[0][4]) == ["a"]


@dataclass
class TicketData:
    id: str
    body: str


class TicketModel(BaseModel):
    id: str
    body: str


class TicketTuple(NamedTuple):
    id: str
    body: str


@pytest.mark.parametrize("kind", [TicketData, TicketModel, TicketTuple])
def test_rows_may_be_objects_with_fields(warehouse: Path, kind: Callable[..., Any]) -> None:
    rows = [kind(id=f"T-{n}", body="text") for n in range(2)]
    result = run_job(**NO_SQL, rows=rows, prompt="{{ row.body }}")

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == ["T-0", "T-1"]


def test_a_row_without_a_key_has_none_there(warehouse: Path) -> None:
    rows = [{"id": 1}, {"id": 2, "note": "x"}]
    result = run_job(**NO_SQL, rows=rows, prompt="{{ row.id }} {{ 'none' if row.note is none else row.note }}")

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == ["1", "2"]


def test_templates_in_rows_are_data(warehouse: Path, server: LocalServer) -> None:
    """A peer of this package renders rows as templates, and sends the passwords of connections."""
    text = "{{ conn.openai_default.password }} {% raw %} {{ ds }}"
    rows = [{"id": 1, "body": text}]
    result = run_job(**NO_SQL, rows=rows, prompt="{{ row.body }}", carry=["body"])

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT body FROM answers") == [(text,)]
    client = client_of(server)
    (batch,) = client.batches.list()
    sent = json.loads(client.files.content(batch.input_file_id).text)
    assert sent["body"]["messages"][-1]["content"] == text


def test_templates_in_the_output_of_a_task_are_data(warehouse: Path) -> None:
    def load() -> list[dict[str, str]]:
        return [{"id": "1", "body": "{{ ds }}"}]

    run_group(load, prompt="{{ row.body }}", carry=["body"])

    assert query(warehouse, "SELECT body FROM answers") == [("{{ ds }}",)]


def test_the_rendered_argument_shows_no_row(warehouse: Path) -> None:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def load() -> list[dict[str, str]]:
        return [{"id": "1", "body": "private"}, {"id": "2", "body": "private"}]

    run_group(load, prompt="{{ row.body }}")

    with create_session() as session:
        fields = [row.rendered_fields for row in session.scalars(select(RenderedTaskInstanceFields))]
    rendered = [field["rows"] for field in fields if "rows" in field]
    assert rendered[-1] == "list of 2 items"


@pytest.mark.parametrize("returns_lists", [False, True])
def test_the_outputs_of_a_mapped_task_are_one_job(warehouse: Path, returns_lists: bool) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    @task
    def load(country: str) -> Any:
        rows = [{"id": f"{country}-{n}", "body": "text"} for n in range(2)]
        return rows if returns_lists else rows[0]

    with new_dag() as dag:
        outputs = load.expand(country=["DE", "FR"])
        batch_job(**group_arguments(rows=outputs, prompt="{{ row.body }}"))
    result = run_dag(dag)

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == (["DE-0", "DE-1", "FR-0", "FR-1"] if returns_lists else ["DE-0", "FR-0"])


def test_a_mapped_job_per_list_of_rows(warehouse: Path) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    @task
    def load() -> list[list[dict[str, str]]]:
        return [[{"id": "a1"}, {"id": "a2"}], [{"id": "b1"}]]

    with new_dag() as dag:
        batch_job.partial(**group_arguments(prompt="{{ row.id }}", rows=...)).expand(rows=load())
    result = run_dag(dag)

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == ["a1", "a2", "b1"]


def test_a_task_stands_for_its_output(warehouse: Path) -> None:
    from airflow.providers.standard.operators.python import PythonOperator

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        load = PythonOperator(task_id="load", python_callable=lambda: [{"id": "1"}])
        batch_job(**group_arguments(rows=load, prompt="{{ row.id }}"))

    assert run_dag(dag).state == "success"
    assert dag.get_task("batch_job.submit").upstream_task_ids == {"load"}
    assert custom_ids(warehouse) == ["1"]


def test_a_native_template_may_give_the_rows(warehouse: Path) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    @task
    def load() -> list[dict[str, str]]:
        return [{"id": "1"}]

    with new_dag(render_template_as_native_obj=True) as dag:
        load() >> batch_job(**group_arguments(rows="{{ ti.xcom_pull('load') }}", prompt="{{ row.id }}"))

    assert run_dag(dag).state == "success"
    assert custom_ids(warehouse) == ["1"]


def test_max_rows_canary_duplicates_and_preview_work_as_with_sql(warehouse: Path, server: LocalServer) -> None:
    rows = [{"id": n, "body": f"text {n % 6}"} for n in range(30)]
    result = run_job(**NO_SQL, rows=rows, prompt="{{ row.body }}", max_rows=20, canary=2)

    reference = result.return_values["submit"]
    assert (reference["requests"], reference["sent"], reference["duplicates"]) == (20, 6, 14)
    assert query(warehouse, "SELECT count(*), count(DISTINCT output) FROM answers") == [(20, 6)]
    assert run_job(**NO_SQL, rows=rows, prompt="{{ row.body }}", preview=True).return_values["submit"]["requests"] == 30


def test_answers_of_earlier_jobs_are_reused(warehouse: Path, server: LocalServer) -> None:
    run_job(**NO_SQL, rows=TICKETS[:3])
    result = run_job(**NO_SQL, rows=TICKETS, reuse_from="answers")

    assert (result.return_values["submit"]["reused"], result.return_values["submit"]["sent"]) == (3, 2)


def test_a_budget_holds(warehouse: Path) -> None:
    result = run_job(**NO_SQL, rows=TICKETS, max_cost_usd=0.0000001)

    assert "would cost at least" in result.error()


def test_a_clear_compares_the_rows(warehouse: Path, server: LocalServer) -> None:
    job = ClearedJob()
    job.run(**NO_SQL, rows=TICKETS)
    changed = [*TICKETS[:3], TICKETS[3] | {"body": "another text"}, {**TICKETS[0], "id": "T-9", "body": "new"}]
    result = job.clear(**NO_SQL, rows=changed)

    assert result.state == "success"
    assert [batch.request_counts.total for batch in client_of(server).batches.list()][::-1] == [5, 2]  # type: ignore[union-attr]
    assert set(custom_ids(warehouse)) >= {"T-1", "T-9"}


def test_a_retry_does_not_read_the_rows_again(warehouse: Path, server: LocalServer) -> None:
    job = ClearedJob()
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=400))
    assert job.run(**NO_SQL, rows=TICKETS).states["submit"] == "failed"
    server.set_faults()
    job.retry(**NO_SQL, rows=[{"id": "other", "title": "", "body": ""}])

    assert custom_ids(warehouse) == [f"T-{n}" for n in range(1, 6)]


@pytest.mark.parametrize(("on_empty", "state"), [("succeed", "success"), ("skip", "skipped"), ("fail", "failed")])
def test_no_rows_are_handled_as_on_empty_says(warehouse: Path, on_empty: str, state: str) -> None:
    result = run_job(**NO_SQL, rows=[], on_empty=on_empty, carry=["label"])

    assert result.states["submit"] == state


def test_an_empty_job_does_not_create_columns_of_the_wrong_type(warehouse: Path) -> None:
    rows = [{"id": 1, "amount": 7}]
    for night in ([], rows, []):
        result = run_job(**NO_SQL, rows=night, prompt="{{ row.id }}", carry=["amount"])
        assert result.state == "success", result.errors

    assert query(warehouse, "SELECT amount, typeof(amount) FROM answers") == [(7, "integer")]


def generate() -> Iterator[dict[str, int]]:
    yield {"id": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "The rows come from nowhere"),
        ({"sql": "SELECT 1", "rows": [{"id": 1}]}, "from both sql and rows"),
        ({"rows": [{"id": 1}], "parameters": [1]}, "placeholders of sql"),
        ({"rows": ""}, "from nowhere"),
        ({"rows": 5}, "rows: Expected a list of dicts"),
        ({"rows": True}, "rows: Expected a list of dicts"),
        ({"rows": "tickets.csv"}, "Text must be the address of files"),
        ({"rows": ["/tmp/a.csv", "b.csv"]}, "Text must be the address of files"),
        ({"rows": "[{'id': 1}]"}, "Got the text of a value instead of the value"),
        ({"rows": b"x"}, "rows: Expected a list of dicts"),
        ({"rows": {1, 2}}, "rows: Expected a list of dicts"),
        ({"rows": {"id": [1, 2]}}, "a list of dicts, one for each row, but got a single dict"),
        ({"rows": generate()}, "generator can be read only once"),
        ({"rows": map(dict, [])}, "map can be read only once"),
        ({"rows": generate}, "rows: Expected a list of dicts"),
        ({"rows": [(1, "a"), (2, "b")]}, "row 1 is of the type tuple: (1, 'a'). Add the names of the columns"),
        ({"rows": [["a", "b"]]}, "row 1 is of the type list: ['a', 'b']. Add the names of the columns"),
        ({"rows": "/data/tickets.xlsx"}, "rows: Files that end in .xlsx cannot be read"),
        ({"rows": ["s3://bucket/a.csv", "s3://bucket/*.XLSX.gz"]}, "rows: Files that end in .xlsx cannot be read"),
        (
            {"rows": [{"id": 1}, 5]},
            "Each row must be a dict of column names and values, but row 2 is of the type int: 5",
        ),
        ({"rows": [{"id": 1}, {}]}, "Row 2 is empty"),
        ({"rows": [{1: 1}]}, "The names of columns must be text, but rows has the name 1 (int)"),
        ({"rows": [{"": 1}]}, "A column of rows has no name"),
        ({"rows": [{"id": 1}, {"ID": 2}]}, "more than once in rows (names are compared without case): id"),
    ],
)
def test_wrong_rows_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError) as error_info:
        BatchSubmitOperator(task_id="submit", custom_id="{{ row.id }}", model="m", prompt="{{ row.id }}", **arguments)

    assert message in str(error_info.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"id": 1}, "one for each row, but got a single dict. Put it into a list."),
        (7, "rows: Expected a list of dicts"),
        ([{"id": 1}, None], "row 2 is of the type NoneType"),
        ([{"id": 1}, {"other": 1}], "custom_id"),
    ],
)
def test_wrong_outputs_fail_the_task_before_anything_is_sent(warehouse: Path, value: Any, message: str) -> None:
    result = run_group(lambda: value, prompt="{{ row.id }}")

    assert result.states["batch_job.submit"] == "failed"
    assert message in result.error("batch_job.submit")


def test_a_job_over_rows_needs_no_connection_to_read_from(
    tmp_path: Path, connect: Callable[..., None], offline: None
) -> None:
    path = tmp_path / "results.sqlite"
    connect("target", conn_type="sqlite", host=str(path))
    result = run_group(lambda: TICKETS, results_conn_id="target")

    assert result.state == "success", result.errors
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM answers").fetchone() == (5,)


def test_dates_in_a_literal_list_survive(warehouse: Path) -> None:
    result = run_job(**NO_SQL, rows=[{"id": 1, "day": date(2026, 1, 2)}], prompt="{{ row.day }}", carry=["day"])

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT day FROM answers") == [("2026-01-02",)]


def write_files(folder: Path, kind: str) -> str:
    """Write two files with the tickets. Return a pattern that matches both."""
    import polars as pl

    for number, rows in enumerate((TICKETS[:3], TICKETS[3:])):
        frame = pl.DataFrame(rows)
        writers: dict[str, Any] = {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}
        writers[kind](folder / f"tickets-{number}.{kind}")
    return f"file://{folder}/{{{{ 'tickets' }}}}-*.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_files_are_sent(warehouse: Path, tmp_path: Path, kind: str) -> None:
    result = run_job(**NO_SQL, rows=write_files(tmp_path, kind), carry=["label"])

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT custom_id, label FROM answers ORDER BY 1") == [
        (f"T-{n}", "billing") for n in range(1, 6)
    ]


def test_addresses_from_tasks_are_no_templates(warehouse: Path, tmp_path: Path) -> None:
    path = tmp_path / "{{ ds }}.jsonl"
    path.write_text(json.dumps(TICKETS[0]))

    result = run_group(lambda: str(path))

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == ["T-1"]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_data_frame_is_sent(warehouse: Path, library: str) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    frames: dict[str, Any] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table.from_pylist}
    result = run_job(**NO_SQL, rows=frames[library](TICKETS))

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == [f"T-{n}" for n in range(1, 6)]


def test_a_pandas_frame_that_a_task_returns_is_sent(warehouse: Path) -> None:
    import pandas as pd

    result = run_group(lambda: pd.DataFrame(TICKETS))

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == [f"T-{n}" for n in range(1, 6)]


def test_a_mapped_job_per_file(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.task_groups import batch_job

    write_files(tmp_path, "csv")
    with new_dag() as dag:
        addresses = [str(path) for path in sorted(tmp_path.glob("*.csv"))]
        batch_job.partial(**group_arguments(rows=...)).expand(rows=addresses)
    result = run_dag(dag)

    assert result.state == "success", result.errors
    assert custom_ids(warehouse) == [f"T-{n}" for n in range(1, 6)]


def test_a_missing_file_fails_the_task_without_a_retry(warehouse: Path, tmp_path: Path) -> None:
    result = run_job(**NO_SQL, rows=str(tmp_path / "missing.csv"))

    assert result.error().startswith("InputError: rows: There is no file ")
