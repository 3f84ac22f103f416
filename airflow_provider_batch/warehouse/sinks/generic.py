"""The sink for every other database that Airflow has a DB-API hook for.

It has not been run against the warehouses it is meant for (Snowflake, Redshift, Databricks, Trino, Oracle, SQL Server
and so on; see `others`); its logic is tested on SQLite. It uses only what every DB-API driver has: SELECT, UPDATE and
INSERT with placeholders, in one transaction. So it is right but slow, and two things are beyond it:

- it cannot see keys, so two landings at once may insert the same key twice where no primary key forbids it;
- a warehouse without transactions keeps what was written before an error. Landing again mends that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.connect import open_connection
from airflow_provider_batch.warehouse.dialect import dialect_of
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, THEN, database_errors, message_of
from airflow_provider_batch.warehouse.precedence import Rank
from airflow_provider_batch.warehouse.rows import Incoming, chunks
from airflow_provider_batch.warehouse.table import Table, TableColumn, Target, fit

#: parameters of one SELECT of keys that are there; Databricks takes no more than 255, others about a thousand
_PARAMETERS_AT_ONCE = 200

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


class GenericSink:
    """A results table in any database. See `write.Sink`, and the limits above.

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
        self._hook = hook
        self._columns = columns
        self._create = create
        self._keep_last_success = keep_last_success
        self._plan: _Plan | None = None
        self._outcome = naming.position(columns, "outcome")
        self._sealed_at = naming.position(columns, "sealed_at")
        self._dialect = dialect = dialect_of(hook)
        self._kept = f"{NOTHING_COMMITTED if dialect.transactions else _SOME_COMMITTED}. {THEN}"
        parts = naming.split_table(table)
        target = Target(
            conn_id=hook.get_conn_id(),
            name=table,
            sql=naming.quote_table(parts, dialect.marks),
            columns=columns,
            type_of=self._type_of,
            marks=dialect.marks,
            declares_key=dialect.declares_key,
        )
        upper = replace(target, sql=naming.quote_table([part.upper() for part in parts], dialect.marks))
        # As written, or as a database would have created it that folds unquoted names to upper case.
        self._targets = list({target.sql: target, upper.sql: upper}.values())
        self._created = target
        if dialect.upper:
            self._created = replace(
                upper, columns=tuple(msgspec.structs.replace(column, name=column.name.upper()) for column in columns)
            )

    def _type_of(self, column: Column) -> str:
        # Oracle compares no CLOB, and by these two answers are looked for later.
        compared = column.key or column.name.lower() in ("outcome", "request_sha256")
        short = compared and column.type is ColumnType.TEXT
        return self._dialect.key_text if short else self._dialect.types[column.type]

    def prepare(self) -> None:
        """Make sure that rows can be landed."""
        self._prepared()

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        binders = dict(_BINDERS)
        if not self._dialect.booleans:
            binders[ColumnType.BOOLEAN] = int
        incoming = Incoming(rows, self._columns, [binders[column.type] for column in self._columns])
        doing = f"Landing in the table {self._targets[0].name!r}"
        with database_errors(self._hook, doing, self._kept, incoming=incoming, hide_quoted=True):
            with closing(self._connect()) as conn, closing(conn.cursor()) as cursor:
                try:
                    for chunk in chunks(incoming):
                        self._write_chunk(cursor, plan, chunk)
                    conn.commit()
                except BaseException:
                    # A driver without transactions raises here, which would hide what happened.
                    with suppress(Exception):
                        conn.rollback()
                    raise
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
        at_once = max(1, _PARAMETERS_AT_ONCE // len(plan.key))
        for start in range(0, len(keys), at_once):
            asked = [best[key][1] for key in keys[start : start + at_once]]
            marks = iter(self._marks(len(asked) * len(plan.key)))
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
        moment = None if sealed_at is None else _moment(sealed_at).replace(tzinfo=UTC)
        return precedence.rank(outcome, moment, keep_last_success=self._keep_last_success)

    def _connect(self) -> Any:
        conn = open_connection(self._hook)
        if self._hook.supports_autocommit:
            self._hook.set_autocommit(conn, False)
        return conn

    def _prepared(self) -> _Plan:
        doing = f"Preparing the results table {self._targets[0].name!r}"
        if not self._dialect.writable:
            raise self._targets[0].refuse(
                "cannot be landed in row by row: this hook runs a job for each row and binds no values. Give "
                "BatchResultsOperator landed_file=True and no table, and load the file that it leaves in staging."
            )
        with database_errors(self._hook, doing, f"{NOTHING_COMMITTED}. {THEN}"):
            found = self._find()
            if isinstance(found, str):
                if not self._create:
                    raise self._targets[0].refuse(
                        f"cannot be read ({found}), and it is not to be created here. If it is not there, create "
                        f"it:\n{self._created.create_statement()};"
                    )
                with closing(self._connect()) as conn, closing(conn.cursor()) as cursor:
                    cursor.execute(self._created.create_statement())
                    conn.commit()
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
            with closing(self._connect()) as conn, closing(conn.cursor()) as cursor:
                try:
                    cursor.execute(f"SELECT * FROM {target.sql} WHERE 1 = 0")
                except Exception as error:  # noqa: BLE001 - every driver has its own for "no such table"
                    said = said or message_of(error)
                else:
                    return target, [column[0] for column in cursor.description]
        return said

    def _planned(self, target: Target, found: Mapping[str, TableColumn]) -> _Plan:
        names = [target.quote(found[column.name].name) for column in self._columns]
        table = target.sql
        if self._dialect.placeholder == "%s":  # where a plain % in a name is to be doubled
            names, table = [name.replace("%", "%%") for name in names], table.replace("%", "%%")
        key = tuple(index for index, column in enumerate(self._columns) if column.key)
        others = tuple(index for index, column in enumerate(self._columns) if not column.key)
        asked = [names[index] for index in (*key, self._outcome, self._sealed_at)]
        key_names = tuple(names[index] for index in key)
        marks = self._marks(len(names))
        sets = ", ".join(f"{names[index]} = {mark}" for index, mark in zip(others, marks, strict=False))
        one_key = " AND ".join(f"{name} = {mark}" for name, mark in zip(key_names, marks[len(others) :], strict=True))
        return _Plan(
            insert=f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(marks)})",
            update=f"UPDATE {table} SET {sets} WHERE {one_key}",
            existing=f"SELECT {', '.join(asked)} FROM {table}",
            key_names=key_names,
            key=key,
            others=others,
        )

    def _marks(self, count: int) -> list[str]:
        """So many placeholders."""
        mark = self._dialect.placeholder
        return [f":{number}" for number in range(1, count + 1)] if mark == ":" else [mark] * count


def _moment(value: Any) -> datetime:
    """A moment in UTC without its time zone, from whatever a driver gives for one."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return values.utc(moment).replace(tzinfo=None)


def _day(value: Any) -> date:
    return value if type(value) is date else date.fromisoformat(str(value)[:10])


def _text(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(str)
    return values.mend(value)


_BINDERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: _day,
    ColumnType.TIMESTAMP: _moment,
    ColumnType.JSON: values.json_text,
    ColumnType.BYTES: lambda value: bytes(memoryview(value)),
    ColumnType.VECTOR: values.json_text,
}

#: key values in one form, whether they come from us or from the driver
_COMPARABLE: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: str,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: _day,
    ColumnType.TIMESTAMP: _moment,
}
