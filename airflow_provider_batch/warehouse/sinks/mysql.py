"""The sink for MySQL (8.0.17 and newer) and MariaDB, with mysqlclient or mysql-connector-python.

One `write` is one transaction: INSERTs of many rows into a temporary table, then one `INSERT ... SELECT ... ON
DUPLICATE KEY UPDATE`. Its rows come sorted by key and number, and each is judged against what the one before it
left (see `precedence`).

`ON DUPLICATE KEY UPDATE` has traps, and this is how they are avoided:

- It has no WHERE, and its assignments see what those before them set: see `upsert.on_duplicate_key`.
- It is triggered by any unique key, not only by ours. A table with another one that a row of ours could meet is
  refused.
- Keys are compared by their column's collation, which may take 'a', 'A' and 'a ' for one. A text key must have a
  binary collation without padding.

Landings in the same table take turns with `GET_LOCK` for that one statement: the gap locks of InnoDB would let two
of them deadlock in whatever order they insert.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from airflow.providers.common.sql.hooks.lineage import send_sql_hook_lineage

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.drivers import mysql as mysql_driver
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED, THEN, database_errors
from airflow_provider_batch.warehouse.rows import Incoming
from airflow_provider_batch.warehouse.sinks import mysql_table
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.table import TableColumn, Target, fit

#: how long a landing waits for another one's merge into the same table
LOCK_SECONDS = 600

_LANDING = "batch_landing"
#: an INSERT holds about this many bytes, or fewer if the server takes fewer in one packet
_STATEMENT_BYTES = 1 << 20
#: what an INSERT has besides its rows, and a row besides its texts
_STATEMENT_REST, _VALUE_REST = 200, 40

# A fixed mode, whatever the server's: nothing is cut off or replaced by 0, and backslashes are escapes, as both
# drivers write them. Moments go through TIMESTAMP columns by the session's time zone.
_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,"
    "NO_ENGINE_SUBSTITUTION', SESSION time_zone = '+00:00'"
)


@dataclass(frozen=True)
class _Plan:
    """The statements of a landing, for the table as it was found."""

    create_landing: str
    #: INSERT INTO the landing table, without its rows
    insert: str
    #: the placeholders of one row, its number first
    row: str
    merge: str
    #: the name of the lock under which landings in this table take turns
    lock: str
    #: the merge as lineage shows it: without the temporary table
    shown: str


class MySqlSink(TableSink[_Plan]):
    """A results table in MySQL or MariaDB. See `open.Sink`.

    Moments are stored as DATETIME(6) in UTC, vectors as JSON, decimals with 20 digits behind the point. NaN and the
    infinities, which MySQL lacks, become NULL.
    """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write all rows in one transaction and return their number."""
        plan = self._plan or self._prepared()
        # Bytes pass through UNHEX, since the two drivers write them differently.
        bind = {**self._dialect.bind, ColumnType.BYTES: lambda value: memoryview(value).hex()}
        incoming = Incoming(rows, self._columns, [bind[column.type] for column in self._columns])
        with database_errors(self._hook, self._landing, self._kept, incoming=incoming):
            with closing(self._connect()) as conn:
                cursor = mysql_driver.plain_cursor(conn)
                cursor.execute("SELECT @@max_allowed_packet")
                ((packet,),) = cursor.fetchall()
                cursor.execute(plan.create_landing)
                for count, fields in _packets(incoming, int(packet)):
                    cursor.execute(plan.insert + ", ".join([plan.row] * count), fields)
                self._take_turn(cursor, plan.lock)
                cursor.execute(plan.merge)
                conn.commit()
        send_sql_hook_lineage(context=self._hook, sql=plan.shown, row_count=incoming.count)
        return incoming.count

    def _connect(self) -> Any:
        conn: Any = self._hook.get_conn()
        try:
            mysql_driver.speak_utf8(conn)
            self._hook.set_autocommit(conn, False)
            mysql_driver.plain_cursor(conn).execute(_SESSION)
        except BaseException:
            conn.close()
            raise
        return conn

    def _take_turn(self, cursor: Any, lock: str) -> None:
        # Freed with the connection.
        cursor.execute("SELECT GET_LOCK(%s, %s)", (lock, LOCK_SECONDS))
        if cursor.fetchall()[0][0] != 1:
            raise WarehouseError(
                f"Landing in the table {self._target.name!r} waited {LOCK_SECONDS} s for another landing in it; "
                f"{NOTHING_COMMITTED}. What was collected is kept: clear this task once the other has ended."
            )

    def _prepared(self) -> _Plan:
        with database_errors(self._hook, self._preparing, self._kept, misfit=ResultsTableError):
            with closing(self._connect()) as conn:
                cursor = mysql_driver.plain_cursor(conn)
                collation = mysql_table.binary_collation(cursor)
                if not collation:
                    raise ResultsTableError(
                        f"The server of connection {self._hook.get_conn_id()!r} has no collation that tells every two "
                        f"keys apart, as MySQL has from 8.0.17 and MariaDB from 10.2 on; {self._kept}"
                    )
                target = replace(
                    self._target,
                    type_of=lambda column: mysql_table.type_of(self._dialect, column, self._columns, collation),
                )
                place = mysql_table.find(cursor, self._catalogue, target, self._parts)
                if place is None:
                    if not self._create:
                        raise target.absent()
                    self._create_table(cursor, target)
                    place = mysql_table.find(cursor, self._catalogue, target, self._parts)
                if place is None:
                    raise target.refuse("was created but cannot be found again")
                table, uniques = mysql_table.describe(cursor, self._catalogue, place)
                found = fit(
                    target,
                    table,
                    refused=mysql_table.refused,
                    also=lambda found: mysql_table.misfits(target, found, uniques, table, collation),
                )
                plan = self._planned(place, found)
                # Merging nothing checks every name and privilege before the first row.
                cursor.execute(plan.create_landing)
                cursor.execute(plan.merge)
                conn.rollback()
        self._plan = plan
        return plan

    def _create_table(self, cursor: Any, target: Target) -> None:
        try:
            cursor.execute(target.create_statement())
        except Exception as error:
            errors, driver = self._dialect.errors, self._dialect.driver
            if errors.absent_schema.matches(driver, error):
                database = self._dialect.quote(self._parts[0])
                raise target.refuse(f"needs the database {database}:\nCREATE DATABASE {database};") from None
            if errors.table_exists.matches(driver, error):
                return  # another landing has created it since the probe
            if errors.no_schema_chosen.matches(driver, error):
                raise target.refuse(
                    "is in no database: name it `database.table`, or give the connection a schema."
                ) from None
            raise

    def _planned(self, place: tuple[str, str], found: Mapping[str, TableColumn]) -> _Plan:
        theirs = [found[column.name] for column in self._columns]
        names = [self._dialect.quote(column.name) for column in theirs]
        table = self._dialect.quote_table(place)
        # A temporary table hides another of its name.
        landing = _LANDING if place[1].casefold() != _LANDING else f"{_LANDING}_2"
        landing = self._dialect.quote_table((place[0], landing))
        number = "n"
        while naming.spellings(number, [column.name for column in theirs]):
            number += "_"
        fields = [
            f"{name} {mysql_table.landing_type(self._dialect, column, there)}"
            for name, column, there in zip(names, self._columns, theirs, strict=True)
        ]
        keys = [name for name, column in zip(names, self._columns, strict=True) if column.key]
        listed = ", ".join(names)
        ordered = f"SELECT {listed} FROM {landing} AS i ORDER BY {', '.join([*keys, f'i.{number}'])}"
        marks = ["UNHEX(%s)" if column.type is ColumnType.BYTES else "%s" for column in self._columns]
        return _Plan(
            create_landing=f"CREATE TEMPORARY TABLE {landing} ({number} BIGINT, {', '.join(fields)})",
            insert=f"INSERT INTO {self._dialect.escaped(landing)} VALUES ",
            row=f"({', '.join(['%s', *marks])})",
            merge=self._upsert(table, names, ordered),
            lock=f"batch_{hashlib.sha256(table.encode()).hexdigest()[:40]}",
            shown=self._plain_insert(table, names),
        )


