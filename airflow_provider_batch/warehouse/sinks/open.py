"""The way into a results table: a `Sink`, chosen by the dialect of the hook.

    sink = open_sink(hook, "analytics.ticket_labels", columns)
    sink.prepare()
    sink.write(rows)

What every sink keeps:

- Rows are upserted by the key columns, and only our columns are written. Columns that are not ours stay as they are.
- Which of two rows with the same key stays is said in `precedence`, for rows of one `write` and of different jobs
  alike. The end does not depend on chunks, and writing the same rows again changes nothing.
- One `write` is one transaction. Memory is bounded by a chunk of rows.
- Every identifier is quoted. No value of a row is in any log or error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import Any, Protocol

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.table import check_columns


class Sink(Protocol):
    """One results table, open for writing."""

    def prepare(self) -> None:
        """Make sure that rows can be landed.

        Creates the table if it is absent and may be created, and checks its columns, types and key.

        Raises ResultsTableError, which lists everything that does not fit with the statements that mend it, and
        WarehouseError if the database cannot be asked.
        """

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Land the rows, each a tuple in the order of the sink's columns, in one transaction.

        Values are of the Python types that `ColumnType` names, or None. Returns how many rows were received. What
        iterating `rows` raises is passed on after everything is rolled back. Raises ResultsTableError for a value
        of another type or an empty key, and WarehouseError for what the database refuses.
        """


class SinkFactory(Protocol):
    """What makes a sink of one's own: a class or a function."""

    def __call__(
        self, hook: DbApiHook, table: str, columns: tuple[Column, ...], *, create: bool, keep_last_success: bool
    ) -> Sink:
        """The sink for this table. Nothing is asked of the database yet.

        `columns` are those that are written, in the order of each row; those with `key=True` name a row. `create` and
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
    """The sink for a results table, by the kind of its database or by a `factory` of the caller's own.

    Nothing is asked of the database before `prepare` or `write`.

    `table` is `table` or `schema.table` (in DuckDB also `database.schema.table`); each part is taken literally and
    quoted. `columns` are those that are written, in the order of each row; those with `key=True` name a row. Among
    them are `outcome` (TEXT) and `sealed_at` (TIMESTAMP). An existing table's columns are found whatever their case.

    With `create=False` an absent table is an error that holds its CREATE TABLE statement. With
    `keep_last_success` a success is only ever replaced by a success.

    Raises InputError for a name or columns that no table can have.
    """
    checked = check_columns(columns)
    kind: SinkFactory = factory if factory is not None else resolve_name(dialect_of(hook).sink)
    return kind(hook, table, checked, create=create, keep_last_success=keep_last_success)
