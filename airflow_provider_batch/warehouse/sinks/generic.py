"""The sink for every other database that has a DB-API hook in Airflow.

It has not been run against the databases it is meant for (Snowflake, Redshift, Databricks, Trino, Oracle, SQL Server
and others; see `dialects.generic`). Its logic is tested on SQLite. It uses only what every DB-API driver has: SELECT,
UPDATE and INSERT with placeholders, in one transaction. That makes it correct but slow, with two limitations:

- It cannot see keys. Two concurrent landings may insert the same key twice, unless a primary key prevents it.
- A database without transactions keeps what was written before an error. Landing again repairs that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.generic import to_date, to_naive_utc
from airflow_provider_batch.warehouse.errors import NEXT_STEP, message_of, translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.precedence import Rank
from airflow_provider_batch.warehouse.refusals import Changes, changed_row
from airflow_provider_batch.warehouse.rows import IncomingRows, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, Target, match_columns

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: replaces `NOTHING_COMMITTED` for a database that cannot roll back
_SOME_COMMITTED = (
    "This database has no transactions, so rows written before the error stay in the table. Landing again repairs that."
)

Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Plan:
    insert: str
    update: str
    #: SELECT of the existing rows, without its WHERE
    existing: str
    #: names of the key columns
    key_names: tuple[str, ...]
    #: positions of the key columns, and of all other columns
    key: tuple[int, ...]
    other_positions: tuple[int, ...]
    #: the insert as lineage shows it
    lineage_sql: str


class GenericSink(TableSink[_Plan]):
    """A results table in any database. See `open.Sink`, and the limitations above.

    Timestamps are bound as `datetime` in UTC without a time zone, JSON and vectors as JSON text.
    """

    def __init__(
        self,
        hook: DbApiHook,
        table: str,
        columns: tuple[Column, ...],
        *,
        create: bool,
        keep_last_success: bool,
    ) -> None:
        super().__init__(hook, table, columns, create=create, keep_last_success=keep_last_success)
        self._outcome = naming.position(columns, "outcome")
        self._sealed_at = naming.position(columns, "sealed_at")
        upper_case = replace(self._target, sql=self._dialect.quote_table([part.upper() for part in self._parts]))
        # as written, or as created by a database that folds unquoted names to upper case
        self._targets = list({target.sql: target for target in (self._target, upper_case)}.values())
        self._creation_target = self._target
        if self._dialect.folds_to_upper:
            self._creation_target = replace(
                upper_case,
                columns=tuple(msgspec.structs.replace(column, name=column.name.upper()) for column in columns),
            )

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._make_plan()
        incoming = IncomingRows(rows, self._columns, [self._dialect.bind[column.type] for column in self._columns])
        consequence = self._consequence if self._dialect.transactions else f"{_SOME_COMMITTED} {NEXT_STEP}"
        refused_rows = self._refused_rows(consequence, hide_quoted=True)
        with translate_errors(self._hook, self._write_action, consequence, incoming=incoming, hide_quoted=True):
            with self._dialect.driver.transaction(self._hook, consequence) as cursor:
                has_savepoints = self._test_savepoints(cursor)
                for chunk in chunks(incoming):
                    if has_savepoints:
                        refused_rows.store(
                            _ChunkRows(cursor, self._dialect, chunk, partial(self._write_chunk, cursor, plan)), chunk
                        )
                    else:
                        self._write_chunk(cursor, plan, chunk)
                self.refusals = refused_rows.check(incoming.count)
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

    def _test_savepoints(self, cursor: Any) -> bool:
        """Return whether refused rows can be isolated. Nothing is written yet, so a refused savepoint does no harm."""
        if not self._dialect.savepoint:
            return False
        try:
            cursor.execute(self._dialect.savepoint)
        except Exception:  # noqa: BLE001 - every driver has its own exception for an unknown statement
            with suppress(Exception):
                cursor.connection.rollback()
            return False
        return True

    def _write_chunk(self, cursor: Any, plan: _Plan, chunk: list[list[Any]]) -> None:
        best: dict[Key, tuple[Rank, list[Any]]] = {}
        for row in chunk:
            key = self._key_of([row[index] for index in plan.key])
            rank = self._rank_of(row[self._outcome], row[self._sealed_at])
            if key not in best or precedence.outranks(rank, best[key][0]):
                best[key] = (rank, row)
        keys = sorted(best)
        existing: dict[Key, Rank] = {}
        keys_per_query = max(1, self._dialect.limits.parameters // len(plan.key))
        for start in range(0, len(keys), keys_per_query):
            best_rows = [best[key][1] for key in keys[start : start + keys_per_query]]
            marks = iter(self._dialect.placeholders(len(best_rows) * len(plan.key)))
            conditions = [" AND ".join(f"{name} = {next(marks)}" for name in plan.key_names) for _ in best_rows]
            cursor.execute(
                f"{plan.existing} WHERE {' OR '.join(f'({condition})' for condition in conditions)}",
                tuple(row[index] for row in best_rows for index in plan.key),
            )
            for record in cursor.fetchall():
                row_values = [
                    values.read_lob(value) for value in (record.values() if isinstance(record, Mapping) else record)
                ]
                existing[self._key_of(row_values[:-2])] = self._rank_of(*row_values[-2:])
        inserts = [best[key][1] for key in keys if key not in existing]
        updates = [
            [best[key][1][index] for index in (*plan.other_positions, *plan.key)]
            for key in keys
            if key in existing and precedence.outranks(best[key][0], existing[key])
        ]
        if inserts:
            cursor.executemany(plan.insert, [tuple(row) for row in inserts])
        if updates:
            cursor.executemany(plan.update, [tuple(row) for row in updates])

    def _key_of(self, key_values: Sequence[Any]) -> Key:
        types = [column.type for column in self._columns if column.key]
        return tuple(_COMPARABLE[type_](value) for type_, value in zip(types, key_values, strict=True))

    def _rank_of(self, outcome: str | None, sealed_at: Any) -> Rank:
        sealed_at = None if sealed_at is None else to_naive_utc(sealed_at).replace(tzinfo=UTC)
        return precedence.rank(outcome, sealed_at, keep_last_success=self._keep_last_success)

    def _make_plan(self) -> _Plan:
        if not self._dialect.writable:
            raise self._targets[0].error(
                "cannot be written row by row: this hook runs a job for each row and cannot bind values. On "
                "BatchResultsOperator, replace table by results_file, and load that file into the table."
            )
        with translate_errors(self._hook, self._prepare_action, self._consequence):
            location = self._find_table()
            if isinstance(location, str):
                if not self._create:
                    raise self._targets[0].error(
                        f"cannot be read ({location}), and create_table is False. If it does not exist, create "
                        f"it:\n{self._creation_target.create_statement()};"
                    )
                with self._dialect.driver.transaction(self._hook, self._consequence) as cursor:
                    cursor.execute(self._creation_target.create_statement())
                location = self._find_table()
            if isinstance(location, str):
                raise self._targets[0].error(f"was created but cannot be read: {location}")
        target, names = location
        key = [column.name for column in self._columns if column.key]
        key_spellings = [spelling for name in key for spelling in naming.spellings(name, names)]
        # no query for a table's key works in every database, so we assume that the key is ours
        table = Table(tuple(TableColumn(name, "") for name in names), (tuple(key_spellings),))
        self._plan = self._build_plan(target, match_columns(target, table))
        return self._plan

    def _find_table(self) -> tuple[Target, list[str]] | str:
        """Return the table and its column names, or the database's message if it cannot be read."""
        message = ""
        for target in self._targets:
            with self._dialect.driver.connection(self._hook, self._consequence) as conn:
                cursor = self._dialect.driver.begin_writing(self._hook, conn)
                try:
                    cursor.execute(self._dialect.probe(target.sql))
                except Exception as error:  # noqa: BLE001 - every driver has its own exception for "no such table"
                    message = message or message_of(error)
                else:
                    return target, [column[0] for column in cursor.description]
        return message

    def _build_plan(self, target: Target, matches: Mapping[str, TableColumn]) -> _Plan:
        escape = self._dialect.escape
        names, table = [escape(target.quote(matches[column.name].name)) for column in self._columns], escape(target.sql)
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        other_positions = tuple(index for index, column in enumerate(self._columns) if not column.key)
        result_columns = [names[index] for index in (*key, self._outcome, self._sealed_at)]
        key_names = tuple(names[index] for index in key)
        marks = self._dialect.placeholders(len(names))
        sets = ", ".join(f"{names[index]} = {mark}" for index, mark in zip(other_positions, marks, strict=False))
        key_condition = " AND ".join(
            f"{name} = {mark}" for name, mark in zip(key_names, marks[len(other_positions) :], strict=True)
        )
        return _Plan(
            insert=f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(marks)})",
            update=f"UPDATE {table} SET {sets} WHERE {key_condition}",
            existing=f"SELECT {', '.join(result_columns)} FROM {table}",
            key_names=key_names,
            key=key,
            other_positions=other_positions,
            lineage_sql=insert_for_lineage(
                target.sql, [target.quote(matches[column.name].name) for column in self._columns]
            ),
        )


