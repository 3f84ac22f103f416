"""What a results table must look like, and what to say when it does not.

A sink probes the table and describes it as a `Table`; `fit` finds our columns in it or lists everything that
is wrong at once, each with the statement that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.dialects.base import Dialect

#: columns that are looked up by value later on, although they are not part of the key
COMPARED = ("outcome", "request_sha256")

#: a JSON document, bytes or a vector names no row: databases compare them differently or not at all
_NO_KEY = (ColumnType.JSON, ColumnType.BYTES, ColumnType.VECTOR)


@dataclass(frozen=True)
class TableColumn:
    """A column that a table has."""

    name: str
    #: the database's own name of its type
    type: str
    #: NOT NULL without a default: a row cannot be inserted without it
    required: bool = False


@dataclass(frozen=True)
class Table:
    """What a probe found."""

    columns: tuple[TableColumn, ...]
    #: the column names of the primary key and of every unique constraint or index that covers all rows
    keys: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Target:
    """The results table that is wanted."""

    #: the Airflow connection's id
    conn_id: str
    #: the name as the caller wrote it
    name: str
    #: the name as SQL
    sql: str
    columns: tuple[Column, ...]
    dialect: Dialect
    #: the type of a column that is created, if the dialect alone cannot tell
    type_of: Callable[[Column], str] | None = None

    def quote(self, name: str) -> str:
        """One column's name as SQL."""
        return self.dialect.quote(name)

    def definition(self, column: Column) -> str:
        """A column as `CREATE TABLE` or `ALTER TABLE ADD COLUMN` names it."""
        type_ = self.type_of(column) if self.type_of else self.dialect.type_of(column, compared=COMPARED)
        return f"{self.quote(column.name)} {type_}".rstrip()

    def key_list(self) -> str:
        """The key columns, quoted, with commas between."""
        return ", ".join(self.quote(column.name) for column in self.columns if column.key)

    def create_statement(self) -> str:
        """The whole table, key first as the columns were given."""
        lines = [self.definition(column) + (" NOT NULL" if column.key else "") for column in self.columns]
        if self.dialect.declares_key:
            lines.append(f"PRIMARY KEY ({self.key_list()})")
        return f"CREATE TABLE {self.sql} (\n  " + ",\n  ".join(lines) + "\n)"

    def refuse(self, problem: str) -> ResultsTableError:
        """An error about this table as it is."""
        return ResultsTableError(
            f"The results table {self.name!r} (connection {self.conn_id!r}) {problem}\nNothing was written to "
            f"it; what was collected is kept. Mend the table, then clear this task."
        )

    def absent(self) -> ResultsTableError:
        """The table is not there and is not to be created."""
        return self.refuse(f"does not exist, and it is not to be created here. Create it:\n{self.create_statement()};")


def check_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Refuse columns that no results table can be made of. Raises InputError."""
    again = naming.repeated([column.name for column in columns])
    if again:
        raise InputError(
            f"The results table would have these columns twice (upper and lower case do not tell columns "
            f"apart): {', '.join(again)}. Nothing was written."
        )
    keys = [column for column in columns if column.key]
    if not keys:
        raise InputError("A results table needs a key: no column was given as one. Nothing was written.")
    for column in keys:
        if column.type in _NO_KEY:
            raise InputError(f"{column.name!r} is of type {column.type} and cannot be a key. Nothing was written.")
    for name, type_ in (("outcome", ColumnType.TEXT), ("sealed_at", ColumnType.TIMESTAMP)):
        if columns[naming.position(columns, name)].type is not type_:
            raise InputError(f"The column {name!r} must be of type {type_}. Nothing was written.")
    return tuple(columns)


def fit(
    target: Target,
    table: Table,
    *,
    refused: Callable[[Column, TableColumn], bool] | None = None,
    also: Callable[[Mapping[str, TableColumn]], Iterable[str]] | None = None,
) -> Mapping[str, TableColumn]:
    """Our column names, each with the column of the table that it goes to.

    `refused` says whether a column's type cannot hold ours; `also` gives what else is wrong with the columns that
    were found. Raises ResultsTableError that lists every column
    that is missing, ambiguous, of another type, or required but unknown to us, and a key that is not ours.
    """
    problems: list[str] = []
    found: dict[str, TableColumn] = {}
    by_name = {column.name: column for column in table.columns}
    for column in target.columns:
        matches = naming.spellings(column.name, by_name)
        if len(matches) > 1:
            problems.append(f"has several columns that {column.name!r} could mean: {', '.join(matches)}")
        elif not matches:
            problems.append(
                f"has no column {column.name!r}: ALTER TABLE {target.sql} ADD COLUMN {target.definition(column)};"
            )
        else:
            found[column.name] = there = by_name[matches[0]]
            if refused is not None and refused(column, there):
                problems.append(f"has the column {there.name!r} as {there.type}, but it gets {column.type} values")
    if also is not None:
        problems.extend(also(found))
    ours = {column.name for column in found.values()}
    problems.extend(
        f"has the column {column.name!r}, which may not be NULL and has no default, and nothing here "
        f"fills it: let it be NULL or give it a default"
        for column in table.columns
        if column.required
        and column.name not in ours
        # A column that several of ours could mean is already told above.
        and not any(naming.spellings(column.name, [mine.name for mine in target.columns]))
    )
    wanted = [column.name for column in target.columns if column.key]
    key = [found[name].name for name in wanted if name in found]
    if len(key) < len(wanted) or set(key) not in [set(columns) for columns in table.keys]:
        has = " and ".join(f"({', '.join(columns)})" for columns in table.keys) or "none"
        index = target.quote(f"{naming.split_table(target.name)[-1]}_key")
        listed = ", ".join(target.quote(found[name].name if name in found else name) for name in wanted)
        problems.append(
            f"has the key {has}, but rows are landed by ({', '.join(wanted)}): "
            f"CREATE UNIQUE INDEX {index} ON {target.sql} ({listed});"
        )
    if problems:
        raise target.refuse("does not fit: it\n" + "\n".join(f"- {problem}" for problem in problems))
    return found
