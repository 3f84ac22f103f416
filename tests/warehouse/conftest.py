"""Fixtures that run the same tests in every dialect, each against a real database through a real Airflow hook.

`sqlite`, `duckdb`, `psycopg`, `psycopg2`, `mysqlclient` and `mysql_connector` use Airflow's own hooks. The last four
are named after their drivers, and the last two need a MariaDB or MySQL server (see tests/mysql.py). `generic` is a hook
of an unknown type on top of SQLite, so that the sink for all other databases passes the same tests.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.postgres.hooks import postgres as postgres_hooks

from airflow_provider_batch.warehouse.connect import sql_hook
from tests.mysql import MySqlDatabase
from tests.postgres import Database

MYSQL_DRIVERS = ("mysqlclient", "mysql_connector")
DIALECTS = ("sqlite", "duckdb", "psycopg", "psycopg2", *MYSQL_DRIVERS, "generic")
#: dialects that can query the key of a table
KNOWS_KEYS = ("sqlite", "duckdb", "psycopg", "psycopg2", *MYSQL_DRIVERS)


class OtherHook(DbApiHook):
    """A hook for a database without a sink of its own."""

    conn_name_attr = "other_conn_id"
    default_conn_name = "other_default"
    conn_type = "other"
    _placeholder = "?"

    def get_conn(self) -> sqlite3.Connection:
        host = self.connection.host
        assert host is not None
        return sqlite3.connect(host)


@dataclass(frozen=True)
class Warehouse:
    """A hook, and direct access to the same database to set up tables and check the results."""

    dialect: str
    hook: DbApiHook
    path: Path | None = None
    database: Database | None = None
    mysql: MySqlDatabase | None = None

    @property
    def is_postgres(self) -> bool:
        return self.database is not None

    @property
    def is_duckdb(self) -> bool:
        return self.dialect == "duckdb"

    @property
    def is_mysql(self) -> bool:
        return self.mysql is not None

    @property
    def text_key_type(self) -> str:
        """Type of a text column that may be a key."""
        return f"varchar(255) COLLATE {binary_collation(self.mysql)}" if self.mysql is not None else "text"

    @property
    def timestamp_type(self) -> str:
        """Type of a timestamp column in a table that a test creates."""
        if self.is_mysql:
            return "datetime(6)"
        return "timestamptz" if self.is_postgres or self.is_duckdb else "text"

    def quote(self, name: str) -> str:
        marks = "`" if self.is_mysql else '"'
        return marks + name.replace(marks, marks * 2) + marks

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        if self.database is not None:
            return self.database.execute(sql)
        if self.is_duckdb:
            with closing(self.hook.get_conn()) as conn:
                conn.execute(sql)
                return conn.fetchall() if conn.description else []
        if self.mysql is not None:
            return self.mysql.execute(sql)
        conn = sqlite3.connect(str(self.path))
        try:
            rows = conn.execute(sql).fetchall()
            conn.commit()
            return rows
        finally:
            conn.close()


def postgres_warehouse(dialect: str, database: Database, monkeypatch: pytest.MonkeyPatch, **extra: object) -> Warehouse:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", database.airflow_connection(**extra))
    if dialect == "psycopg2":
        # The hook uses psycopg2 only if psycopg is not installed.
        monkeypatch.setattr(postgres_hooks, "USE_PSYCOPG3", False)
    return Warehouse(dialect, sql_hook("warehouse"), database=database)


def mysql_warehouse(
    dialect: str, database: MySqlDatabase, monkeypatch: pytest.MonkeyPatch, **extra: object
) -> Warehouse:
    if dialect == "mysql_connector":
        extra["client"] = "mysql-connector-python"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", database.airflow_connection(**extra))
    return Warehouse(dialect, sql_hook("warehouse"), mysql=database)


def binary_collation(database: MySqlDatabase) -> str:
    """Return the collation that compares bytes. MariaDB and MySQL name it differently."""
    ((version,),) = database.execute("SELECT version()")
    return "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin"


def sqlite_warehouse(path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return Warehouse("sqlite", sql_hook("warehouse"), path=path)


def duckdb_warehouse(path: Path, monkeypatch: pytest.MonkeyPatch, **extra: object) -> Warehouse:
    connection = {"conn_type": "duckdb", "host": str(path), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return Warehouse("duckdb", sql_hook("warehouse"), path=path)


def other_warehouse(path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "other", "host": str(path)}))
    return Warehouse("generic", OtherHook("warehouse"), path=path)


@pytest.fixture(params=DIALECTS)
def warehouse(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """An empty warehouse, once in each dialect."""
    dialect: str = request.param
    if dialect == "sqlite":
        yield sqlite_warehouse(tmp_path / "warehouse.db", monkeypatch)
    elif dialect == "duckdb":
        yield duckdb_warehouse(tmp_path / "warehouse.duckdb", monkeypatch)
    elif dialect in MYSQL_DRIVERS:
        yield mysql_warehouse(dialect, request.getfixturevalue("mysql_database"), monkeypatch)
    elif dialect == "generic":
        yield other_warehouse(tmp_path / "warehouse.db", monkeypatch)
    else:
        yield postgres_warehouse(dialect, request.getfixturevalue("postgres_database"), monkeypatch)


@pytest.fixture
def decimals(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register an adapter for Decimal with sqlite3, the driver behind the generic dialect."""
    if warehouse.dialect == "generic":
        adapters: dict[Any, Any] = sqlite3.adapters
        monkeypatch.setitem(adapters, (Decimal, sqlite3.PrepareProtocol), float)


@pytest.fixture(params=("psycopg", "psycopg2"))
def postgres(request: pytest.FixtureRequest, postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty PostgreSQL database, once with each driver."""
    return postgres_warehouse(request.param, postgres_database, monkeypatch)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty SQLite database."""
    return sqlite_warehouse(tmp_path / "warehouse.db", monkeypatch)


@pytest.fixture
def duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty DuckDB file."""
    return duckdb_warehouse(tmp_path / "warehouse.duckdb", monkeypatch)


@pytest.fixture(params=MYSQL_DRIVERS)
def mysql(request: pytest.FixtureRequest, mysql_database: MySqlDatabase, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty MariaDB or MySQL database, once with each driver."""
    return mysql_warehouse(request.param, mysql_database, monkeypatch)
