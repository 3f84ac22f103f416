"""A common interface to psycopg (3) and psycopg2: plain cursors, server-side cursors, COPY.

Airflow's PostgresHook returns a connection from either package, and the connection's `cursor` extra can turn rows into
dicts. Every cursor created here returns plain tuples.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.drivers.base import Driver, RowReader, row_converter

#: type code of bytea in psycopg2, which returns its values as memoryviews
_BYTEA = 17

_LEXEME = re.compile(
    r"""(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'      # 'text' with escapes
      | '(?:[^']|'')*'                          # 'text'
      | "(?:[^"]|"")*"                          # "name"
      | (?<![\w$])(\$(?:[^\W\d]\w*)?\$).*?\1    # $$text$$
      | --[^\n]*
      | /\*
      | ;""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


class PsycopgDriver(Driver):
    """psycopg or psycopg2, whichever Airflow's hook connects with."""

    packages = ("psycopg", "psycopg2")

    def one_statement(self, sql: str) -> str:
        """Return the SQL up to its first semicolon. Raises InputError for several statements."""
        return one_statement(sql)

    def begin_reading(self, hook: DbApiHook, conn: Any, sql: str) -> Any:
        """Return a cursor whose rows stay on the server until they are fetched."""
        if is_psycopg3(conn) is None:
            return super().begin_reading(hook, conn, sql)
        return named_cursor(conn)

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

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that also converts psycopg2's memoryviews (bytea) to bytes."""
        if is_psycopg3(conn) is not False:
            return super().row_reader(conn, description)
        views = [index for index, column in enumerate(description) if column[1] == _BYTEA]
        return row_converter(dict.fromkeys(views, bytes))


PSYCOPG_DRIVER = PsycopgDriver()


def is_psycopg3(conn: Any) -> bool | None:
    """Return True for psycopg, False for psycopg2, None for anything else."""
    for cls in type(conn).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("psycopg", "psycopg2"):
            return package == "psycopg"
    return None


def plain_cursor(conn: Any) -> Any:
    """Return a client-side cursor that returns tuples."""
    return conn.cursor(**_tuple_rows(conn))


def named_cursor(conn: Any) -> Any:
    """Return a server-side cursor that returns tuples. It needs a transaction, so autocommit is switched off."""
    conn.autocommit = False
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


def one_statement(sql: str) -> str:
    """Return the SQL up to the semicolon that ends it, by PostgreSQL's lexical rules.

    A named cursor takes one query, and psycopg2 would run whatever follows the semicolon. Raises InputError if anything
    but comments and semicolons follows the first statement.
    """
    end: int | None = None
    position = 0
    while match := _LEXEME.search(sql, position):
        if end is not None and sql[position : match.start()].strip():
            break
        position = match.end()
        if match[0] == "/*":
            position = _end_of_comment(sql, position)
        elif match[0] == ";":
            end = match.start() if end is None else end
        elif end is not None and not match[0].startswith("--"):
            position = match.start()
            break
    if end is None:
        return sql
    if sql[position:].strip():
        raise InputError(
            "sql contains more than one statement, but the rows come from a single SELECT. Keep that one and run the "
            "others in a task before this one. Nothing was run, and nothing was uploaded."
        )
    return sql[:end]


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position
