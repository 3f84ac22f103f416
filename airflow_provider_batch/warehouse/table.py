"""The requirements for a results table, and the errors for a table that does not meet them.

A sink describes the existing table as a `Table`. `match_columns` then finds our columns in it, or reports all problems
in one error, each with the SQL statement that fixes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError
from airflow_provider_batch.warehouse import fit, naming
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.stored_types import ANY, Kind, StoredType, without_modifier

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
    #: NOT NULL, with or without a default
    not_null: bool = False
    stored: StoredType = ANY
    #: whether the database computes the values, so that no statement may write them
    is_generated: bool = False


@dataclass(frozen=True)
class Table:
    """An existing table."""

    columns: tuple[TableColumn, ...]
    #: the column names of the primary key and of every unique constraint or index that covers all rows
    keys: tuple[tuple[str, ...], ...]
    #: names of the columns by which the table is partitioned; they must be part of every unique key
    partition_columns: tuple[str, ...] = ()
    #: whether the table is partitioned by an expression, so that it can have no unique key
    has_no_unique_keys: bool = False


class Problem(NamedTuple):
    """What does not fit about a table, and what to do."""

    #: continues the sentence "The results table ..."
    text: str
    #: the statements that fix it, '' if the text says what to do, or None if only another table helps
    statements: str | None = ""


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

    def index_statement(self, names: Sequence[str]) -> str:
        """Return the statement that creates a unique index of these columns of the existing table."""
        *schema, table = naming.split_table(self.name)
        index, sql = self.quote(f"{table}_key"), self.sql
        if self.dialect.index_belongs_to_schema:
            index, sql = self.dialect.quote_table([*schema, f"{table}_key"]), self.quote(table)
        columns = ", ".join(map(self.quote, names))
        return f"CREATE UNIQUE INDEX {index} ON {sql} ({columns});"

    def replacement_statements(self) -> str:
        """Return the statements that rename the existing table and create one that fits."""
        *schema, table = naming.split_table(self.name)
        old_name = [*schema, f"{table}_old"] if self.dialect.renames_across_schemas else [f"{table}_old"]
        old_table = self.dialect.quote_table(old_name)
        return f"ALTER TABLE {self.sql} RENAME TO {old_table};\n{self.create_statement()};"

    def nullable_statement(self, column: TableColumn, name: str | None = None) -> str:
        """Return the statement that removes a column's NOT NULL, or '' if the database has none.

        :param name: the column's name in the statement, if it has a new one.
        """
        return self.dialect.drop_not_null.format(
            table=self.sql, column=self.quote(name or column.name), type=column.type
        )

    def type_statements(self, column: Column, table_column: TableColumn, names: Iterable[str]) -> str:
        """Return the statements after which the existing column can store the values of ours, or '' if there are none.

        They keep what is stored in the table. If the column's type can be changed, which must work for every value in
        it, they do that. Otherwise they rename the column and add one.

        :param names: the names of all columns of the table.
        """
        wider_type = None if table_column.is_generated else _wider_type(column.type, table_column.stored)
        if wider_type is not None and self.dialect.alter_type:
            type_ = self.dialect.types[wider_type]
            statement = self.dialect.alter_type.format(table=self.sql, column=self.quote(table_column.name), type=type_)
            if table_column.not_null and column.may_be_null:
                statement += "\n" + self.nullable_statement(replace(table_column, type=type_))
            return statement
        if column.key or (table_column.required and not self.dialect.drop_not_null):
            return ""
        old_name = f"{table_column.name}_old"
        while naming.spellings(old_name, names):
            old_name += "_"
        statements = [
            f"ALTER TABLE {self.sql} RENAME COLUMN {self.quote(table_column.name)} TO {self.quote(old_name)};",
            f"ALTER TABLE {self.sql} ADD COLUMN {_resized_definition(self, column, table_column)};",
        ]
        if table_column.required:
            statements.append(self.nullable_statement(table_column, old_name))
        return "\n".join(statements)

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


def _resized_definition(target: Target, column: Column, table_column: TableColumn) -> str:
    """Return the definition of a column to add; a column of vectors keeps its type, with the number of our elements."""
    if column.type is not ColumnType.VECTOR or column.elements is None or table_column.stored.elements is None:
        return target.column_definition(column)
    type_ = re.sub(r"\d+(?=[)\]]$)", str(column.elements), table_column.type)
    return f"{target.quote(column.name)} {type_}"


def _wider_type(type_: ColumnType, stored: StoredType) -> ColumnType | None:
    """Return the type to which a column can be changed whatever it stores, to store values of `type_`; None if none."""
    match stored.kind, type_:
        case Kind.INTEGER, ColumnType.FLOAT if stored.integers and stored.integers[1] < 2**53:
            return ColumnType.FLOAT
        case ((Kind.INTEGER | Kind.NUMERIC), (ColumnType.FLOAT | ColumnType.NUMERIC)):
            return ColumnType.NUMERIC
        case Kind.FLOAT, ColumnType.FLOAT:
            return ColumnType.FLOAT
        case Kind.TEXT, _ if type_ not in (ColumnType.BYTES, ColumnType.TIMESTAMP):
            return ColumnType.TEXT
        case Kind.DATE, (ColumnType.LOCAL_TIMESTAMP | ColumnType.TIMESTAMP):
            return type_
    return None


def has_native_type(dialect: Dialect, column: Column, table_column: TableColumn) -> bool:
    """Return whether a table's column has the type of the column from which our values were read."""
    native_type, type_ = column.native_type.lower(), table_column.type.lower()
    return column.database == dialect.name and type_ in (native_type, without_modifier(native_type))


