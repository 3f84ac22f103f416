"""The sink for MySQL (8.0.17 and newer) and MariaDB, with mysqlclient or mysql-connector-python.

One `write` is one transaction: multi-row INSERTs into a temporary table, then a single
`INSERT ... SELECT ... ON DUPLICATE KEY UPDATE`. The SELECT sorts the rows by key and row number, so that each row is
compared with what the one before it left in the table (see `precedence`).

`ON DUPLICATE KEY UPDATE` has pitfalls. This is how the sink avoids them:

- It has no WHERE, and its assignments see the values that earlier ones set. See `upsert.on_duplicate_key`.
- Any unique key triggers it, not only ours. A table with another unique key that our rows could violate is refused.
- Keys are compared by their column's collation, which may treat 'a', 'A' and 'a ' as equal. A text key must have a
  binary collation without padding.

Landings in the same table run that statement one at a time, with `GET_LOCK`. Otherwise InnoDB's gap locks could
deadlock two of them, whatever the order of their inserts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.landing.storage_limits import StorageLimits
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import naming, precedence
from airflow_provider_batch.warehouse.drivers import mysql as mysql_driver
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, translate_errors
from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.refusals import TemporaryRows
from airflow_provider_batch.warehouse.rows import IncomingRows
from airflow_provider_batch.warehouse.sinks import mysql_table
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import TableColumn, Target, match_columns

#: seconds a landing waits for another landing to merge into the same table
LOCK_WAIT_SECONDS = 600

_LANDING, _BEST = "batch_landing", "batch_best"
#: approximate size of an INSERT in bytes, or less if the server's packets are smaller
_STATEMENT_BYTES = 1 << 20
#: overhead in bytes: of an INSERT besides its rows, and of a value besides its text
_STATEMENT_OVERHEAD, _VALUE_OVERHEAD = 200, 40

#: deepest nesting of a JSON document: https://dev.mysql.com/doc/refman/8.4/en/json.html and `JSON_DEPTH_LIMIT` of
#: MariaDB, whose JSON columns accept what JSON_VALID accepts
_MYSQL_JSON_DEPTH, _MARIADB_JSON_DEPTH = 100, 31
#: MySQL stores a larger number as a double, which has at most 308 digits before the decimal point
_JSON_DIGITS = 308
#: the drivers write these characters with a backslash
_ESCAPED_CHARACTERS = "\0\n\r\\'\"\x1a"

# Set a fixed mode, regardless of the server's: nothing is truncated or replaced by 0, carried dates may be 0, and a
# backslash is an escape, as both drivers write it. The session's time zone applies to timestamps that pass through
# TIMESTAMP columns.
_SESSION_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,"
    "NO_ENGINE_SUBSTITUTION', SESSION time_zone = '+00:00'"
)


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as `prepare` found it."""

    create_landing: str
    #: INSERT INTO the landing table, without its rows
    insert: str
    #: placeholders of one row; the row number comes first
    row: str
    merge: str
    #: Creates the table of the best row of each key, in the order of keys. It runs only if the server refuses a row.
    create_best: str
    #: name of that table and of its columns, escaped for a statement with parameters
    best_table: str
    names: tuple[str, ...]
    #: its column with the number of a row
    place: str
    #: returns the merge of a range of the best rows
    merge_range: Callable[[int, int], str]
    #: name of the lock that makes landings in this table take turns
    lock: str
    #: the merge as lineage shows it, without the temporary table
    lineage_sql: str


