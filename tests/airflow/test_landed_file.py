"""The landed rows as a file, and a sink of one's own, through the three operators on real Airflow."""

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
    """Three tickets; one is refused, and one fails once, so that it is landed from two tries."""
    once = f"[[fail:500:once]] {uuid4()}"
    return [("T-1", "One", "first", "a"), ("T-2", "Two", "[[refuse]]", None), ("T-3", "Three", once, "ü")]


def lines(account: dict[str, Any]) -> list[dict[str, Any]]:
    folder, _, name = account["landed_file"].partition("/landed/")
    with open_folder(folder).reader(f"landed/{name}") as file:
        return [json.loads(line) for line in file]


def test_the_landed_file_holds_each_row_of_the_table_once(warehouse: Path) -> None:
    land = {"landed_file": True, "columns": {"answer": "label", "score": "score"}, "key": {"run": "night"}}
    result = run_job(output_schema=SCHEMA, carry=["label"], land=land)

    assert result.state == "success"
    account = result.return_values["land"]
    assert account["landed_file"].startswith(result.return_values["submit"]["ledger"] + "/landed/land-")
    found = lines(account)
    assert [line["custom_id"] for line in found] == ["T-1", "T-2", "T-3"]
    names = list(found[0])
    listed = ", ".join(f'"{name}"' for name in names if name not in ("cost_usd", "output"))
    table = query(warehouse, f"SELECT {listed} FROM answers ORDER BY custom_id")
    assert [tuple(v for k, v in line.items() if k not in ("cost_usd", "output")) for line in found] == table
    assert names[:4] == ["run", "custom_id", "outcome", "output"]
    assert [(line["outcome"], line["attempt"], line["label"]) for line in found] == [
        ("succeeded", 1, "a"),
        ("refused", 1, None),
        ("succeeded", 2, "ü"),
    ]
    assert sum(line["cost_usd"] for line in found) == pytest.approx(float(account["cost_usd"]))


def test_without_a_table_the_file_is_all_and_no_connection_is_asked_for(warehouse: Path) -> None:
    result = run_job(land={"landed_file": True, "table": None, "warehouse_conn_id": "nobody"})

    assert result.state == "success"
    account = result.return_values["land"]
    assert (account["table"], account["outcomes"]) == (None, {"succeeded": 2, "refused": 1})
    assert len(lines(account)) == 3


def test_a_landing_needs_a_place(warehouse: Path) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    with pytest.raises(InputError, match="give a table, or landed_file=True"):
        BatchResultsOperator(task_id="land", job={})


class ListSink:
    """A table that is a column of JSON."""

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
            given = [dict(zip(self.names, row, strict=True)) for row in rows]
            values = [(row["custom_id"], row["outcome"], json.dumps(self.options)) for row in given]
            connection.executemany(f"INSERT OR REPLACE INTO {self.table} VALUES (?, ?, ?)", values)
        return len(given)


@pytest.mark.parametrize("sink", [ListSink, f"{__name__}:ListSink", f"{__name__}.ListSink"])
def test_rows_land_through_a_sink_of_ones_own(warehouse: Path, sink: Any) -> None:
    result = run_job(land={"sink": sink, "table": "mine", "keep_last_success": True})

    assert result.state == "success"
    options = '{"create": true, "keep_last_success": true}'
    assert query(warehouse, "SELECT * FROM mine ORDER BY id") == [
        ("T-1", "succeeded", options),
        ("T-2", "refused", options),
        ("T-3", "succeeded", options),
    ]


def test_a_sink_that_cannot_be_imported_is_told_before_anything_is_uploaded(warehouse: Path) -> None:
    result = run_job(land={"sink": "tests.nowhere:Sink"})
    assert result.states["submit"] == "failed"
    assert "sink: Cannot import 'tests.nowhere:Sink'" in result.error()
