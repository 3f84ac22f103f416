"""Tables in which a group of rows is replaced as a whole, in any database with a DB-API hook in Airflow.

A results table keeps the better of two rows, key by key. Here the old rows of a group are deleted and the new ones
inserted, in several tables and in one transaction. `upsert` replaces single rows by key. This uses only what every
driver has: SELECT, UPDATE, DELETE and INSERT with placeholders. It is meant for thousands of rows, not for millions.
Tested on SQLite, PostgreSQL and DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import is_absent_table, message_of, translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

_NOTHING_WRITTEN = "Nothing was written."

#: number of rows that are inserted with one call
_CHUNK_ROWS = 1_000


@dataclass(frozen=True)
class Replacement:
    """A group of rows in one table, and the rows that replace it."""

    table: str
    #: column values that identify the rows to delete
    where: Mapping[str, Any]
    #: the new rows, each a tuple in the order of the table's columns; they are read in chunks
    rows: Iterable[tuple[Any, ...]]


class ReplacedTables:
    """Tables by name, each with its columns. The columns with `key=True` identify a row."""

    def __init__(self, hook: DbApiHook, tables: Mapping[str, Sequence[Column]]) -> None:
        """Store the arguments without querying the database. Raises InputError for a name that no table can have."""
        self._hook, self._tables, self._dialect = hook, tables, dialect_of(hook)
        for table in tables:
            naming.split_table(table)

    def prepare(self) -> None:
        """Create the tables that do not exist.

        :raises ResultsTableError: if an existing table lacks one of our columns.
        :raises WarehouseError: if the database refuses a statement.
        """
        for table, columns in self._tables.items():
            if not self.exists(table):
                with translate_errors(self._hook, f"Preparing the table {table!r}", _NOTHING_WRITTEN):
                    self._create(table, columns)
                self.exists(table)

    def exists(self, table: str) -> bool:
        """Return whether a table exists, and has our columns.

        :raises ResultsTableError: if it exists and lacks one of our columns.
        :raises WarehouseError: if the database refuses a statement.
        """
        with translate_errors(self._hook, f"Preparing the table {table!r}", _NOTHING_WRITTEN):
            existing_names = self._columns_of(table)
        if existing_names is None:
            return False
        missing = [column for column in self._tables[table] if not naming.spellings(column.name, existing_names)]
        if missing:
            sql = self._dialect.table(table)
            statements = "\n".join(f"ALTER TABLE {sql} ADD COLUMN {self._definition(column)};" for column in missing)
            raise ResultsTableError(
                f"The table {table!r} (connection {self._hook.get_conn_id()!r}) lacks columns that this task "
                f"writes. {_NOTHING_WRITTEN} Add the columns, then run this task again:\n{statements}"
            )
        return True

    def apply(self, changes: Iterable[Replacement]) -> None:
        """Make all changes in one transaction.

        :raises WarehouseError: if the database refuses a statement; in that case nothing is changed.
        """
        dialect, changed_table = self._dialect, ""
        with translate_errors(self._hook, "Writing", f"{_NOTHING_WRITTEN} Run this task again.", hide_quoted=True):
            with self._transaction() as cursor:
                for change in changes:
                    columns, table = self._tables[change.table], dialect.escape(dialect.table(change.table))
                    cursor.execute(
                        f"DELETE FROM {table} WHERE {dialect.condition(change.where)}", [*change.where.values()]
                    )
                    statement, changed_table = self._insert_statement(change.table), change.table
                    rows = iter(change.rows)
                    while chunk := [self._bind_row(columns, row) for row in islice(rows, _CHUNK_ROWS)]:
                        cursor.executemany(statement, chunk)
        if changed_table:
            self._report(changed_table)

    def upsert(self, table: str, inserts: Sequence[tuple[Any, ...]], updates: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows and update others by key, in one transaction. Columns that are not ours keep their values.

        :raises WarehouseError: if the database refuses a statement; in that case nothing is changed.
        """
        dialect, columns, sql = self._dialect, self._tables[table], self._dialect.escape(self._dialect.table(table))
        keys = [column for column in columns if column.key]
        values = [column for column in columns if not column.key]
        insert = self._insert_statement(table)
        marks = dialect.placeholders(len(values))
        assignments = ", ".join(
            f"{dialect.escape(dialect.column(column.name))} = {mark}"
            for column, mark in zip(values, marks, strict=True)
        )
        update = f"UPDATE {sql} SET {assignments} WHERE {dialect.condition([column.name for column in keys])}"
        with translate_errors(self._hook, "Writing", f"{_NOTHING_WRITTEN} Run this task again.", hide_quoted=True):
            with self._transaction() as cursor:
                for row in updates:
                    bound = dict(zip(columns, self._bind_row(columns, row), strict=True))
                    cursor.execute(update, [bound[column] for column in (*values, *keys)])
                if inserts:
                    cursor.executemany(insert, [self._bind_row(columns, row) for row in inserts])
        self._report(table)

    def _report(self, table: str) -> None:
        """Report to Airflow's lineage collector that a table was written."""
        dialect = self._dialect
        names = [dialect.column(column.name) for column in self._tables[table]]
        send_sql_hook_lineage(context=self._hook, sql=insert_for_lineage(dialect.table(table), names))

    def _insert_statement(self, table: str) -> str:
        dialect, columns = self._dialect, self._tables[table]
        names = ", ".join(dialect.escape(dialect.column(column.name)) for column in columns)
        marks = ", ".join(dialect.placeholders(len(columns)))
        return f"INSERT INTO {dialect.escape(dialect.table(table))} ({names}) VALUES ({marks})"

    def _bind_row(self, columns: Sequence[Column], row: tuple[Any, ...]) -> list[Any]:
        bind = self._dialect.bind
        return [None if value is None else bind[column.type](value) for column, value in zip(columns, row, strict=True)]

    def _columns_of(self, table: str) -> list[str] | None:
        """Return the names of the table's columns, or None if the database says that the table does not exist."""
        with self._transaction() as cursor:
            try:
                cursor.execute(self._dialect.probe(self._dialect.table(table)))
            except Exception as error:
                if is_absent_table(error):
                    return None
                raise
            return [column[0] for column in cursor.description]

    def _create(self, table: str, columns: Sequence[Column]) -> None:
        lines = [self._definition(column) + (" NOT NULL" if column.key else "") for column in columns]
        if self._dialect.declares_key:
            key = ", ".join(self._dialect.column(column.name) for column in columns if column.key)
            lines.append(f"PRIMARY KEY ({key})")
        sql = f"CREATE TABLE {self._dialect.table(table)} (\n  " + ",\n  ".join(lines) + "\n)"
        try:
            with self._transaction() as cursor:
                cursor.execute(sql)
        except Exception as error:  # noqa: BLE001 - each driver has its own exception tree
            # another task may have created the table since the probe
            if self._columns_of(table) is None:
                raise ResultsTableError(
                    f"The table {table!r} (connection {self._hook.get_conn_id()!r}) does not exist and could not be "
                    f"created: {message_of(error)}. {_NOTHING_WRITTEN} Create it:\n{sql};"
                ) from None

    def _definition(self, column: Column) -> str:
        return f"{self._dialect.column(column.name)} {self._dialect.type_of(column)}".rstrip()

    def _transaction(self) -> AbstractContextManager[Any]:
        """Return a context manager that yields a cursor on a new connection, and commits or rolls back at its end."""
        return self._dialect.driver.transaction(self._hook, _NOTHING_WRITTEN)
