"""The sink for SQLite.

One `write` is one `BEGIN IMMEDIATE` transaction of `INSERT ... ON CONFLICT DO UPDATE` in chunks. `REPLACE INTO`,
which Airflow's hook would use, deletes the row first and with it the columns that are not ours.

SQLite gives a column an affinity, not a type. Text goes only to columns that keep it as it is: a column declared
NUMERIC or STRING would turn the key '007' into the number 7.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from operator import itemgetter
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, THEN, database_errors
from airflow_provider_batch.warehouse.rows import Incoming, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, fit

TYPES = {
    ColumnType.TEXT: "TEXT",
    ColumnType.INTEGER: "INTEGER",
    ColumnType.FLOAT: "REAL",
    # No type at all: every other affinity would round a number of more than 15 digits, or make all of them text.
    ColumnType.NUMERIC: "",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.DATE: "TEXT",
    ColumnType.TIMESTAMP: "TEXT",
    ColumnType.JSON: "TEXT",
    ColumnType.BYTES: "BLOB",
    ColumnType.VECTOR: "TEXT",
}

#: how long a landing waits for others that hold the file's write lock, before it fails and can be run again
BUSY_SECONDS = 120


@dataclass(frozen=True)
class _Plan:
    upsert: str
    #: the positions of the key columns
    key: tuple[int, ...]


class SqliteSink(TableSink[_Plan]):
    """A results table in SQLite. See `write.Sink`.

    Dates, moments (ISO 8601 in UTC) and JSON are stored as text, booleans as 0 and 1, decimals as numbers where
    SQLite's can hold them exactly and as text otherwise.
    """

    database = "SQLite"
    name_parts = ("database", "table")
    types = TYPES

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        binders = [BINDERS[column.type] for column in self._columns]
        incoming = Incoming(rows, self._columns, binders, plain=str.isascii)
        doing = f"Landing in the table {self._target.name!r}"
        with database_errors(self._hook, doing, f"{NOTHING_COMMITTED}. {THEN}", incoming=incoming):
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
        conn.isolation_level = None  # transactions begin where this module says so
        conn.row_factory = None
        conn.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        return conn

    def _prepared(self) -> _Plan:
        doing = f"Preparing the results table {self._target.name!r}"
        with database_errors(self._hook, doing, f"{NOTHING_COMMITTED}. {THEN}"):
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
        within = "".join(f"{naming.quote(part)}." for part in self._parts[:-1])
        name = naming.quote(self._parts[-1])
        rows = conn.execute(f"PRAGMA {within}table_xinfo({name})").fetchall()
        if not rows:
            return None
        kinds = conn.execute(
            f"SELECT type FROM {within}sqlite_master WHERE lower(name) = lower(?) AND type IN ('table', 'view')",
            (self._parts[-1],),
        ).fetchall()
        if kinds == [("view",)]:
            raise self._target.refuse("is a view")
        columns = tuple(
            # An INTEGER PRIMARY KEY fills itself, and such a column alone is not declared NOT NULL.
            TableColumn(column, declared, required=bool(not_null) and default is None and not hidden)
            for _, column, declared, not_null, default, _, hidden in rows
        )
        primary = [(place, column) for _, column, _, _, _, place, _ in rows if place]
        keys = [tuple(column for _, column in sorted(primary))] if primary else []
        for _, index, unique, _, partial in conn.execute(f"PRAGMA {within}index_list({name})").fetchall():
            if unique and not partial:
                parts = conn.execute(f"PRAGMA {within}index_info({naming.quote(index)})").fetchall()
                if all(column is not None for _, _, column in parts):  # None: an expression
                    keys.append(tuple(column for _, _, column in parts))
        return Table(columns, tuple(dict.fromkeys(keys)))

    def _planned(self, found: Mapping[str, TableColumn]) -> _Plan:
        names = [naming.quote(found[column.name].name) for column in self._columns]
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        sets = ", ".join(f"{name} = excluded.{name}" for index, name in enumerate(names) if index not in key)
        replaces = precedence.replaces(
            "excluded",
            "e",
            names[naming.position(self._columns, "outcome")],
            names[naming.position(self._columns, "sealed_at")],
            keep_last_success=self._keep_last_success,
        )
        upsert = (
            f"INSERT INTO {self._target.sql} AS e ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
            f"ON CONFLICT ({', '.join(names[index] for index in key)}) DO UPDATE SET {sets} WHERE {replaces}"
        )
        return _Plan(upsert, key)


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


def _text(value: str) -> str:
    return values.mend(_is(str, value))


def _numeric(value: Decimal) -> int | float | str:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if not number.is_finite():
        return str(number)
    if number == int(number) and abs(number) < 1 << 63:
        return int(number)
    return float(number) if Decimal(repr(float(number))) == number else str(number)


def _is(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(kind)
    return value


#: our values as SQLite takes them
BINDERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: lambda value: int(_is(int, value)),
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: _numeric,
    ColumnType.BOOLEAN: lambda value: int(_is(bool, value)),
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.iso,
    ColumnType.JSON: values.json_text,
    ColumnType.BYTES: lambda value: bytes(memoryview(value)),
    ColumnType.VECTOR: values.json_text,
}
