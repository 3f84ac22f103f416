"""DuckDB's Python driver: opening a file that other processes use too, and reading the rows of one query.

DuckDB lets one process write a file, or several read it: https://duckdb.org/docs/stable/connect/concurrency.
Opening a file that another process holds fails immediately, so this module waits and tries again.

Connections from one process to the same file share a database, which DuckDB (2.0.0) looks up in a cache. If one thread
opens the file while another closes the last connection to it, the thread that opens it may end up with a database that
is not in the cache. Nothing else can then open the file until that connection is closed. Threads therefore take turns
to open and close connections.

DuckDB runs inside the task's own process. By default it uses 80 % of the machine's memory as a cache, with all workers
of the machine doing the same. `_bound_memory` therefore limits it. What does not fit is written to a folder on disk.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_batch.exceptions import InputError, WarehouseConnectionError, WarehouseError
from airflow_provider_batch.warehouse.drivers import duckdb_values
from airflow_provider_batch.warehouse.drivers.base import (
    QUOTED_TEXT,
    Driver,
    ExactQuery,
    Reading,
    RowReader,
    row_converter,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

#: Seconds to wait for another process that has the file open. After that the task fails and can be retried.
LOCK_WAIT_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: What DuckDB may use if neither the connection nor the config states it. A sort of 1M rows of 1 KB needs 200 MB.
DEFAULT_MEMORY_LIMIT = "256MB"

_open_lock = threading.Lock()

#: how DuckDB reports that another process has the file open, or that this process is just closing it
_IN_USE_MESSAGES = ("Could not set lock on file", "Unique file handle conflict")


#: numbers, except those that are part of a type
_NUMBER = re.compile(r"(DECIMAL\(\d+,\d+\))|(?<!\w)[-+]?\d[\w.+-]*")

#: Exceptions about names, syntax and files. The messages of all others may contain row values.
_SAFE_EXCEPTIONS = frozenset(
    {
        "BinderException",
        "CatalogException",
        "ConnectionException",
        "IOException",
        "NotImplementedException",
        "OutOfMemoryException",
        "ParserException",
        "PermissionException",
        "SyntaxException",
    }
)

#: exceptions about the values of rows
_DATA_EXCEPTIONS = frozenset(
    {
        "ConstraintException",
        "ConversionException",
        "InvalidInputException",
        "OutOfRangeException",
        "TypeMismatchException",
    }
)

#: begins the advice at the end of DuckDB's message
_SOLUTIONS = "Possible solutions:"
_MEMORY_REMEDY = (
    'Raise the limit of this connection with "memory_limit" in its extra, such as {"memory_limit": "1GB"}, or that of '
    "all DuckDB connections with the config option [openai_batch] duckdb_memory_limit. If the disk for temporary files "
    'is full or not writable, set "temp_directory" in the extra to a folder with room'
)


def _without_end(sql: str) -> str:
    """Return a single statement without its semicolon and what follows it, which can only be comments."""
    import duckdb

    offsets = [offset for offset, _ in duckdb.tokenize(sql) if sql.encode()[offset : offset + 1] == b";"]
    return sql.encode()[: offsets[0]].decode() if offsets else sql


class DuckdbDriver(Driver):
    """DuckDB's own driver."""

    packages = ("duckdb", "_duckdb")

    def connect(self, hook: DbApiHook, consequence: str) -> Any:
        """Return a new connection, waiting while another process holds the file.

        Raises WarehouseError, whose message ends with `consequence`, if the file is still held after
        `LOCK_WAIT_SECONDS`.
        """
        end = time.monotonic() + LOCK_WAIT_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                with _open_lock:
                    return _open(hook)
            except Exception as error:
                text = str(error)
                if not any(message in text for message in _IN_USE_MESSAGES):
                    raise
                if time.monotonic() + pause > end:
                    raise WarehouseError(
                        f"The DuckDB file of connection {hook.get_conn_id()!r} was held by another process for "
                        f"{LOCK_WAIT_SECONDS:.0f} seconds: {text.partition('. See also')[0]}.\nDuckDB lets one process "
                        f"write a file, or several read it. Stop the process that holds it, or run the tasks that use "
                        f"this file one after another (with an Airflow pool of one slot). If all of them only read, "
                        f'put "read_only": true into the connection\'s extra. Then run this task again. {consequence}'
                    ) from None
                if pause == _FIRST_PAUSE:
                    log.info("The DuckDB file of connection %r is in use; waiting for it", hook.get_conn_id())
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def close(self, conn: Any) -> None:
        """Close a connection while no other thread opens or closes one."""
        with _open_lock:
            conn.close()

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Open a read-only transaction for one query."""
        conn.execute("BEGIN TRANSACTION READ ONLY")
        # a DuckDB cursor is a separate connection, outside this transaction
        return conn

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Run the query. Raises InputError if DuckDB's own parser finds anything but a single query."""
        self._require_query(conn, sql)
        super().execute(conn, cursor, sql, parameters)

    def _require_query(self, conn: Any, sql: str) -> None:
        """Raise InputError if DuckDB's own parser finds anything but a single query.

        The driver would run all of several statements, and a read-only transaction does not stop COPY or ATTACH.
        """
        statements = conn.extract_statements(sql)
        if len(statements) > 1:
            raise InputError(
                "sql contains more than one statement, but the rows come from a single SELECT. Nothing was run, and "
                "nothing was uploaded."
            )
        for statement in statements:
            kind = statement.type.name
            if kind not in ("SELECT", "MULTI"):  # MULTI: DuckDB splits a PIVOT into several statements
                raise InputError(
                    f"sql must be a single SELECT, but it is a {kind}. Nothing was run, and nothing was uploaded."
                )

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that also decodes columns of type JSON, which the driver returns as text."""
        documents = [index for index, column in enumerate(description) if str(column[1]) == "JSON"]
        return row_converter(dict.fromkeys(documents, json.loads))

    def exact_query(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> ExactQuery:
        """Return a query that returns DuckDB's text of what the driver would lose."""
        try:
            self._require_query(conn, sql)
            query = _without_end(sql)
            conn.execute(f"DESCRIBE {query}", parameters)
            columns = [(name, type_) for name, type_, *_ in conn.fetchall()]
        except Exception:  # noqa: BLE001 - the query itself raises the error that names the cause
            conn.execute("ROLLBACK")
            conn.execute("BEGIN TRANSACTION READ ONLY")
            return super().exact_query(conn, cursor, sql, parameters)
        native_types = tuple("" if type_ == '"NULL"' else type_ for _, type_ in columns)
        return ExactQuery(
            duckdb_values.exact_query(query, columns), lambda: Reading(native_types, duckdb_values.row_reader(columns))
        )

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction and return the connection itself as the cursor."""
        conn.execute("BEGIN TRANSACTION")
        return conn

    def refuses_data(self, error: BaseException) -> bool:
        """Return whether rows were refused by a constraint or a cast."""
        return type(error).__name__ in _DATA_EXCEPTIONS

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return DuckDB's message without values."""
        text = str(error).strip()
        if "Required module 'pytz'" in text:
            return (
                "DuckDB's driver can return values of the type TIMESTAMP WITH TIME ZONE only if the package pytz is "
                "installed: pip install 'airflow-provider-batch[duckdb]'"
            )
        if type(error).__name__ == "OutOfMemoryException":
            # what follows are statements that the author of a DAG cannot run
            text = f"{text.partition(_SOLUTIONS)[0].strip()}\n{_MEMORY_REMEDY}"
        if type(error).__name__ not in _SAFE_EXCEPTIONS:
            # the statement quoted at the end may contain values
            text = QUOTED_TEXT.sub("(value not shown)", text).partition("\n\nLINE ")[0]
            text = _NUMBER.sub(lambda match: match[1] or "(value not shown)", text)
        return text.rstrip(".")


