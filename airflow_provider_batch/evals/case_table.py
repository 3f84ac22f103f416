"""The table of the cases, as an import reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.evals.imports.drafts import ImportedCase
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

_COLUMNS = tuple(Column(name, ColumnType.TEXT, key=name == "case_id") for name in CASE_COLUMNS)


@dataclass(frozen=True)
class CaseChanges:
    """What an import changes in the table."""

    new: Sequence[ImportedCase]
    changed: Sequence[ImportedCase]
    #: number of cases that are in the table already, word for word
    unchanged: int


class CaseTable:
    """The table `eval_cases`, or another one with its columns. Other columns of the table keep their values."""

    def __init__(self, hook: DbApiHook, table: str) -> None:
        """Store the arguments without querying the database. Raises InputError for a name that no table can have."""
        self._hook, self._table = hook, table
        self._tables = ReplacedTables(hook, {table: _COLUMNS})

    def compare(self, cases: Sequence[ImportedCase]) -> CaseChanges:
        """Return which cases are new and which differ from the table. A table that does not exist is empty.

        :raises ResultsTableError: if the table lacks a column.
        :raises WarehouseError: if the database refuses the query.
        """
        stored = self._stored()
        new = [case for case in cases if case.case_id not in stored]
        changed = [case for case in cases if case.case_id in stored and stored[case.case_id] != _values(case)]
        return CaseChanges(new, changed, len(cases) - len(new) - len(changed))

    def write(self, changes: CaseChanges) -> None:
        """Create the table if it does not exist, and make the changes in one transaction.

        :raises WarehouseError: if the database refuses a statement; in that case nothing is changed.
        """
        self._tables.prepare()
        self._tables.upsert(
            self._table,
            inserts=[msgspec.structs.astuple(case) for case in changes.new],
            updates=[msgspec.structs.astuple(case) for case in changes.changed],
        )

    def _stored(self) -> dict[str, tuple[str | None, ...]]:
        """Return the values of all cases in the table, by case_id."""
        if not self._tables.exists(self._table):
            return {}
        dialect = dialect_of(self._hook)
        columns = ", ".join(dialect.column(name) for name in CASE_COLUMNS)
        with read_rows(self._hook, f"SELECT {columns} FROM {dialect.table(self._table)}") as rows:
            return {
                str(case_id): tuple(None if value is None else str(value) for value in values)
                for case_id, *values in rows
            }


def _values(case: ImportedCase) -> tuple[str | None, ...]:
    return (case.input, case.expected, case.grader, case.tags)
