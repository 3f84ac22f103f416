"""Values of each type are stored and read back unchanged, and no error or log line shows them."""

from __future__ import annotations

import json
import logging
import sqlite3
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.landing.storage_limits import StoredValue, storage_problems
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import KNOWS_KEYS, Warehouse, other_warehouse
from tests.warehouse.landing import COLUMNS, land, row, with_column

TIMESTAMP = datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC)

ID = UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f")

#: the value written, what PostgreSQL and DuckDB return, and what SQLite stores; ... stands for the same value
SAMPLES: list[tuple[ColumnType, Any, Any, Any]] = [
    (ColumnType.TEXT, "tab\tnew\nline\r\\ \\N 'quoted' \"twice\" 🎈 \u2028", ..., ...),
    (ColumnType.TEXT, "", ..., ...),
    (ColumnType.TEXT, "\\N", ..., ...),
    (ColumnType.TEXT, "\\.", ..., ...),
    (ColumnType.TEXT, "007", ..., ...),
    (ColumnType.INTEGER, 2**63 - 1, ..., ...),
    (ColumnType.INTEGER, -(2**63), ..., ...),
    (ColumnType.FLOAT, 0.1, ..., ...),
    (ColumnType.FLOAT, float("inf"), ..., ...),
    (ColumnType.FLOAT, 1e-300, ..., ...),
    (ColumnType.NUMERIC, Decimal("0.000123"), ..., 0.000123),
    (ColumnType.NUMERIC, Decimal("1E+3"), Decimal(1000), 1000),
    (ColumnType.NUMERIC, Decimal("123456789012345678901.123456789"), ..., "123456789012345678901.123456789"),
    (ColumnType.BOOLEAN, True, ..., 1),
    (ColumnType.BOOLEAN, False, ..., 0),
    (ColumnType.DATE, date(2026, 11, 20), ..., "2026-11-20"),
    (ColumnType.DATE, date(1, 1, 1), ..., "0001-01-01"),
    (ColumnType.TIMESTAMP, TIMESTAMP, ..., "2026-11-20T12:30:00.123456+00:00"),
    (
        ColumnType.TIMESTAMP,
        datetime(2026, 11, 20, 14, tzinfo=timezone(timedelta(hours=2))),
        datetime(2026, 11, 20, 12, tzinfo=UTC),
        "2026-11-20T12:00:00.000000+00:00",
    ),
    (
        ColumnType.TIMESTAMP,
        datetime(2026, 11, 20),
        datetime(2026, 11, 20, tzinfo=UTC),
        "2026-11-20T00:00:00.000000+00:00",
    ),
    (ColumnType.LOCAL_TIMESTAMP, datetime(2026, 3, 29, 2, 30, 0, 7), ..., "2026-03-29T02:30:00.000007"),
    (ColumnType.LOCAL_TIMESTAMP, datetime(1, 1, 1), ..., "0001-01-01T00:00:00.000000"),
    (ColumnType.TIME, time(23, 59, 59, 999_999), ..., "23:59:59.999999"),
    (ColumnType.INTERVAL, timedelta(days=40, hours=25, microseconds=7), ..., "P41DT3600.000007S"),
    (ColumnType.INTERVAL, timedelta(microseconds=-1), ..., "-PT0.000001S"),
    (ColumnType.UUID, ID, ..., str(ID)),
    (ColumnType.JSON, {"a": [1, None, "x\ny\\"], "ü": 1.5}, ..., '{"a":[1,null,"x\\ny\\\\"],"ü":1.5}'),
    (ColumnType.JSON, "text", ..., '"text"'),
    (ColumnType.JSON, False, ..., "false"),
    (ColumnType.JSON, [], ..., "[]"),
    (ColumnType.BYTES, b"\x00\\\xff\n", ..., b"\x00\\\xff\n"),
    (ColumnType.VECTOR, [0.25, -1.0, 3e-5], ..., "[0.25,-1.0,0.00003]"),
    (ColumnType.VECTOR, [], ..., "[]"),
]


def in_mysql(type_: ColumnType, value: Any, in_postgres: Any, in_sqlite: Any) -> Any:
    """Return what MySQL stores: timestamps in UTC without a zone, JSON as text, no infinity."""
    if type_ is ColumnType.TIMESTAMP:
        return (value if in_postgres is ... else in_postgres).replace(tzinfo=None)
    if type_ in (ColumnType.JSON, ColumnType.VECTOR):
        return in_sqlite
    if type_ is ColumnType.TIME:
        return timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
    if type_ in (ColumnType.INTERVAL, ColumnType.UUID):
        return in_sqlite
    return None if value == float("inf") else in_postgres


