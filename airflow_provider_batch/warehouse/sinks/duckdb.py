"""The sink for DuckDB.

One `write` appends all rows to a temporary table and then, in one transaction, runs one
`INSERT ... SELECT ... ON CONFLICT DO UPDATE`. The SELECT keeps the row of the highest rank per key (see
`precedence`): DuckDB itself would take any of several rows with one key, and say nothing. What lands waits in
DuckDB's own storage, which goes to disk past its memory limit, not in Python's memory.

The temporary table takes numbers with all their digits, JSON and vectors as text; the SELECT casts them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import WarehouseConnectionError
from airflow_provider_batch.warehouse import naming, precedence
from airflow_provider_batch.warehouse.errors import database_errors, message_of
from airflow_provider_batch.warehouse.rows import Incoming, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, fit

#: types that travel through the temporary table as text
_AS_TEXT = (ColumnType.NUMERIC, ColumnType.JSON, ColumnType.VECTOR)

_TEXTS = ("VARCHAR", "ENUM")
_NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)
_MOMENTS = ("DATE", "TIMESTAMP")

#: how the types begin that a column of ours may go to. DuckDB casts whatever it can while it inserts, so that
#: what does not fit would show only at the row that fails.
_ALLOWED = {
    ColumnType.TEXT: _TEXTS,
    ColumnType.INTEGER: (*_NUMBERS, "VARCHAR"),
    ColumnType.FLOAT: (*_NUMBERS, "VARCHAR"),
    ColumnType.NUMERIC: (*_NUMBERS, "VARCHAR"),
    ColumnType.BOOLEAN: ("BOOLEAN", "VARCHAR"),
    ColumnType.DATE: (*_MOMENTS, "VARCHAR"),
    ColumnType.TIMESTAMP: (*_MOMENTS, "VARCHAR"),
    ColumnType.JSON: ("JSON", "VARCHAR", "STRUCT", "MAP", "VARIANT"),
    ColumnType.BYTES: ("BLOB",),
    ColumnType.VECTOR: ("JSON", "VARCHAR"),  # and lists and arrays
}

_LANDING = "temp.main.batch_landing"

#: Landings in threads of one process share the database; of two that change a row at once DuckDB would fail one.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as it was found."""

    create_landing: str
    merge: str
    #: the merge as lineage shows it: without the temporary table
    shown: str


