"""The sink for PostgreSQL, with psycopg or psycopg2.

One `write` is one transaction: COPY into a temporary table, then one `INSERT ... SELECT ... ON CONFLICT`. The
SELECT keeps the row of the highest rank per key (see `precedence`) and is sorted by the key, so that two landings
at once take their row locks in the same order and never wait for each other in a circle. Memory stays flat: only
one block of encoded rows is held here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import naming, precedence, values
from airflow_provider_batch.warehouse.drivers import psycopg as psycopg_driver
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, database_errors
from airflow_provider_batch.warehouse.rows import Incoming
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import Table, TableColumn, fit

#: the type categories (pg_type.typcategory) that a column of ours may go to: S strings, N numbers, B booleans,
#: D dates and moments. Types that are not listed are judged by PostgreSQL itself, when `prepare` plans the merge.
_CATEGORIES = {
    ColumnType.TEXT: "S",
    ColumnType.INTEGER: "NS",
    ColumnType.FLOAT: "NS",
    ColumnType.NUMERIC: "NS",
    ColumnType.BOOLEAN: "BS",
    ColumnType.DATE: "DS",
    ColumnType.TIMESTAMP: "DS",
}

_LANDING = "pg_temp.batch_landing"
_BLOCK_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class _PostgresColumn(TableColumn):
    category: str = ""
    #: the type's plain name; for a domain that of the type below it
    base: str = ""


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as it was found."""

    create_landing: str
    merge: str
    #: each value as a field of COPY's text format
    encode: tuple[Callable[[Any], str], ...]
    #: the merge as lineage shows it: without the temporary table
    shown: str


class PostgresSink(TableSink[_Plan]):
    """A results table in PostgreSQL. See `open.Sink`."""

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        incoming = Incoming(rows, self._columns, plan.encode, null="\\N", plain=_plain)
        with database_errors(self._hook, self._landing, self._kept, incoming=incoming):
            with closing(self._connect()) as conn:
                cursor = psycopg_driver.plain_cursor(conn)
                self._begin(cursor, plan)
                copy = f"COPY {_LANDING} FROM STDIN (ENCODING 'UTF8')"
                psycopg_driver.copy_in(conn, cursor, copy, _blocks(incoming))
                cursor.execute(plan.merge)
                conn.commit()
        send_sql_hook_lineage(context=self._hook, sql=plan.shown, row_count=incoming.count)
        return incoming.count

    def _connect(self) -> Any:
        conn: Any = self._hook.get_conn()
        if psycopg_driver.is_psycopg3(conn) is None:
            conn.close()
            raise WarehouseError(
                f"Connection {self._target.conn_id!r} is neither psycopg's nor psycopg2's but a "
                f"{type(conn).__module__}.{type(conn).__name__}; {NOTHING_COMMITTED}."
            )
        conn.autocommit = False
        return conn

    def _begin(self, cursor: Any, plan: _Plan) -> None:
        # Casts from moments to dates and to timestamps without a zone go by the session's time zone.
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute(plan.create_landing)

    def _prepared(self) -> _Plan:
        with database_errors(self._hook, self._preparing, self._kept, misfit=ResultsTableError):
            with closing(self._connect()) as conn:
                cursor = psycopg_driver.plain_cursor(conn)
                found = self._find(cursor)
                if found is None:
                    if not self._create:
                        raise self._target.absent()
                    self._create_table(conn, cursor)
                    found = self._find(cursor)
                if found is None:
                    raise self._target.refuse("was created but cannot be found again")
                oid, schema, name, kind = found
                if kind not in ("r", "p"):
                    raise self._target.refuse("is a view or something else that is no table")
                table = self._describe(cursor, oid)
                plan = self._planned(
                    self._dialect.quote_table((schema, name)), fit(self._target, table, refused=_refused)
                )
                # Planning the merge checks every type and privilege before the first row.
                self._begin(cursor, plan)
                cursor.execute(f"EXPLAIN {plan.merge}")
                conn.rollback()
        self._plan = plan
        return plan

    def _find(self, cursor: Any) -> tuple[int, str, str, str] | None:
        # As written, or as SQL without quotation marks would have created it.
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
                raise self._target.refuse(f"needs the schema {schema}:\nCREATE SCHEMA {schema};") from None
            conn.rollback()
            # Another landing may have created it since the probe; PostgreSQL has several errors for that.
            if self._find(cursor) is None:
                raise

    def _describe(self, cursor: Any, oid: int) -> Table:
        cursor.execute(self._catalogue.columns, (oid,))
        columns = tuple(_PostgresColumn(*row) for row in cursor.fetchall())
        cursor.execute(self._catalogue.keys, (oid,))
        keys: dict[int, list[str]] = {}
        for index, name in cursor.fetchall():
            keys.setdefault(index, []).append(name)
        return Table(columns, tuple(tuple(names) for names in keys.values()))

    def _planned(self, table: str, found: Mapping[str, TableColumn]) -> _Plan:
        fields = [_field(self._dialect.types, column, found[column.name]) for column in self._columns]
        names = [self._dialect.quote(found[column.name].name) for column in self._columns]
        landed = [f"c{index}" for index in range(len(names))]
        key_fields = ", ".join(name for name, column in zip(landed, self._columns, strict=True) if column.key)
        outcome = naming.position(self._columns, "outcome")
        sealed_at = naming.position(self._columns, "sealed_at")
        ranks = precedence.best_first(
            landed[outcome], landed[sealed_at], "n", keep_last_success=self._keep_last_success
        )
        chosen = f"SELECT DISTINCT ON ({key_fields}) * FROM {_LANDING} ORDER BY {key_fields}, {ranks}"
        typed = "".join(f", {name} {field.type}" for name, field in zip(landed, fields, strict=True))
        given = ", ".join(field.given.format(name) for name, field in zip(landed, fields, strict=True))
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {_LANDING} (n bigint{typed}) ON COMMIT DROP",
            merge=self._upsert(table, names, f"SELECT {given} FROM ({chosen}) AS i ORDER BY {key_fields}"),
            encode=tuple(field.encode for field in fields),
            shown=self._plain_insert(table, names),
        )


