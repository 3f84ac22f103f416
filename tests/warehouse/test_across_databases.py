"""Values of every type of one database are carried into another: each arrives, or the job is refused beforehand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from airflow_provider_batch.core.landing.storage_limits import StoredValue, storage_problems
from airflow_provider_batch.core.schema.native import NativeValue, format_json
from airflow_provider_batch.core.sealing.carry import CarriedColumns, from_json
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import (
    Warehouse,
    duckdb_warehouse,
    mysql_warehouse,
    postgres_warehouse,
    sqlite_warehouse,
)
from tests.warehouse.landing import COLUMNS, row
from tests.warehouse.test_round_trip import (
    DUCKDB_TYPES,
    MYSQL_TYPES,
    POSTGRES_SETUP,
    POSTGRES_TYPES,
    SQLITE_TYPES,
    fill_source,
    literal,
)


def meaning(value: Any) -> Any:
    """Return what a value means, regardless of the type in which a database keeps it."""
    if isinstance(value, NativeValue):
        value = value.value
    if isinstance(value, str):
        for parse in (Decimal, _instant, json.loads):
            try:
                return meaning(parse(value))
            except (ArithmeticError, ValueError, RecursionError):
                continue
        return value
    match value:
        case bool() | int() | float() | Decimal():
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
            if number.is_nan():
                return None  # which some databases store in its place
            return number
        case datetime():
            instant = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return ("instant", instant.isoformat())
        case date():
            return ("instant", datetime.combine(value, time()).isoformat())
        case time():
            return ("time", value.isoformat())
        case timedelta():
            return msgspec.to_builtins(value)
        case UUID():
            return str(value)
        case bytes():
            return value
        case dict() | list():
            return ("json", json.dumps(json.loads(format_json(value)), sort_keys=True))
    return value


def _instant(text: str) -> datetime | time:
    return time.fromisoformat(text) if text[2:3] == ":" else datetime.fromisoformat(text)


TYPES = {"duckdb": DUCKDB_TYPES, "sqlite": SQLITE_TYPES, "mysql": MYSQL_TYPES, "postgres": POSTGRES_TYPES}
#: types of which some values have no room in the target, so that submit refuses them before anything is paid for
REFUSED = {
    ("duckdb", "mysql"): {"FLOAT", "DOUBLE"},
    ("mysql", "duckdb"): {"DECIMAL(65,30)", "DECIMAL(65,0)"},
    ("postgres", "duckdb"): {"numeric"},
    ("postgres", "mysql"): {"numeric", "real", "double precision", "jsonb", "jsonb[]"},
    ("sqlite", "mysql"): {"REAL"},
}
#: types with a number that is too large for a float, inside a JSON document, which Python cannot compare
UNCOMPARABLE = {"JSON", "JSON[]", "json", "jsonb", "jsonb[]"}


def open_warehouse(
    kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    match kind:
        case "duckdb":
            return duckdb_warehouse(tmp_path / f"{name}.duckdb", monkeypatch)
        case "sqlite":
            return sqlite_warehouse(tmp_path / f"{name}.db", monkeypatch)
        case "mysql":
            return mysql_warehouse("mysqlclient", request.getfixturevalue("mysql_database"), monkeypatch)
    return postgres_warehouse("psycopg", request.getfixturevalue("postgres_database"), monkeypatch)


@pytest.mark.parametrize(
    ("source_kind", "target_kind"),
    [(source, target) for source in TYPES for target in TYPES if source != target],
)
def test_every_type_arrives_in_another_database_or_is_refused(
    source_kind: str,
    target_kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    types = TYPES[source_kind]
    source = open_warehouse(source_kind, "source", request, tmp_path, monkeypatch)
    if source.is_postgres:
        source.execute(POSTGRES_SETUP)
    if source.is_mysql:
        source.execute("SET GLOBAL sql_mode = 'STRICT_ALL_TABLES'")
    fill_source(source, types, literal if source.is_postgres else str)
    with read_rows(source.hook, "SELECT * FROM source", exact=True) as rows:
        carried = CarriedColumns(rows.columns[1:], range(1, len(rows.columns)), rows.native_types[1:], rows.database)
        read = list(rows)
        sealed = {values[0]: carry for values, carry in zip(read, carried.take(read, 1), strict=True)}
    columns = carried.columns()
    staged = msgspec.json.decode(msgspec.json.encode(sealed))

    target = open_warehouse(target_kind, "target", request, tmp_path, monkeypatch)
    sink = open_sink(target.hook, "results", (*COLUMNS, *columns))
    sink.prepare()
    type_of = dict(zip((column.name for column in columns), types, strict=True))
    sent: dict[str, dict[str, Any]] = {}
    refused = set()
    for key, values in staged.items():
        stored = [StoredValue(c.name, c.type, from_json(value, c)) for c, value in zip(columns, values, strict=True)]
        problems = storage_problems(stored, sink.limits)  # type: ignore[attr-defined]
        refused |= {type_of[name] for name in problems}
        sent[key] = {value.column: None if value.column in problems else value.value for value in stored}
    sink.write([(*row(key), *values.values()) for key, values in sent.items()])

    names = ", ".join(column.name for column in columns)
    with read_rows(target.hook, f"SELECT custom_id, {names} FROM results", exact=True) as rows:
        landed = {values[0]: dict(zip(type_of, values[1:], strict=True)) for values in rows}
    differences = [
        (type_of[name], value, landed[key][name])
        for key, values in sent.items()
        for name, value in values.items()
        if type_of[name] not in UNCOMPARABLE and meaning(landed[key][name]) != meaning(value)
    ]
    assert differences == []
    assert refused == REFUSED.get((source_kind, target_kind), set())
