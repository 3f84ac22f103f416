"""A dialect describes a database: every dialect is complete, and adding one is all a new database needs."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from uuid import UUID

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.providers.sqlite.hooks.sqlite import SqliteHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError
from airflow_provider_batch.warehouse.dialects import generic, registry
from airflow_provider_batch.warehouse.dialects.base import Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.registry import DIALECTS, dialect_of
from airflow_provider_batch.warehouse.dialects.sqlite import SQLITE
from airflow_provider_batch.warehouse.drivers.base import Driver
from airflow_provider_batch.warehouse.drivers.psycopg import REDSHIFT_DRIVER
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.read_only import ReadRules
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse, postgres_warehouse
from tests.warehouse.landing import COLUMNS, land, landed_rows, row

ALL_DIALECTS = (*DIALECTS, generic.GENERIC)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAMPLES: dict[ColumnType, Any] = {
    ColumnType.TEXT: "text",
    ColumnType.INTEGER: 7,
    ColumnType.FLOAT: 0.5,
    ColumnType.NUMERIC: Decimal("1.25"),
    ColumnType.BOOLEAN: True,
    ColumnType.DATE: date(2026, 11, 20),
    ColumnType.TIMESTAMP: NOON,
    ColumnType.LOCAL_TIMESTAMP: NOON.replace(tzinfo=None),
    ColumnType.TIME: time(12, 30),
    ColumnType.INTERVAL: timedelta(days=1),
    ColumnType.UUID: UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
    ColumnType.JSON: {"a": [1, None]},
    ColumnType.BYTES: b"\0\xff",
    ColumnType.VECTOR: [0.5, 1.0],
}


@pytest.mark.parametrize("dialect", ALL_DIALECTS, ids=lambda dialect: f"{dialect.name}-{'-'.join(dialect.conn_types)}")
class TestEveryDialect:
    def test_has_a_column_type_and_a_binder_for_each_type_of_value(self, dialect: Dialect) -> None:
        assert set(dialect.types) == set(dialect.bind) == set(ColumnType)
        for type_, value in SAMPLES.items():
            assert dialect.bind[type_](value) is not None

    def test_has_everything_that_building_statements_needs(self, dialect: Dialect) -> None:
        assert dialect.name
        assert dialect.placeholder in ("?", "%s", ":") or (dialect.follows_hook and not dialect.placeholder)
        assert len(dialect.marks) == 2 or (dialect.follows_hook and not dialect.marks)
        assert dialect.limits.parameters > 0

    def test_names_an_existing_sink(self, dialect: Dialect) -> None:
        sink = resolve_name(dialect.sink)
        assert issubclass(sink, TableSink)
        # A bulk path queries the catalogue and upserts; the generic path needs neither.
        has_bulk_path = dialect.sink != generic.GENERIC.sink
        assert (dialect.catalogue is not None) is (dialect.upsert is not None) is has_bulk_path
        assert bool(dialect.name_parts) is has_bulk_path

    def test_refuses_to_bind_a_value_of_another_type(self, dialect: Dialect) -> None:
        for type_, value in ((ColumnType.TEXT, 5), (ColumnType.INTEGER, "x"), (ColumnType.BYTES, 1.5)):
            with pytest.raises((TypeError, ValueError)):
                dialect.bind[type_](value)


def test_each_connection_type_has_one_dialect_except_redshift_behind_the_postgres_hook() -> None:
    types = [(type_, dialect.extra_flags) for dialect in DIALECTS for type_ in dialect.conn_types]
    assert len(types) == len(set(types))
    assert [type_ for type_, flags in types if flags] == ["postgres"]


def hook_of(cls: type[DbApiHook], monkeypatch: pytest.MonkeyPatch, **extra: object) -> DbApiHook:
    monkeypatch.setenv("AIRFLOW_CONN_X", json.dumps({"conn_type": "x", "host": "x", "extra": extra}))
    return cls("x")


def test_a_subclass_of_a_hook_has_its_parents_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    class CompanyHook(PostgresHook):
        conn_type = "our_postgres"

    assert dialect_of(hook_of(CompanyHook, monkeypatch)) is POSTGRES
    assert dialect_of(hook_of(SqliteHook, monkeypatch)) is SQLITE


def test_a_subclass_of_a_hook_may_have_its_own_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    class CompanyHook(PostgresHook):
        conn_type = "our_postgres"

    company_dialect = replace(POSTGRES, name="ours", conn_types=("our_postgres",))
    monkeypatch.setattr(registry, "DIALECTS", (*DIALECTS, company_dialect))
    assert dialect_of(hook_of(CompanyHook, monkeypatch)) is company_dialect
    assert dialect_of(hook_of(PostgresHook, monkeypatch)) is POSTGRES


@pytest.mark.parametrize("flag", ["redshift", "redshift-serverless"])
def test_the_extra_of_a_postgres_connection_can_mark_it_as_redshift(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    dialect = dialect_of(hook_of(PostgresHook, monkeypatch, **{flag: True}))
    assert (dialect.name, dialect.placeholder, dialect.driver) == ("Redshift", "%s", REDSHIFT_DRIVER)
    assert dialect_of(hook_of(PostgresHook, monkeypatch, **{flag: False})) is POSTGRES


def test_nul_characters_are_removed_if_the_database_cannot_store_them(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.database is not None
    redshift = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, redshift=True)
    land(redshift, [row("a", "one\0two")])
    assert landed_rows(postgres) == {"a": ("succeeded", "onetwo")}


@pytest.mark.parametrize("dialect", [POSTGRES, MYSQL, SQLITE, DUCKDB], ids=lambda dialect: dialect.name)
def test_a_name_is_checked_against_the_limits_of_the_dialect(dialect: Dialect) -> None:
    problems = {name: dialect.problem_with_name(name) for name in ("n" * 63, "n" * 64, "\U0001f600")}
    assert not problems["n" * 63]
    assert bool(problems["n" * 64]) is (dialect is POSTGRES)
    assert bool(problems["\U0001f600"]) is (dialect is MYSQL)


class MadeUpHook(DbApiHook):
    """A hook for an unknown database, on top of SQLite."""

    conn_name_attr = "made_up_conn_id"
    default_conn_name = "warehouse"
    conn_type = "made_up"

    def get_conn(self) -> sqlite3.Connection:
        host = self.connection.host
        assert host is not None
        return sqlite3.connect(host)


class MadeUpDriver(Driver):
    """sqlite3, counting the connections it opens."""

    def __init__(self) -> None:
        self.connection_count = 0

    def connect(self, hook: DbApiHook, consequence: str) -> Any:
        self.connection_count += 1
        return super().connect(hook, consequence)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A warehouse that is described by a single dialect and nothing else."""
    dialect = Dialect(
        name="Made-up DB",
        conn_types=("made_up",),
        types={**dict.fromkeys(ColumnType, "ANYTHING"), ColumnType.TEXT: "TEXT OF WORDS"},
        bind={**SQLITE.bind, ColumnType.TEXT: lambda value: SQLITE.bind[ColumnType.TEXT](value).strip()},
        key_text="KEY TEXT",
        marks="[]",
        placeholder=":",
        folds_to_upper=True,
        name_parts=("schema", "table"),
        limits=Limits(name_bytes=30, parameters=2),
        errors=ErrorPatterns(absent_table=ErrorPattern(message="no such table")),
        reading=ReadRules(sqlglot=("tsql",), denied_functions="make_up"),
        driver=MadeUpDriver(),
    )
    monkeypatch.setattr(registry, "DIALECTS", (dialect, *DIALECTS))
    path = tmp_path / "made_up.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "made_up", "host": str(path)}))
    return Warehouse("generic", MadeUpHook("warehouse"), path=path)


