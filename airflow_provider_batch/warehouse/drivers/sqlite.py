"""Python's sqlite3 driver, with transactions that begin only where we begin them."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.warehouse.drivers.base import Driver

#: Seconds a write waits for the file's write lock. After that the task fails and can be retried.
LOCK_WAIT_SECONDS = 120


class SqliteDriver(Driver):
    """Python's sqlite3 module."""

    packages = ("sqlite3",)

    def begin_reading(self, hook: DbApiHook, conn: Any, sql: str) -> Any:
        """Forbid every change: sqlite3 opens no transaction for a DELETE that begins with WITH."""
        conn.execute("PRAGMA query_only = ON")
        return conn.cursor()

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction that holds the file's write lock."""
        self.take_control(conn)
        cursor = conn.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def take_control(self, conn: Any) -> None:
        """Let the caller manage transactions, return rows as tuples, and wait for locks."""
        conn.isolation_level, conn.row_factory = None, None
        conn.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_SECONDS * 1000}")


SQLITE_DRIVER = SqliteDriver()
