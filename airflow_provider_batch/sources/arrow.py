"""Arrow's values as plain Python values that lose nothing. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.nanoseconds import (
    duration_from_nanoseconds,
    time_from_nanoseconds,
    timestamp_from_nanoseconds,
)
from airflow_provider_batch.sources.plain import plain_value

#: rows that are converted at a time
CHUNK_ROWS = 2000


def rows_of_batches(batches: Iterable[Any], place: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of record batches.

    :param place: where the batches are from, for errors.
    """
    for batch in batches:
        for start in range(0, batch.num_rows, CHUNK_ROWS):
            part = batch.slice(start, CHUNK_ROWS)
            columns = [_column_values(part.column(index), field, place) for index, field in enumerate(part.schema)]
            yield from zip(*columns, strict=True)


def _column_values(array: Any, field: Any, place: str) -> list[Any]:
    import pyarrow as pa

    try:
        converter = _nanosecond_converter(field.type)
        if converter is not None:
            return [None if value is None else converter(value) for value in array.cast(pa.int64()).to_pylist()]
        return [plain_value(value) for value in array.to_pylist(maps_as_pydicts="strict")]
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"rows: Column {field.name!r} of {place}, of the type {field.type}, has a value that Python cannot hold: "
            f"{error}. Cast the column to text. Nothing was uploaded."
        ) from error


def _nanosecond_converter(type_: Any) -> Callable[[int], Any] | None:
    """Return the function for a type with nanoseconds, which pyarrow itself converts only with the help of pandas."""
    import pyarrow as pa

    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        zone = _zone(type_.tz)
        return lambda value: timestamp_from_nanoseconds(value, zone)
    if pa.types.is_time64(type_) and type_.unit == "ns":
        return time_from_nanoseconds
    if pa.types.is_duration(type_) and type_.unit == "ns":
        return duration_from_nanoseconds
    return None


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # an offset such as +01:00
        parsed = datetime.fromisoformat(f"2000-01-01T00:00:00{name}") if name[:1] in "+-" else None
        return parsed.tzinfo if parsed else UTC
