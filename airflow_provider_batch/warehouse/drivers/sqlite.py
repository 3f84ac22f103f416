"""Python's own driver for SQLite, with transactions that begin where we say so."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.warehouse.drivers.base import Driver

#: seconds that a write waits for others that hold the file's write lock, before it fails and can be run again
BUSY_SECONDS = 120


class SqliteDriver(Driver):
    """Python's module sqlite3."""

    packages = ("sqlite3",)

    def begin_reading(self, hook: DbApiHook, conn: Any, sql: str) -> Any:
        """Forbid every change: sqlite3 would not even open a transaction for a DELETE behind a WITH."""
        conn.execute("PRAGMA query_only = ON")
        return conn.cursor()

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Take the file's write lock."""
        self.take_control(conn)
        cursor = conn.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def take_control(self, conn: Any) -> None:
        """Leave transactions to the caller, return rows as tuples, and wait for locks."""
        conn.isolation_level, conn.row_factory = None, None
        conn.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


SQLITE_DRIVER = SqliteDriver()
