"""Fields of structured output reach real databases with the value that the model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from airflow_provider_batch.core.landing.columns import results_columns
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.schema.author_schema import author_schema
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.paths import column_type, extractor
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.core.building import NOW, chat_line, manifest_of, request, seal_all, settle, temporary_folder
from tests.core.schema.types_table import INVALID, LONG, ROWS, Row, model_of
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, land, row

#: how to read what SQLite stores, by the type of the column
FROM_SQLITE: dict[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: date.fromisoformat,
    ColumnType.TIMESTAMP: datetime.fromisoformat,
    ColumnType.LOCAL_TIMESTAMP: datetime.fromisoformat,
    ColumnType.TIME: time.fromisoformat,
    ColumnType.INTERVAL: lambda value: msgspec.convert(value, timedelta),
    ColumnType.UUID: UUID,
}


def read(warehouse: Warehouse, type_: ColumnType, value: Any) -> Any:
    """Return a value of the database as Python."""
    if value is None:
        return None
    if type_ is ColumnType.JSON:
        return json.loads(value, parse_float=Decimal)
    if warehouse.dialect == "sqlite":
        return FROM_SQLITE.get(type_, lambda each: each)(value)
    return value.astimezone(UTC) if type_ is ColumnType.TIMESTAMP else value


def answers_of(schema: dict[str, Any], each: Row, *, whole_digits: int = 1000, decimal_places: int = 1000) -> list[Any]:
    """Return the values in the column of a type, as far as the database has the digits."""
    values = []
    for text, expected in each.answers:
        if expected is INVALID:
            continue
        document, _ = SchemaJudge(schema).judge(f'{{"x": {text}}}')
        value = extractor(schema, "x")(document)
        if isinstance(value, Decimal):
            _, _, exponent = value.as_tuple()
            assert isinstance(exponent, int)
            if value.adjusted() >= whole_digits or -exponent > decimal_places:
                continue
        values.append(value)
    return values


@pytest.mark.parametrize("warehouse", ["sqlite", "duckdb", "psycopg", "psycopg2"], indirect=True)
def test_every_type_is_read_back_as_the_model_wrote_it(warehouse: Warehouse) -> None:
    digits = {"whole_digits": 26, "decimal_places": 12} if warehouse.is_duckdb else {}
    rows = [each for each in ROWS if each.column is not None]
    schemas = [author_schema(model_of(each)) for each in rows]
    types = [column_type(schema, "x") for schema in schemas]
    values = [answers_of(schema, each, **digits) for schema, each in zip(schemas, rows, strict=True)]
    length = max(map(len, values))
    padded = [[*each, *[None] * (length - len(each))] for each in values]
    columns = [Column(f"c{number}", type_) for number, type_ in enumerate(types)]
    land(
        warehouse,
        [(*row(f"{line:03}"), *(each[line] for each in padded)) for line in range(length)],
        columns=(*COLUMNS, *columns),
    )
    names = ", ".join(
        f"{column.name}::text" if column.type is ColumnType.JSON and warehouse.is_postgres else column.name
        for column in columns
    )
    landed = warehouse.execute(f"SELECT {names} FROM results ORDER BY custom_id")
    for each, type_, expected, result in zip(rows, types, padded, zip(*landed, strict=True), strict=True):
        assert [read(warehouse, type_, value) for value in result] == expected, each.name


@pytest.mark.parametrize("warehouse", ["psycopg"], indirect=True)
def test_json_columns_of_postgres_keep_every_digit(warehouse: Warehouse) -> None:
    value = [Decimal(LONG), 10**40, Decimal("1234.5")]
    land(warehouse, [(*row("a"), value)], columns=(*COLUMNS, Column("x", ColumnType.JSON)))
    assert warehouse.execute("SELECT x::text FROM results") == [(f"[{LONG}, {10**40}, 1234.5]",)]


class Invoice(BaseModel):
    total: Decimal


def land_answers(warehouse: Warehouse, *answers: str) -> dict[str, tuple[str, Any]]:
    """Land invoices with these totals, as JSON. Return the outcome and the total of each."""
    schema = author_schema(Invoice)
    lines = {answer: chat_line(answer, f'{{"total": {answer}}}') for answer in answers}
    arguments: dict[str, Any] = {"key": {}, "columns": {"total": "total"}, "store_response": False}
    with temporary_folder() as folder:
        (shard,) = seal_all(folder, [request(custom_id, text=custom_id) for custom_id in lines])
        manifest = manifest_of([shard], output_schema=schema)
        sink = open_sink(warehouse.hook, "results", results_columns(manifest, **arguments))
        sink.prepare()
        state = fold(manifest, [settle(folder, shard, lines.values())])
        limits = getattr(sink, "limits", None)
        sink.write(Landing(folder, state, run_id="run", landed_at=NOW, limits=limits, **arguments))
    rows = warehouse.execute("SELECT custom_id, outcome, total FROM results")
    return {custom_id: (outcome, total) for custom_id, outcome, total in rows}


TOTALS = ("1234.5", '"1234.50"', '"1,234.50 EUR"')


@pytest.mark.parametrize("warehouse", ["psycopg", "psycopg2", "sqlite", "duckdb"], indirect=True)
def test_a_decimal_lands_as_a_number_whether_the_model_wrote_a_number_or_text(warehouse: Warehouse) -> None:
    rows = land_answers(warehouse, *TOTALS)
    assert rows == {
        "1234.5": ("succeeded", Decimal("1234.50")),
        '"1234.50"': ("succeeded", Decimal("1234.50")),
        '"1,234.50 EUR"': ("invalid_output", None),
    }
    assert warehouse.execute("SELECT sum(total) FROM results") == [(Decimal(2469),)]


@pytest.mark.parametrize("warehouse", ["psycopg"], indirect=True)
def test_an_existing_numeric_column_is_filled(warehouse: Warehouse) -> None:
    land_answers(warehouse, "7")
    warehouse.execute("ALTER TABLE results ALTER COLUMN total TYPE numeric(12,2)")
    rows = land_answers(warehouse, *TOTALS)
    assert rows == {
        "7": ("succeeded", Decimal(7)),
        "1234.5": ("succeeded", Decimal("1234.50")),
        '"1234.50"': ("succeeded", Decimal("1234.50")),
        '"1,234.50 EUR"': ("invalid_output", None),
    }