class MySqlSink(TableSink[_Plan]):
    """A results table in MySQL or MariaDB. See `open.Sink`.

    Timestamps are stored as DATETIME(6) in UTC, vectors as JSON, decimals with 20 digits after the decimal point. NaN,
    which MySQL does not have, becomes NULL.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._make_plan()
        # bytes pass through UNHEX, because the two drivers write them differently
        bind = {**self._dialect.bind, ColumnType.BYTES: lambda value: memoryview(value).hex()}
        incoming = IncomingRows(rows, self._columns, [bind[column.type] for column in self._columns])
        with translate_errors(self._hook, self._write_action, self._consequence, incoming=incoming):
            with closing(self._connect()) as conn:
                cursor = mysql_driver.plain_cursor(conn)
                cursor.execute("SELECT @@max_allowed_packet")
                ((packet,),) = cursor.fetchall()
                cursor.execute(plan.create_landing)
                for count, fields in _split_into_packets(incoming, int(packet)):
                    cursor.execute(plan.insert + ", ".join([plan.row] * count), fields)
                self._acquire_lock(cursor, plan.lock)
                self.refusals = self._merge(cursor, plan, incoming.count)
                conn.commit()
        send_sql_hook_lineage(context=self._hook, sql=plan.lineage_sql, row_count=incoming.count)
        return incoming.count

    def _merge(self, cursor: Any, plan: _Plan, count: int) -> tuple[Refusal, ...]:
        """Store all rows and return those that the database refused."""
        rows = TemporaryRows(
            cursor,
            self._dialect.driver,
            table=plan.best_table,
            names=plan.names,
            merge=plan.merge_range,
            place=plan.place,
        )
        error = rows.store_all(plan.merge)
        refused_rows = self._refused_rows()
        if error is not None:
            cursor.execute(plan.create_best)
            refused_rows.store_the_rest(rows, rows.count(), error)
        return refused_rows.check(count)

    def _connect(self) -> Any:
        conn: Any = self._hook.get_conn()
        try:
            mysql_driver.use_utf8(conn)
            self._hook.set_autocommit(conn, False)
            mysql_driver.plain_cursor(conn).execute(_SESSION_SETTINGS)
        except BaseException:
            conn.close()
            raise
        return conn

    def _acquire_lock(self, cursor: Any, lock: str) -> None:
        # closing the connection releases the lock
        cursor.execute("SELECT GET_LOCK(%s, %s)", (lock, LOCK_WAIT_SECONDS))
        if cursor.fetchall()[0][0] != 1:
            raise WarehouseError(
                f"Landing in the table {self._target.name!r} waited {LOCK_WAIT_SECONDS} s for another landing in the "
                f"same table. {NOTHING_COMMITTED} The collected answers are kept. Clear this task once the other "
                f"landing has ended."
            )

    def _make_plan(self) -> _Plan:
        with translate_errors(self._hook, self._prepare_action, self._consequence, misfit_error=ResultsTableError):
            with closing(self._connect()) as conn:
                cursor = mysql_driver.plain_cursor(conn)
                collation = mysql_table.binary_collation(cursor)
                if not collation:
                    raise ResultsTableError(
                        f"The server of connection {self._hook.get_conn_id()!r} has no collation that distinguishes "
                        f"all keys. MySQL has one since 8.0.17, and MariaDB since 10.2. {self._consequence}"
                    )
                target = replace(
                    self._target,
                    type_of=lambda column: mysql_table.type_of(self._dialect, column, self._columns, collation),
                )
                location = mysql_table.find_table(cursor, self._catalogue, target, self._parts)
                if location is None:
                    if not self._create:
                        raise target.absent_table_error()
                    self._create_table(cursor, target)
                    location = mysql_table.find_table(cursor, self._catalogue, target, self._parts)
                if location is None:
                    raise target.error("was created but cannot be found.")
                table, uniques = mysql_table.describe_table(cursor, self._catalogue, location)
                matches = match_columns(
                    target,
                    table,
                    extra_problems=lambda matches: mysql_table.find_problems(
                        target, matches, uniques, table, collation
                    ),
                )
                self.limits = self._server_limits(cursor, matches)
                plan = self._build_plan(location, matches)
                # an empty merge checks every name and privilege before the first row
                cursor.execute(plan.create_landing)
                cursor.execute(plan.merge)
                conn.rollback()
        self._plan = plan
        return plan

    def _server_limits(self, cursor: Any, matches: Mapping[str, TableColumn]) -> StorageLimits:
        cursor.execute("SELECT @@max_allowed_packet, version()")
        ((packet, version),) = cursor.fetchall()
        return msgspec.structs.replace(
            self._describe_limits(matches),
            json_depth=_MARIADB_JSON_DEPTH if "MariaDB" in str(version) else _MYSQL_JSON_DEPTH,
            json_digits=_JSON_DIGITS,
            row_bytes=int(packet) * 15 // 16,  # the rest is for the key, the carried columns and the other values
            escaped_characters=_ESCAPED_CHARACTERS,
        )

    def _create_table(self, cursor: Any, target: Target) -> None:
        try:
            cursor.execute(target.create_statement())
        except Exception as error:
            errors, driver = self._dialect.errors, self._dialect.driver
            if errors.absent_schema.matches(driver, error):
                database = self._dialect.quote(self._parts[0])
                raise target.error(f"needs the database {database}. Create it:\nCREATE DATABASE {database};") from None
            if errors.table_exists.matches(driver, error):
                return  # another landing created it since the probe
            if errors.no_default_schema.matches(driver, error):
                raise target.error(
                    "belongs to no database. Write the table as `database.table`, or set the connection's schema."
                ) from None
            raise

    @staticmethod
    def _free_name(name: str, names: Sequence[str]) -> str:
        """Return the name, with underscores added until no column has it."""
        while naming.spellings(name, names):
            name += "_"
        return name

    def _build_plan(self, location: tuple[str, str], matches: Mapping[str, TableColumn]) -> _Plan:
        table_columns = [matches[column.name] for column in self._columns]
        names = [self._dialect.quote(column.name) for column in table_columns]
        table = self._dialect.quote_table(location)
        # a temporary table hides a permanent one of the same name
        landing, best = (
            self._dialect.quote_table((location[0], name if location[1].casefold() != name else f"{name}_2"))
            for name in (_LANDING, _BEST)
        )
        number, place, rank = (
            self._free_name(name, [column.name for column in table_columns]) for name in ("n", "place", "best")
        )
        fields = [
            f"{name} {mysql_table.landing_type(self._dialect, column, table_column)}"
            for name, column, table_column in zip(names, self._columns, table_columns, strict=True)
        ]
        keys = [name for name, column in zip(names, self._columns, strict=True) if column.key]
        column_list = ", ".join(names)
        source = f"SELECT {column_list} FROM {landing} AS i ORDER BY {', '.join([*keys, f'i.{number}'])}"
        # MySQL sorts NULL last in descending order
        ranks = precedence.order_by_rank(
            names[naming.position(self._columns, "outcome")],
            names[naming.position(self._columns, "sealed_at")],
            number,
            keep_last_success=self._keep_last_success,
        ).replace(" NULLS LAST", "")
        ranked_rows = (
            f"SELECT {column_list}, row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {ranks}) AS {rank} "
            f"FROM {landing}"
        )
        marks = ["UNHEX(%s)" if column.type is ColumnType.BYTES else "%s" for column in self._columns]
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {landing} ({number} BIGINT, {', '.join(fields)})",
            insert=f"INSERT INTO {self._dialect.escape(landing)} VALUES ",
            row=f"({', '.join(['%s', *marks])})",
            merge=self._upsert(table, names, source),
            # InnoDB, so that a savepoint also undoes changes to this table
            create_best=(
                f"CREATE TEMPORARY TABLE {best} ({place} BIGINT PRIMARY KEY) ENGINE = InnoDB "
                f"SELECT row_number() OVER (ORDER BY {', '.join(keys)}) AS {place}, {column_list} "
                f"FROM ({ranked_rows}) AS i WHERE {rank} = 1"
            ),
            best_table=self._dialect.escape(best),
            names=tuple(map(self._dialect.escape, names)),
            place=place,
            merge_range=lambda first, last: self._upsert(
                table,
                names,
                f"SELECT {column_list} FROM {best} AS i WHERE i.{place} BETWEEN {first} AND {last} "
                f"ORDER BY {', '.join(keys)}",
            ),
            lock=f"batch_{hashlib.sha256(table.encode()).hexdigest()[:40]}",
            lineage_sql=insert_for_lineage(table, names),
        )


def _split_into_packets(incoming: IncomingRows, packet: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield the numbered rows as statements that fit the server's packets: row count, and all fields in one list.

    Raises ResultsTableError for a row that is too large even on its own.
    """
    max_bytes = min(packet - _STATEMENT_OVERHEAD, _STATEMENT_BYTES)
    fields: list[Any] = []
    count = size = 0
    for row in incoming:
        row_size = sum(map(_max_size, row)) + _VALUE_OVERHEAD
        if row_size > packet - _STATEMENT_OVERHEAD:
            row_size = sum(map(_exact_size, row)) + _VALUE_OVERHEAD
            if row_size > packet - _STATEMENT_OVERHEAD:
                raise ResultsTableError(
                    f"Row {incoming.count:,} of this landing takes {row_size:,} bytes in a statement, but the server "
                    f"accepts only {packet:,} (max_allowed_packet). {NOTHING_COMMITTED} The collected answers are "
                    f"kept. Raise max_allowed_packet on the server, or land without the large column. Then clear this "
                    f"task."
                )
        if count and size + row_size > max_bytes:
            yield count, fields
            fields, count, size = [], 0, 0
        fields.append(incoming.count)
        fields.extend(row)
        count += 1
        size += row_size
    if count:
        yield count, fields


def _max_size(value: Any) -> int:
    """Return an upper bound of a value's bytes in a statement: each character may need a backslash."""
    if isinstance(value, str):
        return len(value) * (2 if value.isascii() else 4) + _VALUE_OVERHEAD
    return _VALUE_OVERHEAD


def _exact_size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode()) + sum(map(value.count, _ESCAPED_CHARACTERS)) + _VALUE_OVERHEAD
    return _VALUE_OVERHEAD