class _ChunkRows:
    """The rows of one chunk, stored under a savepoint. See `refusals.StagedRows`."""

    def __init__(
        self, cursor: Any, dialect: Dialect, chunk: list[list[Any]], write: Callable[[list[list[Any]]], None]
    ) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._chunk = chunk
        self._write = write

    def store(self, first: int, last: int, changes: Changes | None = None) -> Exception | None:
        """See `StagedRows`."""
        rows = self._chunk[first - 1 : last]
        if changes:
            rows = [changed_row(rows[0], changes)]
        self._cursor.execute(self._dialect.savepoint)
        try:
            self._write(rows)
        except Exception as error:
            if not self._dialect.driver.refuses_data(error):
                raise
            self._cursor.execute(self._dialect.rollback_to_savepoint)
            return error
        return None

    def read(self, number: int) -> Sequence[Any]:
        """See `StagedRows`."""
        return self._chunk[number - 1]


#: converts key values to one form, whether they come from us or from the driver
_COMPARABLE: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: str,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: values.decimal,
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: to_date,
    ColumnType.TIMESTAMP: to_naive_utc,
    ColumnType.LOCAL_TIMESTAMP: to_naive_utc,
    ColumnType.TIME: str,
    ColumnType.INTERVAL: str,
    ColumnType.UUID: str,
}
