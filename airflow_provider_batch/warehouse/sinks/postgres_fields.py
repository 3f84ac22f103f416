"""How the values of a row pass into PostgreSQL: as fields of COPY's text format, through columns of a landing table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.stored_types import Kind
from airflow_provider_batch.warehouse.table import TableColumn, has_native_type


@dataclass(frozen=True)
class LandingField:
    """How a column passes through the landing table: its type there, its encoder, and the expression that reads it."""

    type: str
    encode: Callable[[Any], str]
    expression: str = "{}"


def landing_field(types: Mapping[ColumnType, str], column: Column, table_column: TableColumn) -> LandingField:
    """Return how a column of ours passes into this column of the results table."""
    if has_native_type(POSTGRES, column, table_column):
        return LandingField(
            column.native_type, _native_text if column.type is ColumnType.JSON else _ENCODERS[column.type]
        )
    kind, base = table_column.stored.kind, getattr(table_column, "base", "")
    encode = _ENCODERS[column.type]
    if column.type in (ColumnType.JSON, ColumnType.VECTOR):
        if kind is Kind.JSON:
            return LandingField(base, _json)
        if kind is Kind.VECTOR:
            # pgvector parses its own notation and checks the dimensions during the cast
            return LandingField("text", _json, f"CAST({{}} AS {_escape_braces(table_column.type)})")
        if kind is Kind.TEXT:
            return LandingField("text", _json)
        if column.type is ColumnType.JSON:
            # reads lists of any depth and records, each element as its own type
            cast = f"(SELECT v FROM jsonb_to_record(jsonb_build_object('v', {{}})) AS r(v {_escape_braces(base)}))"
            return LandingField("jsonb", _json, cast)
    if column.type is ColumnType.BOOLEAN and kind is Kind.INTEGER:
        return LandingField(table_column.type, _bit)
    if column.type is ColumnType.FLOAT and kind is Kind.NUMERIC:
        # a cast from double precision would round to 15 digits
        return LandingField(types[ColumnType.NUMERIC], encode)
    if column.type is ColumnType.TEXT and column.key:
        # COPY reads the text as the table's type. Keys that are equal in the table must be equal here too, and citext
        # or char(n) have their own equality.
        collation = getattr(table_column, "collation", "")
        return LandingField(table_column.type + (f" COLLATE {collation}" if collation else ""), encode)
    if column.type is ColumnType.TEXT and kind is not Kind.TEXT:
        # A text that the type does not have is refused by the cast, with its row. COPY would refuse all rows.
        return LandingField("text", encode, f"CAST({{}} AS {_escape_braces(table_column.type)})")
    return LandingField(types[column.type], encode)


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


#: characters that COPY's text format escapes, and NUL, which PostgreSQL's text cannot store
_SPECIAL = "\\\n\t\r\0"


def is_plain(text: str) -> bool:
    """Return whether `_text` leaves the text, and every part of it, unchanged."""
    return not any(character in text for character in _SPECIAL)


def _text(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r").replace("\0", "")


def _json(value: Any) -> str:
    return values.json_text(value).replace("\\", "\\\\")


def _array(value: Sequence[float]) -> str:
    return "{" + values.json_text(value)[1:-1] + "}"


def _numeric(value: Decimal) -> str:
    return str(values.decimal(value))


def _boolean(value: bool) -> str:
    if value is True or value is False:
        return "t" if value else "f"
    raise TypeError("not a bool")


def _native_text(value: Any) -> str:
    return _text(value.text if isinstance(value, NativeValue) else values.json_text(value))


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


def _bit(value: bool) -> str:
    return "1" if _boolean(value) == "t" else "0"


_ENCODERS: Mapping[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: int.__repr__,
    ColumnType.FLOAT: lambda value: repr(float(value)),
    ColumnType.NUMERIC: _numeric,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.to_iso,
    ColumnType.LOCAL_TIMESTAMP: values.local_iso,
    ColumnType.TIME: values.clock_iso,
    ColumnType.INTERVAL: _interval,
    ColumnType.UUID: values.uuid_text,
    ColumnType.JSON: _json,
    ColumnType.BYTES: lambda value: "\\\\x" + memoryview(value).hex(),
    ColumnType.VECTOR: _array,
}