@dataclass(frozen=True)
class _Field:
    """How one column travels: its type in the landing table, its encoder, and the expression that gives it on."""

    type: str
    encode: Callable[[Any], str]
    given: str = "{}"


def _field(types: Mapping[ColumnType, str], column: Column, there: TableColumn) -> _Field:
    base = getattr(there, "base", "")
    is_text = getattr(there, "category", "") == "S"
    if column.type in (ColumnType.JSON, ColumnType.VECTOR):
        if base in ("json", "jsonb"):
            return _Field(base, _json)
        if base in ("vector", "halfvec"):
            # pgvector reads and checks the dimensions when it casts its own notation.
            return _Field("text", _json, f"CAST({{}} AS {_braced(there.type)})")
        if is_text:
            return _Field("text", _json)
    if column.type is ColumnType.TEXT and column.key and is_text:
        # Equal keys must be equal here too, which citext or char(n) decide in their own way.
        return _Field(there.type, _ENCODERS[column.type])
    return _Field(types[column.type], _ENCODERS[column.type])


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _refused(column: Column, there: TableColumn) -> bool:
    allowed = "D" if column.name == "sealed_at" else _CATEGORIES.get(column.type)
    return allowed is not None and getattr(there, "category", "") not in allowed


def _blocks(incoming: Incoming) -> Iterator[bytes]:
    """COPY's text format: fields between tabs, the row's number first, in blocks of bounded size."""
    lines: list[str] = []
    size = 0
    for columns in incoming.batches():
        numbers = map(str, range(incoming.count - len(columns[0]) + 1, incoming.count + 1))
        text = "\n".join(map("\t".join, zip(numbers, *columns, strict=True)))
        lines.append(text)
        size += len(text)
        if size >= _BLOCK_CHARACTERS:
            yield _block(lines)
            lines, size = [], 0
    if lines:
        yield _block(lines)


def _block(lines: list[str]) -> bytes:
    return values.mend("\n".join([*lines, ""])).encode()


#: what COPY's text format escapes, and NUL, which PostgreSQL's text cannot hold
_SPECIAL = "\\\n\t\r\0"


def _plain(text: str) -> bool:
    """Whether `_text` leaves it, and every part of it, as it is."""
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


_ENCODERS: Mapping[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: int.__repr__,
    ColumnType.FLOAT: lambda value: repr(float(value)),
    ColumnType.NUMERIC: _numeric,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.iso,
    ColumnType.JSON: _json,
    ColumnType.BYTES: lambda value: "\\\\x" + memoryview(value).hex(),
    ColumnType.VECTOR: _array,
}
