"""The sink for DuckDB.

One `write` appends all rows to a temporary table. It then runs a single `INSERT ... SELECT ... ON CONFLICT DO UPDATE`
in one transaction. The SELECT keeps the row with the highest rank per key (see `precedence`); DuckDB itself would
silently take any of several rows with the same key. The rows wait in DuckDB's own storage, which spills to disk beyond
its memory limit, and not in Python's memory.

DuckDB has no savepoints. If it refuses that statement because of the data, the rows are stored in ranges, each in a
transaction of its own (see `refusals`).

The temporary table holds decimals, JSON and vectors as text, and the SELECT casts them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.exceptions import WarehouseConnectionError
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.dialects.base import Binder
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.drivers.base import Driver
from airflow_provider_batch.warehouse.drivers.duckdb import has_default_memory
from airflow_provider_batch.warehouse.drivers.duckdb_values import from_native_text
from airflow_provider_batch.warehouse.errors import NEXT_STEP, message_of, translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.refusals import Changes
from airflow_provider_batch.warehouse.rows import IncomingRows, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.stored_types import Kind, duckdb_type
from airflow_provider_batch.warehouse.table import Table, TableColumn, has_native_type, match_columns

#: types whose values pass through the temporary table as text
_SENT_AS_TEXT = (ColumnType.NUMERIC, ColumnType.JSON, ColumnType.VECTOR)

#: replaces `NOTHING_COMMITTED` once the rows are stored in several transactions
_SOME_COMMITTED = "Some rows of this landing were committed. Landing again completes it."

_log = logging.getLogger(__name__)

_LANDING = "temp.main.batch_landing"

#: Threads of one process share the database. If two of them change the same row concurrently, DuckDB fails one.
_merge_lock = threading.Lock()


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as `prepare` found it."""

    create_landing: str
    merge: str
    #: deletes all but the best row of each key from the temporary table. It runs only if the database refuses a row.
    keep_best: str
    #: returns the merge of a range of the rows that are left
    merge_range: Callable[[int, int], str]
    #: functions that convert the values of each column for the appender
    binders: tuple[Binder, ...]
    #: the merge as lineage shows it, without the temporary table
    lineage_sql: str


