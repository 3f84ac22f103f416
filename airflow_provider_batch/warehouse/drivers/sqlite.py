"""Python's sqlite3 driver, with transactions that begin only where we begin them."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.drivers.base import Driver

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: Seconds a write waits for the file's write lock. After that the task fails and can be retried.
LOCK_WAIT_SECONDS = 120

#: functions of SQLite's shell and its extensions that load code or write files
DENIED_FUNCTIONS = r"load_extension|writefile|readfile|edit|fts3_tokenizer|zipfile|eval"

#: PRAGMAs that only read, and that some virtual tables need
_READING_PRAGMAS = frozenset(
    {
        "collation_list",
        "compile_options",
        "data_version",
        "database_list",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "pragma_list",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
#: PRAGMAs that only read if they get no value
_READING_WITHOUT_VALUE = frozenset(
    {"application_id", "encoding", "freelist_count", "page_count", "page_size", "schema_version", "user_version"}
)

#: SQLITE_RECURSIVE, which the module does not export
_RECURSIVE = 33

#: errors because of a row's values that have the same type as a syntax error
_DATA_MESSAGES = ("malformed JSON", "integer overflow")


class SqliteDriver(Driver):
    """Python's sqlite3 module."""

    packages = ("sqlite3",)

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Forbid every change: sqlite3 opens no transaction for a DELETE that begins with WITH."""
        conn.execute("PRAGMA query_only = ON")
        return conn.cursor()

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Run the query. SQLite asks about everything that it finds in it, such as ATTACH, and refuses all but reading.

        Raises InputError if the query contains something else.
        """
        refused: list[str] = []

        def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
            if _reads(action, first, second):
                return sqlite3.SQLITE_OK
            refused.append(" ".join(filter(None, (_ACTIONS.get(action, ""), second if action == _FUNCTION else first))))
            return sqlite3.SQLITE_DENY

        conn.set_authorizer(authorize)
        try:
            super().execute(conn, cursor, sql, parameters)
        except sqlite3.DatabaseError:
            if not refused:
                raise
            raise InputError(
                f"sql may only read. It must be a single SELECT, but SQLite found this in it: {refused[0]}. Run that "
                "in a task before this one. Nothing was changed, and nothing was uploaded."
            ) from None

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction that holds the file's write lock."""
        self.take_control(conn)
        cursor = conn.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def refuses_data(self, error: BaseException) -> bool:
        """Return whether rows were refused, also by a JSON function and for an integer of more than 64 bits."""
        return super().refuses_data(error) or isinstance(error, OverflowError) or str(error) in _DATA_MESSAGES

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return SQLite's message. The message of a trigger is its author's and may contain values."""
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_TRIGGER":
            return "a trigger refused the row"
        return super().message_of(error, hide_quoted=hide_quoted)

    def take_control(self, conn: Any) -> None:
        """Let the caller manage transactions, return rows as tuples, and wait for locks."""
        conn.isolation_level, conn.row_factory = None, None
        conn.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_SECONDS * 1000}")


_FUNCTION = sqlite3.SQLITE_FUNCTION

#: Virtual tables such as json_each and rtree prepare changes of their own tables as soon as they are opened. The check
#: of the statement refuses INSERT, UPDATE and DELETE, and query_only keeps them from running.
_READING_ACTIONS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        _RECURSIVE,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
    }
)

_ACTIONS = {
    getattr(sqlite3, f"SQLITE_{name.replace(' ', '_')}"): name
    for name in (
        *("ALTER TABLE", "ANALYZE", "ATTACH", "DETACH", "DROP INDEX", "DROP TABLE", "DROP TRIGGER"),
        *("DROP VIEW", "FUNCTION", "PRAGMA", "REINDEX", "SAVEPOINT", "TRANSACTION"),
        *("CREATE INDEX", "CREATE TABLE", "CREATE TRIGGER", "CREATE VIEW", "CREATE TEMP TABLE", "CREATE TEMP VIEW"),
    )
}


def _reads(action: int, first: str | None, second: str | None) -> bool:
    """Return whether an action that SQLite asks about only reads: https://sqlite.org/c3ref/c_alter_table.html."""
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        return name in _READING_PRAGMAS or (name in _READING_WITHOUT_VALUE and second is None)
    if action == _FUNCTION:
        return re.fullmatch(DENIED_FUNCTIONS, (second or "").lower()) is None
    return action in _READING_ACTIONS


SQLITE_DRIVER = SqliteDriver()