def _packets(incoming: Incoming, packet: int) -> Iterator[tuple[int, list[Any]]]:
    """The rows, numbered, in statements that the server takes: how many, and all their fields in one list.

    Raises ResultsTableError for a row that is too large for the server alone.
    """
    most = min(packet - _STATEMENT_REST, _STATEMENT_BYTES)
    fields: list[Any] = []
    count = size = 0
    for row in incoming:
        bytes_ = sum(map(_at_most, row)) + _VALUE_REST
        if bytes_ > packet - _STATEMENT_REST:
            bytes_ = sum(map(_exactly, row)) + _VALUE_REST
            if bytes_ > packet - _STATEMENT_REST:
                raise ResultsTableError(
                    f"Row {incoming.count} of this landing takes {bytes_:,} bytes in one statement, but the server "
                    f"takes {packet:,} (max_allowed_packet); {NOTHING_COMMITTED}. {THEN} Raise max_allowed_packet of "
                    f"the server, or land without the large column."
                )
        if count and size + bytes_ > most:
            yield count, fields
            fields, count, size = [], 0, 0
        fields.append(incoming.count)
        fields.extend(row)
        count += 1
        size += bytes_
    if count:
        yield count, fields


def _at_most(value: Any) -> int:
    """An upper bound for a value's bytes in a statement: each may need a backslash."""
    if isinstance(value, str):
        return len(value) * (2 if value.isascii() else 4) + _VALUE_REST
    return _VALUE_REST


def _exactly(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode()) + sum(map(value.count, "\0\n\r\\'\"\x1a")) + _VALUE_REST
    return _VALUE_REST
