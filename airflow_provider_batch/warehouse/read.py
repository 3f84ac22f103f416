"""Streaming the rows of a query in bounded memory, whatever the size of the result.

`DbApiHook.run` and `get_records` hold every row in memory. A plain PostgreSQL cursor and mysqlclient do the same, no
matter how the result is read. This module therefore opens its own connection. On PostgreSQL the rows stay on the server
behind a named cursor; on MySQL they arrive one by one as they are fetched; SQLite and DuckDB compute the rows while
they are fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.drivers.base import RowReader, to_tuple
from airflow_provider_batch.warehouse.errors import NOTHING_UPLOADED, translate_errors
from airflow_provider_batch.warehouse.naming import duplicate_names

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: rows held in memory at a time
CHUNK_ROWS = 2000


class Rows(AbstractContextManager["Rows"]):
    """The rows of one query. Inside a `with` block, `columns` is set and iterating yields each row once."""

    def __init__(
        self,
        hook: DbApiHook,
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None,
        chunk_rows: int,
        exact: bool,
    ) -> None:
        #: column names as the database spells them
        self.columns: tuple[str, ...] = ()
        #: rows yielded so far
        self.count = 0
        self._hook = hook
        self._sql = sql
        self._parameters = parameters
        self._chunk_rows = chunk_rows
        self._exact = exact
        self._conn: Any = None
        self._cursor: Any = None
        self._first_rows: list[Any] = []
        self._read_row: RowReader = to_tuple
        self._dialect = dialect_of(hook)
        self._driver = self._dialect.driver
        #: name of the database, as its dialect spells it
        self.database = self._dialect.name
        #: with `exact`, the type of each column in the database, or '' if the driver does not name it
        self.native_types: tuple[str, ...] = ()

    def __enter__(self) -> Rows:
        placeholder = "" if self._parameters is None else self._dialect.placeholder
        sql = self._dialect.reading.check(self._sql, placeholder=placeholder)
        with translate_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            self._conn = self._driver.connect(self._hook, NOTHING_UPLOADED)
        try:
            with translate_errors(self._hook, "Reading", NOTHING_UPLOADED):
                self._execute(sql)
        except BaseException:
            self._close()
            raise
        return self

    def _execute(self, sql: str) -> None:
        conn = self._conn
        self._cursor = cursor = self._driver.begin_reading(self._hook, conn)
        if cursor is not conn:
            cursor.arraysize = self._chunk_rows
        exact = self._driver.exact_query(conn, cursor, sql, self._parameters) if self._exact else None
        self._driver.execute(conn, cursor, sql if exact is None else exact.sql, self._parameters)
        self._first_rows = self._driver.first_rows(conn, cursor, self._chunk_rows)
        if not cursor.description:
            raise InputError("sql returned no result set. It must be a single SELECT. Nothing was uploaded.")
        self.columns = tuple(column[0] for column in cursor.description)
        if exact is None:
            self._read_row = self._driver.row_reader(conn, cursor.description)
        else:
            reading = exact.reading()
            self._read_row, self.native_types = reading.read_row, reading.native_types
            self.columns = self.columns[: len(self.native_types)]
        repeated_names = duplicate_names(self.columns)
        if repeated_names:
            raise InputError(
                f"The SELECT returns these columns more than once (names are compared without case): "
                f"{', '.join(repeated_names)}. Give each its own name with AS. Nothing was uploaded."
            )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        rows, self._first_rows = self._first_rows, []
        while rows:
            for row in rows:
                self.count += 1
                yield self._read_row(row)
            with translate_errors(self._hook, "Reading", NOTHING_UPLOADED):
                rows = self._cursor.fetchmany(self._chunk_rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        # we open the connection ourselves, so `hook.run` does not report the query to the lineage collector
        send_sql_hook_lineage(context=self._hook, sql=self._sql, row_count=self.count)

    def _close(self) -> None:
        # an error while closing must not fail the read: the server drops the cursor with its connection
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
    exact: bool = False,
) -> Rows:
    """Return the rows of one SELECT, to be iterated over in a `with` block.

    The query runs when the block is entered, on its own connection, which is rolled back and closed at the end of the
    block. `parameters` are passed to the driver unchanged. With parameters, a % in the SQL must be written as %% if the
    driver's placeholder is `%s`. At most `chunk_rows` rows are held in memory. With `exact`, no value loses anything:
    one that Python cannot hold is a `NativeValue` or the database's own text.

    Raises InputError for SQL that is not a single SELECT or that returns a column twice. Raises WarehouseError, with
    the database's message but without row values, for whatever the database refuses. Nothing is logged.
    """
    return Rows(hook, sql, parameters, chunk_rows, exact)
