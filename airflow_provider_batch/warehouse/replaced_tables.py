"""Tables of which a group of rows is replaced as a whole, in any database that Airflow has a DB-API hook for.

A results table takes the better of two rows, key by key; here what was there goes and what is given comes, in several
tables at once, in one transaction. Written with what every driver has: SELECT, DELETE and INSERT with placeholders. So
it is for thousands of rows, not for millions. Run with SQLite, PostgreSQL and DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse import naming, values
from airflow_provider_batch.warehouse.connect import is_redshift, open_connection, speaks
from airflow_provider_batch.warehouse.dialect import dialect_of
from airflow_provider_batch.warehouse.drivers import duckdb as duckdb_driver
from airflow_provider_batch.warehouse.drivers import mysql as mysql_driver
from airflow_provider_batch.warehouse.errors import database_errors, message_of, says_absent
from airflow_provider_batch.warehouse.sinks import duckdb, postgres, sqlite
from airflow_provider_batch.warehouse.sinks.mysql_table import MARKS as MYSQL_MARKS
from airflow_provider_batch.warehouse.sinks.mysql_table import TYPES as MYSQL_TYPES

#: what is said when writing failed
_NOTHING_WRITTEN = "nothing was written"

#: the longest text that three of in a key fit into an index of InnoDB, compared by its bytes
_MYSQL_KEY = "VARCHAR(250) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

#: from a value to what the driver takes
Binder = Callable[[Any], Any]


@dataclass(frozen=True)
class Replacement:
    """A group of rows of one table, and what is to be there instead."""

    table: str
    #: columns and the values that the rows have there which go
    where: Mapping[str, Any]
    #: each a tuple in the order of the table's columns
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Speech:
    """How SQL is written for one database."""

    marks: str
    #: `?`, `%s`, or `:` for :1, :2 and so on
    placeholder: str
    #: names that were created without quotation marks are upper case there
    upper: bool
    declares_key: bool
    type_of: Callable[[Column], str]
    binders: Mapping[ColumnType, Binder]

    def name(self, name: str) -> str:
        """A column as SQL, where a statement has parameters."""
        return self._escaped(naming.quote(name.upper() if self.upper else name, self.marks))

    def table(self, table: str) -> str:
        """A table as SQL, where a statement has parameters. Raises InputError if no table can be called that."""
        return self._escaped(self.plain_table(table))

    def plain_table(self, table: str) -> str:
        """A table as SQL, where a statement has no parameters."""
        parts = naming.split_table(table)
        return naming.quote_table([part.upper() for part in parts] if self.upper else parts, self.marks)

    def parameters(self, count: int) -> list[str]:
        """So many placeholders."""
        if self.placeholder == ":":
            return [f":{number}" for number in range(1, count + 1)]
        return [self.placeholder] * count

    def condition(self, names: Iterable[str], alias: str = "") -> str:
        """`name = ?` for each, joined with AND."""
        columns = [f"{alias}{self.name(name)}" for name in names]
        return " AND ".join(
            f"{name} = {mark}" for name, mark in zip(columns, self.parameters(len(columns)), strict=True)
        )

    def select(self, table: str, columns: Sequence[str], where: Sequence[str]) -> str:
        """A SELECT of these columns, with a parameter for each column of `where`."""
        # With the alias, SQLite does not take the name of a column that is not there for a text.
        listed = ", ".join(f"t.{self.name(name)}" for name in columns)
        return f"SELECT {listed} FROM {self.table(table)} t WHERE {self.condition(where, 't.')}"

    def _escaped(self, name: str) -> str:
        return name.replace("%", "%%") if self.placeholder == "%s" else name


def speech_of(hook: DbApiHook) -> Speech:
    """How SQL is written for the database of this hook."""
    dialect = dialect_of(hook)
    if speaks(hook, "sqlite"):
        return Speech('""', "?", False, True, lambda column: sqlite.TYPES[column.type], sqlite.BINDERS)
    if speaks(hook, "duckdb"):
        return Speech('""', "?", False, True, lambda column: duckdb.TYPES[column.type], _BINDERS)
    if speaks(hook, "postgres") and not is_redshift(hook):
        return Speech('""', "%s", False, True, lambda column: postgres.TYPES[column.type], _BINDERS)
    if speaks(hook, "mysql"):
        return Speech(MYSQL_MARKS, "%s", False, True, _mysql_type, _NAIVE)
    return Speech(
        dialect.marks,
        dialect.placeholder,
        dialect.upper,
        dialect.declares_key,
        lambda column: (
            dialect.key_text if column.key and column.type is ColumnType.TEXT else dialect.types[column.type]
        ),
        _NAIVE,
    )


class ReplacedTables:
    """Tables by name, each with its columns; those with `key=True` name a row."""

    def __init__(self, hook: DbApiHook, tables: Mapping[str, Sequence[Column]]) -> None:
        """Nothing is asked of the database yet. Raises InputError for a name that no table can have."""
        self._hook, self._tables, self._speech = hook, tables, speech_of(hook)
        for table in tables:
            naming.split_table(table)

    def prepare(self) -> None:
        """Create the tables that are not there.

        :raises ResultsTableError: for a table that is there without one of our columns.
        :raises WarehouseError: for what the database refuses.
        """
        for table, columns in self._tables.items():
            with database_errors(self._hook, f"Preparing the table {table!r}", f"{_NOTHING_WRITTEN}."):
                there = self._columns_of(table)
                if there is None:
                    self._create(table, columns)
                    there = self._columns_of(table) or []
            missing = [column for column in columns if not naming.spellings(column.name, there)]
            if missing:
                sql = self._speech.plain_table(table)
                mended = "\n".join(f"ALTER TABLE {sql} ADD COLUMN {self._definition(column)};" for column in missing)
                raise ResultsTableError(
                    f"The table {table!r} (connection {self._hook.get_conn_id()!r}) lacks columns that are written to "
                    f"it; {_NOTHING_WRITTEN}. Add them, then run this task again:\n{mended}"
                )

    def apply(self, changes: Iterable[Replacement]) -> None:
        """Make all these changes in one transaction.

        :raises WarehouseError: for what the database refuses; nothing is changed then.
        """
        speech, statement = self._speech, ""
        with database_errors(self._hook, "Writing", f"{_NOTHING_WRITTEN}. Run this task again.", hide_quoted=True):
            with self._transaction() as cursor:
                for change in changes:
                    columns, table = self._tables[change.table], speech.table(change.table)
                    cursor.execute(
                        f"DELETE FROM {table} WHERE {speech.condition(change.where)}", [*change.where.values()]
                    )
                    if change.rows:
                        names = ", ".join(speech.name(column.name) for column in columns)
                        statement = (
                            f"INSERT INTO {table} ({names}) VALUES ({', '.join(speech.parameters(len(columns)))})"
                        )
                        cursor.executemany(statement, [self._bound(columns, row) for row in change.rows])
        send_sql_hook_lineage(context=self._hook, sql=statement)

    def _bound(self, columns: Sequence[Column], row: tuple[Any, ...]) -> list[Any]:
        binders = self._speech.binders
        return [
            None if value is None else binders[column.type](value) for column, value in zip(columns, row, strict=True)
        ]

    def _columns_of(self, table: str) -> list[str] | None:
        """The names of the columns that are there; None where the database says that there is no such table."""
        with self._transaction() as cursor:
            try:
                cursor.execute(f"SELECT * FROM {self._speech.plain_table(table)} WHERE 1 = 0")
            except Exception as error:
                if says_absent(error):
                    return None
                raise
            return [column[0] for column in cursor.description]

    def _create(self, table: str, columns: Sequence[Column]) -> None:
        lines = [self._definition(column) + (" NOT NULL" if column.key else "") for column in columns]
        if self._speech.declares_key:
            key = ", ".join(self._plain(column.name) for column in columns if column.key)
            lines.append(f"PRIMARY KEY ({key})")
        sql = f"CREATE TABLE {self._speech.plain_table(table)} (\n  " + ",\n  ".join(lines) + "\n)"
        try:
            with self._transaction() as cursor:
                cursor.execute(sql)
        except Exception as error:  # noqa: BLE001 - each driver has an exception tree of its own
            # Another task may have created it since the probe.
            if self._columns_of(table) is None:
                raise ResultsTableError(
                    f"The table {table!r} (connection {self._hook.get_conn_id()!r}) is not there and could not be "
                    f"created: {message_of(error)}. {_NOTHING_WRITTEN.capitalize()}. Create it:\n{sql};"
                ) from None

    def _definition(self, column: Column) -> str:
        return f"{self._plain(column.name)} {self._speech.type_of(column)}".rstrip()

    def _plain(self, name: str) -> str:
        return naming.quote(name.upper() if self._speech.upper else name, self._speech.marks)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A cursor; what it did is committed at the end, or rolled back. Closes everything."""
        hook = self._hook
        duck, lite = speaks(hook, "duckdb"), speaks(hook, "sqlite")
        opened = (
            duckdb_driver.closing(duckdb_driver.connect(hook, _NOTHING_WRITTEN))
            if duck
            else closing(open_connection(hook))
        )
        with opened as conn:
            if duck:
                cursor = conn  # a cursor of DuckDB's is a connection of its own
                conn.execute("BEGIN TRANSACTION")
            elif lite:
                conn.isolation_level, conn.row_factory = None, None
                conn.execute(f"PRAGMA busy_timeout = {sqlite.BUSY_SECONDS * 1000}")
                cursor = conn.cursor()
                cursor.execute("BEGIN IMMEDIATE")
            else:
                if speaks(hook, "mysql"):
                    mysql_driver.speak_utf8(conn)
                if hook.supports_autocommit:
                    hook.set_autocommit(conn, False)
                cursor = mysql_driver.plain_cursor(conn) if speaks(hook, "mysql") else conn.cursor()
            try:
                yield cursor
                conn.commit()
            except BaseException:
                # A driver without transactions raises here, which would hide what happened.
                with suppress(Exception):
                    conn.rollback()
                raise


def _mysql_type(column: Column) -> str:
    return _MYSQL_KEY if column.key and column.type is ColumnType.TEXT else MYSQL_TYPES[column.type]


def _text(value: str) -> str:
    # No database but SQLite and DuckDB takes a NUL character within a text.
    return values.mend(value).replace("\0", "")


_BINDERS: Mapping[ColumnType, Binder] = {
    **dict.fromkeys(ColumnType, lambda value: value),
    ColumnType.TEXT: _text,
    ColumnType.TIMESTAMP: values.utc,
    ColumnType.JSON: values.json_text,
}
#: where a column of moments has no time zone
_NAIVE: Mapping[ColumnType, Binder] = {
    **_BINDERS,
    ColumnType.TIMESTAMP: lambda value: values.utc(value).replace(tzinfo=None),
}
