"""The sink for every other database that Airflow has a DB-API hook for.

It was not run against the databases it is meant for (Snowflake, Redshift, Databricks, Trino, Oracle, SQL Server and so
on; see `dialects.generic`); its logic is tested on SQLite. It only uses what every DB-API driver has: SELECT, UPDATE
and INSERT with placeholders, in one transaction. So it is right but slow, and it cannot do two things:

- It cannot see keys. Two landings at the same time may insert the same key twice if no primary key forbids it.
- A database without transactions keeps what was written before an error. Landing again repairs that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.dialects.generic import day, moment
from airflow_provider_batch.warehouse.errors import THEN, database_errors, message_of
from airflow_provider_batch.warehouse.precedence import Rank
from airflow_provider_batch.warehouse.rows import Incoming, chunks
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, Target, fit

#: said when a landing failed where nothing can be rolled back
_SOME_COMMITTED = (
    "this database has no transactions, so rows that were written before stay, and landing again mends them"
)

Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Plan:
    insert: str
    update: str
    #: the SELECT of the rows that are there, without its WHERE
    existing: str
    #: the names of the key columns
    key_names: tuple[str, ...]
    #: positions of the key columns and of the others
    key: tuple[int, ...]
    others: tuple[int, ...]


class GenericSink(TableSink[_Plan]):
    """A results table in any database. See `open.Sink`, and the limits above.

    Moments are bound as `datetime` in UTC without a time zone, JSON and vectors as JSON text.
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
        upper = replace(self._target, sql=self._dialect.quote_table([part.upper() for part in self._parts]))
        # As written, or as a database would have created it that folds unquoted names to upper case.
        self._targets = list({target.sql: target for target in (self._target, upper)}.values())
        self._created = self._target
        if self._dialect.upper:
            self._created = replace(
                upper, columns=tuple(msgspec.structs.replace(column, name=column.name.upper()) for column in columns)
            )

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        incoming = Incoming(rows, self._columns, [self._dialect.bind[column.type] for column in self._columns])
        kept = self._kept if self._dialect.transactions else f"{_SOME_COMMITTED}. {THEN}"
        with database_errors(self._hook, self._landing, kept, incoming=incoming, hide_quoted=True):
            with self._dialect.driver.transaction(self._hook, kept) as cursor:
                for chunk in chunks(incoming):
                    self._write_chunk(cursor, plan, chunk)
        send_sql_hook_lineage(context=self._hook, sql=plan.insert, row_count=incoming.count)
        return incoming.count

    def _write_chunk(self, cursor: Any, plan: _Plan, chunk: list[list[Any]]) -> None:
        best: dict[Key, tuple[Rank, list[Any]]] = {}
        for row in chunk:
            key = self._key_of([row[index] for index in plan.key])
            rank = self._rank_of(row[self._outcome], row[self._sealed_at])
            if key not in best or precedence.outranks(rank, best[key][0]):
                best[key] = (rank, row)
        keys = sorted(best)
        existing: dict[Key, Rank] = {}
        at_once = max(1, self._dialect.limits.parameters // len(plan.key))
        for start in range(0, len(keys), at_once):
            asked = [best[key][1] for key in keys[start : start + at_once]]
            marks = iter(self._dialect.placeholders(len(asked) * len(plan.key)))
            wanted = [" AND ".join(f"{name} = {next(marks)}" for name in plan.key_names) for _ in asked]
            cursor.execute(
                f"{plan.existing} WHERE {' OR '.join(f'({one})' for one in wanted)}",
                tuple(row[index] for row in asked for index in plan.key),
            )
            for found in cursor.fetchall():
                there = [values.whole(v) for v in (found.values() if isinstance(found, Mapping) else found)]
                existing[self._key_of(there[:-2])] = self._rank_of(*there[-2:])
        inserts = [best[key][1] for key in keys if key not in existing]
        updates = [
            [best[key][1][index] for index in (*plan.others, *plan.key)]
            for key in keys
            if key in existing and precedence.outranks(best[key][0], existing[key])
        ]
        if inserts:
            cursor.executemany(plan.insert, [tuple(row) for row in inserts])
        if updates:
            cursor.executemany(plan.update, [tuple(row) for row in updates])

    def _key_of(self, given: Sequence[Any]) -> Key:
        types = [column.type for column in self._columns if column.key]
        return tuple(_COMPARABLE[type_](value) for type_, value in zip(types, given, strict=True))

    def _rank_of(self, outcome: str | None, sealed_at: Any) -> Rank:
        sealed = None if sealed_at is None else moment(sealed_at).replace(tzinfo=UTC)
        return precedence.rank(outcome, sealed, keep_last_success=self._keep_last_success)

    def _prepared(self) -> _Plan:
        if not self._dialect.writable:
            raise self._targets[0].refuse(
                "cannot be landed in row by row: this hook runs a job for each row and binds no values. Give "
                "BatchResultsOperator landed_file=True and no table, and load the file that it leaves in staging."
            )
        with database_errors(self._hook, self._preparing, self._kept):
            found = self._find()
            if isinstance(found, str):
                if not self._create:
                    raise self._targets[0].refuse(
                        f"cannot be read ({found}), and it is not to be created here. If it is not there, create "
                        f"it:\n{self._created.create_statement()};"
                    )
                with self._dialect.driver.transaction(self._hook, self._kept) as cursor:
                    cursor.execute(self._created.create_statement())
                found = self._find()
            if isinstance(found, str):
                raise self._targets[0].refuse(f"was created but cannot be read: {found}")
        target, names = found
        key = [column.name for column in self._columns if column.key]
        spelled = [there for name in key for there in naming.spellings(name, names)]
        # The key is ours by assumption: there is no way to ask for it that every database has.
        table = Table(tuple(TableColumn(name, "") for name in names), (tuple(spelled),))
        self._plan = self._planned(target, fit(target, table))
        return self._plan

    def _find(self) -> tuple[Target, list[str]] | str:
        """The table and its columns, or what the database said instead."""
        said = ""
        for target in self._targets:
            with self._dialect.driver.connection(self._hook, self._kept) as conn:
                cursor = self._dialect.driver.begin_writing(self._hook, conn)
                try:
                    cursor.execute(self._dialect.probe(target.sql))
                except Exception as error:  # noqa: BLE001 - every driver has its own for "no such table"
                    said = said or message_of(error)
                else:
                    return target, [column[0] for column in cursor.description]
        return said

    def _planned(self, target: Target, found: Mapping[str, TableColumn]) -> _Plan:
        escaped = self._dialect.escaped
        names, table = [escaped(target.quote(found[column.name].name)) for column in self._columns], escaped(target.sql)
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        others = tuple(index for index, column in enumerate(self._columns) if not column.key)
        asked = [names[index] for index in (*key, self._outcome, self._sealed_at)]
        key_names = tuple(names[index] for index in key)
        marks = self._dialect.placeholders(len(names))
        sets = ", ".join(f"{names[index]} = {mark}" for index, mark in zip(others, marks, strict=False))
        one_key = " AND ".join(f"{name} = {mark}" for name, mark in zip(key_names, marks[len(others) :], strict=True))
        return _Plan(
            insert=self._plain_insert(table, names),
            update=f"UPDATE {table} SET {sets} WHERE {one_key}",
            existing=f"SELECT {', '.join(asked)} FROM {table}",
            key_names=key_names,
            key=key,
            others=others,
        )


#: key values in one form, whether they come from us or from the driver
_COMPARABLE: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: str,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: values.decimal,
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: day,
    ColumnType.TIMESTAMP: moment,
}
