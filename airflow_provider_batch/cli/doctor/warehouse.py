"""Checks of the warehouse: whether it can be reached, read and written. Nothing is left behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.cli.doctor.check import Check, Status
from airflow_provider_batch.exceptions import BatchError, WarehouseError
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import message_of
from airflow_provider_batch.warehouse.naming import split_table

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: databases in which a table that was created can be rolled back
_TRANSACTIONAL = ("PostgreSQL", "SQLite", "DuckDB")
#: queries for the encoding of the database, and the encodings that hold every text
_ENCODINGS = {
    "PostgreSQL": ("SHOW server_encoding", ("UTF8",)),
    "MySQL": ("SELECT @@character_set_database", ("utf8mb4",)),
}


def check_warehouse(conn_id: str, table: str | None) -> Iterator[Check]:
    """Check a connection to a warehouse.

    :param table: the results table; a table is created in its schema, and rolled back or dropped.
    """
    try:
        hook = sql_hook(conn_id)
    except WarehouseError as error:
        yield Check("warehouse", Status.PROBLEM, str(error).removesuffix(" Nothing was uploaded."))
        return
    dialect = dialect_of(hook)
    path = _file_of(hook, dialect)
    if path is not None and not path.exists():
        message = f"The {dialect.name} file {path} of connection {conn_id!r} does not exist. A task would create it."
        yield Check("warehouse", Status.WARNING, message, "Correct the path, or mount it on this machine.")
        return
    try:
        # not the driver's own `connect`, which waits while another process holds the file
        conn = hook.get_conn()
    except Exception as error:  # noqa: BLE001 - each driver has its own exceptions
        yield Check("warehouse", Status.PROBLEM, f"Connecting to {conn_id!r} failed: {_describe(error)}", _fix(error))
        return
    with closing(conn):
        yield from _check_connection(conn_id, hook, dialect, conn, table)


def _check_connection(conn_id: str, hook: DbApiHook, dialect: Dialect, conn: Any, table: str | None) -> Iterator[Check]:
    try:
        with closing(conn.cursor()) as cursor:
            cursor.execute("SELECT 1 FROM DUAL" if dialect.name == "Oracle" else "SELECT 1")
            cursor.fetchall()
            encoding = _encoding(cursor, dialect)
        with suppress(Exception):  # a driver without transactions, or one that has begun none
            conn.rollback()
    except Exception as error:  # noqa: BLE001 - each driver has its own exceptions
        yield Check("warehouse", Status.PROBLEM, f"Reading from {conn_id!r} failed: {_describe(error)}", _fix(error))
        return
    yield Check("warehouse", Status.OK, f"{conn_id!r} connects to {dialect.name} and may read.")
    if encoding is not None:
        yield encoding
    yield _write_check(conn_id, hook, dialect, conn, table)


def _encoding(cursor: Any, dialect: Dialect) -> Check | None:
    if dialect.name not in _ENCODINGS:
        return None
    query, complete = _ENCODINGS[dialect.name]
    cursor.execute(query)
    name = str(next(iter(cursor.fetchone())))
    if name in complete:
        return Check("encoding", Status.OK, f"The database has the encoding {name}.")
    message = f"The database has the encoding {name}, which cannot hold every text, such as emoji."
    return Check("encoding", Status.WARNING, message, f"Use a database with {complete[0]} for the results table.")


def _write_check(conn_id: str, hook: DbApiHook, dialect: Dialect, conn: Any, table: str | None) -> Check:
    try:
        schema = split_table(table)[:-1] if table else ()
    except BatchError as error:
        return Check("results table", Status.PROBLEM, str(error))
    place = f"the schema {'.'.join(schema)}" if schema else "the default schema"
    probe = dialect.quote_table((*schema, f"airflow_batch_doctor_{secrets.token_hex(4)}"))
    try:
        _create_and_remove(hook, dialect, conn, probe)
    except Exception as error:  # noqa: BLE001 - each driver has its own exceptions
        reason = _describe(error)
    else:
        return Check("results table", Status.OK, f"{conn_id!r} may create tables in {place} and write into them.")
    if table and _may_insert(hook, dialect, conn, dialect.quote_table(split_table(table))):
        message = f"{conn_id!r} may write into {table}, but not create tables in {place}."
        return Check("results table", Status.OK, message)
    return Check(
        "results table",
        Status.PROBLEM,
        f"{conn_id!r} may read, but not create a table in {place}: {reason}",
        "Grant CREATE on the schema, or create the table first and grant SELECT, INSERT and UPDATE on it (--table NAME "
        "checks that). If the user is read-only on purpose, set results_conn_id to a connection that may write.",
    )


def _create_and_remove(hook: DbApiHook, dialect: Dialect, conn: Any, probe: str) -> None:
    cursor = dialect.driver.begin_writing(hook, conn)
    created = False
    try:
        cursor.execute(f"CREATE TABLE {probe} (id INTEGER)")
        created = True
        cursor.execute(f"INSERT INTO {probe} (id) VALUES (1)")
    finally:
        if created and dialect.name not in _TRANSACTIONAL:
            cursor.execute(f"DROP TABLE {probe}")
        with suppress(Exception):  # a driver without transactions
            conn.rollback()


def _may_insert(hook: DbApiHook, dialect: Dialect, conn: Any, table: str) -> bool:
    cursor = dialect.driver.begin_writing(hook, conn)
    try:
        cursor.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0")
    except Exception:  # noqa: BLE001 - each driver has its own exceptions
        return False
    finally:
        with suppress(Exception):
            conn.rollback()
    return True


def _file_of(hook: DbApiHook, dialect: Dialect) -> Path | None:
    """Return the file of a database that is one, or None."""
    host = hook.connection.host or ""
    is_file = dialect.name in ("SQLite", "DuckDB") and host and not host.startswith(("file:", ":memory:", "md:"))
    return Path(host) if is_file else None


def _describe(error: Exception) -> str:
    text = str(error) if isinstance(error, BatchError) else message_of(error)
    return f"{' '.join(text.partition('. See also')[0].split())[:400].rstrip('.')}."


def _fix(error: Exception) -> str:
    text = str(error).lower()
    if "lock" in text:
        return "Another process holds the file. Stop it, or use an Airflow pool of one slot for the tasks that use it."
    if "password" in text or "authentication" in text or "access denied" in text:
        return "Correct login and password of the connection."
    if "does not exist" in text or "unknown database" in text:
        return "Correct the name of the database (field Schema or Database)."
    if "permission" in text:
        return "Grant the user what the message names."
    if "uri authority" in text or "unable to open database file" in text:
        return 'Give the path of the file as the host: {"conn_type": "sqlite", "host": "/path/to/file.sqlite"}.'
    return "Check host and port, and whether this machine may reach them."