@pytest.mark.parametrize("warehouse", KNOWS_KEYS, indirect=True)
@pytest.mark.parametrize(("type_", "value", "in_postgres", "in_sqlite"), SAMPLES)
def test_a_value_is_read_back_as_it_was_written(
    warehouse: Warehouse, type_: ColumnType, value: Any, in_postgres: Any, in_sqlite: Any
) -> None:
    columns = with_column(Column("x", type_))
    land(warehouse, [(*row("a"), value), (*row("b"), None)], columns=columns)
    expected = in_sqlite if warehouse.dialect == "sqlite" else in_postgres
    if warehouse.is_duckdb and type_ is ColumnType.JSON:
        expected = in_sqlite  # its driver returns JSON as text
    if warehouse.is_mysql:
        expected = in_mysql(type_, value, in_postgres, in_sqlite)
    result = warehouse.execute("SELECT x FROM results ORDER BY custom_id")
    if type_ is ColumnType.TIMESTAMP and (warehouse.is_postgres or warehouse.is_duckdb):
        result = [(result[0][0].astimezone(UTC),), *result[1:]]
    assert result == [(value if expected is ... else expected,), (None,)]
    if type_ is ColumnType.NUMERIC:
        assert Decimal(str(result[0][0])) == value


def test_the_generic_sink_binds_values_as_drivers_take_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    warehouse = other_warehouse(tmp_path / "x.db", monkeypatch)
    columns = (
        *COLUMNS,
        Column("j", ColumnType.JSON),
        Column("v", ColumnType.VECTOR),
        Column("b", ColumnType.BOOLEAN),
        Column("d", ColumnType.DATE),
        Column("raw", ColumnType.BYTES),
        Column("t", ColumnType.TIMESTAMP, key=True),
    )
    rows = [(*row("a"), {"k": [1]}, [0.5], True, date(2026, 11, 20), b"\x00", TIMESTAMP)]
    land(warehouse, rows, rows, columns=columns)
    assert warehouse.execute("SELECT j, v, b, d, raw, t FROM results") == [
        ('{"k":[1]}', "[0.5]", 1, "2026-11-20", b"\x00", "2026-11-20 12:30:00.123456")
    ]


def test_timestamps_without_a_zone_are_stored_in_utc(postgres: Warehouse) -> None:
    assert postgres.database is not None
    postgres.execute(f"ALTER DATABASE {postgres.database.name} SET timezone = 'Pacific/Kiritimati'")
    columns = (*COLUMNS, Column("t", ColumnType.TIMESTAMP))
    postgres.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, "
        "sealed_at timestamp, t timestamp)"
    )
    land(postgres, [(*row("a"), TIMESTAMP)], columns=columns)
    assert postgres.execute("SELECT sealed_at::text, t::text FROM results") == [
        ("2026-11-20 12:00:00", "2026-11-20 12:30:00.123456")
    ]


def test_nul_characters_are_removed_for_postgresql(postgres: Warehouse) -> None:
    columns = with_column(Column("x", ColumnType.JSON))
    land(postgres, [(*row("a", "one\0two"), {"k\0": ["\0a", {"b": "\\u0000"}]})], columns=columns)
    result = postgres.execute("SELECT output, x FROM results")
    assert result == [("onetwo", {"k": ["a", {"b": "\\u0000"}]})]


def test_lone_surrogates_do_not_fail_a_landing(warehouse: Warehouse) -> None:
    columns = with_column(Column("x", ColumnType.JSON))
    land(warehouse, [(*row("a", "lone \ud83d, pair \ud83d\ude00 ü"), {"k": "\udc00!"})], columns=columns)
    ((output, document),) = warehouse.execute("SELECT output, x FROM results")
    assert output == "lone \ufffd, pair 😀 ü"
    assert (document if warehouse.is_postgres else json.loads(document)) == {"k": "\ufffd!"}


def test_numbers_of_any_size_in_json_are_kept(warehouse: Warehouse) -> None:
    columns = with_column(Column("x", ColumnType.JSON))
    land(warehouse, [(*row("a"), {"big": 10**30, "nan": float("nan")})], columns=columns)
    ((document,),) = warehouse.execute("SELECT x FROM results")
    result = document if warehouse.is_postgres else json.loads(document)
    assert result == {"big": 10**30, "nan": None}