def match_columns(
    target: Target,
    table: Table,
    *,
    extra_problems: Callable[[Mapping[str, TableColumn]], Iterable[Problem]] | None = None,
) -> Mapping[str, TableColumn]:
    """Return our column names, each with the column of the existing table that stores it.

    `extra_problems` returns further problems with the matched columns. Raises ResultsTableError, which lists every
    column that is missing, ambiguous, of a type that does not fit, or required but not ours, and a key other than ours,
    each with the statements that fix it.
    """
    problems: list[Problem] = []
    matches: dict[str, TableColumn] = {}
    by_name = {column.name: column for column in table.columns}
    for column in target.columns:
        candidates = naming.spellings(column.name, by_name)
        if len(candidates) > 1:
            problems.append(Problem(f"has several columns that match {column.name!r}: {', '.join(candidates)}"))
        elif not candidates:
            statement = f"ALTER TABLE {target.sql} ADD COLUMN {target.column_definition(column)};"
            problems.append(Problem(f"has no column {column.name!r}", statement))
        else:
            matches[column.name] = by_name[candidates[0]]
            problems.extend(_column_problems(target, column, by_name[candidates[0]], by_name))
    if extra_problems is not None:
        problems.extend(extra_problems(matches))
    key_names = [column.name for column in target.columns if column.key]
    key = [matches[name].name if name in matches else name for name in key_names]
    our_names = {column.name for column in matches.values()}
    key_columns = _columns_for_key(table, key, our_names)
    problems.extend(_required_column_problems(target, table, our_names.union(key_columns)))
    if set(key) not in [set(columns) for columns in table.keys]:
        problems.append(_key_problem(target, table, key, key_columns, our_names))
    if problems:
        raise target.error(f"does not fit the rows of this job. It\n{_describe(target, problems)}")
    return matches


def _describe(target: Target, problems: Sequence[Problem]) -> str:
    """Return the list of problems, with the statements that fix all of them."""
    if any(problem.statements is None for problem in problems):
        texts = "\n".join(f"- {problem.text}" for problem in problems)
        return (
            f"{texts}\nThis table cannot be changed so that it fits. Land in another one, or rename it and create one "
            f"that fits:\n{target.replacement_statements()}"
        )
    return "\n".join(
        f"- {problem.text}:\n{problem.statements}" if problem.statements else f"- {problem.text}"
        for problem in problems
    )


