"""The description of a database, and the SQL that follows from it.

One `Dialect` holds everything the rest of the package needs to know about a database. To add a database, write a
dialect and list it in `registry`. If the database has a bulk write path, write a sink too and name it in `sink`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse import naming
from airflow_provider_batch.warehouse.drivers.base import ANY_DRIVER, Driver
from airflow_provider_batch.warehouse.read_only import ReadRules
from airflow_provider_batch.warehouse.upsert import Upsert

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: Converts a value to what the driver takes as a parameter. Raises TypeError or ValueError for a value of another type.
Binder = Callable[[Any], Any]

_SINKS = "airflow_provider_batch.warehouse.sinks"


@dataclass(frozen=True, kw_only=True)
class ErrorPattern:
    """How to recognise one kind of error. An error matches if any of the fields matches."""

    #: SQLSTATE codes
    sqlstates: tuple[str, ...] = ()
    #: error numbers of the database
    codes: tuple[int, ...] = ()
    #: regular expression that is searched for in the message
    message: str = ""

    def matches(self, driver: Driver, error: BaseException) -> bool:
        """Return whether an error that `driver` understands is of this kind."""
        if driver.sqlstate_of(error) in self.sqlstates or driver.code_of(error) in self.codes:
            return True
        return bool(self.message) and re.search(self.message, str(error)) is not None


@dataclass(frozen=True, kw_only=True)
class ErrorPatterns:
    """How a database reports the errors that this package handles."""

    #: the table does not exist
    absent_table: ErrorPattern = ErrorPattern()
    #: the table may exist, but this connection has no access to it
    hidden_table: ErrorPattern = ErrorPattern()
    #: the schema (in MySQL: the database) in which to create the table does not exist
    absent_schema: ErrorPattern = ErrorPattern()
    #: the connection has no default schema
    no_default_schema: ErrorPattern = ErrorPattern()
    #: another task created the table in the meantime
    table_exists: ErrorPattern = ErrorPattern()


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Queries that describe a table. Each dialect agrees on their parameters and columns with its sink."""

    table: str
    columns: str
    #: unique constraints
    keys: str
    #: unique indexes, if `keys` does not list them
    indexes: str = ""
    #: the columns of one index
    index: str = ""
    #: what the table is partitioned by
    partitions: str = ""
    #: whether the table is STRICT, in the last column
    strict: str = ""
    #: a row if a column can have the type
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a database cannot store or accept."""

    #: longest name of a table or column in bytes, or None if the database itself refuses longer names
    name_bytes: int | None = None
    #: highest code point allowed in a name
    name_code_point: int = 0x10FFFF
    #: Parameters of one statement. Databricks takes at most 255, other databases about a thousand.
    parameters: int = 200
    #: bytes of all key columns together, or None if the limit is out of reach
    key_bytes: int | None = None
    #: digits after the decimal point of a numeric column that we create, or None if all are kept
    numeric_scale: int | None = None
    #: Whether text may contain a NUL character. If not, we remove it.
    text_has_nul: bool = True
    #: bytes of a text column that we create, or None if the limit is out of reach
    text_bytes: int | None = None
    #: bytes of all texts of a row, or None if the limit is out of reach
    row_bytes: int | None = None
    #: Whether a float column takes NaN. If not, we write NULL.
    float_has_nan: bool = True
    #: whether a float column takes the infinities
    float_has_infinity: bool = True
    #: characters of the longest text that the database makes of a boolean
    boolean_characters: int = len("false")


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Everything this package knows about one database."""

    #: display name, for errors and the docs
    name: str
    #: Connection types of the Airflow hooks that reach this database. Subclasses of those hooks count too.
    conn_types: tuple[str, ...]
    #: if not empty, the connection's extra must also set one of these flags
    extra_flags: tuple[str, ...] = ()

    #: column type used in CREATE TABLE, or '' to declare none
    types: Mapping[ColumnType, str]
    #: how a value is converted before it is bound to a placeholder
    bind: Mapping[ColumnType, Binder]
    #: type of a text column that queries compare, such as a key, if the database cannot compare `types[TEXT]`
    key_text: str = ""

    #: opening and closing quotation mark of identifiers
    marks: str = '""'
    #: `?`, `%s`, or `:` for :1, :2 and so on
    placeholder: str = "?"
    #: Whether the connection's extra overrides `marks` and `placeholder`. A dialect that leaves them empty takes the
    #: hook's.
    follows_hook: bool = False
    #: the database stores unquoted names in upper case, so tables are created in upper case
    folds_to_upper: bool = False
    #: the parts of a fully qualified table name, or () if any number of parts is allowed
    name_parts: tuple[str, ...] = ()

    #: The statements that change a column's type, and remove its NOT NULL; or '' if the database has none. `{table}`
    #: and `{column}` are quoted, and `{type}` is the type after the statement.
    alter_type: str = ""
    drop_not_null: str = ""
    #: whether the database stores timestamps as texts that sort like them
    has_text_timestamps: bool = False
    #: whether CREATE INDEX names the schema with the index, and not with the table
    index_belongs_to_schema: bool = False
    #: whether RENAME TO takes the schema with the new name
    renames_across_schemas: bool = False
    #: whether CREATE TABLE accepts a PRIMARY KEY
    declares_key: bool = True
    #: whether an error rolls back what was written before it
    transactions: bool = True
    #: Statements that set a savepoint and return to it, or '' if there are none. The generic sink then cannot isolate a
    #: row that the database refuses.
    savepoint: str = "SAVEPOINT batch_rows"
    rollback_to_savepoint: str = "ROLLBACK TO SAVEPOINT batch_rows"
    #: whether rows can be written one by one
    writable: bool = True
    limits: Limits = Limits()
    errors: ErrorPatterns = ErrorPatterns()
    #: queries that describe a table, or None if only `probe` is available
    catalogue: Catalogue | None = None
    #: builds the statement that inserts a row or updates it by key, or None if the sink uses none
    upsert: Upsert | None = None

    #: what a query may contain
    reading: ReadRules
    #: opens connections and starts reads and writes on them
    driver: Driver = ANY_DRIVER
    #: The class that writes a results table, as `module:class`. It is imported on first use.
    sink: str = f"{_SINKS}.generic:GenericSink"

    def recognises(self, cls: type, hook: DbApiHook) -> bool:
        """Return whether `cls`, the class of `hook` or one of its bases, belongs to this database."""
        if getattr(cls, "conn_type", None) not in self.conn_types:
            return False
        return not self.extra_flags or any(hook.connection_extra.get(flag) for flag in self.extra_flags)

    def adapt_to(self, hook: DbApiHook) -> Dialect:
        """Return the dialect with the placeholder and quotation marks that the hook and its connection require."""
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
        """Return the identifier in quotation marks, spelled exactly as given."""
        return naming.quote(name, self.marks)

    def quote_table(self, parts: Sequence[str]) -> str:
        """Return the table name with each part quoted, spelled exactly as given."""
        return naming.quote_table(parts, self.marks)

    def created_name(self, name: str) -> str:
        """Return the spelling with which we create a table or column of this name."""
        return name.upper() if self.folds_to_upper else name

    def escape(self, sql: str) -> str:
        """Return a fragment of SQL, escaped for a statement that has parameters."""
        return sql.replace("%", "%%") if self.placeholder == "%s" else sql

    def placeholders(self, count: int) -> list[str]:
        """Return `count` placeholders."""
        if self.placeholder == ":":
            return [f":{number}" for number in range(1, count + 1)]
        return [self.placeholder] * count

    def type_of(self, column: Column, *, compared_columns: Iterable[str] = ()) -> str:
        """Return the type with which a column is created.

        :param compared_columns: lower-case names of columns that queries compare although they are not in the key.
        """
        if column.native_type and column.database == self.name:
            return column.native_type
        is_compared = column.type is ColumnType.TEXT and (column.key or column.name.lower() in compared_columns)
        return self.key_text if self.key_text and is_compared else self.types[column.type]

    def probe(self, table: str) -> str:
        """Return a query that returns no rows and fails if the table does not exist. `table` is quoted."""
        return f"SELECT * FROM {table} WHERE 1 = 0"

    def table(self, table: str) -> str:
        """Return the SQL name of a table that we created. Raises InputError for a name that no table can have."""
        return self.quote_table([self.created_name(part) for part in naming.split_table(table)])

    def column(self, name: str) -> str:
        """Return the SQL name of a column that we created."""
        return self.quote(self.created_name(name))

    def condition(self, names: Iterable[str], alias: str = "") -> str:
        """Return `name = ?` for each of these columns, joined with AND. We created the columns."""
        columns = [f"{alias}{self.escape(self.column(name))}" for name in names]
        marks = self.placeholders(len(columns))
        return " AND ".join(f"{name} = {mark}" for name, mark in zip(columns, marks, strict=True))

    def select(self, table: str, columns: Sequence[str], where: Sequence[str]) -> str:
        """Return a SELECT from a table that we created, with one parameter for each column in `where`."""
        # without the alias, SQLite reads a quoted name that is not a column as a string literal
        column_list = ", ".join(f"t.{self.escape(self.column(name))}" for name in columns)
        return f"SELECT {column_list} FROM {self.escape(self.table(table))} t WHERE {self.condition(where, 't.')}"

    def problem_with_name(self, name: str) -> str:
        """Return why the database cannot use this name for a table or column, or '' if it can."""
        max_bytes = self.limits.name_bytes
        if max_bytes is not None and len(name.encode()) > max_bytes:
            return f"more than {max_bytes} bytes, which {self.name} would truncate"
        max_code_point = self.limits.name_code_point
        if any(ord(character) > max_code_point for character in name):
            return f"a character beyond U+{max_code_point:04X}, which {self.name} does not allow in names"
        return ""
