"""psycopg (3) and psycopg2 behind one face: plain cursors, server-side cursors, COPY.

Airflow's PostgresHook gives a connection of either, and its `cursor` extra may make rows dicts; every cursor
made here gives plain tuples.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.drivers.base import Driver, RowReader, converting

#: bytea's type code in psycopg2, which gives its values as memoryviews
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
        """Return a cursor whose rows stay on the server."""
        if is_psycopg3(conn) is None:
            return super().begin_reading(hook, conn, sql)
        return named_cursor(conn)

    def first_rows(self, conn: Any, cursor: Any, count: int) -> list[Any]:
        """Return the first rows. psycopg2 knows the columns of a named cursor only once it has fetched."""
        if is_psycopg3(conn) is False:
            rows: list[Any] = cursor.fetchmany(count)
            return rows
        return super().first_rows(conn, cursor, count)

    def end_reading(self, conn: Any, cursor: Any) -> None:
        """Close the cursor too: psycopg warns about a named one that is left open, even on a closed connection."""
        with suppress(Exception):
            cursor.close()
        super().end_reading(conn, cursor)

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return what makes bytes of the memoryviews that psycopg2 gives for bytea."""
        if is_psycopg3(conn) is not False:
            return super().row_reader(conn, description)
        views = [index for index, column in enumerate(description) if column[1] == _BYTEA]
        return converting(dict.fromkeys(views, bytes))


PSYCOPG_DRIVER = PsycopgDriver()


def is_psycopg3(conn: Any) -> bool | None:
    """True for psycopg, False for psycopg2, None for anything else."""
    for cls in type(conn).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("psycopg", "psycopg2"):
            return package == "psycopg"
    return None


def plain_cursor(conn: Any) -> Any:
    """A client-side cursor that gives tuples."""
    return conn.cursor(**_tuples(conn))


def named_cursor(conn: Any) -> Any:
    """A server-side cursor that gives tuples. It lives in a transaction, so autocommit is switched off."""
    conn.autocommit = False
    return conn.cursor(name=f"batch_{uuid.uuid4().hex}", **_tuples(conn))


def _tuples(conn: Any) -> dict[str, Any]:
    if is_psycopg3(conn):
        from psycopg.rows import tuple_row

        return {"row_factory": tuple_row}
    from psycopg2.extensions import cursor

    return {"cursor_factory": cursor}


def copy_in(conn: Any, cursor: Any, statement: str, blocks: Iterator[bytes]) -> None:
    """Run `COPY ... FROM STDIN` with the blocks."""
    if is_psycopg3(conn):
        with cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)
    else:
        cursor.copy_expert(statement, _Blocks(blocks))


class _Blocks:
    """An iterator of bytes as the file that `copy_expert` reads."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b'' at the end."""
        rest = self._rest or next(self._blocks, b"")
        self._rest = rest[size:]
        return rest[:size]


def one_statement(sql: str) -> str:
    """The SQL without a semicolon at its end and what follows it, by PostgreSQL's lexical rules.

    A cursor takes one query, and psycopg2 would run what comes after it. Raises InputError if anything but
    comments and semicolons follows the first statement.
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
            "sql holds more than one statement, but the rows come from one SELECT: keep that one and run the "
            "others in a task before it. Nothing was run, nothing was uploaded."
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
