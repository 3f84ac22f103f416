"""The types of a results table in MySQL, and the requirements for an existing one.

Existing tables are described by information_schema: https://dev.mysql.com/doc/refman/8.4/en/information-schema.html.
MariaDB differs in one point: it writes a default of NULL as the text 'NULL'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect
from airflow_provider_batch.warehouse.stored_types import Kind, mysql_type
from airflow_provider_batch.warehouse.table import Problem, Table, TableColumn, Target

#: most bytes that a non-text column takes in an index
_OTHER_BYTES = 32
#: characters of a text key, of up to 4 bytes each
_KEY_CHARACTERS = 512

#: collations that compare byte by byte and without padding, of MariaDB and of MySQL
_BINARY_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")

_TEXT_TYPES = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})


@dataclass(frozen=True)
class MySqlColumn(TableColumn):
    """A column as information_schema describes it."""

    data_type: str = ""
    #: '' if the column is not text
    character_set: str = ""
    collation: str = ""
    #: whether a row without a value for this column gets a distinct one: NULL or the next number
    distinct_by_default: bool = False


@dataclass(frozen=True)
class UniqueIndex:
    """A unique index."""

    name: str
    #: column names, or '' for an expression
    columns: tuple[str, ...]
    #: whether it consists of whole columns: no expressions, no prefixes
    is_plain: bool


def binary_collation(cursor: Any) -> str:
    """Return the server's collation for keys, or '' if it has none, like MySQL before 8.0.17."""
    cursor.execute("SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME LIKE 'utf8mb4%bin'")
    collations = {row[0] for row in cursor.fetchall()}
    return next((name for name in _BINARY_COLLATIONS if name in collations), "")


