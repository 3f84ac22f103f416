"""The types that pydantic users write: what is sent for each, which column it fills, and some answers.

`python -m tests.core.schema.types_table` prints the table of docs/how-to/structured-output.md.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from pydantic import (
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    Field,
    HttpUrl,
    Json,
    NaiveDatetime,
    SecretStr,
    create_model,
)

from airflow_provider_batch.core.schema.author_schema import author_schema, strict_schema
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.drafts import types
from airflow_provider_batch.core.schema.paths import column_type
from airflow_provider_batch.exceptions import SchemaError
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.sqlite import SQLITE

ID = UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f")


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    NONE = "none"
    ONE = 1


class Item(BaseModel):
    name: str


class Node(BaseModel):
    name: str
    children: list[Node]


T = TypeVar("T")


class Response(BaseModel, Generic[T]):
    value: T


#: what an answer that is not valid gives
INVALID = "invalid"


class Row(NamedTuple):
    """A type, how authors write it, its column (None if it is refused), and answers with the value of the column."""

    type: Any
    name: str
    column: ColumnType | None
    #: pairs of the JSON text of an answer and the value in the column; INVALID for a row that is `invalid_output`
    answers: tuple[tuple[str, Any], ...] = ()


LONG = "0.1234567890123456789012345678901234567890"
ROWS = [
    Row(str, "str", ColumnType.TEXT, (('"x"', "x"), ("1", INVALID))),
    Row(str | None, "str | None", ColumnType.TEXT, (('"x"', "x"), ("null", None))),
    Row(
        Annotated[str, Field(min_length=2)], "constr(min_length=2)", ColumnType.TEXT, (('"xy"', "xy"), ('"x"', INVALID))
    ),
    Row(bool, "bool", ColumnType.BOOLEAN, (("true", True),)),
    Row(int, "int", ColumnType.INTEGER, (("7", 7), ("7.0", 7), ("1e3", 1000), ("7.5", INVALID), (str(2**63), INVALID))),
    Row(
        Annotated[int, Field(ge=0, le=2**70)],
        "conint(ge=0, le=2**70)",
        ColumnType.NUMERIC,
        ((str(2**65), Decimal(2**65)),),
    ),
    Row(float, "float", ColumnType.FLOAT, (("0.1", 0.1), ("1e3", 1000.0), ("2", 2.0), ("1e400", INVALID))),
    Row(int | float, "int | float", ColumnType.FLOAT, (("1", 1.0), ("2.5", 2.5), (str(2**53 + 1), INVALID))),
    Row(
        Decimal,
        "Decimal",
        ColumnType.NUMERIC,
        (
            ("1234.5", Decimal("1234.5")),
            ('"1234.50"', Decimal("1234.50")),
            ("1234.50", Decimal("1234.50")),
            ("0.1", Decimal("0.1")),
            ("1e3", Decimal(1000)),
            (LONG, Decimal(LONG)),
            (f'"{LONG}"', Decimal(LONG)),
            (str(10**40), Decimal(10**40)),
            ('"1,234.50 EUR"', INVALID),
            ('"NaN"', INVALID),
            ('"-Infinity"', INVALID),
            ('""', INVALID),
            ("true", INVALID),
            ('"1e999999"', INVALID),
        ),
    ),
    Row(Decimal | None, "Decimal | None", ColumnType.NUMERIC, (("null", None), ("0.10", Decimal("0.1")))),
    Row(
        Annotated[Decimal, Field(ge=0, max_digits=6, decimal_places=2)],
        "condecimal(ge=0, max_digits=6, decimal_places=2)",
        ColumnType.NUMERIC,
        (
            ("1234.50", Decimal("1234.5")),
            ('"1234.50"', Decimal("1234.50")),
            ("1234.567", INVALID),
            ('"1234.567"', INVALID),
            ("12345", INVALID),
            ("-1", INVALID),
            ('"-1"', INVALID),
        ),
    ),
    Row(Decimal | int, "Decimal | int", ColumnType.NUMERIC, (("3", Decimal(3)), ('"3.5"', Decimal("3.5")))),
    Row(date, "date", ColumnType.DATE, (('"2026-11-20"', date(2026, 11, 20)), ('"next week"', INVALID))),
    Row(
        datetime,
        "datetime",
        ColumnType.TIMESTAMP,
        (
            ('"2026-11-20T10:00:00+02:00"', datetime(2026, 11, 20, 8, tzinfo=UTC)),
            ('"2026-11-20T10:00:00"', datetime(2026, 11, 20, 10, tzinfo=UTC)),
            ('"2026-11-20t10:00:00z"', datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ),
    ),
    Row(
        AwareDatetime,
        "AwareDatetime",
        ColumnType.TIMESTAMP,
        (('"2026-11-20T10:00:00Z"', datetime(2026, 11, 20, 10, tzinfo=UTC)),),
    ),
    Row(
        NaiveDatetime,
        "NaiveDatetime",
        ColumnType.LOCAL_TIMESTAMP,
        (('"2026-03-29T02:30:00"', datetime(2026, 3, 29, 2, 30)), ('"2026-03-29T02:30:00Z"', INVALID)),
    ),
    Row(
        time,
        "time",
        ColumnType.TIME,
        (('"10:30"', time(10, 30)), ('"10:30:00Z"', time(10, 30)), ('"10:30:00+02:00"', INVALID), ('"noon"', INVALID)),
    ),
    Row(timedelta, "timedelta", ColumnType.INTERVAL, (('"P1DT2H"', timedelta(days=1, hours=2)), ('"soon"', INVALID))),
    Row(date | datetime, "date | datetime", ColumnType.TEXT, (('"2026-11-20"', "2026-11-20"),)),
    Row(UUID, "UUID", ColumnType.UUID, ((f'"{ID}"', ID), ('"7"', INVALID))),
    Row(HttpUrl, "HttpUrl", ColumnType.TEXT, (('"https://example.com/a"', "https://example.com/a"),)),
    Row(ipaddress.IPv4Address, "IPv4Address", ColumnType.TEXT, (('"10.0.0.1"', "10.0.0.1"),)),
    Row(Path, "Path", ColumnType.TEXT, (('"/a/b"', "/a/b"),)),
    Row(SecretStr, "SecretStr", ColumnType.TEXT, (('"x"', "x"),)),
    Row(bytes, "bytes", ColumnType.BYTES, (('"hé"', "hé".encode()),)),
    Row(Base64Bytes, "Base64Bytes", ColumnType.BYTES, (('"AP8="', b"\x00\xff"), ('"?"', INVALID))),
    Row(Color, "StrEnum", ColumnType.TEXT, (('"red"', "red"), ('"blue"', INVALID))),
    Row(Level, "IntEnum", ColumnType.INTEGER, (("2", 2), ("3", INVALID))),
    Row(Mixed, "Enum of texts and numbers", ColumnType.JSON, (('"none"', "none"), ("1", 1))),
    Row(Literal["a", "b"], 'Literal["a", "b"]', ColumnType.TEXT, (('"a"', "a"), ('"c"', INVALID))),
    Row(Literal["a", 1], 'Literal["a", 1]', ColumnType.JSON, (('"a"', "a"), ("1", 1))),
    Row(int | str, "int | str", ColumnType.JSON, (("1", 1), ('"1"', "1"))),
    Row(list[Decimal], "list[Decimal]", ColumnType.JSON, ((f"[1.5, {LONG}]", [1.5, Decimal(LONG)]),)),
    Row(tuple[int, ...], "tuple[int, ...]", ColumnType.JSON, (("[1, 2]", [1, 2]),)),
    Row(tuple[int, str], "tuple[int, str]", ColumnType.JSON, (('[1, "x"]', [1, "x"]), ('["x", 1]', INVALID))),
    Row(Item, "BaseModel", ColumnType.JSON, (('{"name": "x"}', {"name": "x"}),)),
    Row(Node, "recursive model", ColumnType.JSON, (('{"name": "x", "children": []}', {"name": "x", "children": []}),)),
    Row(Response[Item], "Response[Item]", ColumnType.JSON, (('{"value": {"name": "x"}}', {"value": {"name": "x"}}),)),
    Row(Json[list[int]], "Json[list[int]]", ColumnType.JSON, (('"[1, 2]"', [1, 2]), ('"[1"', INVALID))),
    Row(Fraction, "Fraction", ColumnType.JSON, (("0.5", 0.5), ('"1/2"', "1/2"))),
    Row(complex, "complex", ColumnType.TEXT, (('"1+2j"', "1+2j"),)),
    Row(dict[str, int], "dict[str, int]", None),
    Row(Any, "Any", None),
]
NOT_CODE = ("Enum of texts and numbers", "recursive model")
DIALECTS = {"PostgreSQL": POSTGRES, "SQLite": SQLITE, "DuckDB": DUCKDB, "MariaDB, MySQL": MYSQL}


def model_of(row: Row) -> type[BaseModel]:
    """Return a model with one field, `x`, of the type."""
    return create_model("Model", x=(row.type, ...))


def table() -> str:
    """Return the table in Markdown."""
    head = ("you write", "the model sees", "column", *DIALECTS)
    lines = (head, tuple("---" for _ in head), *map(_line, ROWS))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")


def _line(row: Row) -> tuple[str, ...]:
    written = f"`{row.name.replace('|', chr(92) + '|')}`" if row.name not in NOT_CODE else row.name
    if row.column is None:
        try:
            strict_schema(model_of(row))
        except SchemaError:
            return (written, "refused when the DAG is parsed", *[""] * 5)
    schema = strict_schema(model_of(row))
    kind = column_type(author_schema(model_of(row)), "x")
    assert kind is row.column, row
    sent = dict.fromkeys(_outline(schema, schema["properties"]["x"]))
    column_types = (f"`{dialect.types[kind]}`" if dialect.types[kind] else "none" for dialect in DIALECTS.values())
    return (written, " or ".join(sent), kind.value, *column_types)


def _outline(root: dict[str, Any], node: dict[str, Any]) -> Iterator[str]:
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    for option in node.get("anyOf", ()):
        yield from _outline(root, option)
    for name in types(node):
        yield f"{name} (`{node['format']}`)" if name == "string" and "format" in node else name


if __name__ == "__main__":
    print(table())
