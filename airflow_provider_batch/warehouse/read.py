"""Rows of one query, streamed: in bounded memory whatever the size of the result.

`DbApiHook.run` and `get_records` hold every row, and with PostgreSQL a plain cursor does so too, whichever way
it is read, and so does mysqlclient. So a connection is opened here; on PostgreSQL the rows stay on the server behind a
named cursor, on MySQL they come one by one as they are fetched. SQLite and DuckDB make the rows while they are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.drivers.base import RowReader, to_tuple
from airflow_provider_batch.warehouse.errors import NOTHING_UPLOADED, database_errors, says
from airflow_provider_batch.warehouse.naming import repeated

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
        self._plain: RowReader = to_tuple
        self._driver = dialect_of(hook).driver

    def __enter__(self) -> Rows:
        sql = self._checked()
        with database_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            self._conn = self._driver.connect(self._hook, NOTHING_UPLOADED)
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
        return self._driver.one_statement(self._sql)

    def _execute(self, sql: str) -> None:
        conn = self._conn
        self._cursor = cursor = self._driver.begin_reading(self._hook, conn, sql)
        if cursor is not conn:
            cursor.arraysize = self._chunk_rows
        # A % in the SQL is a plain character only as long as no parameters are passed.
        try:
            if self._parameters is None:
                cursor.execute(sql)
            else:
                cursor.execute(sql, self._parameters)
        except Exception as error:
            if says(error, lambda errors: errors.several_statements):
                raise InputError(
                    "sql holds more than one statement, but the rows come from one SELECT. Nothing was uploaded."
                ) from None
            raise
        self._first = self._driver.first_rows(conn, cursor, self._chunk_rows)
        if not cursor.description:
            raise InputError("sql gave no rows to read: it must be one SELECT. Nothing was uploaded.")
        self.columns = tuple(column[0] for column in cursor.description)
        again = repeated(self.columns)
        if again:
            raise InputError(
                f"The SELECT gives these columns more than once (upper and lower case do not tell them "
                f"apart): {', '.join(again)}. Give each a name of its own with AS. Nothing was uploaded."
            )
        self._plain = self._driver.row_reader(conn, cursor.description)

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
            self._driver.end_reading(self._conn, self._cursor)
        with suppress(Exception):
            self._driver.close(self._conn)


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