@pytest.mark.parametrize("type_", ["json", "text", "varchar", "jsonb"])
def test_json_is_stored_in_existing_json_and_text_columns(postgres: Warehouse, type_: str) -> None:
    columns = (*COLUMNS, Column("x", ColumnType.JSON), Column("v", ColumnType.VECTOR))
    postgres.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, "
        f"sealed_at timestamptz, x {type_}, v {type_})"
    )
    land(postgres, [(*row("a"), {"b": 1, "a": "\n"}, [1.0, 0.5])], columns=columns)
    ((document, vector),) = postgres.execute("SELECT x::text, v::text FROM results")
    assert json.loads(document) == {"b": 1, "a": "\n"}
    assert json.loads(vector) == [1.0, 0.5]


@pytest.mark.parametrize("type_", ["vector", "vector(3)", "halfvec(3)", "real[]"])
def test_vectors_are_stored_in_existing_pgvector_and_array_columns(postgres: Warehouse, type_: str) -> None:
    postgres.execute("CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext")
    columns = with_column(Column("v", ColumnType.VECTOR))
    qualified_type = type_ if "[]" in type_ else f"ext.{type_}"
    postgres.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, "
        f"sealed_at timestamptz, v {qualified_type})"
    )
    land(postgres, [(*row("a"), [1, 0.5, -2.0]), (*row("b"), None)], columns=columns)
    result = postgres.execute("SELECT v::text FROM results ORDER BY custom_id")
    assert result in ([("[1,0.5,-2]",), (None,)], [("{1,0.5,-2}",), (None,)])


def test_a_vector_of_the_wrong_length_is_refused(postgres: Warehouse) -> None:
    postgres.execute("CREATE EXTENSION vector")
    postgres.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, "
        "sealed_at timestamptz, v vector(3))"
    )
    (refusal,) = land(postgres, [(*row("a"), [1.0, 2.0])], columns=with_column(Column("v", ColumnType.VECTOR)))
    assert (refusal.reason, refusal.landed) == ("column 'v': expected 3 dimensions, not 2", True)


def test_keys_are_compared_as_the_table_compares_them(postgres: Warehouse) -> None:
    postgres.execute("CREATE EXTENSION citext")
    postgres.execute(
        "CREATE TABLE results (custom_id citext PRIMARY KEY, outcome text, output text, job_uid text, "
        "sealed_at timestamptz)"
    )
    land(postgres, [row("a", "1"), row("A", "2")])
    assert postgres.execute("SELECT lower(custom_id::text), output FROM results") == [("a", "2")]


@pytest.mark.parametrize("declared_type", ["NUMERIC", "STRING", "INTEGER", "DATE"])
def test_keys_that_an_sqlite_column_would_change_are_refused(sqlite: Warehouse, declared_type: str) -> None:
    sqlite.execute(
        f"CREATE TABLE results (custom_id {declared_type} NOT NULL PRIMARY KEY, outcome text, output text, "
        "job_uid text, sealed_at text)"
    )
    sink = open_sink(sqlite.hook, "results", COLUMNS)
    sink.prepare()
    assert isinstance(sink, TableSink)
    problems = [
        storage_problems([StoredValue("custom_id", ColumnType.TEXT, key)], sink.limits) for key in ("7", "007", "7.0")
    ]
    assert list(map(bool, problems)) == [False, True, True]


@pytest.mark.parametrize("declared_type", ["VARCHAR(36)", "BLOB", "", "CLOB"])
def test_text_is_stored_in_sqlite_columns_that_keep_it(sqlite: Warehouse, declared_type: str) -> None:
    sqlite.execute(
        f"CREATE TABLE results (custom_id {declared_type} NOT NULL PRIMARY KEY, outcome text, output text, "
        "job_uid text, sealed_at text)"
    )
    land(sqlite, [row("007"), row("7")])
    assert sqlite.execute("SELECT custom_id FROM results ORDER BY custom_id") == [("007",), ("7",)]


