"""The tables of the demo in each kind of warehouse that the example DAGs support."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from tests.postgres import Database

KINDS = ("sqlite", "duckdb", "postgres")


@dataclass(frozen=True)
class Warehouse:
    """A warehouse that tests can open without Airflow."""

    kind: str
    #: fields of Airflow's connection, or the connection as JSON
    connection: dict[str, Any] | str
    open: Callable[[], Any]

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement in a separate transaction and return its rows, if it has any."""
        with closing(self.open()) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
        return [tuple(row) for row in rows]


def create_warehouse(
    kind: str, seed: Callable[[Path], object], folder: Path, database: Callable[[], Database]
) -> Warehouse:
    """Create a warehouse with the tables that `seed` creates in SQLite."""
    path = folder / "warehouse.sqlite"
    seed(path)
    if kind == "sqlite":
        return Warehouse(kind, {"conn_type": "sqlite", "host": str(path)}, lambda: sqlite3.connect(path))
    if kind == "duckdb":
        file = folder / "warehouse.duckdb"
        warehouse = Warehouse(kind, {"conn_type": "duckdb", "host": str(file)}, lambda: duckdb.connect(file))
        placeholder = "?"
    else:
        postgres = database()
        warehouse = Warehouse(kind, postgres.airflow_connection(), lambda: psycopg.connect(postgres.dsn))
        placeholder = "%s"
    with closing(sqlite3.connect(path)) as source, closing(warehouse.open()) as target:
        for table, create in source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            cursor = target.cursor()
            cursor.execute(create)
            cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join([placeholder] * len(rows[0]))})", rows)
        target.commit()
    return warehouse