class DuckdbSink(TableSink[_Plan]):
    """A results table in DuckDB 2.0 or newer. See `open.Sink`.

    The table is `table`, `schema.table` or `database.schema.table`. Decimals are created as DECIMAL(38,12): digits
    past the twelfth after the point are rounded, and 26 fit before it.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        incoming = Incoming(rows, self._columns, [self._dialect.bind[column.type] for column in self._columns])
        with database_errors(self._hook, self._landing, self._kept, incoming=incoming):
            with self._connection() as conn:
                conn.execute(plan.create_landing)
                appender = conn.appender(_LANDING)
                number = 0
                for chunk in chunks(incoming):
                    appender.append_rows([(number + place, *row) for place, row in enumerate(chunk)])
                    appender.flush()
                    number += len(chunk)
                with _one_at_a_time:
                    conn.execute("BEGIN TRANSACTION")
                    conn.execute(plan.merge)
                    conn.execute("COMMIT")
        send_sql_hook_lineage(context=self._hook, sql=plan.shown, row_count=incoming.count)
        return incoming.count

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with self._dialect.driver.connection(self._hook, self._kept) as conn:
            if not hasattr(conn, "appender"):
                raise WarehouseConnectionError(
                    f"Landing in DuckDB needs the package duckdb in version 2.0 or newer, and the one that is "
                    f"installed is older: pip install 'airflow-provider-batch[duckdb]'. {self._kept}"
                )
            # Casts from moments to dates and to timestamps without a zone go by the session's time zone.
            conn.execute("SET TimeZone = 'UTC'")
            yield conn

    def _prepared(self) -> _Plan:
        with database_errors(self._hook, self._preparing, self._kept):
            with self._connection() as conn:
                self._refuse_memory(conn)
                with _one_at_a_time:
                    found = self._find(conn)
                    if found is None:
                        if not self._create:
                            raise self._target.absent()
                        self._create_table(conn)
                        found = self._find(conn)
                if found is None:
                    raise self._target.refuse("was created but cannot be found again")
                *names, is_view = found
                if is_view:
                    raise self._target.refuse("is a view")
                table = self._describe(conn, names)
                plan = self._planned(self._dialect.quote_table(names), fit(self._target, table, refused=_refused))
                conn.execute(plan.create_landing)
                try:
                    conn.execute(f"EXPLAIN {plan.merge}")
                except Exception as error:
                    if type(error).__name__ != "BinderException":
                        raise
                    # What the probe did not find, such as a generated column.
                    raise self._target.refuse(f"does not fit: {message_of(error)}") from None
        self._plan = plan
        return plan

    def _refuse_memory(self, conn: Any) -> None:
        here = (
            "SELECT path IS NULL AND type = 'duckdb' FROM duckdb_databases() WHERE database_name = current_database()"
        )
        if conn.execute(here).fetchone() == (True,):
            raise WarehouseConnectionError(
                f"Connection {self._target.conn_id!r} opens a DuckDB database in memory, which is gone with the task: "
                f"name a file as its host. {self._kept}"
            )

    def _find(self, conn: Any) -> tuple[Any, ...] | None:
        """Database, schema and table as they are spelled, and whether it is a view."""
        database, schema, table = (None, None, *self._parts)[-3:]
        found: tuple[Any, ...] | None = conn.execute(
            self._catalogue.table, {"database": database, "schema": schema, "table": table}
        ).fetchone()
        return found

    def _create_table(self, conn: Any) -> None:
        try:
            conn.execute(self._target.create_statement())
        except Exception as error:
            if not self._dialect.errors.absent_schema.matches(self._dialect.driver, error):
                raise
            schema = self._dialect.quote_table(self._parts[:-1])
            raise self._target.refuse(f"needs the schema {schema}:\nCREATE SCHEMA {schema};") from None

    def _describe(self, conn: Any, names: list[str]) -> Table:
        columns = tuple(TableColumn(*row) for row in conn.execute(self._catalogue.columns, names).fetchall())
        keys = [tuple(key) for (key,) in conn.execute(self._catalogue.keys, names).fetchall()]
        spelled = {text: column.name for column in columns for text in (column.name, self._dialect.quote(column.name))}
        for (expressions,) in conn.execute(self._catalogue.indexes, names).fetchall():
            if all(expression in spelled for expression in expressions):
                keys.append(tuple(spelled[expression] for expression in expressions))
        return Table(columns, tuple(dict.fromkeys(keys)))

    def _planned(self, table: str, found: Mapping[str, TableColumn]) -> _Plan:
        names = [self._dialect.quote(found[column.name].name) for column in self._columns]
        landed = [f"c{index}" for index in range(len(names))]
        given = [_given(column, found[column.name], name) for column, name in zip(self._columns, landed, strict=True)]
        # Equal keys are those that are equal in the table.
        key_values = ", ".join(
            f"CAST({value} AS {found[column.name].type})"
            for column, value in zip(self._columns, given, strict=True)
            if column.key
        )
        outcome = naming.position(self._columns, "outcome")
        sealed_at = naming.position(self._columns, "sealed_at")
        ranks = precedence.best_first(
            landed[outcome], landed[sealed_at], "n", keep_last_success=self._keep_last_success
        )
        # Only the narrow columns are sorted; the wide ones are read once, for the rows that stay.
        ranked = f"SELECT n, row_number() OVER (PARTITION BY {key_values} ORDER BY {ranks}) AS place"
        best = f"SELECT n FROM ({ranked} FROM {_LANDING}) WHERE place = 1"
        typed = "".join(
            f", {name} {self._landing_type(column)}" for name, column in zip(landed, self._columns, strict=True)
        )
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {_LANDING.rpartition('.')[2]} (n BIGINT{typed})",
            merge=self._upsert(table, names, f"SELECT {', '.join(given)} FROM {_LANDING} WHERE n IN ({best})"),
            shown=self._plain_insert(table, names),
        )

    def _landing_type(self, column: Column) -> str:
        return "VARCHAR" if column.type in _AS_TEXT else self._dialect.types[column.type]


def _given(column: Column, there: TableColumn, name: str) -> str:
    """The expression that gives a landed value on."""
    # Read as text, {"a": 1} for a STRUCT would be DuckDB's own notation.
    return f"CAST({name} AS JSON)" if column.type is ColumnType.JSON and there.type != "VARCHAR" else name


def _refused(column: Column, there: TableColumn) -> bool:
    if column.name == "sealed_at":
        return not there.type.startswith(_MOMENTS) or there.type.endswith("]")
    if there.type.endswith("]"):
        return column.type not in (ColumnType.VECTOR, ColumnType.JSON)
    return not there.type.startswith(_ALLOWED[column.type])
