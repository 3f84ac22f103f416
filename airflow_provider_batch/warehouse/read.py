"""Rows of one query, streamed: in bounded memory whatever the size of the result.

`DbApiHook.run` and `get_records` hold every row, and with PostgreSQL a plain cursor does so too, whichever way
it is read, and so does mysqlclient. So a connection is opened here; on PostgreSQL the rows stay on the server behind a
named cursor, on MySQL they come one by one as they are fetched. SQLite and DuckDB make the rows while they are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.connect import open_connection, speaks
from airflow_provider_batch.warehouse.drivers import duckdb as duckdb_driver
from airflow_provider_batch.warehouse.drivers import mysql as mysql_driver
from airflow_provider_batch.warehouse.drivers import psycopg as psycopg_driver
from airflow_provider_batch.warehouse.errors import NOTHING_UPLOADED, database_errors
from airflow_provider_batch.warehouse.naming import repeated
from airflow_provider_batch.warehouse.values import whole

#: rows that are held at a time
CHUNK_ROWS = 2000

_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*(\w*)", re.DOTALL)

#: what begins a statement that changes something. Some databases would have committed it before it turns out to
#: give no rows
_CHANGES = frozenset(
    {
        "ALTER",
        "BEGIN",
        "COMMIT",
        "COPY",
        "CREATE",
        "DELETE",
        "DROP",
        "GRANT",
        "INSERT",
        "LOCK",
        "MERGE",
        "REPLACE",
        "REVOKE",
        "ROLLBACK",
        "SET",
        "TRUNCATE",
        "UPDATE",
        "UPSERT",
        "VACUUM",
    }
)


class Rows(AbstractContextManager["Rows"]):
    """The rows of one query. Within `with`, `columns` is known and iterating gives each row once."""

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None,
        chunk_rows: int,
    ) -> None:
        #: the columns' names as the database spells them
        self.columns: tuple[str, ...] = ()
        #: rows handed out so far
        self.count = 0
        self._hook = hook
        self._sql = sql
        self._parameters = parameters
        self._chunk_rows = chunk_rows
        self._conn: Any = None
        self._cursor: Any = None
        self._first: list[Any] = []
        self._plain: Callable[[Any], tuple[Any, ...]] = _tuple

    def __enter__(self) -> Rows:
        sql = self._checked()
        with database_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            if speaks(self._hook, "duckdb"):
                self._conn = duckdb_driver.connect(self._hook, NOTHING_UPLOADED)
            else:
                self._conn = open_connection(self._hook)
        try:
            with database_errors(self._hook, "Reading", NOTHING_UPLOADED):
                self._execute(sql)
        except BaseException:
            self._close()
            raise
        return self

    def _checked(self) -> str:
        word = _first_word(self._sql)
        if not word:
            raise InputError("sql is empty: give the SELECT whose rows are to be sent. Nothing was uploaded.")
        if word in _CHANGES:
            raise InputError(
                f"sql must be one SELECT, but it begins with {word}. Nothing was run, nothing was uploaded."
            )
        if speaks(self._hook, "postgres"):
            return psycopg_driver.one_statement(self._sql)
        if speaks(self._hook, "mysql"):
            return mysql_driver.one_statement(self._sql)
        # Several drivers take no semicolon at the end. Within a comment it is no loss.
        return self._sql.rstrip("; \t\r\n")

    def _execute(self, sql: str) -> None:
        conn = self._conn
        driver = psycopg_driver.speaks_psycopg3(conn) if speaks(self._hook, "postgres") else None
        if driver is not None:
            cursor = psycopg_driver.named_cursor(conn)
        elif speaks(self._hook, "duckdb"):
            # A cursor of DuckDB's is a connection of its own, outside of this transaction.
            duckdb_driver.begin_reading(conn, sql)
            cursor = conn
        elif speaks(self._hook, "mysql"):
            mysql_driver.begin_reading(conn)
            cursor = mysql_driver.unbuffered_cursor(conn)
        else:
            # A DELETE behind a WITH looks like a query; sqlite3 would not even open a transaction for it.
            if speaks(self._hook, "sqlite"):
                conn.execute("PRAGMA query_only = ON")
            elif self._hook.supports_autocommit:
                self._hook.set_autocommit(conn, False)
            cursor = conn.cursor()
        self._cursor = cursor
        if cursor is not conn:
            cursor.arraysize = self._chunk_rows
        # A % in the SQL is a plain character only as long as no parameters are passed.
        try:
            if self._parameters is None:
                cursor.execute(sql)
            else:
                cursor.execute(sql, self._parameters)
        except Exception as error:
            # sqlite3's own words; the class of its exception differs between versions of Python
            if "one statement at a time" in str(error):
                raise InputError(
                    "sql holds more than one statement, but the rows come from one SELECT. Nothing was uploaded."
                ) from None
            raise
        # psycopg2 knows the columns of a named cursor only once it has fetched.
        self._first = cursor.fetchmany(self._chunk_rows) if driver is False or cursor.description else []
        if not cursor.description:
            raise InputError("sql gave no rows to read: it must be one SELECT. Nothing was uploaded.")
        self.columns = tuple(column[0] for column in cursor.description)
        again = repeated(self.columns)
        if again:
            raise InputError(
                f"The SELECT gives these columns more than once (upper and lower case do not tell them "
                f"apart): {', '.join(again)}. Give each a name of its own with AS. Nothing was uploaded."
            )
        if driver is False:
            views = psycopg_driver.memoryview_columns(conn, cursor.description)
            if views:
                self._plain = _converted(dict.fromkeys(views, bytes))
        elif speaks(self._hook, "duckdb"):
            documents = duckdb_driver.json_columns(cursor.description)
            if documents:
                self._plain = duckdb_driver.with_json(documents)
        elif speaks(self._hook, "mysql"):
            self._plain = _converted(mysql_driver.plain_values(cursor.description))
        elif speaks(self._hook, "oracle"):
            self._plain = _whole

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        rows, self._first = self._first, []
        while rows:
            for row in rows:
                self.count += 1
                yield self._plain(row)
            with database_errors(self._hook, "Reading", NOTHING_UPLOADED):
                rows = self._cursor.fetchmany(self._chunk_rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        # Opening the connection ourselves bypasses what `hook.run` tells the lineage collector.
        send_sql_hook_lineage(context=self._hook, sql=self._sql, row_count=self.count)

    def _close(self) -> None:
        # Nothing read is worth an error while closing: the server drops the cursor with its connection.
        with suppress(Exception):
            self._conn.rollback()
        with suppress(Exception):
            if speaks(self._hook, "duckdb"):
                duckdb_driver.close(self._conn)
            else:
                self._conn.close()


def read_rows(
    hook: DbApiHook,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
) -> Rows:
    """The rows of one SELECT, to iterate over in a `with` block.

    The query runs when the block is entered, on a connection of its own that is rolled back and closed at its
    end. `parameters` go to the driver as they are; when they are given, a % in the SQL must be written %%
    where the driver's placeholder is `%s`. At most `chunk_rows` rows are held at a time.

    Raises InputError for SQL that is no single SELECT or gives a column twice, WarehouseError for what the
    database refuses, with its message and without values. Nothing is logged.
    """
    return Rows(hook, sql, parameters, chunk_rows)


def _first_word(sql: str) -> str:
    match = _FIRST_WORD.match(sql)
    return match[1].upper() if match else ""


def _tuple(row: Any) -> tuple[Any, ...]:
    if type(row) is tuple:
        return row
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def _whole(row: Any) -> tuple[Any, ...]:
    return tuple(map(whole, _tuple(row)))


def _converted(converters: Mapping[int, Callable[[Any], Any]]) -> Callable[[Any], tuple[Any, ...]]:
    def plain(row: Any) -> tuple[Any, ...]:
        values = list(row)
        for index, convert in converters.items():
            if values[index] is not None:
                values[index] = convert(values[index])
        return tuple(values)

    return plain
