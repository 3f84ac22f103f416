"""The entry point for writing a results table: `open_sink` returns the `Sink` for the dialect of the hook.

    sink = open_sink(hook, "analytics.ticket_labels", columns)
    sink.prepare()
    sink.write(rows)

What every sink guarantees:

- Rows are upserted by the key columns. Only our columns are written; all others keep their values.
- `precedence` decides which of two rows with the same key stays, within one `write` as well as between jobs. The result
  does not depend on chunks, and writing the same rows again changes nothing.
- One `write` is one transaction. Memory is bounded by a chunk of rows.
- Every identifier is quoted. No log line and no error contains a row value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.table import check_columns

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook


class Sink(Protocol):
    """A results table, open for writing.

    A sink may also have an attribute `limits`, the `StorageLimits` of the table once `prepare` has returned. The
    landing then leaves out values that the table cannot store, instead of failing on them. After `write`, it may have
    an attribute `refusals` with a `Refusal` for each row that the database refused. The landing then reports these rows
    and fails.
    """

    def prepare(self) -> None:
        """Make sure that rows can be landed.

        Creates the table if it does not exist and may be created, and checks its columns, types and key.

        Raises ResultsTableError, which lists everything that does not fit together with the statements that fix it, and
        WarehouseError if the database cannot be queried.
        """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Land the rows in one transaction, and return how many were received.

        Each row is a tuple in the order of the sink's columns. Values have the Python types that `ColumnType` names, or
        are None. An exception from iterating `rows` is passed on after everything is rolled back. A row with a value
        that the database refuses, such as one that violates a constraint, is not an error: all others land, and
        `refusals` has the row. Raises ResultsTableError for a value of the wrong type or an empty key, and if the
        database refuses too many rows, and WarehouseError for whatever else the database refuses.
        """


class SinkFactory(Protocol):
    """A class or function that creates a user's own sink."""

    def __call__(
        self, hook: DbApiHook, table: str, columns: tuple[Column, ...], *, create: bool, keep_last_success: bool
    ) -> Sink:
        """Return the sink for this table, without querying the database.

        `columns` are the columns to write, in the order of each row. Those with `key=True` identify a row. `create` and
        `keep_last_success` are the operator's `create_table` and `keep_last_success`.
        """


def open_sink(
    hook: DbApiHook,
    table: str,
    columns: Sequence[Column],
    *,
    create: bool = True,
    keep_last_success: bool = False,
    factory: SinkFactory | None = None,
) -> Sink:
    """Return the sink for a results table, chosen by the database or created by the caller's `factory`.

    The database is not queried before `prepare` or `write`.

    `table` is `table` or `schema.table` (in DuckDB also `database.schema.table`). Each part is taken literally and
    quoted. `columns` are the columns to write, in the order of each row. Those with `key=True` identify a row. They
    include `outcome` (TEXT) and `sealed_at` (TIMESTAMP). Columns of an existing table match regardless of case.

    With `create=False` a missing table is an error that contains its CREATE TABLE statement. With `keep_last_success`
    only another success replaces a success.

    Raises InputError for a name or columns that no table can have.
    """
    checked_columns = check_columns(columns)
    make_sink: SinkFactory = factory if factory is not None else resolve_name(dialect_of(hook).sink)
    return make_sink(hook, table, checked_columns, create=create, keep_last_success=keep_last_success)
