"""The base class of all sinks: their arguments, their dialect and the table that they write to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.landing.storage_limits import ColumnLimits, StorageLimits
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.column_limits import limits_of_columns
from airflow_provider_batch.warehouse.dialects.base import Catalogue
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import NEXT_STEP, NOTHING_COMMITTED
from airflow_provider_batch.warehouse.refusals import RefusedRows
from airflow_provider_batch.warehouse.table import TableColumn, Target, has_native_type
from airflow_provider_batch.warehouse.upsert import UpsertTarget

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

Plan = TypeVar("Plan")


class TableSink(ABC, Generic[Plan]):
    """A results table. A subclass implements `_make_plan`, which finds or creates the table, and `write`."""

    #: ends the error message of a failed landing
    _consequence = f"{NOTHING_COMMITTED} {NEXT_STEP}"

    def __init__(
        self,
        hook: DbApiHook,
        table: str,
        columns: tuple[Column, ...],
        *,
        create: bool,
        keep_last_success: bool,
    ) -> None:
        """See `open.open_sink`. Raises InputError for a table or column name that this database cannot have."""
        self._dialect = dialect_of(hook)
        self._parts = naming.split_table(table)
        self._check_names(table, columns)
        self._hook = hook
        self._columns = columns
        self._create = create
        self._keep_last_success = keep_last_success
        self._plan: Plan | None = None
        #: What the table can store. `prepare` adds the limits of the columns that it finds.
        self.limits = self._describe_limits({})
        #: the rows that the database refused in the last `write`
        self.refusals: tuple[Refusal, ...] = ()
        self._target = Target(
            conn_id=hook.get_conn_id(),
            name=table,
            sql=self._dialect.quote_table(self._parts),
            columns=columns,
            dialect=self._dialect,
        )

    def _check_names(self, table: str, columns: tuple[Column, ...]) -> None:
        allowed = self._dialect.name_parts
        if allowed and len(self._parts) > len(allowed):
            names = [f"`{'.'.join(allowed[start:])}`" for start in range(len(allowed))]
            choices = f"{', '.join(reversed(names[1:]))} or {names[0]}"
            raise InputError(
                f"{table!r} is not a table name for {self._dialect.name}. It must be {choices}. Nothing was written."
            )
        for name in [*self._parts, *(column.name for column in columns)]:
            problem = self._dialect.problem_with_name(name)
            if problem:
                raise InputError(f"The name {name!r} has {problem}. Nothing was written.")

    @property
    def _catalogue(self) -> Catalogue:
        """The queries that describe a table. Only sinks whose dialect has a catalogue use this."""
        if self._dialect.catalogue is None:
            raise NotImplementedError(f"The dialect {self._dialect.name} has no catalogue.")
        return self._dialect.catalogue

    def _refused_rows(self, consequence: str = "", *, hide_quoted: bool = False) -> RefusedRows:
        message_of = partial(self._dialect.driver.message_of, hide_quoted=hide_quoted)
        return RefusedRows(self._columns, self.limits, message_of, consequence or self._consequence)

    @property
    def _write_action(self) -> str:
        """The first words of an error during `write`."""
        return f"Landing in the table {self._target.name!r}"

    @property
    def _prepare_action(self) -> str:
        """The first words of an error during `prepare`."""
        return f"Preparing the results table {self._target.name!r}"

    def prepare(self) -> None:
        """See `open.Sink`."""
        self._make_plan()

    def _describe_limits(self, matches: Mapping[str, TableColumn]) -> StorageLimits:
        """Return what the rows of a table with these columns can store. See `column_limits.limits_of_columns`."""
        limits = self._dialect.limits
        # Values that were read from a column of this type always fit, except that MySQL's DATETIME without a number has
        # no fraction of a second.
        native_types = {
            column.name: matches[column.name].stored
            for column in self._columns
            if column.name in matches and has_native_type(self._dialect, column, matches[column.name])
        }
        columns = {
            **limits_of_columns(
                [column for column in self._columns if column.name not in native_types],
                matches,
                text_bytes=limits.text_bytes,
            ),
            **{
                name: ColumnLimits(fraction_digits=stored.fraction_digits)
                for name, stored in native_types.items()
                if stored.fraction_digits is not None
            },
        }
        if not limits.float_has_infinity:
            for column in self._columns:
                if column.type is ColumnType.FLOAT:
                    column_limits = columns.get(column.name, ColumnLimits())
                    columns[column.name] = msgspec.structs.replace(column_limits, has_infinity=False)
        return StorageLimits(columns=columns, row_bytes=limits.row_bytes)

    @abstractmethod
    def _make_plan(self) -> Plan:
        """Find or create the table, and build and store the statements of a landing."""

    def _upsert(self, table: str, names: Sequence[str], rows: str) -> str:
        """Return the statement that upserts `rows` into our columns. `table` and `names` are SQL."""
        if self._dialect.upsert is None:
            raise NotImplementedError(f"The dialect {self._dialect.name} has no upsert statement.")
        into = UpsertTarget(table=table, columns=self._columns, names=names, keep_last_success=self._keep_last_success)
        return self._dialect.upsert(into, rows)
