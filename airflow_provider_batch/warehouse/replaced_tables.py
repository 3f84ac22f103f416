"""Tables of which a group of rows is replaced as a whole, in any database that Airflow has a DB-API hook for.

A results table takes the better of two rows, key by key; here what was there goes and what is given comes, in several
tables at once, in one transaction. Written with what every driver has: SELECT, DELETE and INSERT with placeholders. So
it is for thousands of rows, not for millions. Run with SQLite, PostgreSQL and DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import database_errors, message_of, says_absent

#: what is said when writing failed
_NOTHING_WRITTEN = "nothing was written"


@dataclass(frozen=True)
class Replacement:
    """A group of rows of one table, and what is to be there instead."""

    table: str
    #: columns and the values that the rows have there which go
    where: Mapping[str, Any]
    #: each a tuple in the order of the table's columns
    rows: Sequence[tuple[Any, ...]]


class ReplacedTables:
    """Tables by name, each with its columns; those with `key=True` name a row."""

    def __init__(self, hook: DbApiHook, tables: Mapping[str, Sequence[Column]]) -> None:
        """Nothing is asked of the database yet. Raises InputError for a name that no table can have."""
        self._hook, self._tables, self._dialect = hook, tables, dialect_of(hook)
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
                sql = self._dialect.table(table)
                mended = "\n".join(f"ALTER TABLE {sql} ADD COLUMN {self._definition(column)};" for column in missing)
                raise ResultsTableError(
                    f"The table {table!r} (connection {self._hook.get_conn_id()!r}) lacks columns that are written to "
                    f"it; {_NOTHING_WRITTEN}. Add them, then run this task again:\n{mended}"
                )

    def apply(self, changes: Iterable[Replacement]) -> None:
        """Make all these changes in one transaction.

        :raises WarehouseError: for what the database refuses; nothing is changed then.
        """
        dialect, statement = self._dialect, ""
        with database_errors(self._hook, "Writing", f"{_NOTHING_WRITTEN}. Run this task again.", hide_quoted=True):
            with self._transaction() as cursor:
                for change in changes:
                    columns, table = self._tables[change.table], dialect.escaped(dialect.table(change.table))
                    cursor.execute(
                        f"DELETE FROM {table} WHERE {dialect.condition(change.where)}", [*change.where.values()]
                    )
                    if change.rows:
                        names = ", ".join(dialect.escaped(dialect.column(column.name)) for column in columns)
                        statement = (
                            f"INSERT INTO {table} ({names}) VALUES ({', '.join(dialect.placeholders(len(columns)))})"
                        )
                        cursor.executemany(statement, [self._bound(columns, row) for row in change.rows])
        send_sql_hook_lineage(context=self._hook, sql=statement)

    def _bound(self, columns: Sequence[Column], row: tuple[Any, ...]) -> list[Any]:
        bind = self._dialect.bind
        return [None if value is None else bind[column.type](value) for column, value in zip(columns, row, strict=True)]

    def _columns_of(self, table: str) -> list[str] | None:
        """The names of the columns that are there; None where the database says that there is no such table."""
        with self._transaction() as cursor:
            try:
                cursor.execute(self._dialect.probe(self._dialect.table(table)))
            except Exception as error:
                if says_absent(error):
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
        except Exception as error:  # noqa: BLE001 - each driver has an exception tree of its own
            # Another task may have created it since the probe.
            if self._columns_of(table) is None:
                raise ResultsTableError(
                    f"The table {table!r} (connection {self._hook.get_conn_id()!r}) is not there and could not be "
                    f"created: {message_of(error)}. {_NOTHING_WRITTEN.capitalize()}. Create it:\n{sql};"
                ) from None

    def _definition(self, column: Column) -> str:
        return f"{self._dialect.column(column.name)} {self._dialect.type_of(column)}".rstrip()

    def _transaction(self) -> AbstractContextManager[Any]:
        """A cursor on a connection of its own, committed at the end or rolled back."""
        return self._dialect.driver.transaction(self._hook, _NOTHING_WRITTEN)
