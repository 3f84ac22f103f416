"""Columns and rows that the tests of the sinks share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.sinks.open import Sink, open_sink
from tests.warehouse.conftest import Warehouse

START = datetime(2026, 11, 20, 12, tzinfo=UTC)

#: the least that a results table has: key, outcome, when it was sealed, by whom, and one column to look at
COLUMNS = (
    Column("custom_id", ColumnType.TEXT, key=True),
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT),
    Column("job_uid", ColumnType.TEXT),
    Column("sealed_at", ColumnType.TIMESTAMP),
)

Row = tuple[str, str, str, str, datetime]


def row(custom_id: str, output: str = "x", outcome: str = "succeeded", sealed: int = 0, job: str = "job") -> Row:
    """A row sealed `sealed` minutes after the start."""
    return (custom_id, outcome, output, job, START + timedelta(minutes=sealed))


def with_column(column: Column) -> tuple[Column, ...]:
    return (*COLUMNS, column)


def land(warehouse: Warehouse, *landings: Iterable[tuple[Any, ...]], **options: Any) -> None:
    """Land each of the landings, by a sink of its own, in the table `results` or in the one that is named."""
    columns = options.pop("columns", COLUMNS)
    table = options.pop("table", "results")
    for rows in landings:
        sink: Sink = open_sink(warehouse.hook, table, columns, **options)
        sink.prepare()
        sink.write(rows)


def landed(warehouse: Warehouse, table: str = "results") -> dict[str, tuple[str, str]]:
    """What is in the table: custom_id -> (outcome, output)."""
    found = warehouse.execute(f"SELECT custom_id, outcome, output FROM {warehouse.quote(table)}")
    assert len({key for key, _, _ in found}) == len(found)
    return {key: (outcome, output) for key, outcome, output in found}