@pytest.mark.parametrize(
    ("type_", "wrong_value"),
    [
        (ColumnType.TEXT, 12345),
        (ColumnType.TEXT, b"secret"),
        (ColumnType.INTEGER, "secret"),
        (ColumnType.FLOAT, "secret"),
        (ColumnType.NUMERIC, "secret"),
        (ColumnType.DATE, "secret"),
        (ColumnType.TIMESTAMP, "secret"),
        (ColumnType.BYTES, "secret"),
        (ColumnType.JSON, object),
    ],
)
def test_the_error_for_a_wrong_type_names_row_and_column_but_not_the_value(
    warehouse: Warehouse, type_: ColumnType, wrong_value: Any
) -> None:
    columns = with_column(Column("x", type_))
    open_sink(warehouse.hook, "results", columns).prepare()
    with pytest.raises(ResultsTableError) as exc_info:
        land(warehouse, [(*row("a"), None), (*row("b"), wrong_value)], columns=columns)
    text = str(exc_info.value)
    assert "Row 2 of this landing has a value of type" in text
    assert "'x'" in text
    assert "Nothing from this landing was committed." in text
    assert "secret" not in text
    assert "12345" not in text
    assert warehouse.execute("SELECT * FROM results") == []


def test_a_row_with_too_few_values_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match="Row 1 of this landing has 4 values for 5 columns"):
        land(warehouse, [row("a")[:-1]])


def test_an_empty_key_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match="Row 2 of this landing has no value in the key column 'custom_id'"):
        land(warehouse, [row("a"), (None, *row("b")[1:])])


def test_errors_of_the_database_do_not_show_values(postgres: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    postgres.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text UNIQUE, job_uid varchar(3), "
        "sealed_at timestamptz, CHECK (output <> 'secret check'))"
    )
    with caplog.at_level(logging.DEBUG):
        (twice,) = land(postgres, [row("a", "secret twice"), row("b", "secret twice")])
        (check,) = land(postgres, [row("a", "secret check")])
        with pytest.raises(WarehouseError) as exc_info:
            land(postgres, [row("a", "x", job="secret too long")])
    assert "duplicate key value violates unique constraint" in twice.message
    assert "violates check constraint" in check.message
    error: BaseException = exc_info.value
    assert error.__suppress_context__
    assert error.__cause__ is None
    for phrase in (
        "value too long for type character varying(3)",
        "'results'",
        "'warehouse'",
        "Nothing from this landing was committed.",
    ):
        assert phrase in str(error), phrase
    for text in (twice.message, check.message, str(error), caplog.text):
        assert "secret" not in text


def test_the_error_for_a_number_out_of_range_does_not_show_it(postgres: Warehouse) -> None:
    columns = with_column(Column("x", ColumnType.INTEGER))
    with pytest.raises(WarehouseError, match="out of range") as exc_info:
        land(postgres, [(*row("a"), 98765432109876543210)], columns=columns)
    assert "98765" not in str(exc_info.value)


def test_the_generic_sink_hides_text_that_a_driver_quotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    warehouse = other_warehouse(tmp_path / "x.db", monkeypatch)
    land(warehouse, [])
    warehouse.execute(
        "CREATE TRIGGER t BEFORE INSERT ON results BEGIN SELECT raise(ABORT, 'Duplicate entry ''secret'' for key'); END"
    )
    with pytest.raises(WarehouseError, match=r"a trigger refused the row"):
        land(warehouse, [row("secret")])


def test_a_landing_waits_for_a_locked_file_and_then_fails(sqlite: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land(sqlite, [row("a", "1")])
    monkeypatch.setattr("airflow_provider_batch.warehouse.drivers.sqlite.LOCK_WAIT_SECONDS", 0)
    warehouse = sqlite3.connect(str(sqlite.path))
    warehouse.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(WarehouseError, match="database is locked") as exc_info:
            land(sqlite, [row("a", "2")])
        assert exc_info.value.retry
    finally:
        warehouse.rollback()
        warehouse.close()
    land(sqlite, [row("a", "2")])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=())), key=st.text(min_size=1))
def test_any_text_can_be_landed(warehouse: Warehouse, text: str, key: str) -> None:
    key = f"k{key}".replace("\0", "")
    land(warehouse, [row(key, text), row(key, text)])
    result = warehouse.execute("SELECT custom_id, output FROM results")
    warehouse.execute("DROP TABLE results")
    sanitized = values.sanitize(text)
    assert result == [(key, sanitized.replace("\0", "") if warehouse.is_postgres else sanitized)]
    sanitized.encode()
    if text.isascii():
        assert sanitized == text


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_iso_texts_sort_like_their_timestamps(first: datetime, second: datetime) -> None:
    try:
        in_utc = values.to_utc(first), values.to_utc(second)
    except OverflowError:
        return
    assert (values.to_iso(first) < values.to_iso(second)) == (in_utc[0] < in_utc[1])
