"""A database's errors, told without the values of any row.

Drivers put values into their messages: PostgreSQL's DETAIL and CONTEXT carry whole rows, its data errors
quote the text they could not read, MySQL and DuckDB quote duplicate keys. Task logs are read by more people than tables
are, so only what names the problem is kept, and the original exception is not chained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import AbsentTableError, BatchError, WarehouseError
from airflow_provider_batch.warehouse.dialects import registry
from airflow_provider_batch.warehouse.dialects.base import Errors, Sign
from airflow_provider_batch.warehouse.dialects.generic import GENERIC
from airflow_provider_batch.warehouse.dialects.registry import driver_of

#: said when a landing failed
NOTHING_COMMITTED = "nothing of this landing was committed"
#: and what to do then
THEN = "What was collected is kept: mend the cause, then clear this task."
#: said when the query failed
NOTHING_UPLOADED = "nothing was uploaded"


def sqlstate(error: BaseException) -> str:
    """Return the five-character SQLSTATE of an error, '' if its driver does not give one."""
    return driver_of(error).sqlstate_of(error)


def message_of(error: BaseException, *, hide_quoted: bool = False) -> str:
    """Return the database's message without values; `hide_quoted` also drops whatever stands in quotes."""
    return driver_of(error).message_of(error, hide_quoted=hide_quoted)


#: SQLSTATE classes that say that a statement does not fit the database: syntax and access, features, data, keys
_MISFIT_CLASSES = ("42", "0A", "22", "23", "3F")


def says(error: BaseException, kind: Callable[[Errors], Sign]) -> bool:
    """Whether an error is of this kind for any of the databases.

    The signs are distinct enough to try all of them, and a known driver may be behind a hook that we do not know.
    """
    driver = driver_of(error)
    return any(kind(dialect.errors).matches(driver, error) for dialect in (*registry.DIALECTS, GENERIC))


def says_absent(error: BaseException) -> bool:
    """Whether a driver's error says that a table does not exist, and cannot mean that it is hidden."""
    return says(error, lambda errors: errors.absent_table) and not says(error, lambda errors: errors.hidden_table)


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
