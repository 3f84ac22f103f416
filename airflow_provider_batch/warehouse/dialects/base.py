"""What an entry of a database holds, and the SQL that follows from it.

One `Dialect` says everything about a database that the rest of the package asks for. To add a database, write an entry
and list it in `registry`. If the database has a way to write many rows at once, write a sink too and name it in `sink`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.drivers.base import ANY_DRIVER, Driver
from airflow_provider_batch.warehouse.upsert import Upsert

#: from a value to what the driver takes as a parameter. Raises TypeError or ValueError for a value of another type.
Binder = Callable[[Any], Any]

_SINKS = "airflow_provider_batch.warehouse.sinks"


@dataclass(frozen=True, kw_only=True)
class Sign:
    """How to recognise one kind of error. Any of these is enough."""

    #: SQLSTATEs
    states: tuple[str, ...] = ()
    #: the database's own error numbers
    codes: tuple[int, ...] = ()
    #: a regular expression that is found in the message
    words: str = ""

    def matches(self, driver: Driver, error: BaseException) -> bool:
        """Whether an error that `driver` understands is of this kind."""
        if driver.sqlstate_of(error) in self.states or driver.code_of(error) in self.codes:
            return True
        return bool(self.words) and re.search(self.words, str(error)) is not None


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How a database says what went wrong, as far as we act on it."""

    #: There is no such table.
    absent_table: Sign = Sign()
    #: The table may exist, but this connection may not see it.
    hidden_table: Sign = Sign()
    #: There is no such schema (in MySQL: database) to create a table in.
    absent_schema: Sign = Sign()
    #: The connection has no default schema.
    no_schema_chosen: Sign = Sign()
    #: Another task has created the table in the meantime.
    table_exists: Sign = Sign()
    #: The driver refuses to run several statements at once.
    several_statements: Sign = Sign()


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Queries that describe a table. Their parameters and columns are a matter between an entry and its sink."""

    table: str
    columns: str
    #: unique constraints
    keys: str
    #: unique indexes, if `keys` does not list them
    indexes: str = ""
    #: the columns of one index
    index: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a database cannot take."""

    #: bytes of the name of a table or column, None if the database itself refuses longer ones
    name_bytes: int | None = None
    #: the highest code point that a name may contain
    name_code_point: int = 0x10FFFF
    #: parameters of one statement. Databricks takes no more than 255, other databases about a thousand.
    parameters: int = 200
    #: bytes of all columns of a key together, None if there is no limit that we run into
    key_bytes: int | None = None
    #: digits after the decimal point of a numeric column that we create, None if all are kept
    numeric_scale: int | None = None
    #: whether a text may contain a NUL character; where it may not, we leave it out
    text_has_nul: bool = True
    #: whether a float column takes NaN and the infinities; where it does not, we write NULL
    float_has_nan: bool = True


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Everything that is known about one database."""

    #: its name, for errors and the docs
    name: str
    #: connection types of the Airflow hooks that reach it. A hook that is derived from one of these counts too.
    conn_types: tuple[str, ...]
    #: if given, the connection's extra must set one of these as well
    extra_flags: tuple[str, ...] = ()

    #: the type of a column that is created, '' to declare none
    types: Mapping[ColumnType, str]
    #: how a value is bound to a placeholder
    bind: Mapping[ColumnType, Binder]
    #: the type of a text column that is compared (a key, for example), if the database cannot compare `types[TEXT]`
    key_text: str = ""

    #: quotation marks of identifiers
    marks: str = '""'
    #: `?`, `%s`, or `:` for :1, :2 and so on
    placeholder: str = "?"
    #: Whether the connection's extra decides about `marks` and `placeholder`. Where an entry leaves them empty, the
    #: hook decides.
    follows_hook: bool = False
    #: Names without quotation marks are stored in upper case, so tables are created that way.
    upper: bool = False
    #: the parts of a table's full name, () if any number is fine
    name_parts: tuple[str, ...] = ()

    #: CREATE TABLE accepts a PRIMARY KEY
    declares_key: bool = True
    #: what was written before an error is rolled back
    transactions: bool = True
    #: rows can be written one by one
    writable: bool = True
    limits: Limits = Limits()
    errors: Errors = Errors()
    #: None if `probe` is all there is
    catalogue: Catalogue | None = None
    #: builds the statement that inserts or updates by key, None if there is none that we use
    upsert: Upsert | None = None

    #: how connections are opened, read from and written to
    driver: Driver = ANY_DRIVER
    #: The class that writes a results table, as `module:class`. It is imported when it is needed.
    sink: str = f"{_SINKS}.generic:GenericSink"

    def recognises(self, cls: type, hook: DbApiHook) -> bool:
        """Whether `cls`, which is the class of `hook` or a base of it, belongs to this database."""
        if getattr(cls, "conn_type", None) not in self.conn_types:
            return False
        return not self.extra_flags or any(hook.connection_extra.get(flag) for flag in self.extra_flags)

    def following(self, hook: DbApiHook) -> Dialect:
        """The dialect with the placeholder and quotation marks that the hook and its connection want."""
        if not self.follows_hook:
            return self
        extra = hook.connection_extra
        own_placeholder = self.placeholder and "placeholder" not in extra
        own_marks = self.marks and "escape_word_format" not in extra
        return replace(
            self,
            placeholder=self.placeholder if own_placeholder else hook.placeholder,
            marks=self.marks if own_marks else hook.escape_word_format,
        )

    def quote(self, name: str) -> str:
        """Return an identifier between quotation marks, exactly as it is spelled."""
        return naming.quote(name, self.marks)

    def quote_table(self, parts: Sequence[str]) -> str:
        """Return a table's name with each part quoted, exactly as it is spelled."""
        return naming.quote_table(parts, self.marks)

    def created_name(self, name: str) -> str:
        """Return the spelling that we create a table or column with."""
        return name.upper() if self.upper else name

    def escaped(self, sql: str) -> str:
        """Return part of a statement as the driver wants it if the statement has parameters."""
        return sql.replace("%", "%%") if self.placeholder == "%s" else sql

    def placeholders(self, count: int) -> list[str]:
        """Return this many placeholders."""
        if self.placeholder == ":":
            return [f":{number}" for number in range(1, count + 1)]
        return [self.placeholder] * count

    def type_of(self, column: Column, *, compared: Iterable[str] = ()) -> str:
        """Return the type that a column is created with.

        :param compared: names of columns, in lower case, that queries compare although they are not part of the key.
        """
        is_compared = column.type is ColumnType.TEXT and (column.key or column.name.lower() in compared)
        return self.key_text if self.key_text and is_compared else self.types[column.type]

    def probe(self, table: str) -> str:
        """Return a query that has no rows, and only works if the table exists. `table` is quoted."""
        return f"SELECT * FROM {table} WHERE 1 = 0"

    def table(self, table: str) -> str:
        """Return a table that we created as SQL. Raises InputError if no table can have this name."""
        return self.quote_table([self.created_name(part) for part in naming.split_table(table)])

    def column(self, name: str) -> str:
        """Return a column that we created as SQL."""
        return self.quote(self.created_name(name))

    def condition(self, names: Iterable[str], alias: str = "") -> str:
        """Return `name = ?` for each of these columns that we created, joined with AND."""
        columns = [f"{alias}{self.escaped(self.column(name))}" for name in names]
        marks = self.placeholders(len(columns))
        return " AND ".join(f"{name} = {mark}" for name, mark in zip(columns, marks, strict=True))

    def select(self, table: str, columns: Sequence[str], where: Sequence[str]) -> str:
        """Return a SELECT from a table that we created, with a parameter for each column of `where`."""
        # Without the alias, SQLite takes the name of a column that does not exist for a text.
        listed = ", ".join(f"t.{self.escaped(self.column(name))}" for name in columns)
        return f"SELECT {listed} FROM {self.escaped(self.table(table))} t WHERE {self.condition(where, 't.')}"

    def problem_with_name(self, name: str) -> str:
        """Return what the database cannot take about the name of a table or column, '' if there is nothing."""
        most = self.limits.name_bytes
        if most is not None and len(name.encode()) > most:
            return f"more than {most} bytes, which {self.name} would cut off"
        highest = self.limits.name_code_point
        if any(ord(character) > highest for character in name):
            return f"a character beyond U+{highest:04X}, which {self.name} takes in no name"
        return ""
