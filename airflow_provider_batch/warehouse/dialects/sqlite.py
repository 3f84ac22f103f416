"""SQLite, with Python's sqlite3 driver."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import lexer, upsert, values
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.drivers.sqlite import DENIED_FUNCTIONS, SQLITE_DRIVER
from airflow_provider_batch.warehouse.read_only import ReadRules

#: `{schema}` is '' or a quoted schema followed by a dot. `{name}` is a quoted name.
_CATALOGUE = Catalogue(
    table="SELECT type FROM {schema}sqlite_master WHERE lower(name) = lower(?) AND type IN ('table', 'view')",
    columns="PRAGMA {schema}table_xinfo({name})",
    keys="PRAGMA {schema}index_list({name})",
    index="PRAGMA {schema}index_info({name})",
    strict="PRAGMA {schema}table_list({name})",
)


def _numeric(value: Any) -> int | float | str:
    """Return a number that SQLite can store exactly, or the number as text if it cannot."""
    number = values.decimal(value)
    if not number.is_finite():
        return str(number)
    if number == int(number) and abs(number) < 1 << 63:
        return int(number)
    return float(number) if Decimal(repr(float(number))) == number else str(number)


SQLITE = Dialect(
    name="SQLite",
    conn_types=("sqlite",),
    types={
        ColumnType.TEXT: "TEXT",
        ColumnType.INTEGER: "INTEGER",
        ColumnType.FLOAT: "REAL",
        # no type: any affinity would round numbers of more than 15 digits, or turn all numbers into text
        ColumnType.NUMERIC: "",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "TEXT",
        ColumnType.TIMESTAMP: "TEXT",
        ColumnType.LOCAL_TIMESTAMP: "TEXT",
        ColumnType.TIME: "TEXT",
        ColumnType.INTERVAL: "TEXT",
        ColumnType.UUID: "TEXT",
        ColumnType.JSON: "TEXT",
        ColumnType.BYTES: "BLOB",
        ColumnType.VECTOR: "TEXT",
    },
    bind={
        ColumnType.TEXT: values.text,
        ColumnType.INTEGER: values.integer,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: _numeric,
        ColumnType.BOOLEAN: lambda value: int(values.require_type(bool, value)),
        ColumnType.DATE: date.isoformat,
        ColumnType.TIMESTAMP: values.to_iso,
        ColumnType.LOCAL_TIMESTAMP: values.local_iso,
        ColumnType.TIME: values.clock_iso,
        ColumnType.INTERVAL: values.iso_duration,
        ColumnType.UUID: values.uuid_text,
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: values.json_text,
    },
    name_parts=("database", "table"),
    has_text_timestamps=True,
    index_belongs_to_schema=True,
    # SQLITE_MAX_LENGTH is 10^9
    limits=Limits(boolean_characters=1, row_bytes=900_000_000, float_has_nan=False),
    errors=ErrorPatterns(
        absent_table=ErrorPattern(message="no such table"),
    ),
    catalogue=_CATALOGUE,
    upsert=upsert.on_conflict,
    # the authorizer of the driver decides
    reading=ReadRules(sqlglot=("sqlite",), lexis=lexer.SQLITE, denied_functions=DENIED_FUNCTIONS, runs_unparsed=True),
    driver=SQLITE_DRIVER,
    sink="airflow_provider_batch.warehouse.sinks.sqlite:SqliteSink",
)
