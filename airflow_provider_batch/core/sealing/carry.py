"""Carried columns: values of the source row that are written next to its answer, with their types.

Between submit and land, staging holds these values as JSON. The manifest records the type that each column had in the
source data, and `from_json` uses it to restore the Python values.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError

#: the type of a column whose rows hold two types
_WIDER = {
    frozenset({ColumnType.INTEGER, ColumnType.FLOAT}): ColumnType.FLOAT,
    frozenset({ColumnType.INTEGER, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.FLOAT, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.DATE, ColumnType.TIMESTAMP}): ColumnType.TIMESTAMP,
}

#: Python types whose values all survive JSON, so that they need not be inspected
_JSON_SAFE = {str: ColumnType.TEXT, bool: ColumnType.BOOLEAN, Decimal: ColumnType.NUMERIC, date: ColumnType.DATE}


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
            return ColumnType.TIMESTAMP
        case date():
            return ColumnType.DATE
        case bytes() | bytearray() | memoryview():
            return ColumnType.BYTES
        case dict() | list() | tuple():
            return ColumnType.JSON
        case str() | uuid.UUID() | time():
            return ColumnType.TEXT
    raise TypeError(type(value).__name__)


class CarriedColumns:
    """The carried columns of a query.

    Picks their values from each row, records their types and prepares the values for JSON.
    """

    def __init__(self, names: Sequence[str], positions: Sequence[int]) -> None:
        self._names = list(names)
        self._positions = list(positions)
        self._types: list[ColumnType | None] = [None] * len(names)

    def take(self, row: tuple[Any, ...], number: int) -> list[Any]:
        """Return the carried values of a row, ready for JSON.

        :param number: number of the row in the result of the query, from 1.
        :raises InputError: if no column type can hold a value; the message names the row and column.
        """
        values = []
        for index, position in enumerate(self._positions):
            value = row[position]
            safe_type = _JSON_SAFE.get(type(value))
            if safe_type is not None:
                self._record_type(index, safe_type)
            elif value is not None:
                try:
                    self._record_type(index, type_of(value))
                    value = _to_json(value)
                except (TypeError, RecursionError) as error:
                    raise InputError(
                        f"carry: row {number} has a value in column {self._names[index]!r} that no column type can "
                        f"hold ({error}). Nothing was uploaded. Cast the column in the SQL, for example to text."
                    ) from None
            values.append(value)
        return values

    def columns(self) -> list[Column]:
        """Return the columns with the types seen in the rows; a column that was always NULL is text."""
        return [Column(n, t or ColumnType.TEXT) for n, t in zip(self._names, self._types, strict=True)]

    def _record_type(self, index: int, column_type: ColumnType) -> None:
        earlier_type = self._types[index]
        if earlier_type is None or earlier_type == column_type:
            self._types[index] = column_type
        else:
            types = frozenset({earlier_type, column_type})
            fallback = ColumnType.JSON if ColumnType.JSON in types else ColumnType.TEXT
            self._types[index] = _WIDER.get(types, fallback)


def _to_json(value: Any) -> Any:
    """Return the value in a form that JSON preserves.

    :raises TypeError: if a list or an object contains something that JSON cannot express.
    """
    match value:
        case datetime():
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        case float() if not math.isfinite(value):
            return str(value)
        case bytearray() | memoryview():
            return bytes(value)
        case dict() | list() | tuple():
            return msgspec.to_builtins(value, str_keys=True)
    return value


def from_json(value: Any, column: Column) -> Any:
    """Return the Python value for a carried value that was read from staging, according to its column's type."""
    reader = _READERS.get(column.type)
    return value if value is None or reader is None else reader(value)


def _timestamp(value: str) -> datetime:
    timestamp = msgspec.convert(value if "T" in value else f"{value}T00:00:00Z", datetime)
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


_READERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.FLOAT: float,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.DATE: lambda value: msgspec.convert(value, date),
    ColumnType.BYTES: lambda value: msgspec.convert(value, bytes),
    ColumnType.TEXT: lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode(),
}
