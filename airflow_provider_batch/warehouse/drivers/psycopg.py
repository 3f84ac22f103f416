"""A common interface to psycopg (3) and psycopg2: plain cursors, server-side cursors, COPY.

Airflow's PostgresHook returns a connection from either package, and the connection's `cursor` extra can turn rows into
dicts. Every cursor created here returns plain tuples.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.warehouse.drivers import postgres_values
from airflow_provider_batch.warehouse.drivers.base import Driver, ExactQuery, Reading, RowReader, row_converter

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: type code of bytea in psycopg2, which returns its values as memoryviews
_BYTEA = 17

_OPEN_CURSOR = "DECLARE batch_rows refcursor := %s; BEGIN OPEN batch_rows NO SCROLL FOR EXECUTE %s; END"

#: SQLSTATEs raised by functions that the table's owner wrote
_AUTHOR_STATES = ("P0", "38", "45")
#: data exceptions, constraints, WITH CHECK OPTION, rows and keys that are too large, triggers
_DATA_STATES = ("22", "23", "44", "54000", *_AUTHOR_STATES)
#: a function in the context of an error, such as `PL/pgSQL function check_total() line 3 at RAISE`
_FUNCTION = re.compile(r"function ([\w.]+)\(")


class PsycopgDriver(Driver):
    """psycopg or psycopg2, whichever Airflow's hook connects with."""

    packages = ("psycopg", "psycopg2")

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a read-only transaction. Return a cursor whose rows stay on the server until they are fetched."""
        if is_psycopg3(conn) is None:
            return super().begin_reading(hook, conn)
        conn.autocommit = False
        with plain_cursor(conn) as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        return named_cursor(conn)

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Declare the cursor in a way that lets the server run no more than one statement.

        psycopg sends DECLARE in the extended protocol, which takes one statement. psycopg2 has only the simple
        protocol, which takes several. There, a block of PL/pgSQL opens the cursor for SQL that it gets as text.
        """
        if is_psycopg3(conn) is not False:
            super().execute(conn, cursor, sql, parameters)
            return
        from psycopg2.extensions import encodings

        encoding = encodings[conn.encoding]
        with plain_cursor(conn) as opener:
            if parameters is not None:
                sql = opener.mogrify(sql, parameters).decode(encoding)
            block = opener.mogrify(_OPEN_CURSOR, (cursor.name, sql)).decode(encoding)
            opener.execute("DO %s", (block,))

    def first_rows(self, conn: Any, cursor: Any, count: int) -> list[Any]:
        """Return the first rows. psycopg2 sets the description of a named cursor only after the first fetch."""
        if is_psycopg3(conn) is False:
            rows: list[Any] = cursor.fetchmany(count)
            return rows
        return super().first_rows(conn, cursor, count)

    def end_reading(self, conn: Any, cursor: Any) -> None:
        """Also close the cursor: psycopg warns about a named cursor left open, even on a closed connection."""
        with suppress(Exception):
            cursor.close()
        super().end_reading(conn, cursor)

    def refuses_data(self, error: BaseException) -> bool:
        """Return whether rows were refused, which triggers, domains, view checks and the size of a page can do too."""
        return self.sqlstate_of(error).startswith(_DATA_STATES)

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return the server's message without values. The message of a trigger is its author's and may contain them."""
        state = self.sqlstate_of(error)
        if not state.startswith(_AUTHOR_STATES):
            return super().message_of(error, hide_quoted=hide_quoted)
        context = getattr(getattr(error, "diag", None), "context", None) or ""
        function = _FUNCTION.search(context)
        return f"{f'the function {function[1]}' if function else 'a trigger'} refused the row (SQLSTATE {state})"

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that also converts psycopg2's memoryviews (bytea) to bytes."""
        if is_psycopg3(conn) is not False:
            return super().row_reader(conn, description)
        views = [index for index, column in enumerate(description) if column[1] == _BYTEA]
        return row_converter(dict.fromkeys(views, bytes))

    def exact_query(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> ExactQuery:
        """Let the driver return the server's text of all types but the simplest ones, and convert it."""
        if is_psycopg3(conn) is None:
            return super().exact_query(conn, cursor, sql, parameters)
        with closing(plain_cursor(conn)) as settings_cursor:
            settings_cursor.execute(postgres_values.SETTINGS)
            settings_cursor.execute(postgres_values.TEXT_TYPES_QUERY)
            _read_as_text(cursor, [oid for (oid,) in settings_cursor.fetchall()])
        return ExactQuery(sql, lambda: self._exact_reading(conn, cursor))

    def _exact_reading(self, conn: Any, cursor: Any) -> Reading:
        types = _type_names(conn, cursor)
        converters = {index: postgres_values.converter_of(type_) for index, type_ in enumerate(types)}
        read_row = row_converter({index: convert for index, convert in converters.items() if convert is not None})
        if is_psycopg3(conn):
            return Reading(types, read_row)
        read_views = self.row_reader(conn, cursor.description)
        return Reading(types, lambda row: read_row(read_views(row)))


class RedshiftDriver(PsycopgDriver):
    """psycopg or psycopg2 for Redshift, which has neither SET TRANSACTION nor DO."""

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a read-only transaction. Return a cursor whose rows stay on the server until they are fetched."""
        conn.autocommit = False
        setattr(conn, "read_only" if is_psycopg3(conn) else "readonly", True)
        return named_cursor(conn)

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Declare the cursor. psycopg2 would run what follows a semicolon."""
        Driver.execute(self, conn, cursor, sql, parameters)

    def exact_query(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> ExactQuery:
        """Return the query as it is: Redshift lacks the settings that make texts exact."""
        return Driver.exact_query(self, conn, cursor, sql, parameters)


PSYCOPG_DRIVER = PsycopgDriver()
REDSHIFT_DRIVER = RedshiftDriver()


def is_psycopg3(conn: Any) -> bool | None:
    """Return True for psycopg, False for psycopg2, None for anything else."""
    for cls in type(conn).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("psycopg", "psycopg2"):
            return package == "psycopg"
    return None


def _read_as_text(cursor: Any, oids: Sequence[int]) -> None:
    if hasattr(cursor, "adapters"):
        from psycopg.types.string import TextLoader

        for oid in oids:
            cursor.adapters.register_loader(oid, TextLoader)
    else:
        from psycopg2.extensions import new_type, register_type

        register_type(new_type(tuple(oids), "TEXT", lambda value, _: value), cursor)


def _type_names(conn: Any, cursor: Any) -> tuple[str, ...]:
    """Return the types of a query's columns as PostgreSQL names them. Only psycopg knows their length or precision."""
    result = getattr(cursor, "pgresult", None)
    names = [
        f"format_type({column[1]}, {-1 if result is None else result.fmod(index)})"
        for index, column in enumerate(cursor.description)
    ]
    with closing(plain_cursor(conn)) as type_cursor:
        type_cursor.execute(f"SELECT {', '.join(names)}")
        return tuple(type_cursor.fetchone())


def plain_cursor(conn: Any) -> Any:
    """Return a client-side cursor that returns tuples."""
    return conn.cursor(**_tuple_rows(conn))


def named_cursor(conn: Any) -> Any:
    """Return a server-side cursor that returns tuples. It needs a transaction."""
    return conn.cursor(name=f"batch_{uuid.uuid4().hex}", **_tuple_rows(conn))


def _tuple_rows(conn: Any) -> dict[str, Any]:
    if is_psycopg3(conn):
        from psycopg.rows import tuple_row

        return {"row_factory": tuple_row}
    from psycopg2.extensions import cursor

    return {"cursor_factory": cursor}


def copy_in(conn: Any, cursor: Any, statement: str, blocks: Iterator[bytes]) -> None:
    """Run `COPY ... FROM STDIN` with these blocks as its input."""
    if is_psycopg3(conn):
        with cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)
    else:
        cursor.copy_expert(statement, _Blocks(blocks))


class _Blocks:
    """A file-like object over an iterator of bytes, as `copy_expert` needs it."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, or b'' at the end."""
        buffer = self._buffer or next(self._blocks, b"")
        self._buffer = buffer[size:]
        return buffer[:size]
