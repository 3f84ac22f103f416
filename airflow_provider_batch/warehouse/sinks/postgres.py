"""The sink for PostgreSQL, with psycopg or psycopg2.

One `write` is one transaction: COPY into a temporary table, then a single `INSERT ... SELECT ... ON CONFLICT`. The
SELECT keeps the row with the highest rank per key (see `precedence`). It sorts by key, so that concurrent landings take
their row locks in the same order and cannot deadlock. Memory stays flat: only one block of encoded rows is held.

Into a table that is empty, the rows are copied directly, block after block. If the database refuses a block, because of
its data or because a key is already there, this block and all after it go through the temporary table.

If the database refuses that statement because of the data, the rows are stored in ranges, each under a savepoint (see
`refusals`). The rows are not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.drivers import psycopg as psycopg_driver
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.refusals import TemporaryRows
from airflow_provider_batch.warehouse.rows import IncomingRows
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.postgres_fields import is_plain, landing_field
from airflow_provider_batch.warehouse.stored_types import postgres_type
from airflow_provider_batch.warehouse.table import Problem, Table, TableColumn, match_columns

#: what is found under a name that is not a table, by pg_class.relkind
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table, in which rows cannot be upserted",
    "S": "a sequence",
}

_LANDING = "pg_temp.batch_landing"
#: the best row of each key, in the order of keys. It is created only if the database refuses a row.
_BEST = "pg_temp.batch_best"
_BLOCK_CHARACTERS = 1 << 20

#: high half of the keys of our advisory locks; the low half is the table's oid
_LOCK_CLASS = 0x62617463


@dataclass(frozen=True)
class _PostgresColumn(TableColumn):
    #: GENERATED ALWAYS AS IDENTITY
    is_identity: bool = False
    #: the type's plain name; for a domain, that of the type below it
    base: str = ""
    #: the SQL name of a collation that treats different texts as equal, or ''
    collation: str = ""


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as `prepare` found it."""

    #: the results table as SQL, and the key of its advisory lock
    table: str
    lock: int
    create_landing: str
    copy: str
    #: the COPY into the results table itself, or '' if its columns or triggers need an INSERT
    copy_directly: str
    merge: str
    create_best: tuple[str, ...]
    #: returns the merge of a range of the best rows
    merge_range: Callable[[int, int], str]
    #: encoders that turn each value into a field of COPY's text format
    encode: tuple[Callable[[Any], str], ...]
    #: the merge as lineage shows it, without the temporary table
    lineage_sql: str