DUCKDB_DRIVER = DuckdbDriver()


def _open(hook: DbApiHook) -> Any:
    conn = hook.get_conn()
    try:
        _bound_memory(hook, conn)
    except BaseException:
        conn.close()
        raise
    return conn


def _bound_memory(hook: DbApiHook, conn: Any) -> None:
    """Limit the memory of the database, and make sure that it has a folder for what does not fit.

    These settings are global to a database that all connections of this process to the same file share. What the
    connection's extra states therefore stays, and so does everything if someone else in this process has the file open.
    With several threads, DuckDB needs several times the memory for the same sort, so it gets one thread.
    """
    extra = hook.connection_extra
    stated_settings = {name.lower() for name in (*extra, *(extra.get("settings") or {}))}
    ((connections, locked),) = conn.execute(
        "SELECT count, current_setting('lock_configuration') FROM duckdb_connection_count()"
    ).fetchall()
    if connections > 1 or locked:
        return
    if "temp_directory" not in stated_settings:
        _set_temporary_folder(conn)
    memory_limit = conf.get("openai_batch", "duckdb_memory_limit", fallback=DEFAULT_MEMORY_LIMIT)
    if not memory_limit or stated_settings & {"memory_limit", "max_memory"}:
        return
    try:
        conn.execute(f"SET memory_limit = {_quote(memory_limit)}")
    except Exception as error:  # noqa: BLE001 - DuckDB has several exceptions for an amount it cannot read
        raise WarehouseConnectionError(
            f"The config option [openai_batch] duckdb_memory_limit is {memory_limit!r}, which DuckDB refuses: {error}. "
            f"Set it to an amount such as 256MB or 2GB. Nothing was read or written."
        ) from None
    if not stated_settings & {"threads", "worker_threads"}:
        conn.execute("SET threads = 1")


def has_default_memory(conn: Any, error: BaseException) -> bool:
    """Return whether an error says that the memory ran out, and the limit is the default of this package."""
    import duckdb

    if not isinstance(error, duckdb.OutOfMemoryException):
        return False
    with duckdb.connect(config={"memory_limit": DEFAULT_MEMORY_LIMIT}) as other:
        query = "SELECT current_setting('memory_limit')"
        is_default: bool = conn.execute(query).fetchone() == other.execute(query).fetchone()
    return is_default


def _set_temporary_folder(conn: Any) -> None:
    """Use a folder in the system's own temporary folder if DuckDB cannot create its folder.

    By default that is next to the database file or, for a database in memory, in the working directory. DuckDB creates
    the folder when it needs it and removes it when the database is closed.
    """
    ((folder,),) = conn.execute("SELECT current_setting('temp_directory')").fetchall()
    path = Path(folder).absolute()
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.name == ".tmp":
        path = Path(tempfile.gettempdir()) / f"batch-duckdb-{secrets.token_hex(8)}"
        conn.execute(f"SET temp_directory = {_quote(str(path))}")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
