"""The sink for PostgreSQL, with psycopg or psycopg2.

One `write` is one transaction: COPY into a temporary table, then a single `INSERT ... SELECT ... ON CONFLICT`. The
SELECT keeps the row with the highest rank per key (see `precedence`). It sorts by key, so that concurrent landings take
their row locks in the same order and cannot deadlock. Memory stays flat: only one block of encoded rows is held.

If the database refuses that statement because of the data, the rows are stored in ranges, each under a savepoint (see
`refusals`). The rows are not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.drivers import psycopg as psycopg_driver
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, translate_errors
from airflow_provider_batch.warehouse.refusals import TemporaryRows
from airflow_provider_batch.warehouse.rows import IncomingRows
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.stored_types import Kind, postgres_type
from airflow_provider_batch.warehouse.table import Problem, Table, TableColumn, has_native_type, match_columns

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
_BLOCK_CHARACTERS = 1 << 18


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

    create_landing: str
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
        incoming = IncomingRows(rows, self._columns, plan.encode, null="\\N", is_plain=_is_plain)
        with translate_errors(self._hook, self._write_action, self._consequence, incoming=incoming):
            with closing(self._connect()) as conn:
                cursor = psycopg_driver.plain_cursor(conn)
                self._begin(cursor, plan)
                copy = f"COPY {_LANDING} FROM STDIN (ENCODING 'UTF8')"
                psycopg_driver.copy_in(conn, cursor, copy, _encode_blocks(incoming))
                self.refusals = self._merge(cursor, plan, incoming.count)
                conn.commit()
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

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
                oid, schema, name, kind = location
                if kind not in ("r", "p"):
                    raise self._target.error(f"is not a table but {_KINDS.get(kind, 'something else')}.")
                table = self._describe_table(cursor, oid)
                matches = match_columns(self._target, table, extra_problems=self._find_problems)
                self.limits = self._describe_limits(matches)
                plan = self._build_plan(self._dialect.quote_table((schema, name)), matches)
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

    def _find_table(self, cursor: Any) -> tuple[int, str, str, str] | None:
        # as written, or as SQL without quotation marks would have created it
        for parts in dict.fromkeys([self._parts, tuple(part.lower() for part in self._parts)]):
            cursor.execute(self._catalogue.table, (self._dialect.quote_table(parts),))
            row: tuple[int, str, str, str] | None = cursor.fetchone()
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

    def _build_plan(self, table: str, matches: Mapping[str, TableColumn]) -> _Plan:
        fields = [_landing_field(self._dialect.types, column, matches[column.name]) for column in self._columns]
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
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {_LANDING} (n bigint{column_types}) ON COMMIT DROP",
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
            lineage_sql=self._plain_insert(table, names),
        )


@dataclass(frozen=True)
class _LandingField:
    """How a column passes through the landing table: its type there, its encoder, and the expression that reads it."""

    type: str
    encode: Callable[[Any], str]
    expression: str = "{}"


def _landing_field(types: Mapping[ColumnType, str], column: Column, table_column: TableColumn) -> _LandingField:
    if has_native_type(POSTGRES, column, table_column):
        return _LandingField(
            column.native_type, _native_text if column.type is ColumnType.JSON else _ENCODERS[column.type]
        )
    kind, base = table_column.stored.kind, getattr(table_column, "base", "")
    encode = _ENCODERS[column.type]
    if column.type in (ColumnType.JSON, ColumnType.VECTOR):
        if kind is Kind.JSON:
            return _LandingField(base, _json)
        if kind is Kind.VECTOR:
            # pgvector parses its own notation and checks the dimensions during the cast
            return _LandingField("text", _json, f"CAST({{}} AS {_escape_braces(table_column.type)})")
        if kind is Kind.TEXT:
            return _LandingField("text", _json)
        if column.type is ColumnType.JSON:
            # reads lists of any depth and records, each element as its own type
            cast = f"(SELECT v FROM jsonb_to_record(jsonb_build_object('v', {{}})) AS r(v {_escape_braces(base)}))"
            return _LandingField("jsonb", _json, cast)
    if column.type is ColumnType.BOOLEAN and kind is Kind.INTEGER:
        return _LandingField(table_column.type, _bit)
    if column.type is ColumnType.FLOAT and kind is Kind.NUMERIC:
        # a cast from double precision would round to 15 digits
        return _LandingField(types[ColumnType.NUMERIC], encode)
    if column.type is ColumnType.TEXT and column.key:
        # COPY reads the text as the table's type. Keys that are equal in the table must be equal here too, and citext
        # or char(n) have their own equality.
        collation = getattr(table_column, "collation", "")
        return _LandingField(table_column.type + (f" COLLATE {collation}" if collation else ""), encode)
    if column.type is ColumnType.TEXT and kind is not Kind.TEXT:
        # A text that the type does not have is refused by the cast, with its row. COPY would refuse all rows.
        return _LandingField("text", encode, f"CAST({{}} AS {_escape_braces(table_column.type)})")
    return _LandingField(types[column.type], encode)


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _encode_blocks(incoming: IncomingRows) -> Iterator[bytes]:
    """Yield COPY's text format in blocks of bounded size: tab-separated fields, the row number first."""
    lines: list[str] = []
    size = 0
    for columns in incoming.batches():
        numbers = map(str, range(incoming.count - len(columns[0]) + 1, incoming.count + 1))
        text = "\n".join(map("\t".join, zip(numbers, *columns, strict=True)))
        lines.append(text)
        size += len(text)
        if size >= _BLOCK_CHARACTERS:
            yield _encode_block(lines)
            lines, size = [], 0
    if lines:
        yield _encode_block(lines)


def _encode_block(lines: list[str]) -> bytes:
    return values.sanitize("\n".join([*lines, ""])).encode()


#: characters that COPY's text format escapes, and NUL, which PostgreSQL's text cannot store
_SPECIAL = "\\\n\t\r\0"


def _is_plain(text: str) -> bool:
    """Return whether `_text` leaves the text, and every part of it, unchanged."""
    return not any(character in text for character in _SPECIAL)


def _text(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r").replace("\0", "")


def _json(value: Any) -> str:
    return values.json_text(value).replace("\\", "\\\\")


def _array(value: Sequence[float]) -> str:
    return "{" + values.json_text(value)[1:-1] + "}"


def _numeric(value: Decimal) -> str:
    return str(values.decimal(value))


def _boolean(value: bool) -> str:
    if value is True or value is False:
        return "t" if value else "f"
    raise TypeError("not a bool")


def _native_text(value: Any) -> str:
    return _text(value.text if isinstance(value, NativeValue) else values.json_text(value))


def _interval(value: timedelta) -> str:
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


def _bit(value: bool) -> str:
    return "1" if _boolean(value) == "t" else "0"


_ENCODERS: Mapping[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: int.__repr__,
    ColumnType.FLOAT: lambda value: repr(float(value)),
    ColumnType.NUMERIC: _numeric,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.to_iso,
    ColumnType.LOCAL_TIMESTAMP: values.local_iso,
    ColumnType.TIME: values.clock_iso,
    ColumnType.INTERVAL: _interval,
    ColumnType.UUID: values.uuid_text,
    ColumnType.JSON: _json,
    ColumnType.BYTES: lambda value: "\\\\x" + memoryview(value).hex(),
    ColumnType.VECTOR: _array,
}
