"""A database's errors, told without the values of any row.

Drivers put values into their messages: PostgreSQL's DETAIL and CONTEXT carry whole rows, its data errors
quote the text they could not read, MySQL and DuckDB quote duplicate keys. Task logs are read by more people than tables
are, so only what names the problem is kept, and the original exception is not chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import AbsentTableError, BatchError, WarehouseError
from airflow_provider_batch.warehouse.drivers import mysql as mysql_driver

#: said when a landing failed
NOTHING_COMMITTED = "nothing of this landing was committed"
#: and what to do then
THEN = "What was collected is kept: mend the cause, then clear this task."
#: said when the query failed
NOTHING_UPLOADED = "nothing was uploaded"

_QUOTED = re.compile(r"""'.*'|".*"|`.*`""", re.DOTALL)

#: numbers, but for those that belong to a type
_NUMBER = re.compile(r"(DECIMAL\(\d+,\d+\))|(?<!\w)[-+]?\d[\w.+-]*")

#: DuckDB's exceptions that speak of names, syntax and files. All others may quote values, or hold bare numbers.
_DUCKDB_PLAIN = frozenset(
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


def sqlstate(error: BaseException) -> str:
    """The five-character code of PostgreSQL and MySQL, or '' where there is none."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or mysql_driver.sqlstate_of(error)


def message_of(error: BaseException, *, hide_quoted: bool = False) -> str:
    """What the database says, without values; `hide_quoted` also drops whatever stands in quotes."""
    if type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb"):
        return _message_of_duckdb(error)
    mysql = mysql_driver.message_of(error)
    if mysql is not None:
        return mysql.rstrip(".")
    code = sqlstate(error)
    diagnostics = getattr(error, "diag", None)
    primary = getattr(diagnostics, "message_primary", None)
    text = primary or str(error).strip() or type(error).__name__
    # SQLSTATE class 22 is "data exception": what is quoted there is data.
    if hide_quoted or code.startswith("22"):
        text = _QUOTED.sub("(value not shown)", text)
    hint = getattr(diagnostics, "message_hint", None)
    if hint and code.startswith("42"):  # class 42 is about names and syntax
        text = f"{text} ({hint})"
    return text.rstrip(".")


def _message_of_duckdb(error: BaseException) -> str:
    text = str(error).strip()
    if "Required module 'pytz'" in text:
        return (
            "DuckDB's driver gives values of the type TIMESTAMP WITH TIME ZONE only where the package pytz is "
            "installed: pip install 'airflow-provider-batch[duckdb]'"
        )
    if type(error).__name__ not in _DUCKDB_PLAIN:
        # The statement at the end may hold values that stand in the SQL.
        text = _QUOTED.sub("(value not shown)", text).partition("\n\nLINE ")[0]
        text = _NUMBER.sub(lambda match: match[1] or "(value not shown)", text)
    return text.rstrip(".")


#: SQLSTATE classes that say that a statement does not fit the database: syntax and access, features, data, keys
_MISFIT_CLASSES = ("42", "0A", "22", "23", "3F")


#: SQLSTATE of "no such table": PostgreSQL's own, and that of ODBC, which MySQL and others give
_ABSENT_STATES = ("42P01", "42S02")
#: what is said for "no such table", and for nothing else, by those whose drivers give no SQLSTATE: SQLite, DuckDB,
#: Redshift, Trino, Databricks, SQL Server and BigQuery
_ABSENT_WORDS = re.compile(
    r"no such table|^Catalog Error: Table with name .* does not exist|\b42P01\b|\bTABLE_NOT_FOUND\b"
    r"|\bTABLE_OR_VIEW_NOT_FOUND\b|\bInvalid object name\b|\bNot found: Table\b"
)
#: Snowflake gives ODBC's code for a table that may not be seen too, and says so. Oracle's ORA-00942 never tells which.
_MAYBE_HIDDEN = re.compile(r"authori[sz]ed|permission|privilege|ORA-00942", re.IGNORECASE)


def says_absent(error: BaseException) -> bool:
    """Whether a driver's error says that a table is not there, and cannot mean one that is hidden."""
    text = str(error)
    said = sqlstate(error) in _ABSENT_STATES or _ABSENT_WORDS.search(text) is not None
    return said and _MAYBE_HIDDEN.search(text) is None


class RowSource(Protocol):
    """Rows that a driver reads from the caller while it writes; see `rows.Incoming`."""

    @property
    def raised(self) -> Exception | None:
        """What reading or converting the rows raised, which is no fault of the database."""


@contextmanager
def database_errors(
    hook: DbApiHook,
    doing: str,
    kept: str,
    *,
    incoming: RowSource | None = None,
    misfit: type[WarehouseError] = WarehouseError,
    hide_quoted: bool = False,
) -> Iterator[None]:
    """Turn what a driver raises in the block into a WarehouseError without values.

    Our own errors pass as they are, and so does what reading `incoming` raised. `misfit` is raised instead where
    the database says that the statement itself is at fault, so that trying again cannot help; without one,
    AbsentTableError where that fault is a table that is not there.
    """
    try:
        yield
    except BatchError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has an exception tree of its own
        if incoming is not None and incoming.raised is not None:
            raise incoming.raised from None
        kind = misfit if sqlstate(error).startswith(_MISFIT_CLASSES) else WarehouseError
        if misfit is WarehouseError and says_absent(error):
            kind = AbsentTableError
        text = message_of(error, hide_quoted=hide_quoted)
        raise kind(f"{doing} with connection {hook.get_conn_id()!r} failed: {text}\n{kept}") from None
