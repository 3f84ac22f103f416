"""The requirements for a results table, and the errors for a table that does not meet them.

A sink describes the existing table as a `Table`. `match_columns` then finds our columns in it, or reports all problems
in one error, each with the SQL statement that fixes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.dialects.base import Dialect

#: columns that later queries look up by value although they are not part of the key
COMPARED_COLUMNS = ("outcome", "request_sha256")

#: types that cannot be a key: databases compare JSON documents, bytes and vectors differently or not at all
_NO_KEY = (ColumnType.JSON, ColumnType.BYTES, ColumnType.VECTOR)


@dataclass(frozen=True)
class TableColumn:
    """A column of an existing table."""

    name: str
    #: the type as the database names it
    type: str
    #: NOT NULL without a default: a row cannot be inserted without a value for it
    required: bool = False


@dataclass(frozen=True)
class Table:
    """An existing table."""

    columns: tuple[TableColumn, ...]
    #: the column names of the primary key and of every unique constraint or index that covers all rows
    keys: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Target:
    """The results table that we want to write to."""

    #: id of the Airflow connection
    conn_id: str
    #: table name as the caller wrote it
    name: str
    #: table name as SQL
    sql: str
    columns: tuple[Column, ...]
    dialect: Dialect
    #: type with which a column is created, if it does not follow from the dialect alone
    type_of: Callable[[Column], str] | None = None

    def quote(self, name: str) -> str:
        """Return a column name as SQL."""
        return self.dialect.quote(name)

    def column_definition(self, column: Column) -> str:
        """Return a column's definition for `CREATE TABLE` or `ALTER TABLE ADD COLUMN`."""
        type_ = (
            self.type_of(column) if self.type_of else self.dialect.type_of(column, compared_columns=COMPARED_COLUMNS)
        )
        return f"{self.quote(column.name)} {type_}".rstrip()

    def key_list(self) -> str:
        """Return the key columns, quoted and separated by commas."""
        return ", ".join(self.quote(column.name) for column in self.columns if column.key)

    def create_statement(self) -> str:
        """Return the CREATE TABLE statement, with the columns in the order in which they were passed."""
        lines = [self.column_definition(column) + (" NOT NULL" if column.key else "") for column in self.columns]
        if self.dialect.declares_key:
            lines.append(f"PRIMARY KEY ({self.key_list()})")
        return f"CREATE TABLE {self.sql} (\n  " + ",\n  ".join(lines) + "\n)"

    def error(self, problem: str) -> ResultsTableError:
        """Return an error about the table. `problem` continues the sentence "The results table ..."."""
        return ResultsTableError(
            f"The results table {self.name!r} (connection {self.conn_id!r}) {problem}\nNothing was written to "
            f"it. The collected answers are kept. Fix the table, then clear this task."
        )

    def absent_table_error(self) -> ResultsTableError:
        """Return the error for a table that does not exist and must not be created."""
        return self.error(f"does not exist, and create_table is False. Create it:\n{self.create_statement()};")


def check_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns as a tuple. Raises InputError if no results table can have these columns."""
    repeated_names = naming.duplicate_names([column.name for column in columns])
    if repeated_names:
        raise InputError(
            f"The results table would have these columns twice (names are compared without case): "
            f"{', '.join(repeated_names)}. Nothing was written."
        )
    keys = [column for column in columns if column.key]
    if not keys:
        raise InputError("A results table needs a key, but no column has key=True. Nothing was written.")
    for column in keys:
        if column.type in _NO_KEY:
            raise InputError(f"{column.name!r} is of type {column.type} and cannot be a key. Nothing was written.")
    for name, type_ in (("outcome", ColumnType.TEXT), ("sealed_at", ColumnType.TIMESTAMP)):
        if columns[naming.position(columns, name)].type is not type_:
            raise InputError(f"The column {name!r} must be of type {type_}. Nothing was written.")
    return tuple(columns)


def match_columns(
    target: Target,
    table: Table,
    *,
    is_incompatible: Callable[[Column, TableColumn], bool] | None = None,
    extra_problems: Callable[[Mapping[str, TableColumn]], Iterable[str]] | None = None,
) -> Mapping[str, TableColumn]:
    """Return our column names, each with the column of the existing table that stores it.

    `is_incompatible` returns whether an existing column cannot store the values of ours. `extra_problems` returns
    further problems with the matched columns. Raises ResultsTableError, which lists every column that is missing,
    ambiguous, of an incompatible type, or required but not ours, and a key other than ours.
    """
    problems: list[str] = []
    matches: dict[str, TableColumn] = {}
    by_name = {column.name: column for column in table.columns}
    for column in target.columns:
        candidates = naming.spellings(column.name, by_name)
        if len(candidates) > 1:
            problems.append(f"has several columns that match {column.name!r}: {', '.join(candidates)}")
        elif not candidates:
            definition = target.column_definition(column)
            problems.append(f"has no column {column.name!r}: ALTER TABLE {target.sql} ADD COLUMN {definition};")
        else:
            matches[column.name] = table_column = by_name[candidates[0]]
            if is_incompatible is not None and is_incompatible(column, table_column):
                problems.append(
                    f"has the column {table_column.name!r} as {table_column.type}, but it gets {column.type} values"
                )
    if extra_problems is not None:
        problems.extend(extra_problems(matches))
    our_names = {column.name for column in matches.values()}
    problems.extend(
        f"has the column {column.name!r}, which is NOT NULL without a default, and which this task does not fill: make "
        f"it nullable or give it a default"
        for column in table.columns
        if column.required
        and column.name not in our_names
        # a column that matches an ambiguous name is already reported above
        and not any(naming.spellings(column.name, [our_column.name for our_column in target.columns]))
    )
    key_columns = [column.name for column in target.columns if column.key]
    key = [matches[name].name for name in key_columns if name in matches]
    if len(key) < len(key_columns) or set(key) not in [set(columns) for columns in table.keys]:
        listed_keys = " and ".join(f"({', '.join(columns)})" for columns in table.keys)
        existing_keys = f"the unique key {listed_keys}" if listed_keys else "no unique key"
        index = target.quote(f"{naming.split_table(target.name)[-1]}_key")
        key_list = ", ".join(target.quote(matches[name].name if name in matches else name) for name in key_columns)
        problems.append(
            f"has {existing_keys}, but rows are upserted by ({', '.join(key_columns)}): "
            f"CREATE UNIQUE INDEX {index} ON {target.sql} ({key_list});"
        )
    if problems:
        list_of_problems = "\n".join(f"- {problem}" for problem in problems)
        raise target.error(f"does not fit the rows of this job. It\n{list_of_problems}")
    return matches
