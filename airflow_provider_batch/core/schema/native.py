"""Values that Python holds only in part, next to the text that their own database writes and reads.

Python has no type for a PostgreSQL `json` with its spaces and repeated keys, or for a DuckDB `STRUCT` with an interval.
Templates see the Python value. A carried column lands as the text if the results table is in the same kind of database,
and as the Python value everywhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.schema.convert import exact_number


class NativeValue(msgspec.Struct, frozen=True):
    """A value read from a database, and its text in that database."""

    #: what Python can hold of it
    value: Any
    #: the database's own text, from which the database restores exactly the same value
    text: str
    #: whether the text is JSON
    is_json: bool = False


def plain(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values of a row with the Python value in the place of each `NativeValue`."""
    if NativeValue not in map(type, values):
        return values
    return tuple(value.value if type(value) is NativeValue else value for value in values)


def json_value(text: str) -> NativeValue:
    """Return a JSON text as its database returned it. Templates see a text that Python cannot parse as it is."""
    try:
        return NativeValue(parse_json(text), text, is_json=True)
    except (ValueError, RecursionError):  # more digits or levels than Python reads
        return NativeValue(text, text)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. A number that a float cannot hold exactly is a Decimal.

    :raises ValueError: if the text is not JSON.
    :raises RecursionError: if it is nested too deeply.
    """
    return json.loads(text, parse_float=exact_number)


def format_json(value: Any) -> str:
    """Return a value as JSON text: numbers with all their digits, dates and times as ISO 8601, bytes as Base64.

    :raises TypeError: for a value that JSON cannot express.
    """
    return msgspec.json.encode(_jsonable(value)).decode()


def _jsonable(value: Any) -> Any:
    match value:
        case None | bool() | str() | datetime() | date() | time() | timedelta() | UUID():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case int():
            return value if -(2**63) <= value < 2**63 else msgspec.Raw(str(value).encode())
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return msgspec.Raw(str(value).encode()) if value.is_finite() else str(value)
        case Mapping():
            return {_key(key): _jsonable(member) for key, member in value.items()}
        case list() | tuple():
            return [_jsonable(member) for member in value]
    raise TypeError(type(value).__name__)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, Sequence | Mapping | set | frozenset) and not isinstance(key, bytes):
        raise TypeError(f"a key of type {type(key).__name__}")
    text = msgspec.json.encode(_jsonable(key)).decode()
    return text[1:-1] if text.startswith('"') else text
