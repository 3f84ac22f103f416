"""The behaviour that all DB-API drivers share. Subclasses override what their driver does differently.

A `Driver` has no state. It opens and closes connections, starts reads and writes on them, and interprets the
exceptions of its driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.warehouse.values import read_lob

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: turns a row as the driver returns it into a plain tuple
RowReader = Callable[[Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Reading:
    """How the rows of a query are read."""

    #: type of each column in the database, or '' if the driver does not name it
    native_types: tuple[str, ...]
    read_row: RowReader


@dataclass(frozen=True)
class ExactQuery:
    """A query whose values lose nothing, and a function to call once it has run."""

    sql: str
    reading: Callable[[], Reading]


#: what may be a value in a message of a database
QUOTED_TEXT = re.compile(r"""'.*'|".*"|`.*`""", re.DOTALL)

#: SQLSTATE classes: data exceptions, integrity constraints
_DATA_CLASSES = ("22", "23")


class Driver:
    """A DB-API driver without special requirements."""

    #: packages that define the driver's exceptions
    packages: tuple[str, ...] = ()

    def connect(self, hook: DbApiHook, consequence: str) -> Any:
        """Return a new connection. `consequence` ends the error message if the database stays locked."""
        return hook.get_conn()

    def close(self, conn: Any) -> None:
        """Close a connection that `connect` opened."""
        conn.close()

    @contextmanager
    def connection(self, hook: DbApiHook, consequence: str) -> Iterator[Any]:
        """Open a connection and close it at the end."""
        conn = self.connect(hook, consequence)
        try:
            yield conn
        finally:
            self.close(conn)

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction that is as read-only as the database allows, and return the cursor of one query."""
        if hook.supports_autocommit:
            hook.set_autocommit(conn, False)
        return conn.cursor()

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Run the query on the cursor that `begin_reading` returned. `parameters` may be None."""
        if parameters is None:
            # drivers treat % as a plain character only if no parameters are passed
            cursor.execute(sql)
        else:
            cursor.execute(sql, parameters)

    def first_rows(self, conn: Any, cursor: Any, count: int) -> list[Any]:
        """Return the first rows of a query that has run. Afterwards `cursor.description` is set."""
        rows: list[Any] = cursor.fetchmany(count) if cursor.description else []
        return rows

    def end_reading(self, conn: Any, cursor: Any) -> None:
        """Release the cursor that `begin_reading` returned, and end its transaction."""
        conn.rollback()

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that turns the rows of a query into tuples of plain values."""
        return to_tuple

    def exact_query(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> ExactQuery:
        """Return a query whose rows lose nothing. A value that Python cannot hold is a `NativeValue` or text.

        :param cursor: the cursor that `begin_reading` returned, on which the query will run.
        """
        return ExactQuery(
            sql, lambda: Reading(("",) * len(cursor.description), self.row_reader(conn, cursor.description))
        )

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction and return the cursor to write with."""
        if hook.supports_autocommit:
            hook.set_autocommit(conn, False)
        return conn.cursor()

    @contextmanager
    def transaction(self, hook: DbApiHook, consequence: str) -> Iterator[Any]:
        """Open a connection and yield a cursor. Commit at the end or roll back on an error, then close everything."""
        with self.connection(hook, consequence) as conn:
            cursor = self.begin_writing(hook, conn)
            try:
                yield cursor
                conn.commit()
            except BaseException:
                # a driver without transactions raises here, which would hide the original error
                with suppress(Exception):
                    conn.rollback()
                raise

    def has_raised(self, error: BaseException) -> bool:
        """Return whether this driver raised the error."""
        module = f"{type(error).__module__}."
        return any(module.startswith(f"{package}.") for package in self.packages)

    def sqlstate_of(self, error: BaseException) -> str:
        """Return the five-character SQLSTATE, or '' if the driver does not provide one."""
        return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""

    def code_of(self, error: BaseException) -> int | None:
        """Return the error number of the database, or None if it has none."""
        return None

    def refuses_data(self, error: BaseException) -> bool:
        """Return whether the statement was refused because of the rows' values, so that other rows can be stored."""
        state = self.sqlstate_of(error)
        if state:
            return state.startswith(_DATA_CLASSES)
        return any(cls.__name__ in ("DataError", "IntegrityError") for cls in type(error).__mro__)

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return the database's message without row values; `hide_quoted` also removes everything in quotes."""
        diagnostics = getattr(error, "diag", None)
        primary = getattr(diagnostics, "message_primary", None)
        code = self.sqlstate_of(error)
        text = primary or str(error).strip() or type(error).__name__
        # SQLSTATE class 22 is "data exception": the quoted text is row data
        if hide_quoted or code.startswith("22"):
            text = QUOTED_TEXT.sub("(value not shown)", text)
        hint = getattr(diagnostics, "message_hint", None)
        if hint and code.startswith("42"):  # class 42 concerns names and syntax
            text = f"{text} ({hint})"
        return text.rstrip(".")


class OracleDriver(Driver):
    """python-oracledb, which returns a handle for a CLOB or BLOB."""

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that also reads the handles."""
        return lambda row: tuple(map(read_lob, to_tuple(row)))


class DatabricksDriver(Driver):
    """databricks-sql-connector, whose hook caches its connection and returns it even after it was closed."""

    def connect(self, hook: DbApiHook, consequence: str) -> Any:
        """Return a new connection, opened through a copy of the hook that has not connected yet."""
        return copy(hook).get_conn()


def to_tuple(row: Any) -> tuple[Any, ...]:
    """Return a row as a tuple, independent of the driver's row factory."""
    if type(row) is tuple:
        return row
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def row_converter(converters: Mapping[int, Callable[[Any], Any]]) -> RowReader:
    """Return a row reader that applies `converters` by column position, except to NULLs."""
    if not converters:
        return to_tuple

    def read(row: Any) -> tuple[Any, ...]:
        values = list(row)
        for index, convert in converters.items():
            if values[index] is not None:
                values[index] = convert(values[index])
        return tuple(values)

    return read


ANY_DRIVER = Driver()
ORACLE_DRIVER = OracleDriver()
DATABRICKS_DRIVER = DatabricksDriver()
