"""The sink for SQLite.

One `write` is one `BEGIN IMMEDIATE` transaction that runs `INSERT ... ON CONFLICT DO UPDATE` in chunks. `REPLACE INTO`,
which Airflow's hook would use, deletes the row first, and with it the columns that are not ours.

SQLite columns have an affinity instead of a type. Text may only go to columns that store it unchanged: a column
declared as NUMERIC or STRING would turn the key '007' into the number 7.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.dialects.base import Binder
from airflow_provider_batch.warehouse.drivers.base import Driver
from airflow_provider_batch.warehouse.drivers.sqlite import SQLITE_DRIVER
from airflow_provider_batch.warehouse.errors import translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.refusals import Changes, changed_row
from airflow_provider_batch.warehouse.rows import IncomingRows, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.stored_types import Kind, sqlite_type
from airflow_provider_batch.warehouse.table import Table, TableColumn, match_columns
from airflow_provider_batch.warehouse.values import decimal

#: `hidden` of table_xinfo for a VIRTUAL and a STORED generated column
_GENERATED = (2, 3)


@dataclass(frozen=True)
class _Plan:
    upsert: str
    #: positions of the key columns
    key: tuple[int, ...]
    binders: tuple[Binder, ...]
    #: the upsert as lineage shows it
    lineage_sql: str


class SqliteSink(TableSink[_Plan]):
    """A results table in SQLite. See `open.Sink`.

    Dates, timestamps (ISO 8601 in UTC) and JSON are stored as text, booleans as 0 and 1. Decimals are stored as numbers
    if SQLite can hold them exactly, and as text otherwise.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._make_plan()
        incoming = IncomingRows(rows, self._columns, plan.binders, is_plain=str.isascii)
        refused_rows = self._refused_rows()
        with translate_errors(self._hook, self._write_action, self._consequence, incoming=incoming):
            with closing(self._connect()) as conn:
                conn.execute("BEGIN IMMEDIATE")
                for chunk in chunks(incoming):
                    # the sort is stable: of rows with equal key and rank, the last one must win
                    chunk.sort(key=itemgetter(*plan.key))
                    refused_rows.store(_ChunkRows(conn, self._dialect.driver, plan.upsert, chunk), chunk)
                self.refusals = refused_rows.check(incoming.count)
                conn.execute("COMMIT")
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

    def _connect(self) -> sqlite3.Connection:
        conn: sqlite3.Connection = self._hook.get_conn()
        SQLITE_DRIVER.take_control(conn)
        return conn

    def _make_plan(self) -> _Plan:
        with translate_errors(self._hook, self._prepare_action, self._consequence):
            with closing(self._connect()) as conn:
                if self._describe_table(conn) is None:
                    if not self._create:
                        raise self._target.absent_table_error()
                    conn.execute("BEGIN IMMEDIATE")
                    if self._describe_table(conn) is None:  # another landing may have created it in the meantime
                        conn.execute(self._target.create_statement())
                    conn.execute("COMMIT")
                table = self._describe_table(conn)
                if table is None:
                    raise self._target.error("was created but cannot be found.")
                matches = match_columns(self._target, table)
                self.limits = self._describe_limits(matches)
                plan = self._build_plan(matches)
                # compiling the statement detects what the catalogue does not show, such as a generated column
                conn.execute(f"EXPLAIN {plan.upsert}", [None] * len(self._columns))
        self._plan = plan
        return plan

    def _describe_table(self, conn: sqlite3.Connection) -> Table | None:
        schema = "".join(f"{self._dialect.quote(part)}." for part in self._parts[:-1])
        name = self._dialect.quote(self._parts[-1])
        catalogue = self._catalogue
        rows = conn.execute(catalogue.columns.format(schema=schema, name=name)).fetchall()
        if not rows:
            return None
        kinds = conn.execute(catalogue.table.format(schema=schema), (self._parts[-1],)).fetchall()
        if kinds == [("view",)]:
            raise self._target.error("is a view.")
        strict = any(is_strict for *_, is_strict in conn.execute(catalogue.strict.format(schema=schema, name=name)))
        columns = tuple(
            # SQLite fills an INTEGER PRIMARY KEY automatically. It is the only such column that is not declared NOT
            # NULL.
            TableColumn(
                column,
                declared_type,
                required=bool(not_null) and default is None and not hidden,
                not_null=bool(not_null),
                stored=sqlite_type(declared_type, strict=strict),
                is_generated=hidden in _GENERATED,
            )
            for _, column, declared_type, not_null, default, _, hidden in rows
        )
        primary = [(key_position, column) for _, column, _, _, _, key_position, _ in rows if key_position]
        keys = [tuple(column for _, column in sorted(primary))] if primary else []
        indexes = conn.execute(catalogue.keys.format(schema=schema, name=name)).fetchall()
        for _, index, unique, _, partial in indexes:
            if unique and not partial:
                index_info = catalogue.index.format(schema=schema, name=self._dialect.quote(index))
                parts = conn.execute(index_info).fetchall()
                if all(column is not None for _, _, column in parts):  # None stands for an expression
                    keys.append(tuple(column for _, _, column in parts))
        return Table(columns, tuple(dict.fromkeys(keys)))

    def _build_plan(self, matches: Mapping[str, TableColumn]) -> _Plan:
        names = [self._dialect.quote(matches[column.name].name) for column in self._columns]
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        values = f"VALUES ({', '.join(self._dialect.placeholders(len(names)))})"
        binders = tuple(self._binder(column, matches[column.name]) for column in self._columns)
        # OR ABORT prevails over a constraint's own ON CONFLICT clause: IGNORE and REPLACE would lose rows silently, and
        # ROLLBACK would undo the whole transaction
        upsert = self._upsert(self._target.sql, names, values).replace("INSERT", "INSERT OR ABORT", 1)
        return _Plan(upsert, key, binders, insert_for_lineage(self._target.sql, names))

    def _binder(self, column: Column, table_column: TableColumn) -> Binder:
        """Return how values are bound. As text, SQLite would write only 15 digits of a float."""
        if table_column.stored.kind is Kind.TEXT and column.type is ColumnType.FLOAT:
            return lambda value: repr(float(value))
        if table_column.stored.kind is Kind.TEXT and column.type is ColumnType.NUMERIC:
            return lambda value: str(decimal(value))
        return self._dialect.bind[column.type]


class _ChunkRows:
    """The rows of one chunk, stored under a savepoint. See `refusals.StagedRows`."""

    def __init__(self, conn: sqlite3.Connection, driver: Driver, upsert: str, chunk: Sequence[Sequence[Any]]) -> None:
        self._conn = conn
        self._driver = driver
        self._upsert = upsert
        self._chunk = chunk

    def store(self, first: int, last: int, changes: Changes | None = None) -> Exception | None:
        """See `StagedRows`."""
        rows = self._chunk[first - 1 : last]
        if changes:
            rows = [changed_row(rows[0], changes)]
        self._conn.execute("SAVEPOINT batch_rows")
        try:
            self._conn.executemany(self._upsert, rows)
        except Exception as error:
            # a trigger with RAISE(ROLLBACK) has ended the transaction
            if not self._driver.refuses_data(error) or not self._conn.in_transaction:
                raise
            self._conn.execute("ROLLBACK TO batch_rows")
            self._conn.execute("RELEASE batch_rows")
            return error
        self._conn.execute("RELEASE batch_rows")
        return None

    def read(self, number: int) -> Sequence[Any]:
        """See `StagedRows`."""
        return self._chunk[number - 1]
