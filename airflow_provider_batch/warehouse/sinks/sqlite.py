"""The sink for SQLite.

One `write` is one `BEGIN IMMEDIATE` transaction of `INSERT ... ON CONFLICT DO UPDATE` in chunks. `REPLACE INTO`,
which Airflow's hook would use, deletes the row first and with it the columns that are not ours.

SQLite gives a column an affinity, not a type. Text goes only to columns that keep it as it is: a column declared
NUMERIC or STRING would turn the key '007' into the number 7.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.drivers.sqlite import SQLITE_DRIVER
from airflow_provider_batch.warehouse.errors import database_errors
from airflow_provider_batch.warehouse.rows import Incoming, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, fit


@dataclass(frozen=True)
class _Plan:
    upsert: str
    #: the positions of the key columns
    key: tuple[int, ...]


class SqliteSink(TableSink[_Plan]):
    """A results table in SQLite. See `open.Sink`.

    Dates, moments (ISO 8601 in UTC) and JSON are stored as text, booleans as 0 and 1, decimals as numbers where
    SQLite's can hold them exactly and as text otherwise.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        binders = [self._dialect.bind[column.type] for column in self._columns]
        incoming = Incoming(rows, self._columns, binders, plain=str.isascii)
        with database_errors(self._hook, self._landing, self._kept, incoming=incoming):
            with closing(self._connect()) as conn:
                conn.execute("BEGIN IMMEDIATE")
                for chunk in chunks(incoming):
                    # The order of equal keys stays: the last of equal rank is to win.
                    chunk.sort(key=itemgetter(*plan.key))
                    conn.executemany(plan.upsert, chunk)
                conn.execute("COMMIT")
        send_sql_hook_lineage(context=self._hook, sql=plan.upsert, row_count=incoming.count)
        return incoming.count

    def _connect(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = self._hook.get_conn()
        SQLITE_DRIVER.take_control(conn)
        return conn

    def _prepared(self) -> _Plan:
        with database_errors(self._hook, self._preparing, self._kept):
            with closing(self._connect()) as conn:
                if self._describe(conn) is None:
                    if not self._create:
                        raise self._target.absent()
                    conn.execute("BEGIN IMMEDIATE")
                    if self._describe(conn) is None:  # another landing may have created it by now
                        conn.execute(self._target.create_statement())
                    conn.execute("COMMIT")
                table = self._describe(conn)
                if table is None:
                    raise self._target.refuse("was created but cannot be found again")
                plan = self._planned(fit(self._target, table, refused=_refused))
                # Compiling the statement finds what the probe did not, such as a generated column.
                conn.execute(f"EXPLAIN {plan.upsert}", [None] * len(self._columns))
        self._plan = plan
        return plan

    def _describe(self, conn: sqlite3.Connection) -> Table | None:
        schema = "".join(f"{self._dialect.quote(part)}." for part in self._parts[:-1])
        name = self._dialect.quote(self._parts[-1])
        catalogue = self._catalogue
        rows = conn.execute(catalogue.columns.format(schema=schema, name=name)).fetchall()
        if not rows:
            return None
        kinds = conn.execute(catalogue.table.format(schema=schema), (self._parts[-1],)).fetchall()
        if kinds == [("view",)]:
            raise self._target.refuse("is a view")
        columns = tuple(
            # An INTEGER PRIMARY KEY fills itself, and such a column alone is not declared NOT NULL.
            TableColumn(column, declared, required=bool(not_null) and default is None and not hidden)
            for _, column, declared, not_null, default, _, hidden in rows
        )
        primary = [(place, column) for _, column, _, _, _, place, _ in rows if place]
        keys = [tuple(column for _, column in sorted(primary))] if primary else []
        indexes = conn.execute(catalogue.keys.format(schema=schema, name=name)).fetchall()
        for _, index, unique, _, partial in indexes:
            if unique and not partial:
                index_info = catalogue.index.format(schema=schema, name=self._dialect.quote(index))
                parts = conn.execute(index_info).fetchall()
                if all(column is not None for _, _, column in parts):  # None: an expression
                    keys.append(tuple(column for _, _, column in parts))
        return Table(columns, tuple(dict.fromkeys(keys)))

    def _planned(self, found: Mapping[str, TableColumn]) -> _Plan:
        names = [self._dialect.quote(found[column.name].name) for column in self._columns]
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        values = f"VALUES ({', '.join(self._dialect.placeholders(len(names)))})"
        return _Plan(self._upsert(self._target.sql, names, values), key)


def _refused(column: Column, there: TableColumn) -> bool:
    return column.type is ColumnType.TEXT and _affinity(there.type) not in ("TEXT", "BLOB")


def _affinity(declared: str) -> str:
    """By the rules of https://www.sqlite.org/datatype3.html#determination_of_column_affinity, in their order."""
    declared = declared.upper()
    for parts, affinity in (
        (("INT",), "INTEGER"),
        (("CHAR", "CLOB", "TEXT"), "TEXT"),
        (("BLOB",), "BLOB"),
        (("REAL", "FLOA", "DOUB"), "REAL"),
    ):
        if any(part in declared for part in parts):
            return affinity
    return "NUMERIC" if declared else "BLOB"