class PostgresSink(TableSink[_Plan]):
    """A results table in PostgreSQL. See `open.Sink`."""

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._make_plan()
        incoming = IncomingRows(rows, self._columns, plan.encode, null="\\N", is_plain=is_plain)
        with translate_errors(self._hook, self._write_action, self._consequence, incoming=incoming):
            with closing(self._connect()) as conn:
                cursor = psycopg_driver.plain_cursor(conn)
                self._begin(cursor, plan)
                blocks = _encode_blocks(incoming)
                if self._takes_copy(cursor, plan):
                    blocks = self._copy_directly(conn, cursor, plan.copy_directly, blocks)
                psycopg_driver.copy_in(conn, cursor, plan.copy, blocks)
                self.refusals = self._merge(cursor, plan, incoming.count)
                conn.commit()
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

    def _takes_copy(self, cursor: Any, plan: _Plan) -> bool:
        """Return whether the table is empty and no other landing is writing to it. Others wait until this one ends.

        A COPY writes the keys in any order. Two landings that do so, or one and a merge, could each wait for a key of
        the other. An advisory lock of the table is the weakest lock that rules this out: only landings know of it, so
        readers and all other writers carry on. This landing does not wait for the lock.
        """
        if not plan.copy_directly or not _is_empty(cursor, plan.table):
            return False
        cursor.execute(f"SELECT pg_try_advisory_xact_lock({plan.lock})")
        return bool(cursor.fetchall()[0][0]) and _is_empty(cursor, plan.table)

    def _copy_directly(self, conn: Any, cursor: Any, copy: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Copy blocks into the results table. Return the first block that the database refuses and all after it."""
        for block in blocks:
            cursor.execute("SAVEPOINT batch_block")
            try:
                psycopg_driver.copy_in(conn, cursor, copy, iter([block]))
            except Exception as error:
                if not self._dialect.driver.refuses_data(error):
                    raise
                cursor.execute("ROLLBACK TO SAVEPOINT batch_block")
                return chain([block], blocks)
            cursor.execute("RELEASE SAVEPOINT batch_block")
        return blocks

    def _merge(self, cursor: Any, plan: _Plan, count: int) -> tuple[Refusal, ...]:
        """Store all rows and return those that the database refused."""
        names = [f"c{index}" for index in range(len(self._columns))]
        rows = TemporaryRows(
            cursor,
            self._dialect.driver,
            table=_BEST,
            names=names,
            merge=plan.merge_range,
            # what is deferred to the commit could otherwise fail only there
            after="SET CONSTRAINTS ALL IMMEDIATE",
        )
        # waits for a landing that copies into the table, and for no other merge
        cursor.execute(f"SELECT pg_advisory_xact_lock_shared({plan.lock})")
        error = rows.store_all(plan.merge)
        refused_rows = self._refused_rows()
        if error is not None:
            for statement in plan.create_best:
                cursor.execute(statement)
            refused_rows.store_the_rest(rows, rows.count(), error)
        return refused_rows.check(count)

    def _connect(self) -> Any:
        conn: Any = self._hook.get_conn()
        if psycopg_driver.is_psycopg3(conn) is None:
            conn.close()
            raise WarehouseError(
                f"Connection {self._target.conn_id!r} opened a {type(conn).__module__}.{type(conn).__name__}, which is "
                f"neither psycopg's nor psycopg2's. {NOTHING_COMMITTED}"
            )
        conn.autocommit = False
        return conn

    def _begin(self, cursor: Any, plan: _Plan) -> None:
        # casts between timestamps, dates and texts depend on these settings
        cursor.execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'")
        cursor.execute(plan.create_landing)

    def _make_plan(self) -> _Plan:
        with translate_errors(self._hook, self._prepare_action, self._consequence, misfit_error=ResultsTableError):
            with closing(self._connect()) as conn:
                cursor = psycopg_driver.plain_cursor(conn)
                self._forget_absent_types(cursor)
                location = self._find_table(cursor)
                if location is None:
                    if not self._create:
                        raise self._target.absent_table_error()
                    self._create_table(conn, cursor)
                    location = self._find_table(cursor)
                if location is None:
                    raise self._target.error("was created but cannot be found.")
                oid, schema, name, kind, takes_copy = location
                if kind not in ("r", "p"):
                    raise self._target.error(f"is not a table but {_KINDS.get(kind, 'something else')}.")
                table = self._describe_table(cursor, oid)
                matches = match_columns(self._target, table, extra_problems=self._find_problems)
                self.limits = self._describe_limits(matches)
                plan = self._build_plan(self._dialect.quote_table((schema, name)), matches, oid, takes_copy=takes_copy)
                # planning the merge checks every type and privilege before the first row
                self._begin(cursor, plan)
                cursor.execute(f"EXPLAIN {plan.merge}")
                conn.rollback()
        self._plan = plan
        return plan

    def _forget_absent_types(self, cursor: Any) -> None:
        """Forget the types of carried columns that only another database has, and those that no column can have."""
        columns = []
        for column in self._columns:
            if column.native_type and column.database == self._dialect.name:
                cursor.execute(self._catalogue.type, (column.native_type,))
                if cursor.fetchone() is None:
                    column = msgspec.structs.replace(column, native_type="", database="")
            columns.append(column)
        self._columns = tuple(columns)
        self._target = replace(self._target, columns=self._columns)

    def _find_table(self, cursor: Any) -> tuple[int, str, str, str, bool] | None:
        # as written, or as SQL without quotation marks would have created it
        for parts in dict.fromkeys([self._parts, tuple(part.lower() for part in self._parts)]):
            cursor.execute(self._catalogue.table, (self._dialect.quote_table(parts),))
            row: tuple[int, str, str, str, bool] | None = cursor.fetchone()
            if row is not None:
                return row
        return None

    def _create_table(self, conn: Any, cursor: Any) -> None:
        try:
            cursor.execute(self._target.create_statement())
            conn.commit()
        except Exception as error:
            if self._dialect.errors.absent_schema.matches(self._dialect.driver, error):
                schema = self._dialect.quote(self._parts[0])
                raise self._target.error(f"needs the schema {schema}. Create it:\nCREATE SCHEMA {schema};") from None
            conn.rollback()
            # another landing may have created it since the probe, for which PostgreSQL has several errors
            if self._find_table(cursor) is None:
                raise

    def _describe_table(self, cursor: Any, oid: int) -> Table:
        cursor.execute(self._catalogue.columns, (oid,))
        columns = tuple(
            _PostgresColumn(
                name=name,
                type=type_,
                required=not_null and not filled,
                not_null=not_null,
                stored=postgres_type(base, kind, labels),
                is_generated=generated != "",
                is_identity=identity == "a",
                base=base,
                collation=collation,
            )
            for name, type_, not_null, filled, generated, identity, base, kind, labels, collation in cursor.fetchall()
        )
        cursor.execute(self._catalogue.keys, (oid,))
        keys: dict[int, list[str]] = {}
        for index, name in cursor.fetchall():
            keys.setdefault(index, []).append(name)
        cursor.execute(self._catalogue.partitions, (oid,))
        partition_columns = [name for (name,) in cursor.fetchall()]
        return Table(
            columns,
            tuple(tuple(names) for names in keys.values()),
            partition_columns=tuple(name for name in partition_columns if name is not None),
            has_no_unique_keys=None in partition_columns,
        )

    def _find_problems(self, matches: Mapping[str, TableColumn]) -> Iterator[Problem]:
        """Yield the columns of ours to which PostgreSQL would write its own numbers."""
        for column in matches.values():
            if isinstance(column, _PostgresColumn) and column.is_identity:
                name = self._target.quote(column.name)
                yield Problem(
                    f"has the column {column.name!r}, which takes only numbers that the database generates",
                    f"ALTER TABLE {self._target.sql} ALTER COLUMN {name} SET GENERATED BY DEFAULT;",
                )

    def _build_plan(self, table: str, matches: Mapping[str, TableColumn], oid: int, *, takes_copy: bool) -> _Plan:
        fields = [landing_field(self._dialect.types, column, matches[column.name]) for column in self._columns]
        names = [self._dialect.quote(matches[column.name].name) for column in self._columns]
        landing_names = [f"c{index}" for index in range(len(names))]
        key_fields = ", ".join(name for name, column in zip(landing_names, self._columns, strict=True) if column.key)
        outcome = naming.position(self._columns, "outcome")
        sealed_at = naming.position(self._columns, "sealed_at")
        ranks = precedence.order_by_rank(
            landing_names[outcome], landing_names[sealed_at], "n", keep_last_success=self._keep_last_success
        )
        best_rows = f"SELECT DISTINCT ON ({key_fields}) * FROM {_LANDING} ORDER BY {key_fields}, {ranks}"
        column_types = "".join(f", {name} {field.type}" for name, field in zip(landing_names, fields, strict=True))
        merge_expressions = ", ".join(
            field.expression.format(name) for name, field in zip(landing_names, fields, strict=True)
        )
        source = f"SELECT {merge_expressions} FROM"
        is_unchanged = all(
            field.expression == "{}" and field.type == matches[column.name].type
            for field, column in zip(fields, self._columns, strict=True)
        )
        copy = "COPY {} ({}) FROM STDIN (ENCODING 'UTF8')"
        number = "n bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000)"
        return _Plan(
            table=table,
            lock=(_LOCK_CLASS << 32) + int(oid),
            create_landing=f"CREATE TEMPORARY TABLE {_LANDING} ({number}{column_types}) ON COMMIT DROP",
            copy=copy.format(_LANDING, ", ".join(landing_names)),
            copy_directly=copy.format(table, ", ".join(names)) if takes_copy and is_unchanged else "",
            merge=self._upsert(table, names, f"{source} ({best_rows}) AS i ORDER BY {key_fields}"),
            create_best=(
                f"CREATE TEMPORARY TABLE {_BEST} ON COMMIT DROP AS "
                f"SELECT row_number() OVER (ORDER BY {key_fields}) AS place, i.* FROM ({best_rows}) AS i",
                f"CREATE UNIQUE INDEX ON {_BEST} (place)",
                f"ANALYZE {_BEST}",
            ),
            merge_range=lambda first, last: self._upsert(
                table, names, f"{source} {_BEST} AS i WHERE place BETWEEN {first} AND {last} ORDER BY {key_fields}"
            ),
            encode=tuple(field.encode for field in fields),
            lineage_sql=insert_for_lineage(table, names),
        )


def _is_empty(cursor: Any, table: str) -> bool:
    cursor.execute(f"SELECT NOT EXISTS (SELECT FROM {table})")
    return bool(cursor.fetchall()[0][0])


def _encode_blocks(incoming: IncomingRows) -> Iterator[bytes]:
    """Yield COPY's text format in blocks of bounded size: tab-separated fields."""
    lines: list[str] = []
    size = 0
    for columns in incoming.batches():
        text = "\n".join(map("\t".join, zip(*columns, strict=True)))
        lines.append(text)
        size += len(text)
        if size >= _BLOCK_CHARACTERS:
            yield _encode_block(lines)
            lines, size = [], 0
    if lines:
        yield _encode_block(lines)


def _encode_block(lines: list[str]) -> bytes:
    return values.sanitize("\n".join([*lines, ""])).encode()