class DuckdbSink(TableSink[_Plan]):
    """A results table in DuckDB 2.0 or newer. See `open.Sink`.

    The table is `table`, `schema.table` or `database.schema.table`. Decimal columns are created as DECIMAL(38,12): they
    are rounded to 12 digits after the decimal point, and have room for 26 digits before it.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._make_plan()
        incoming = IncomingRows(rows, self._columns, plan.binders)
        with translate_errors(self._hook, self._write_action, self._consequence, incoming=incoming):
            with self._connection() as conn:
                conn.execute(plan.create_landing)
                appender = conn.appender(_LANDING)
                number = 0  # of rows so far; they are numbered from 1
                for chunk in chunks(incoming):
                    appender.append_rows([(number + offset, *row) for offset, row in enumerate(chunk, start=1)])
                    appender.flush()
                    number += len(chunk)
                with _merge_lock:
                    self.refusals = self._merge(conn, plan, number)
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

    def _merge(self, conn: Any, plan: _Plan, count: int) -> tuple[Refusal, ...]:
        """Store all rows and return those that the database refused."""
        rows = _LandingRows(conn, self._dialect.driver, plan)
        try:
            error = rows.run(plan.merge)
        except Exception as failure:
            # an update of many rows needs memory that DuckDB cannot move to disk
            if not has_default_memory(conn, failure):
                raise
            _log.warning(
                "Storing %s rows in %s needs more memory than DuckDB has by default. This landing continues with "
                "DuckDB's own limit.",
                f"{count:,}",
                self._target.name,
            )
            conn.execute("RESET memory_limit")
            error = rows.run(plan.merge)
        refused_rows = self._refused_rows(f"{_SOME_COMMITTED} {NEXT_STEP}")
        if error is not None:
            conn.execute(plan.keep_best)
            with translate_errors(self._hook, self._write_action, f"{_SOME_COMMITTED} {NEXT_STEP}"):
                refused_rows.store_the_rest(rows, count, error)
        return refused_rows.check(count)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with self._dialect.driver.connection(self._hook, self._consequence) as conn:
            if not hasattr(conn, "appender"):
                raise WarehouseConnectionError(
                    f"Landing in DuckDB needs version 2.0 or newer of the package duckdb, but an older one is "
                    f"installed. Run pip install 'airflow-provider-batch[duckdb]'. {self._consequence}"
                )
            # casts from timestamps to dates and to timestamps without a zone depend on the session's time zone
            conn.execute("SET TimeZone = 'UTC'")
            yield conn

    def _make_plan(self) -> _Plan:
        with translate_errors(self._hook, self._prepare_action, self._consequence):
            with self._connection() as conn:
                self._refuse_memory(conn)
                with _merge_lock:
                    location = self._find_table(conn)
                    if location is None:
                        if not self._create:
                            raise self._target.absent_table_error()
                        self._create_table(conn)
                        location = self._find_table(conn)
                if location is None:
                    raise self._target.error("was created but cannot be found.")
                *names, is_view = location
                if is_view:
                    raise self._target.error("is a view.")
                table = self._describe_table(conn, names)
                matches = match_columns(self._target, table)
                self.limits = self._describe_limits(matches)
                plan = self._build_plan(self._dialect.quote_table(names), matches)
                conn.execute(plan.create_landing)
                try:
                    conn.execute(f"EXPLAIN {plan.merge}")
                except Exception as error:
                    if type(error).__name__ != "BinderException":
                        raise
                    # a problem that the catalogue does not show, such as a generated column
                    raise self._target.error(f"does not fit the rows of this job: {message_of(error)}") from None
        self._plan = plan
        return plan

    def _refuse_memory(self, conn: Any) -> None:
        query = (
            "SELECT path IS NULL AND type = 'duckdb' FROM duckdb_databases() WHERE database_name = current_database()"
        )
        if conn.execute(query).fetchone() == (True,):
            raise WarehouseConnectionError(
                f"Connection {self._target.conn_id!r} opens a DuckDB database in memory, which is lost when the task "
                f"ends. Set the connection's host to a file. {self._consequence}"
            )

    def _find_table(self, conn: Any) -> tuple[Any, ...] | None:
        """Return database, schema and table as they are spelled, and whether the table is a view."""
        database, schema, table = (None, None, *self._parts)[-3:]
        location: tuple[Any, ...] | None = conn.execute(
            self._catalogue.table, {"database": database, "schema": schema, "table": table}
        ).fetchone()
        return location

    def _create_table(self, conn: Any) -> None:
        try:
            conn.execute(self._target.create_statement())
        except Exception as error:
            if not self._dialect.errors.absent_schema.matches(self._dialect.driver, error):
                raise
            schema = self._dialect.quote_table(self._parts[:-1])
            raise self._target.error(f"needs the schema {schema}. Create it:\nCREATE SCHEMA {schema};") from None

    def _describe_table(self, conn: Any, names: list[str]) -> Table:
        columns = tuple(
            TableColumn(name, type_, not_null and no_default, not_null, duckdb_type(type_))
            for name, type_, not_null, no_default in conn.execute(self._catalogue.columns, names).fetchall()
        )
        keys = [tuple(key) for (key,) in conn.execute(self._catalogue.keys, names).fetchall()]
        names_by_spelling = {
            text: column.name for column in columns for text in (column.name, self._dialect.quote(column.name))
        }
        for (expressions,) in conn.execute(self._catalogue.indexes, names).fetchall():
            if all(expression in names_by_spelling for expression in expressions):
                keys.append(tuple(names_by_spelling[expression] for expression in expressions))
        return Table(columns, tuple(dict.fromkeys(keys)))

    def _build_plan(self, table: str, matches: Mapping[str, TableColumn]) -> _Plan:
        names = [self._dialect.quote(matches[column.name].name) for column in self._columns]
        landing_names = [f"c{index}" for index in range(len(names))]
        expressions = [
            _merge_expression(column, matches[column.name], name)
            for column, name in zip(self._columns, landing_names, strict=True)
        ]
        # cast first: keys are equal if they are equal in the table's own type
        key_values = ", ".join(
            f"CAST({value} AS {matches[column.name].type})"
            for column, value in zip(self._columns, expressions, strict=True)
            if column.key
        )
        outcome = naming.position(self._columns, "outcome")
        sealed_at = naming.position(self._columns, "sealed_at")
        ranks = precedence.order_by_rank(
            landing_names[outcome], landing_names[sealed_at], "n", keep_last_success=self._keep_last_success
        )
        # Sort only the narrow columns. The wide ones are read once, for the rows that are kept.
        ranked_rows = f"SELECT n, row_number() OVER (PARTITION BY {key_values} ORDER BY {ranks}) AS place"
        best_rows = f"SELECT n FROM ({ranked_rows} FROM {_LANDING}) WHERE place = 1"
        column_types = "".join(
            f", {name} {self._landing_type(column, matches[column.name])}"
            for name, column in zip(landing_names, self._columns, strict=True)
        )
        source = f"SELECT {', '.join(expressions)} FROM {_LANDING} WHERE"
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {_LANDING.rpartition('.')[2]} (n BIGINT{column_types})",
            merge=self._upsert(table, names, f"{source} n IN ({best_rows})"),
            keep_best=f"DELETE FROM {_LANDING} WHERE n NOT IN ({best_rows})",
            merge_range=lambda first, last: self._upsert(table, names, f"{source} n BETWEEN {first} AND {last}"),
            binders=tuple(self._binder(column, matches[column.name]) for column in self._columns),
            lineage_sql=insert_for_lineage(table, names),
        )

    def _landing_type(self, column: Column, table_column: TableColumn) -> str:
        is_text = column.type in _SENT_AS_TEXT or _travels_as_text(column, table_column)
        return "VARCHAR" if is_text else self._dialect.types[column.type]

    def _binder(self, column: Column, table_column: TableColumn) -> Binder:
        if column.type is ColumnType.JSON and _travels_as_text(column, table_column):
            return lambda value: value.text if isinstance(value, NativeValue) else values.json_text(value)
        return self._dialect.bind[column.type]


def _travels_as_text(column: Column, table_column: TableColumn) -> bool:
    return column.type in (ColumnType.TEXT, ColumnType.JSON) and has_native_type(DUCKDB, column, table_column)


class _LandingRows:
    """The rows of the temporary table. See `refusals.StagedRows`.

    DuckDB has no savepoints, so each range is a transaction of its own.
    """

    def __init__(self, conn: Any, driver: Driver, plan: _Plan) -> None:
        self._conn = conn
        self._driver = driver
        self._plan = plan

    def store(self, first: int, last: int, changes: Changes | None = None) -> Exception | None:
        """See `StagedRows`."""
        return self.run(self._plan.merge_range(first, last), first, changes)

    def run(self, merge: str, number: int = 0, changes: Changes | None = None) -> Exception | None:
        """Run a merge in a transaction, or return why the database refuses it."""
        self._conn.execute("BEGIN TRANSACTION")
        try:
            if changes:
                sets = ", ".join(f"c{index} = ?" for index in changes)
                self._conn.execute(f"UPDATE {_LANDING} SET {sets} WHERE n = {number}", list(changes.values()))
            self._conn.execute(merge)
            self._conn.execute("COMMIT")
        except Exception as error:
            with suppress(Exception):  # a commit that fails has ended the transaction
                self._conn.execute("ROLLBACK")
            if not self._driver.refuses_data(error):
                raise
            return error
        return None

    def read(self, number: int) -> Sequence[Any]:
        """See `StagedRows`."""
        row: Sequence[Any] = self._conn.execute(f"SELECT * EXCLUDE (n) FROM {_LANDING} WHERE n = {number}").fetchone()
        return row


def _merge_expression(column: Column, table_column: TableColumn, name: str) -> str:
    """Return the expression that passes a value from the landing table to the results table."""
    if _travels_as_text(column, table_column):
        return from_native_text(column.native_type, name)
    kind = table_column.stored.kind
    if column.type is ColumnType.JSON and kind is not Kind.TEXT:
        # read as plain text for a STRUCT, {"a": 1} would be DuckDB's own notation
        return f"CAST({name} AS JSON)"
    if column.type is ColumnType.FLOAT and kind is Kind.NUMERIC:
        # the shortest notation of the number; a cast of the number itself may differ in the last digit
        return f"CAST({name} AS VARCHAR)"
    return name
