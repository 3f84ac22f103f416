"""Conversion of JSON values to the Python types of columns."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.schema.columns import ColumnType


def convert(value: Any, type: ColumnType) -> Any:
    """Return a JSON value as the Python type that `ColumnType` documents. None stays None.

    A timestamp without an offset is interpreted as UTC. A local timestamp has no offset. An interval is an ISO 8601
    duration. Bytes are decoded from base64. Raises ValueError if the value does not fit the type.
    """
    if value is None or type is ColumnType.JSON:
        return value
    result: Any = None
    if isinstance(value, bool):
        result = value if type is ColumnType.BOOLEAN else None
    elif isinstance(value, str):
        result = _from_text(value, type)
    elif isinstance(value, int | float):
        result = _from_number(value, type)
    elif isinstance(value, list) and type is ColumnType.VECTOR:
        result = [convert(item, ColumnType.FLOAT) for item in value]
        result = None if None in result else result
    if result is None:
        raise ValueError(f"{truncate(repr(value), 80)} is not of type {type}")
    return result


def _from_text(value: str, type: ColumnType) -> Any:
    reader = _READERS.get(type)
    try:
        return None if reader is None else reader(value)
    except (ValueError, OverflowError):
        return None


def _timestamp(value: str) -> datetime:
    timestamp = datetime.fromisoformat(value)
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def _local_timestamp(value: str) -> datetime | None:
    timestamp = datetime.fromisoformat(value)
    return timestamp if timestamp.tzinfo is None else None


def _time(value: str) -> time | None:
    clock_time = time.fromisoformat(value)
    return clock_time if clock_time.tzinfo is None else None


#: by type, the function that reads a text; it returns None or raises ValueError for text that is not of the type
_READERS: Mapping[ColumnType, Callable[[str], Any]] = {
    ColumnType.TEXT: str,
    ColumnType.DATE: date.fromisoformat,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.LOCAL_TIMESTAMP: _local_timestamp,
    ColumnType.TIME: _time,
    ColumnType.INTERVAL: lambda value: msgspec.convert(value, timedelta),
    ColumnType.UUID: UUID,
    ColumnType.BYTES: lambda value: base64.b64decode(value, validate=True),
}


def _from_number(value: int | float, type: ColumnType) -> Any:
    try:
        if type is ColumnType.FLOAT:
            return float(value)
        if type is ColumnType.NUMERIC:
            return Decimal(str(value))
        if type is ColumnType.INTEGER and value == int(value) and -(2**63) <= value < 2**63:
            return int(value)
    except (ValueError, OverflowError):
        return None
    return None


def truncate(text: str, characters: int) -> str:
    """Return at most this many characters of a text, with an ellipsis if it is longer."""
    return text if len(text) <= characters else text[:characters] + "…"
