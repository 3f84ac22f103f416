"""What a results table in MySQL is made of, and what an existing one must be to take our rows.

From information_schema: https://dev.mysql.com/doc/refman/8.4/en/information-schema.html; MariaDB's differs in that
a default of NULL is written as the text 'NULL'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect
from airflow_provider_batch.warehouse.table import Table, TableColumn, Target

#: bytes that a column that is no text takes at most in an index
_OTHER_BYTES = 32
#: characters of a key of text, of up to 4 bytes each
_KEY_CHARACTERS = 512

#: those that compare byte by byte and to the end: in MariaDB, in MySQL
_BINARY_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")

_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
_NUMBERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_MOMENTS = frozenset({"date", "datetime", "timestamp"})
#: the data types that a column of ours may go to
_TAKES = {
    ColumnType.TEXT: _TEXTS,
    ColumnType.INTEGER: _NUMBERS | _TEXTS,
    ColumnType.FLOAT: _NUMBERS | _TEXTS,
    ColumnType.NUMERIC: _NUMBERS | _TEXTS,
    ColumnType.BOOLEAN: _NUMBERS | _TEXTS | {"bit"},
    ColumnType.DATE: _MOMENTS | _TEXTS,
    ColumnType.TIMESTAMP: _MOMENTS | _TEXTS,
    ColumnType.JSON: _TEXTS | {"json"},
    ColumnType.BYTES: _BYTES,
    ColumnType.VECTOR: _TEXTS | {"json"},
}


@dataclass(frozen=True)
class MySqlColumn(TableColumn):
    """A column as information_schema describes it."""

    data_type: str = ""
    #: '' for what is no text
    character_set: str = ""
    collation: str = ""
    generated: bool = False
    #: a row without a value gets one that no other row has: NULL or the next number
    distinct_by_default: bool = False


@dataclass(frozen=True)
class Unique:
    """A unique index."""

    name: str
    #: its columns; '' for an expression
    columns: tuple[str, ...]
    #: whole columns only: no expression, no mere beginning of a text
    whole: bool


def binary_collation(cursor: Any) -> str:
    """The server's collation for keys; '' if it has none, as MySQL before 8.0.17."""
    cursor.execute("SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME LIKE 'utf8mb4%bin'")
    there = {row[0] for row in cursor.fetchall()}
    return next((name for name in _BINARY_COLLATIONS if name in there), "")