def _column_problems(
    target: Target, column: Column, table_column: TableColumn, names: Iterable[str]
) -> Iterator[Problem]:
    """Yield why an existing column cannot store the values of ours.

    :param names: the names of all columns of the table.
    """
    name, type_ = table_column.name, table_column.type
    problem = ""
    if not has_native_type(target.dialect, column, table_column):
        problem = fit.problem_of(
            column, table_column.stored, boolean_characters=target.dialect.limits.boolean_characters
        )
    if column.name == "sealed_at" and table_column.stored.kind is Kind.TEXT and not target.dialect.has_text_timestamps:
        problem = "which are compared with each other"
    if table_column.is_generated:
        text = f"has the column {name!r}, which the database computes, so no value can be written to it"
    elif problem:
        text = f"has the column {name!r} as {type_}, but it gets {column.type} values, {problem}"
    elif column.may_be_null and table_column.not_null:
        text = f"has the column {name!r} as NOT NULL, but rows without a usable answer have no value for it"
        yield Problem(text, target.nullable_statement(table_column) or None)
        return
    else:
        return
    yield Problem(text, target.type_statements(column, table_column, names) or None)


def _required_column_problems(target: Target, table: Table, our_names: Collection[str]) -> Iterator[Problem]:
    """Yield the columns that must have a value although this task does not fill them."""
    columns_of_keys = {name for names in table.keys for name in names}
    for column in table.columns:
        # a column that matches an ambiguous name is already reported
        is_ambiguous = any(naming.spellings(column.name, [our_column.name for our_column in target.columns]))
        if column.required and column.name not in our_names and not is_ambiguous:
            # a column of the primary key stays NOT NULL
            statement = "" if column.name in columns_of_keys else target.nullable_statement(column)
            yield Problem(
                f"has the column {column.name!r}, which is NOT NULL without a default, and which this task does not "
                f"fill: make it nullable or give it a default",
                statement or None,
            )


def _columns_for_key(table: Table, key: Sequence[str], our_names: Collection[str]) -> list[str]:
    """Return the columns to add to our key, because the table cannot do without them.

    Every unique key of a partitioned table contains the columns by which it is partitioned. The columns of a primary
    key cannot be nullable.
    """
    partition_columns = set(table.partition_columns)
    wider_keys = [names for names in table.keys if set(key) < set(names) and partition_columns <= set(names)]
    required_names = {column.name for column in table.columns if column.required and column.name not in our_names}
    if not partition_columns <= set(key):
        names = wider_keys[0] if wider_keys else table.partition_columns
    else:
        names = next((names for names in wider_keys if required_names & set(names)), ())
    return [name for name in names if name not in key]


def _key_problem(
    target: Target, table: Table, key: Sequence[str], key_columns: Sequence[str], our_names: set[str]
) -> Problem:
    """Return that the table has no key like ours, and what to do.

    :param key: the names of our key columns in the table.
    :param key_columns: the columns to add to our key.
    """
    listed_keys = " and ".join(f"({', '.join(columns)})" for columns in table.keys)
    existing_keys = f"the unique key {listed_keys}" if listed_keys else "no unique key"
    problem = f"has {existing_keys}, but rows are upserted by ({', '.join(key)})"
    if table.has_no_unique_keys:
        return Problem(f"{problem}. A table that is partitioned by an expression cannot have a unique key", None)
    partitioned = f"The table is partitioned by ({', '.join(table.partition_columns)}), which"
    if our_names.intersection(key_columns):
        return Problem(
            f"{problem}. {partitioned} must be part of every unique key, but is not the same in every landing", None
        )
    if not key_columns:
        return Problem(problem, target.index_statement(key))
    if table.partition_columns:
        problem += f". {partitioned} must be part of every unique key"
    values = ", ".join(f'"{name}": ...' for name in key_columns)
    remedy = f"Pass key={{{values}}} to BatchResultsOperator, with the value for the rows of this job"
    whole_key = [*key, *key_columns]
    if set(whole_key) in [set(columns) for columns in table.keys]:
        return Problem(f"{problem}. {remedy}")
    return Problem(f"{problem}. {remedy}, and create the key", target.index_statement(whole_key))
