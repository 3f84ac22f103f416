"""Carried columns: values of the source row that are written next to its answer, with their types.

Between submit and land, staging holds these values as JSON. The manifest records the type that each column had in the
source data, and `from_json` uses it to restore the Python values. It also records the column's type in its database, so
that the same kind of database can store the column in that type.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue, format_json, parse_json
from airflow_provider_batch.exceptions import InputError

#: the type of a column whose rows hold two types
_WIDER = {
    frozenset({ColumnType.INTEGER, ColumnType.FLOAT}): ColumnType.FLOAT,
    frozenset({ColumnType.INTEGER, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.FLOAT, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.DATE, ColumnType.LOCAL_TIMESTAMP}): ColumnType.LOCAL_TIMESTAMP,
}

#: Python types whose values all survive JSON, so that they need not be inspected
_JSON_SAFE: dict[type, ColumnType] = {
    str: ColumnType.TEXT,
    bool: ColumnType.BOOLEAN,
    Decimal: ColumnType.NUMERIC,
    date: ColumnType.DATE,
    uuid.UUID: ColumnType.UUID,
    timedelta: ColumnType.INTERVAL,
}


def type_of(value: Any) -> ColumnType:
    """Return the column type for a value read from a warehouse.

    :raises TypeError: if no column type can hold the value.
    """
    match value:
        case bool():
            return ColumnType.BOOLEAN
        case int():
            return ColumnType.INTEGER if -(2**63) <= value < 2**63 else ColumnType.NUMERIC
        case float():
            return ColumnType.FLOAT
        case Decimal():
            return ColumnType.NUMERIC
        case datetime():
            return ColumnType.LOCAL_TIMESTAMP if value.tzinfo is None else ColumnType.TIMESTAMP
        case date():
            return ColumnType.DATE
        case time():
            return ColumnType.TIME if value.tzinfo is None else ColumnType.TEXT
        case timedelta():
            return ColumnType.INTERVAL
        case uuid.UUID():
            return ColumnType.UUID
        case bytes() | bytearray() | memoryview():
            return ColumnType.BYTES
        case dict() | list() | tuple() | NativeValue():
            return ColumnType.JSON
        case str():
            return ColumnType.TEXT
    raise TypeError(type(value).__name__)


class CarriedColumns:
    """The carried columns of a job.

    Picks their values from each row, records their types and prepares the values for JSON.
    """

    def __init__(
        self, names: Sequence[str], positions: Sequence[int], native_types: Sequence[str] = (), database: str = ""
    ) -> None:
        """Store the arguments.

        :param positions: position of each carried column in a row.
        :param native_types: type of each carried column in the database; '' for a type that has no name there.
        :param database: name of the database's dialect.
        """
        self._names = list(names)
        self._positions = list(positions)
        self._native_types = list(native_types) or [""] * len(names)
        self._database = database
        self._types: list[ColumnType | None] = [None] * len(names)

    def take(self, rows: Sequence[tuple[Any, ...]], first: int) -> list[list[Any]]:
        """Return the carried values of rows, ready for JSON.

        :param first: number of the first row, from 1.
        :raises InputError: if no column type can hold a value; the message names the row and column.
        """
        if not self._positions:
            return [[] for _ in rows]
        columns = [
            self._take_column(index, [row[position] for row in rows], first)
            for index, position in enumerate(self._positions)
        ]
        return list(map(list, zip(*columns, strict=True)))

    def _take_column(self, index: int, values: list[Any], first: int) -> list[Any]:
        types = set(map(type, values))
        types.discard(type(None))
        if _JSON_SAFE.keys() >= types:
            for python_type in types:
                self._record_type(index, _JSON_SAFE[python_type])
            return values
        return [self._take_value(index, value, number) for number, value in enumerate(values, start=first)]

    def _take_value(self, index: int, value: Any, number: int) -> Any:
        if value is None:
            return None
        try:
            value, column_type = _to_json(value)
        except (TypeError, RecursionError) as error:
            raise InputError(
                f"carry: row {number} has a value in column {self._names[index]!r} that no column type can "
                f"hold ({error}). Nothing was uploaded. Convert it where the rows come "
                "from, for example to text."
            ) from None
        self._record_type(index, column_type)
        return value

    def columns(self) -> list[Column]:
        """Return the columns with the types seen in the rows; a column that was always NULL is text."""
        return [
            Column(
                name,
                column_type or ColumnType.TEXT,
                native_type=native_type,
                database=self._database if native_type else "",
            )
            for name, column_type, native_type in zip(self._names, self._types, self._native_types, strict=True)
        ]

    def _record_type(self, index: int, column_type: ColumnType) -> None:
        earlier_type = self._types[index]
        if earlier_type is None or earlier_type == column_type:
            self._types[index] = column_type
        else:
            types = frozenset({earlier_type, column_type})
            fallback = ColumnType.JSON if ColumnType.JSON in types else ColumnType.TEXT
            self._types[index] = _WIDER.get(types, fallback)


def _to_json(value: Any) -> tuple[Any, ColumnType]:
    """Return the value in a form that JSON preserves, and its column type.

    A document is a list of its JSON text and, if that is another one, its text in its own database.

    :raises TypeError: if no column type can hold the value.
    """
    column_type = type_of(value)
    match value:
        case datetime() if value.tzinfo is not None:
            try:
                value = value.astimezone(UTC)
            except OverflowError:  # a few hours before year 1 or after year 9999
                return value.isoformat(), ColumnType.TEXT
        case time() | datetime():
            value = value.isoformat()
        case int() if column_type is ColumnType.NUMERIC:
            value = str(value)
        case float() if not math.isfinite(value):
            value = str(value)
        case bytearray() | memoryview():
            value = bytes(value)
        case NativeValue():
            value = [value.text] if value.is_json else [_format_nested(value), value.text]
        case dict() | list() | tuple():
            value = [format_json(value)]
    return value, column_type


def _format_nested(value: NativeValue) -> str:
    try:
        return format_json(value.value)
    except TypeError:  # a part that only the database knows
        return format_json(value.text)


def from_json(value: Any, column: Column) -> Any:
    """Return the Python value for a carried value that was read from staging, according to its column's type."""
    return all_from_json([value], column)[0]


def all_from_json(values: Sequence[Any], column: Column) -> list[Any]:
    """Return the same for all values of a column."""
    reader = _READERS.get(column.type)
    results = [value if value is None or reader is None else reader(value) for value in values]
    if column.type is ColumnType.JSON and not column.native_type:
        return [result.value if type(result) is NativeValue else result for result in results]
    return results


def _local_timestamp(value: str) -> datetime:
    return datetime.fromisoformat(value if "T" in value else f"{value}T00:00:00")


def _document(value: Any) -> Any:
    match value:
        case [text, native_text]:
            return NativeValue(parse_json(text), native_text)
        case [text]:
            return NativeValue(parse_json(text), text, is_json=True)
    return value  # text or a number in a column that holds documents too


_READERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.FLOAT: float,
    ColumnType.TIMESTAMP: lambda value: msgspec.convert(value, datetime),
    ColumnType.LOCAL_TIMESTAMP: _local_timestamp,
    ColumnType.DATE: date.fromisoformat,
    ColumnType.TIME: time.fromisoformat,
    ColumnType.INTERVAL: lambda value: msgspec.convert(value, timedelta),
    ColumnType.UUID: uuid.UUID,
    ColumnType.BYTES: lambda value: msgspec.convert(value, bytes),
    ColumnType.JSON: _document,
    ColumnType.TEXT: lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode(),
}
