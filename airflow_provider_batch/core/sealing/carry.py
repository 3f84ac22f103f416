"""Carried columns: values of the source row that land beside the answer, with their types.

Between submit and land they lie in staging as JSON; the manifest says which type each column had in the data, and
`read` gives back the Python values that the type stands for.
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

#: a column whose rows hold both gets the second
_WIDER = {
    frozenset({ColumnType.INTEGER, ColumnType.FLOAT}): ColumnType.FLOAT,
    frozenset({ColumnType.INTEGER, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.FLOAT, ColumnType.NUMERIC}): ColumnType.NUMERIC,
    frozenset({ColumnType.DATE, ColumnType.TIMESTAMP}): ColumnType.TIMESTAMP,
}


#: types whose values go through JSON as they are, with no look at the value
_PLAIN = {str: ColumnType.TEXT, bool: ColumnType.BOOLEAN, Decimal: ColumnType.NUMERIC, date: ColumnType.DATE}


def type_of(value: Any) -> ColumnType:
    """The column type that a value read from a warehouse asks for.

    :raises TypeError: for a value that no column type stands for.
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
    """Takes the carried values of each row, notes their types, and makes them ready for JSON."""

    def __init__(self, names: Sequence[str], positions: Sequence[int]) -> None:
        self._names = list(names)
        self._positions = list(positions)
        self._types: list[ColumnType | None] = [None] * len(names)

    def take(self, row: tuple[Any, ...], number: int) -> list[Any]:
        """The carried values of a row.

        :raises InputError: for a value of no known type, naming the row and column.
        """
        values = []
        for index, position in enumerate(self._positions):
            value = row[position]
            plain = _PLAIN.get(type(value))
            if plain is not None:
                self._note(index, plain)
            elif value is not None:
                try:
                    self._note(index, type_of(value))
                    value = _for_json(value)
                except TypeError as error:
                    raise InputError(
                        f"carry: row {number}, column {self._names[index]!r} holds a value that no column type stands "
                        f"for ({error}). Nothing was uploaded. Cast it in the SQL, for example to text."
                    ) from None
            values.append(value)
        return values

    def columns(self) -> list[Column]:
        """The columns with the types found; a column that was always NULL is text."""
        return [Column(n, t or ColumnType.TEXT) for n, t in zip(self._names, self._types, strict=True)]

    def _note(self, index: int, found: ColumnType) -> None:
        known = self._types[index]
        if known is None or known == found:
            self._types[index] = found
        else:
            either = frozenset({known, found})
            mixed = ColumnType.JSON if ColumnType.JSON in either else ColumnType.TEXT
            self._types[index] = _WIDER.get(either, mixed)


def _for_json(value: Any) -> Any:
    """The value as one that goes through JSON unharmed.

    :raises TypeError: for a list or an object with something in it that JSON has no form for.
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
    """A carried value as it came back from staging, as the Python value of its column's type."""
    reader = _READERS.get(column.type)
    return value if value is None or reader is None else reader(value)


def _moment(value: str) -> datetime:
    moment = msgspec.convert(value if "T" in value else f"{value}T00:00:00Z", datetime)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_READERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.NUMERIC: lambda value: Decimal(str(value)),
    ColumnType.FLOAT: float,
    ColumnType.TIMESTAMP: _moment,
    ColumnType.DATE: lambda value: msgspec.convert(value, date),
    ColumnType.BYTES: lambda value: msgspec.convert(value, bytes),
    ColumnType.TEXT: lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode(),
}
