"""What every DB-API driver can do. A subclass says what one driver does differently.

A `Driver` has no state. It opens and closes connections, starts a read or a write on them, and knows the driver's
exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.warehouse.values import whole

#: from a row as the driver gives it to a plain tuple
RowReader = Callable[[Any], tuple[Any, ...]]

_QUOTED = re.compile(r"""'.*'|".*"|`.*`""", re.DOTALL)


class Driver:
    """Any DB-API driver."""

    #: packages that the driver's exceptions come from
    packages: tuple[str, ...] = ()

    def connect(self, hook: DbApiHook, kept: str) -> Any:
        """Return a connection of its own. An error about a locked database ends with `kept`."""
        return hook.get_conn()

    def close(self, conn: Any) -> None:
        """Close a connection that `connect` opened."""
        conn.close()

    @contextmanager
    def connection(self, hook: DbApiHook, kept: str) -> Iterator[Any]:
        """Open a connection and close it at the end."""
        conn = self.connect(hook, kept)
        try:
            yield conn
        finally:
            self.close(conn)

    def one_statement(self, sql: str) -> str:
        """Return the SQL without the semicolon at its end, which several drivers refuse.

        Raises InputError for several statements if the driver would run all of them.
        """
        # Within a comment the semicolon is no loss.
        return sql.rstrip("; \t\r\n")

    def begin_reading(self, hook: DbApiHook, conn: Any, sql: str) -> Any:
        """Start a transaction that is as close to read-only as the driver allows; return the cursor to run `sql`."""
        if hook.supports_autocommit:
            hook.set_autocommit(conn, False)
        return conn.cursor()

    def first_rows(self, conn: Any, cursor: Any, count: int) -> list[Any]:
        """Return the first rows of a query that ran. Afterwards `cursor.description` is known."""
        rows: list[Any] = cursor.fetchmany(count) if cursor.description else []
        return rows

    def end_reading(self, conn: Any, cursor: Any) -> None:
        """Let go of the cursor of `begin_reading`, and of its transaction."""
        conn.rollback()

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return what turns the rows of a query into tuples of plain values."""
        return to_tuple

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction and return the cursor to write with."""
        if hook.supports_autocommit:
            hook.set_autocommit(conn, False)
        return conn.cursor()

    @contextmanager
    def transaction(self, hook: DbApiHook, kept: str) -> Iterator[Any]:
        """A cursor on a connection of its own. Commits at the end, or rolls back, and closes everything."""
        with self.connection(hook, kept) as conn:
            cursor = self.begin_writing(hook, conn)
            try:
                yield cursor
                conn.commit()
            except BaseException:
                # A driver without transactions raises here, which would hide what happened.
                with suppress(Exception):
                    conn.rollback()
                raise

    def raised(self, error: BaseException) -> bool:
        """Whether this driver raised the error."""
        module = f"{type(error).__module__}."
        return any(module.startswith(f"{package}.") for package in self.packages)

    def sqlstate_of(self, error: BaseException) -> str:
        """Return the five-character SQLSTATE, '' if the driver does not give one."""
        return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""

    def code_of(self, error: BaseException) -> int | None:
        """Return the database's own error number, None if it has none."""
        return None

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return the database's message without values; `hide_quoted` also drops whatever stands in quotes."""
        diagnostics = getattr(error, "diag", None)
        primary = getattr(diagnostics, "message_primary", None)
        code = self.sqlstate_of(error)
        text = primary or str(error).strip() or type(error).__name__
        # SQLSTATE class 22 is "data exception": what is quoted there is data.
        if hide_quoted or code.startswith("22"):
            text = _QUOTED.sub("(value not shown)", text)
        hint = getattr(diagnostics, "message_hint", None)
        if hint and code.startswith("42"):  # class 42 is about names and syntax
            text = f"{text} ({hint})"
        return text.rstrip(".")


class OracleDriver(Driver):
    """python-oracledb, which gives a handle for a CLOB or a BLOB."""

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return what reads the handles."""
        return lambda row: tuple(map(whole, to_tuple(row)))


class DatabricksDriver(Driver):
    """databricks-sql-connector, whose hook keeps its connection and returns it again even after it was closed."""

    def connect(self, hook: DbApiHook, kept: str) -> Any:
        """Return a connection of its own, through a copy of the hook that never connected."""
        return copy(hook).get_conn()


def to_tuple(row: Any) -> tuple[Any, ...]:
    """Return a row as a tuple, whatever the driver's row factory made of it."""
    if type(row) is tuple:
        return row
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def converting(converters: Mapping[int, Callable[[Any], Any]]) -> RowReader:
    """Return a row reader that converts the values at these positions, except NULLs."""
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