def type_of(dialect: Dialect, column: Column, columns: Sequence[Column], collation: str) -> str:
    """The type of a column that is created. The texts of a key share what an index may take."""
    key_bytes = dialect.limits.key_bytes
    if not column.key or column.type is not ColumnType.TEXT or key_bytes is None:
        return dialect.types[column.type]
    texts = sum(other.key and other.type is ColumnType.TEXT for other in columns)
    others = sum(other.key for other in columns) - texts
    characters = min(_KEY_CHARACTERS, (key_bytes - others * _OTHER_BYTES) // (4 * texts))
    return f"VARCHAR({characters}) CHARACTER SET utf8mb4 COLLATE {collation}"


def landing_type(dialect: Dialect, column: Column, there: TableColumn) -> str:
    """The type of a column in the table that rows pass through. A key sorts as in the table."""
    if isinstance(there, MySqlColumn) and column.key:
        text = f" CHARACTER SET {there.character_set} COLLATE {there.collation}" if there.collation else ""
        return there.type + text
    if column.type in (ColumnType.JSON, ColumnType.VECTOR):
        return dialect.types[ColumnType.TEXT]
    return dialect.types[column.type]


def find(cursor: Any, catalogue: Catalogue, target: Target, parts: Sequence[str]) -> tuple[str, str] | None:
    """Return the database and the name of the table, None if it does not exist.

    Raises ResultsTableError for a view and for a table without transactions.
    """
    cursor.execute(catalogue.table, (parts[0] if len(parts) > 1 else None, parts[-1]))
    for database, name, kind, engine, transactions, folded in cursor.fetchall():
        if name != parts[-1] and not int(folded):
            continue
        if "VIEW" in kind:
            raise target.refuse("is a view")
        if transactions != "YES":
            raise target.refuse(
                f"has the engine {engine}, which cannot take back a landing that fails half-way:\n"
                f"ALTER TABLE {target.sql} ENGINE = InnoDB;"
            )
        return database, name
    return None


def describe(cursor: Any, catalogue: Catalogue, place: tuple[str, str]) -> tuple[Table, tuple[Unique, ...]]:
    """The columns and keys of a table, and all its unique indexes."""
    cursor.execute(catalogue.columns, place)
    columns = []
    for name, type_, data_type, nullable, default, extra, character_set, collation in cursor.fetchall():
        generated = "GENERATED" in extra.upper().replace("DEFAULT_GENERATED", "")
        counts = "auto_increment" in extra.lower()
        null = default is None or (nullable == "YES" and default == "NULL")
        columns.append(
            MySqlColumn(
                name=name,
                type=_text(type_),
                required=nullable == "NO" and default is None and not generated and not counts,
                data_type=_text(data_type).lower(),
                character_set=character_set or "",
                collation=collation or "",
                generated=generated,
                distinct_by_default=counts or (nullable == "YES" and null and not generated),
            )
        )
    cursor.execute(catalogue.keys, place)
    parts: dict[str, list[tuple[str, Any]]] = {}
    for index, column, beginning in cursor.fetchall():
        parts.setdefault(index, []).append((column or "", beginning))
    uniques = tuple(
        Unique(
            name=index,
            columns=tuple(column for column, _ in found),
            whole=all(column and beginning is None for column, beginning in found),
        )
        for index, found in parts.items()
    )
    return Table(tuple(columns), tuple(unique.columns for unique in uniques if unique.whole)), uniques


def _text(value: Any) -> str:
    # information_schema of MySQL 8 gives some of its columns as bytes.
    return value.decode() if isinstance(value, bytes | bytearray) else str(value)


def refused(column: Column, there: TableColumn) -> bool:
    """Whether a column cannot hold ours."""
    if not isinstance(there, MySqlColumn):
        return False
    takes = _MOMENTS if column.name == "sealed_at" else _TAKES[column.type]
    return there.generated or there.data_type not in takes


def misfits(
    target: Target, found: Mapping[str, TableColumn], uniques: Sequence[Unique], table: Table, collation: str
) -> Iterator[str]:
    """What is wrong with a table besides its columns' names and types: how it compares keys, further unique keys."""
    key = [column for column in target.columns if column.key]
    for column in key:
        there = found.get(column.name)
        if isinstance(there, MySqlColumn) and there.data_type in _TEXTS and not _compares_bytes(there):
            yield (
                f"has the key column {there.name!r} as {there.type} {there.collation}, which may take two keys for "
                f"one: ALTER TABLE {target.sql} MODIFY {target.quote(there.name)} "
                f"{type_of(target.dialect, column, target.columns, collation)} NOT NULL;"
            )
    ours = {found[column.name].name for column in target.columns if column.name in found}
    named = {found[column.name].name for column in key if column.name in found}
    fresh = {
        column.name
        for column in table.columns
        if isinstance(column, MySqlColumn) and column.distinct_by_default and column.name not in ours
    }
    for unique in uniques:
        if fresh & set(unique.columns):
            continue  # no row that is inserted here ever meets another in it
        if not unique.whole or not named <= set(unique.columns):
            index = "PRIMARY KEY" if unique.name == "PRIMARY" else f"INDEX {target.quote(unique.name)}"
            yield (
                f"has the unique key {unique.name!r} ({', '.join(unique.columns)}), by which a row could replace "
                f"one of another key: ALTER TABLE {target.sql} DROP {index};"
            )


def _compares_bytes(there: MySqlColumn) -> bool:
    return there.collation in _BINARY_COLLATIONS and there.data_type == "varchar"