def type_of(dialect: Dialect, column: Column, columns: Sequence[Column], collation: str) -> str:
    """Return the type with which a column is created. The text columns of a key share the space in the index."""
    key_bytes = dialect.limits.key_bytes
    if not column.key or column.type is not ColumnType.TEXT or key_bytes is None:
        return dialect.type_of(column)
    text_count = sum(key_column.key and key_column.type is ColumnType.TEXT for key_column in columns)
    other_count = sum(key_column.key for key_column in columns) - text_count
    characters = min(_KEY_CHARACTERS, (key_bytes - other_count * _OTHER_BYTES) // (4 * text_count))
    return f"VARCHAR({characters}) CHARACTER SET utf8mb4 COLLATE {collation}"


def landing_type(dialect: Dialect, column: Column, table_column: TableColumn) -> str:
    """Return a column's type in the temporary table. A key column sorts as it does in the results table."""
    if isinstance(table_column, MySqlColumn) and column.key:
        text = (
            f" CHARACTER SET {table_column.character_set} COLLATE {table_column.collation}"
            if table_column.collation
            else ""
        )
        return table_column.type + text
    if column.type in (ColumnType.JSON, ColumnType.VECTOR):
        return dialect.types[ColumnType.TEXT]
    if column.type is ColumnType.NUMERIC and column.database == dialect.name:
        return column.native_type
    # a text that a parsed type does not have is refused with its row when it is stored
    as_text = (Kind.TEXT, Kind.ENUM, Kind.PARSED, Kind.ANY)
    if column.type is ColumnType.TEXT and table_column.stored.kind not in as_text:
        return table_column.type
    return dialect.types[column.type]


def find_table(cursor: Any, catalogue: Catalogue, target: Target, parts: Sequence[str]) -> tuple[str, str] | None:
    """Return the database and the name of the table, or None if it does not exist.

    Raises ResultsTableError for a view, and for a table without transactions.
    """
    cursor.execute(catalogue.table, (parts[0] if len(parts) > 1 else None, parts[-1]))
    for database, name, kind, engine, transactions, ignores_case in cursor.fetchall():
        if name != parts[-1] and not int(ignores_case):
            continue
        if "VIEW" in kind:
            raise target.error("is a view.")
        if transactions != "YES":
            raise target.error(
                f"has the engine {engine}, which cannot roll back a landing that fails half-way. Change it:\n"
                f"ALTER TABLE {target.sql} ENGINE = InnoDB;"
            )
        return database, name
    return None


def describe_table(
    cursor: Any, catalogue: Catalogue, location: tuple[str, str]
) -> tuple[Table, tuple[UniqueIndex, ...]]:
    """Return the columns and keys of a table, and all its unique indexes."""
    cursor.execute(catalogue.columns, location)
    columns = []
    for name, type_, data_type, nullable, default, extra, character_set, collation in cursor.fetchall():
        is_generated = "GENERATED" in extra.upper().replace("DEFAULT_GENERATED", "")
        is_auto_increment = "auto_increment" in extra.lower()
        defaults_to_null = default is None or (nullable == "YES" and default == "NULL")
        columns.append(
            MySqlColumn(
                name=name,
                type=_text(type_),
                required=nullable == "NO" and default is None and not is_generated and not is_auto_increment,
                not_null=nullable == "NO",
                stored=mysql_type(_text(type_)),
                data_type=_text(data_type).lower(),
                character_set=character_set or "",
                collation=collation or "",
                is_generated=is_generated,
                distinct_by_default=is_auto_increment or (nullable == "YES" and defaults_to_null and not is_generated),
            )
        )
    partition_columns = _partition_columns(cursor, catalogue, location, [column.name for column in columns])
    cursor.execute(catalogue.keys, location)
    parts: dict[str, list[tuple[str, Any]]] = {}
    for index, column, prefix in cursor.fetchall():
        parts.setdefault(index, []).append((column or "", prefix))
    uniques = tuple(
        UniqueIndex(
            name=index,
            columns=tuple(column for column, _ in index_parts),
            is_plain=all(column and prefix is None for column, prefix in index_parts),
        )
        for index, index_parts in parts.items()
    )
    keys = tuple(unique.columns for unique in uniques if unique.is_plain)
    return Table(tuple(columns), keys, partition_columns=partition_columns), uniques


def _partition_columns(
    cursor: Any, catalogue: Catalogue, location: tuple[str, str], names: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns in the expressions by which the table is partitioned."""
    cursor.execute(catalogue.partitions, location)
    expressions = " ".join(expression for row in cursor.fetchall() for expression in map(_text, row))
    quoted_names = {name.replace("``", "`") for name in re.findall(r"`((?:[^`]|``)+)`", expressions)}
    return tuple(name for name in names if name in quoted_names)


def _text(value: Any) -> str:
    # MySQL 8's information_schema returns some of its columns as bytes
    return value.decode() if isinstance(value, bytes | bytearray) else str(value)


def find_problems(
    target: Target, matches: Mapping[str, TableColumn], uniques: Sequence[UniqueIndex], table: Table, collation: str
) -> Iterator[Problem]:
    """Yield problems other than the columns' names and types: how the table compares keys, other unique keys."""
    key = [column for column in target.columns if column.key]
    for column in key:
        table_column = matches.get(column.name)
        if (
            isinstance(table_column, MySqlColumn)
            and table_column.data_type in _TEXT_TYPES
            and not _compares_bytes(table_column)
        ):
            yield Problem(
                f"has the key column {table_column.name!r} as {table_column.type} {table_column.collation}, which may "
                f"treat two keys as equal",
                f"ALTER TABLE {target.sql} MODIFY {target.quote(table_column.name)} "
                f"{type_of(target.dialect, column, target.columns, collation)} NOT NULL;",
            )
    our_names = {matches[column.name].name for column in target.columns if column.name in matches}
    key_names = {matches[column.name].name for column in key if column.name in matches}
    distinct_columns = {
        column.name
        for column in table.columns
        if isinstance(column, MySqlColumn) and column.distinct_by_default and column.name not in our_names
    }
    for unique in uniques:
        if distinct_columns & set(unique.columns):
            continue  # our rows get distinct values here, so they never violate this key
        if not unique.is_plain or not key_names <= set(unique.columns):
            index = "PRIMARY KEY" if unique.name == "PRIMARY" else f"INDEX {target.quote(unique.name)}"
            yield Problem(
                f"has the unique key {unique.name!r} ({', '.join(unique.columns)}), through which a row could replace "
                f"a row with another key",
                f"ALTER TABLE {target.sql} DROP {index};",
            )


def _compares_bytes(table_column: MySqlColumn) -> bool:
    return table_column.collation in _BINARY_COLLATIONS and table_column.data_type == "varchar"
