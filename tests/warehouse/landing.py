"""Columns, rows and helpers shared by the tests of the sinks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse

START = datetime(2026, 11, 20, 12, tzinfo=UTC)

#: the columns that every results table needs, plus an output and a job to tell rows apart
COLUMNS = (
    Column("custom_id", ColumnType.TEXT, key=True),
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT),
    Column("job_uid", ColumnType.TEXT),
    Column("sealed_at", ColumnType.TIMESTAMP),
)

Row = tuple[str, str, str, str, datetime]


def row(custom_id: str, output: str = "x", outcome: str = "succeeded", minute: int = 0, job: str = "job") -> Row:
    """Return a row that was sealed `minute` minutes after the start."""
    return (custom_id, outcome, output, job, START + timedelta(minutes=minute))


def with_column(column: Column) -> tuple[Column, ...]:
    return (*COLUMNS, column)


def land(warehouse: Warehouse, *landings: Iterable[tuple[Any, ...]], **options: Any) -> tuple[Refusal, ...]:
    """Write each landing through a new sink, to the table `results` unless `table` is given.

    Return the refusals of the last one.
    """
    refusals: tuple[Refusal, ...] = ()
    columns = options.pop("columns", COLUMNS)
    table = options.pop("table", "results")
    for rows in landings:
        sink = open_sink(warehouse.hook, table, columns, **options)
        assert isinstance(sink, TableSink)
        sink.prepare()
        sink.write(rows)
        refusals = sink.refusals
    return refusals


def landed_rows(warehouse: Warehouse, table: str = "results") -> dict[str, tuple[str, str]]:
    """Return the rows of the table: custom_id -> (outcome, output)."""
    rows = warehouse.execute(f"SELECT custom_id, outcome, output FROM {warehouse.quote(table)}")
    assert len({key for key, _, _ in rows}) == len(rows)
    return {key: (outcome, output) for key, outcome, output in rows}