def test_one_dialect_is_enough_to_land_and_read(made_up: Warehouse) -> None:
    names = ("request_sha256", "finish_reason", "model", "batch_id")
    columns = (*COLUMNS, *(Column(name, ColumnType.TEXT) for name in names))
    assert ReusedTable(made_up.hook, "results").check() is False
    other_values = ("0" * 64, "stop", "m", "b")
    land(
        made_up,
        [(*row(key, " 1 "), *other_values) for key in "abc"],
        [(*row("b", "2", minute=5), *other_values)],
        columns=columns,
    )
    ((created,),) = made_up.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")
    assert "CREATE TABLE [RESULTS]" in created
    assert "[CUSTOM_ID] KEY TEXT NOT NULL" in created
    assert "[OUTPUT] TEXT OF WORDS" in created
    assert "[SEALED_AT] ANYTHING" in created
    with read_rows(made_up.hook, "SELECT custom_id, output FROM results WHERE output > :1;", ["0"]) as rows:
        assert sorted(rows) == [("a", "1"), ("b", "2"), ("c", "1")]
    table = ReusedTable(made_up.hook, "results")
    assert table.check()
    assert len(list(table)) == 3
    driver = dialect_of(made_up.hook).driver
    assert isinstance(driver, MadeUpDriver)
    assert driver.connection_count > 5


def test_one_dialect_is_enough_to_replace_rows(made_up: Warehouse) -> None:
    columns = (Column("run", ColumnType.TEXT, key=True), Column("at", ColumnType.TIMESTAMP))
    tables = ReplacedTables(made_up.hook, {"one": columns})
    tables.prepare()
    for timestamp in (NOON, NOON.replace(hour=13)):
        tables.apply([Replacement("one", {"run": "a"}, [("a", timestamp)])])
    assert made_up.execute("SELECT RUN, AT FROM ONE") == [("a", "2026-11-20T13:00:00.000000+00:00")]


def test_the_errors_of_a_new_database_follow_from_its_dialect(made_up: Warehouse) -> None:
    with pytest.raises(InputError, match=r"is not a table name for Made-up DB. It must be `table` or `schema.table`"):
        open_sink(made_up.hook, "a.schema.results", COLUMNS)
    with pytest.raises(InputError, match="more than 30 bytes, which Made-up DB would truncate"):
        open_sink(made_up.hook, "r" * 31, COLUMNS)
    with pytest.raises(ResultsTableError, match=r"CREATE TABLE \[RESULTS\]"):
        open_sink(made_up.hook, "results", COLUMNS, create=False).prepare()
