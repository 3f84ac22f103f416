"""Database errors without row values.

Drivers put values into their messages. PostgreSQL's DETAIL and CONTEXT contain whole rows, and its data errors quote
the text that they could not read. MySQL and DuckDB quote duplicate keys. More people can read task logs than tables, so
errors keep only what identifies the problem, and the original exception is not chained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from airflow_provider_batch.exceptions import AbsentTableError, BatchError, WarehouseError
from airflow_provider_batch.warehouse.dialects import registry
from airflow_provider_batch.warehouse.dialects.base import ErrorPattern, ErrorPatterns
from airflow_provider_batch.warehouse.dialects.generic import GENERIC
from airflow_provider_batch.warehouse.dialects.registry import driver_of

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: ends the error message of a failed landing
NOTHING_COMMITTED = "Nothing from this landing was committed."
#: what to do after a failed landing
NEXT_STEP = "The collected answers are kept. Fix the cause, then clear this task."
#: ends the error message of a failed query
NOTHING_UPLOADED = "Nothing was uploaded."


def sqlstate(error: BaseException) -> str:
    """Return the five-character SQLSTATE of an error, or '' if its driver does not provide one."""
    return driver_of(error).sqlstate_of(error)


def message_of(error: BaseException, *, hide_quoted: bool = False) -> str:
    """Return the database's message without row values; `hide_quoted` also removes everything in quotes."""
    return driver_of(error).message_of(error, hide_quoted=hide_quoted)


#: SQLSTATE classes of statements that do not fit the database: syntax and access, features, data, constraints, schemas
_MISFIT_CLASSES = ("42", "0A", "22", "23", "3F")


def matches_any_dialect(error: BaseException, pattern_of: Callable[[ErrorPatterns], ErrorPattern]) -> bool:
    """Return whether an error matches this pattern of any dialect.

    The patterns are distinct enough to try all of them. Doing so also covers a known driver behind an unknown hook.
    """
    driver = driver_of(error)
    return any(pattern_of(dialect.errors).matches(driver, error) for dialect in (*registry.DIALECTS, GENERIC))


def is_absent_table(error: BaseException) -> bool:
    """Return whether an error says that a table does not exist, rather than that it may be inaccessible."""
    absent = matches_any_dialect(error, lambda errors: errors.absent_table)
    return absent and not matches_any_dialect(error, lambda errors: errors.hidden_table)


class RowSource(Protocol):
    """Rows that a driver reads from the caller while it writes. See `rows.IncomingRows`."""

    @property
    def error(self) -> Exception | None:
        """The exception raised by reading or converting the rows, for which the database is not to blame."""


@contextmanager
def translate_errors(
    hook: DbApiHook,
    action: str,
    consequence: str,
    *,
    incoming: RowSource | None = None,
    misfit_error: type[WarehouseError] = WarehouseError,
    hide_quoted: bool = False,
) -> Iterator[None]:
    """Turn an exception that a driver raises in the block into a WarehouseError without row values.

    Exceptions of this package, and those raised while reading `incoming`, pass through unchanged. If the database says
    that the statement itself is at fault, so that a retry cannot help, `misfit_error` is raised instead. Without a
    `misfit_error`, a missing table raises AbsentTableError.

    :param action: what was attempted, such as "Reading"; the error message begins with it.
    :param consequence: what was kept and what to do next; the error message ends with it.
    """
    try:
        yield
    except BatchError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has its own exception tree
        if incoming is not None and incoming.error is not None:
            raise incoming.error from None
        error_class = misfit_error if sqlstate(error).startswith(_MISFIT_CLASSES) else WarehouseError
        if misfit_error is WarehouseError and is_absent_table(error):
            error_class = AbsentTableError
        text = message_of(error, hide_quoted=hide_quoted)
        raise error_class(f"{action} with connection {hook.get_conn_id()!r} failed: {text}\n{consequence}") from None
