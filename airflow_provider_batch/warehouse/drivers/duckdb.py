"""DuckDB's Python driver: opening a file that others use too, and reading one query.

DuckDB lets one process write a file, or several read it: https://duckdb.org/docs/stable/connect/concurrency.
Whoever opens it while another process has it gets an error at once, so waiting is done here.

Connections of one process to one file share a database, which DuckDB (2.0.0) finds in a cache. A thread that opens
the file while another one closes the last connection to it may be left with a database that is not in the cache, and
nobody else can open the file until that one is closed. So threads open and close one at a time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError, WarehouseError

log = logging.getLogger(__name__)

#: how long opening a file waits for another process that has it open, before it fails and can be run again
LOCKED_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_one_at_a_time = threading.Lock()

#: how DuckDB says that another process has the file, and that this one is only just giving it up
_IN_USE = ("Could not set lock on file", "Unique file handle conflict")


def connect(hook: DbApiHook, kept: str) -> Any:
    """A connection of its own; waits while another process holds the file.

    Raises WarehouseError, which ends with `kept`, if the file is still held after `LOCKED_SECONDS`.
    """
    end = time.monotonic() + LOCKED_SECONDS
    pause = _FIRST_PAUSE
    while True:
        try:
            with _one_at_a_time:
                return hook.get_conn()
        except Exception as error:
            said = str(error)
            if not any(words in said for words in _IN_USE):
                raise
            if time.monotonic() + pause > end:
                raise WarehouseError(
                    f"The DuckDB file of connection {hook.get_conn_id()!r} was held by another process for "
                    f"{LOCKED_SECONDS:.0f} seconds: {said.partition('. See also')[0]}.\nDuckDB lets one process "
                    f"write a file, or several read it. End what holds it, or run the tasks that use this file one "
                    f'after another (an Airflow pool of one slot); where all of them only read, put "read_only": '
                    f"true into the connection's extra. Then run this task again; {kept}."
                ) from None
            if pause == _FIRST_PAUSE:
                log.info("The DuckDB file of connection %r is in use; waiting for it.", hook.get_conn_id())
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def close(conn: Any) -> None:
    """Close a connection that `connect` opened."""
    with _one_at_a_time:
        conn.close()


@contextmanager
def closing(conn: Any) -> Iterator[Any]:
    """The connection, closed at the end."""
    try:
        yield conn
    finally:
        close(conn)


def begin_reading(conn: Any, sql: str) -> None:
    """Open a transaction that cannot change anything, for this one query.

    Raises InputError for SQL that is no single query, by DuckDB's own parser: the driver would run each of
    several statements, and a DELETE can stand behind a WITH.
    """
    statements = conn.extract_statements(sql)
    if len(statements) > 1:
        raise InputError(
            "sql holds more than one statement, but the rows come from one SELECT. Nothing was run, nothing was "
            "uploaded."
        )
    for statement in statements:
        kind = statement.type.name
        if kind not in ("SELECT", "MULTI"):  # MULTI: what a PIVOT consists of
            raise InputError(f"sql must be one SELECT, but it is a {kind}. Nothing was run, nothing was uploaded.")
    conn.execute("BEGIN TRANSACTION READ ONLY")


def json_columns(description: Any) -> list[int]:
    """The positions of columns of type JSON, whose values the driver gives as text."""
    return [index for index, column in enumerate(description) if str(column[1]) == "JSON"]


def with_json(positions: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that reads the JSON text at `positions` of a row, as PostgreSQL's drivers do."""

    def plain(row: Any) -> tuple[Any, ...]:
        values = list(row)
        for index in positions:
            if values[index] is not None:
                values[index] = json.loads(values[index])
        return tuple(values)

    return plain
