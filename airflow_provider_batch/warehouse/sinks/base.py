"""What the sinks of the databases that were run have in common: their arguments, names and target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.table import Target

Plan = TypeVar("Plan")


class TableSink(ABC, Generic[Plan]):
    """A results table. A subclass finds or creates it and plans for it in `_prepared`, and adds `write`."""

    #: the database's name, and the parts of a table's name there, for errors
    database: ClassVar[str]
    name_parts: ClassVar[tuple[str, ...]]
    #: types of columns that are created, and the quotation marks of names
    types: ClassVar[Mapping[ColumnType, str]]
    marks: ClassVar[str] = '""'

    def __init__(
        self,
        hook: DbApiHook,
        table: str,
        columns: tuple[Column, ...],
        *,
        create: bool,
        keep_last_success: bool,
    ) -> None:
        """See `write.open_sink`. Raises InputError for a name that no table or column can have here."""
        self._parts = naming.split_table(table)
        if len(self._parts) > len(self.name_parts):
            names = [f"`{'.'.join(self.name_parts[start:])}`" for start in range(len(self.name_parts))]
            told = f"{', '.join(reversed(names[1:]))} or {names[0]}"
            raise InputError(f"{table!r}: a table in {self.database} is {told}. Nothing was written.")
        for name in [*self._parts, *(column.name for column in columns)]:
            problem = self.problem_of(name)
            if problem:
                raise InputError(f"The name {name!r} has {problem}. Nothing was written.")
        self._hook = hook
        self._columns = columns
        self._create = create
        self._keep_last_success = keep_last_success
        self._plan: Plan | None = None
        self._target = Target(
            conn_id=hook.get_conn_id(),
            name=table,
            sql=naming.quote_table(self._parts, self.marks),
            columns=columns,
            type_of=lambda column: self.types[column.type],
            marks=self.marks,
        )

    def problem_of(self, name: str) -> str:
        """What the database cannot take in this name of a table or column; '' if it can take it."""
        return ""

    def prepare(self) -> None:
        """See `write.Sink`."""
        self._prepared()

    @abstractmethod
    def _prepared(self) -> Plan:
        """Find or create the table, and keep what a landing in it runs."""
