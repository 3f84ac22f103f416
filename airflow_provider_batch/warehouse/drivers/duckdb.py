"""DuckDB's Python driver: opening a file that others use too, and reading one query.

DuckDB lets one process write a file, or several read it: https://duckdb.org/docs/stable/connect/concurrency.
Whoever opens it while another process has it gets an error at once, so waiting is done here.

Connections of one process to one file share a database, which DuckDB (2.0.0) finds in a cache. A thread that opens
the file while another one closes the last connection to it may be left with a database that is not in the cache, and
nobody else can open the file until that one is closed. So threads open and close one at a time.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.warehouse.drivers.base import Driver, RowReader, converting

log = logging.getLogger(__name__)

#: how long opening a file waits for another process that has it open, before it fails and can be run again
LOCKED_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_one_at_a_time = threading.Lock()

#: how DuckDB says that another process has the file, and that this one is only just giving it up
_IN_USE = ("Could not set lock on file", "Unique file handle conflict")


_QUOTED = re.compile(r"""'.*'|".*"|`.*`""", re.DOTALL)

#: numbers, except those that belong to a type
_NUMBER = re.compile(r"(DECIMAL\(\d+,\d+\))|(?<!\w)[-+]?\d[\w.+-]*")

#: exceptions about names, syntax and files. All others may quote values, or hold bare numbers.
_WITHOUT_VALUES = frozenset(
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


class DuckdbDriver(Driver):
    """DuckDB's own driver."""

    packages = ("duckdb", "_duckdb")

    def connect(self, hook: DbApiHook, kept: str) -> Any:
        """Return a connection of its own; wait while another process holds the file.

        Raises WarehouseError, which ends with `kept`, if the file is still held after `LOCKED_SECONDS`.
        """
        end = time.monotonic() + LOCKED_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                with _one_at_a_time:
                    return hook.get_conn()
            except Exception as error:
                text = str(error)
                if not any(words in text for words in _IN_USE):
                    raise
                if time.monotonic() + pause > end:
                    raise WarehouseError(
                        f"The DuckDB file of connection {hook.get_conn_id()!r} was held by another process for "
                        f"{LOCKED_SECONDS:.0f} seconds: {text.partition('. See also')[0]}.\nDuckDB lets one process "
                        f"write a file, or several read it. End what holds it, or run the tasks that use this file one "
                        f'after another (an Airflow pool of one slot); where all of them only read, put "read_only": '
                        f"true into the connection's extra. Then run this task again; {kept}."
                    ) from None
                if pause == _FIRST_PAUSE:
                    log.info("The DuckDB file of connection %r is in use; waiting for it.", hook.get_conn_id())
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def close(self, conn: Any) -> None:
        """Close a connection while no other thread opens one."""
        with _one_at_a_time:
            conn.close()

    def begin_reading(self, hook: DbApiHook, conn: Any, sql: str) -> Any:
        """Open a transaction that cannot change anything, for this one query.

        Raises InputError for SQL that is no single query, by DuckDB's own parser: the driver would run each of
        several statements, and a DELETE can stand behind a WITH.
        """
        statements = conn.extract_statements(sql)
        if len(statements) > 1:
            raise InputError(
                "sql holds more than one statement, but the rows come from one SELECT. Nothing was run, nothing was "
                "uploaded."
            )
        for statement in statements:
            kind = statement.type.name
            if kind not in ("SELECT", "MULTI"):  # MULTI: what a PIVOT consists of
                raise InputError(f"sql must be one SELECT, but it is a {kind}. Nothing was run, nothing was uploaded.")
        conn.execute("BEGIN TRANSACTION READ ONLY")
        # A cursor of DuckDB's is a connection of its own, outside of this transaction.
        return conn

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return what reads columns of type JSON, which the driver gives as text."""
        documents = [index for index, column in enumerate(description) if str(column[1]) == "JSON"]
        return converting(dict.fromkeys(documents, json.loads))

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction on the connection itself."""
        conn.execute("BEGIN TRANSACTION")
        return conn

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return DuckDB's message without values."""
        text = str(error).strip()
        if "Required module 'pytz'" in text:
            return (
                "DuckDB's driver gives values of the type TIMESTAMP WITH TIME ZONE only where the package pytz is "
                "installed: pip install 'airflow-provider-batch[duckdb]'"
            )
        if type(error).__name__ not in _WITHOUT_VALUES:
            # The statement at the end may hold values that stand in the SQL.
            text = _QUOTED.sub("(value not shown)", text).partition("\n\nLINE ")[0]
            text = _NUMBER.sub(lambda match: match[1] or "(value not shown)", text)
        return text.rstrip(".")


DUCKDB_DRIVER = DuckdbDriver()
