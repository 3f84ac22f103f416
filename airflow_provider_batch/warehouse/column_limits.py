"""What the columns of an existing table can store, read from their declared types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from airflow_provider_batch.core.landing.storage_limits import ColumnLimits
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.table import TableColumn

#: `varchar(20)`, `character varying(20)`, `NVARCHAR(20)`
_SIZED_TEXT = re.compile(r"(?:n?var)?char(?:acter)?(?: varying)?\((\d+)\)", re.IGNORECASE)
#: `vector(3)` and `halfvec(3)` of pgvector, `FLOAT[3]` of DuckDB
_SIZED_VECTOR = re.compile(r"(?:.*\.)?(?:vector|halfvec)\((\d+)\)|\w+\[(\d+)\]", re.IGNORECASE)
_INTEGER = re.compile(r"(u?)(\w+?)(?:\(\d+\))?( unsigned)?", re.IGNORECASE)
_INTEGER_BITS = {
    "tinyint": 8,
    "smallint": 16,
    "mediumint": 24,
    "int": 32,
    "integer": 32,
    "bigint": 64,
}
#: bytes of the text types that have a fixed limit
_TEXT_BYTES = {"tinytext": 2**8 - 1, "text": 2**16 - 1, "mediumtext": 2**24 - 1}
#: the largest number in a `halfvec`
_LARGEST_HALF = 65_504.0


def limits_of_columns(
    columns: Iterable[Column],
    matches: Mapping[str, TableColumn],
    *,
    sized_texts: bool = False,
    text_bytes: int | None = None,
    types_are_enforced: bool = True,
) -> dict[str, ColumnLimits]:
    """Return the limits of the columns of a table that have any, by our column names.

    :param matches: the table's column for each of ours.
    :param sized_texts: whether `text` and its relatives have a fixed size, as in MySQL.
    :param text_bytes: bytes of every text column, or None.
    :param types_are_enforced: False for a database that stores any value in any column.
    """
    limits = {}
    for column in columns:
        if column.key:
            continue
        type_ = matches[column.name].type if types_are_enforced and column.name in matches else ""
        column_limits = _limits_of(column.type, type_, sized_texts=sized_texts, text_bytes=text_bytes)
        if column_limits != ColumnLimits():
            limits[column.name] = column_limits
    return limits


def _limits_of(kind: ColumnType, type_: str, *, sized_texts: bool, text_bytes: int | None) -> ColumnLimits:
    if kind is ColumnType.TEXT:
        size = _SIZED_TEXT.fullmatch(type_)
        bytes_ = _TEXT_BYTES.get(type_.lower()) if sized_texts else text_bytes
        return ColumnLimits(characters=int(size[1]) if size else None, bytes=bytes_)
    if kind is ColumnType.VECTOR:
        size = _SIZED_VECTOR.fullmatch(type_)
        return ColumnLimits(
            elements=int(size[1] or size[2]) if size else None,
            largest_element=_LARGEST_HALF if "halfvec" in type_.lower() else None,
        )
    integer = _INTEGER.fullmatch(type_)
    if kind is ColumnType.INTEGER and integer and integer[2].lower() in _INTEGER_BITS:
        bits = _INTEGER_BITS[integer[2].lower()]
        unsigned = bool(integer[1] or integer[3])
        return ColumnLimits(integers=(0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    return ColumnLimits()
