"""Landing into a file and through a custom sink, with the three operators on real Airflow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.staging.layout import open_folder
from tests.airflow.jobs import Ticket, query, run_job

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


def read_lines(summary: dict[str, Any]) -> list[dict[str, Any]]:
    folder, _, name = summary["landed_file"].partition("/landed/")
    with open_folder(folder).reader(f"landed/{name}") as file:
        return [json.loads(line) for line in file]


def test_the_landed_file_contains_each_row_of_the_table_once(warehouse: Path) -> None:
    land = {"landed_file": True, "columns": {"answer": "label", "score": "score"}, "key": {"run": "night"}}
    result = run_job(output_schema=SCHEMA, carry=["label"], land=land)

    assert result.state == "success"
    summary = result.return_values["land"]
    assert summary["landed_file"].startswith(result.return_values["submit"]["ledger"] + "/landed/land-")
    lines = read_lines(summary)
    assert [line["custom_id"] for line in lines] == ["T-1", "T-2", "T-3"]
    names = list(lines[0])
    selected = ", ".join(f'"{name}"' for name in names if name not in ("cost_usd", "output"))
    rows = query(warehouse, f"SELECT {selected} FROM answers ORDER BY custom_id")
    assert [
        tuple(value for name, value in line.items() if name not in ("cost_usd", "output")) for line in lines
    ] == rows
    assert names[:4] == ["run", "custom_id", "outcome", "output"]
    assert [(line["outcome"], line["attempt"], line["label"]) for line in lines] == [
        ("succeeded", 1, "a"),
        ("refused", 1, None),
        ("succeeded", 2, "ü"),
    ]
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(float(summary["cost_usd"]))


def test_without_a_table_only_the_file_is_written_and_no_warehouse_connection_is_needed(warehouse: Path) -> None:
    result = run_job(land={"landed_file": True, "table": None, "warehouse_conn_id": "missing"})

    assert result.state == "success"
    summary = result.return_values["land"]
    assert (summary["table"], summary["outcomes"]) == (None, {"succeeded": 2, "refused": 1})
    assert len(read_lines(summary)) == 3


def test_landing_needs_a_table_or_a_file(warehouse: Path) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    with pytest.raises(InputError, match="nowhere to land the rows: pass table, landed_file=True"):
        BatchResultsOperator(task_id="land", job={})


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
