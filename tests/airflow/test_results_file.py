"""Landing into a file and through a custom sink, with the operators on real Airflow."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import pytest

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.testing import LocalServer
from tests.airflow.jobs import Ticket, client_of, query, run_dag, run_job, submit_arguments

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}


@pytest.fixture
def tickets() -> list[Ticket]:
    """Three tickets. The model refuses one, and one fails once, so that it lands after its second attempt."""
    body = f"[[fail:500:once]] {uuid4()}"
    return [("T-1", "One", "first", "a"), ("T-2", "Two", "[[refuse]]", None), ("T-3", "Three", body, "ü")]


def read_rows(address: str) -> list[dict[str, Any]]:
    """Return the rows of a file for results, by custom_id."""
    with duckdb.connect() as connection:
        relation = connection.sql(f"SELECT * FROM '{address}'")
        assert relation is not None
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


@pytest.mark.parametrize("name", ["answers.parquet", "answers.jsonl"])
def test_the_file_contains_each_row_of_the_table_once(warehouse: Path, tmp_path: Path, name: str) -> None:
    address = str(tmp_path / "files/{{ run_id | length }}" / name)
    land = {"results_file": address, "columns": {"answer": "label", "score": "score"}, "key": {"run": "night"}}
    result = run_job(output_schema=SCHEMA, carry=["label"], land=land)

    assert result.state == "success"
    summary = result.return_values["land"]
    assert summary["table"] == "answers"
    rows = read_rows(summary["results_file"])
    assert [row["custom_id"] for row in rows] == ["T-1", "T-2", "T-3"]
    names = [name for name in rows[0] if name not in ("cost_usd", "output", "sealed_at", "landed_at", "logical_date")]
    selected = ", ".join(f'"{name}"' for name in names)
    assert [tuple(row[name] for name in names) for row in rows] == query(
        warehouse, f"SELECT {selected} FROM answers ORDER BY custom_id"
    )
    assert list(rows[0])[:4] == ["run", "custom_id", "outcome", "output"]
    assert [(row["outcome"], row["attempt"], row["label"]) for row in rows] == [
        ("succeeded", 1, "a"),
        ("refused", 1, None),
        ("succeeded", 2, "ü"),
    ]
    assert float(sum(row["cost_usd"] for row in rows)) == pytest.approx(float(summary["cost_usd"]))


def test_without_a_table_only_the_file_is_written_and_no_warehouse_connection_is_needed(
    warehouse: Path, tmp_path: Path
) -> None:
    file = tmp_path / "answers.parquet"
    result = run_job(land={"results_file": str(file), "table": None, "warehouse_conn_id": "missing"})

    assert result.state == "success"
    summary = result.return_values["land"]
    assert (summary["table"], summary["outcomes"]) == (None, {"succeeded": 2, "refused": 1})
    assert len(read_rows(summary["results_file"])) == 3


def test_a_partial_landing_is_replaced_by_the_next_one(warehouse: Path, tmp_path: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    address = str(tmp_path / "answers.jsonl")
    outcomes = []

    def record(context: Any, result: Any) -> None:
        outcomes.append(sorted(row["outcome"] for row in read_rows(address)))

    with DAG("partial_file", schedule=None) as dag:
        submit = BatchSubmitOperator(**submit_arguments())
        early = BatchResultsOperator(
            task_id="early", job=submit.output, results_file=address, partial=True, post_execute=record
        )
        wait = BatchSensor(task_id="wait", job=submit.output)
        land = BatchResultsOperator(
            task_id="land", job=submit.output, results_file=address, max_failure_rate=1, post_execute=record
        )
        submit >> early >> wait >> land
    assert run_dag(dag).state == "success"
    assert outcomes == [["pending"] * 3, ["refused", "succeeded", "succeeded"]]


@pytest.mark.parametrize(
    ("land", "message"),
    [
        (
            {"results_file": "/dev/null/a.parquet"},
            "Cannot write the results file /dev/null/a.parquet: /dev/null is not",
        ),
        ({"results_file": "s3://bucket/answers.parquet"}, "has no filesystem for it"),
        ({"results_file": "{{ 'answers.csv' }}"}, "results_file: Expected the address of a file that ends in .parquet"),
        ({"results_file": "{{ '' }}"}, "There is nowhere to land the rows"),
    ],
)
def test_a_file_that_cannot_be_written_fails_submit_before_anything_is_uploaded(
    warehouse: Path, server: LocalServer, land: dict[str, Any], message: str
) -> None:
    result = run_job(land={"table": None, **land})
    assert result.states["submit"] == "failed"
    assert message in result.error()
    assert "Task 'land' cannot land this job" in result.error()
    assert client_of(server).files.list().data == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nowhere to land the rows: pass table, or results_file"),
        ({"results_file": "answers.parquet"}, "results_file: Expected an absolute path"),
        ({"results_file": "/answers.csv"}, "results_file: Expected the address of a file that ends in .parquet"),
        ({"results_file": "/{{ ds }}.csv"}, "results_file: Expected the address of a file that ends in .parquet"),
        ({"results_file": "/{{ ds }}.jsonl", "history": True}, "history needs a results table"),
        ({"results_file": "/a.jsonl", "keep_last_success": True}, "keep_last_success needs a results table"),
        ({"results_file": "/a.jsonl", "sink": "package:Sink"}, "sink needs a results table"),
    ],
)
def test_a_destination_that_cannot_work_is_refused_while_the_dag_is_parsed(
    arguments: dict[str, Any], message: str
) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    with pytest.raises(InputError, match=re.escape(message)):
        BatchResultsOperator(task_id="land", job={}, **arguments)


class ListSink:
    """A sink that stores the custom_id, the outcome and its own options."""

    def __init__(
        self, hook: DbApiHook, table: str, columns: tuple[Column, ...], *, create: bool, keep_last_success: bool
    ) -> None:
        assert hook.connection.host is not None
        self.path, self.table = hook.connection.host, table
        self.names = [column.name for column in columns]
        self.options = {"create": create, "keep_last_success": keep_last_success}

    def prepare(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self.table} (id PRIMARY KEY, row, options)")

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            named_rows = [dict(zip(self.names, row, strict=True)) for row in rows]
            values = [(row["custom_id"], row["outcome"], json.dumps(self.options)) for row in named_rows]
            connection.executemany(f"INSERT OR REPLACE INTO {self.table} VALUES (?, ?, ?)", values)
        return len(named_rows)


@pytest.mark.parametrize("sink", [ListSink, f"{__name__}:ListSink", f"{__name__}.ListSink"])
def test_rows_land_through_a_custom_sink(warehouse: Path, sink: Any) -> None:
    result = run_job(land={"sink": sink, "table": "mine", "keep_last_success": True})

    assert result.state == "success"
    options = '{"create": true, "keep_last_success": true}'
    assert query(warehouse, "SELECT * FROM mine ORDER BY id") == [
        ("T-1", "succeeded", options),
        ("T-2", "refused", options),
        ("T-3", "succeeded", options),
    ]


def test_a_sink_that_cannot_be_imported_fails_the_job_before_anything_is_uploaded(warehouse: Path) -> None:
    result = run_job(land={"sink": "tests.nowhere:Sink"})
    assert result.states["submit"] == "failed"
    assert "sink: Cannot import 'tests.nowhere:Sink'" in result.error()
