"""Conversion of JSON values to the Python types of columns."""

from __future__ import annotations

import base64
import ipaddress
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.schema.columns import ColumnType

#: format of a date and time without a time zone, in the words of the OpenAPI format registry
LOCAL_DATE_TIME = "date-time-local"

#: pydantic's formats of UUIDs of one version, and these versions
UUID_VERSIONS = {f"uuid{version}": version for version in (1, 3, 4, 5, 6, 7, 8)}

#: pydantic's formats of IP addresses beyond those of JSON Schema, with functions that raise ValueError for other texts
IP_FORMATS: Mapping[str, Callable[[str], Any]] = {
    "ipvanyaddress": ipaddress.ip_address,
    "ipvanyinterface": ipaddress.ip_interface,
    "ipvanynetwork": ipaddress.ip_network,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "ipv4interface": ipaddress.IPv4Interface,
    "ipv6interface": ipaddress.IPv6Interface,
}

#: column type of a text with a format. Pydantic's `bytes` take the UTF-8 bytes of a text, format "binary".
FORMAT_TYPES: Mapping[str, ColumnType] = {
    "date": ColumnType.DATE,
    "date-time": ColumnType.TIMESTAMP,
    LOCAL_DATE_TIME: ColumnType.LOCAL_TIMESTAMP,
    "time": ColumnType.TIME,
    "duration": ColumnType.INTERVAL,
    **dict.fromkeys(("uuid", *UUID_VERSIONS), ColumnType.UUID),
    "decimal": ColumnType.NUMERIC,
    "base64": ColumnType.BYTES,
    "byte": ColumnType.BYTES,  # base64 in OpenAPI
    "base64url": ColumnType.BYTES,
    "hex": ColumnType.BYTES,
    "binary": ColumnType.BYTES,
}
#: format of a number that is a whole number or a float: the float of a whole number must be equal to it
EXACT = "exact"

#: limits of a decimal: digits before and after the decimal point in PostgreSQL's `numeric`, the widest type
_MAX_WHOLE_DIGITS = 131_072
_MAX_DECIMAL_PLACES = 16_383


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON document. A number that a float would round is a Decimal.

    Raises what `msgspec.json.decode` raises.
    """
    return _decoder.decode(text)


def exact_number(text: str) -> float | Decimal:
    """Return a JSON number with a fraction or an exponent as a float, or as a Decimal if a float would round it."""
    number = float(text)
    if len(text) <= 16 and "e" not in text and "E" not in text:
        return number  # at most 15 digits, which a float keeps
    return number if math.isfinite(number) and Decimal(repr(number)) == Decimal(text) else Decimal(text)


_decoder = msgspec.json.Decoder(float_hook=exact_number)


def convert(value: Any, type: ColumnType, format: str = "") -> Any:
    """Return a JSON value as the Python type that `ColumnType` documents. None stays None.

    A timestamp without an offset is interpreted as UTC. A local timestamp has no offset, and the offset of a time can
    only be zero. An interval is an ISO 8601 duration. Raises ValueError if the value does not fit the type.

    :param format: how a text stands for bytes ("base64", "base64url", "hex" or "binary", its UTF-8), "json" for a text
        that is itself JSON, or `EXACT`.
    """
    if value is None or (type is ColumnType.JSON and not format):
        return value
    result: Any = None
    if isinstance(value, bool):
        result = value if type is ColumnType.BOOLEAN else None
    elif isinstance(value, str):
        result = _from_text(value, type, format)
    elif isinstance(value, int | float | Decimal):
        result = _from_number(value, type)
        if format == EXACT and isinstance(value, int) and result != value:
            result = None
    elif isinstance(value, list) and type is ColumnType.VECTOR:
        result = [convert(item, ColumnType.FLOAT) for item in value]
        result = None if None in result else result
    if result is None:
        raise ValueError(f"{truncate(repr(value), 80)} is not of type {type}")
    return result


def is_format(text: str, format: str) -> bool:
    """Return whether a text has one of the formats in `FORMAT_TYPES` or `IP_FORMATS`."""
    if format in IP_FORMATS:
        return _is_readable(IP_FORMATS[format], text)
    if format == "time":  # a time with an offset is valid, but no column can hold it
        format = "date-time"
        text = f"2000-01-01T{text}"
    return _is_readable(partial(convert, type=FORMAT_TYPES[format], format=format), text)


def _is_readable(read: Callable[[str], Any], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _from_text(value: str, type: ColumnType, format: str) -> Any:
    reader = _FORMAT_READERS.get(format) or _READERS.get(type)
    try:
        return None if reader is None else reader(value)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _date(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        midnight = datetime.fromisoformat(value)  # pydantic, too, takes a date and time at midnight
        if midnight.time() != time():
            raise
        return midnight.date()


def _timestamp(value: str) -> datetime:
    timestamp = datetime.fromisoformat(value.upper())  # a "z" may be written in lower case
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def _local_timestamp(value: str) -> datetime | None:
    timestamp = datetime.fromisoformat(value.upper())
    return timestamp if timestamp.tzinfo is None else None


def _time(value: str) -> time | None:
    clock_time = time.fromisoformat(value.upper())
    return None if clock_time.utcoffset() else clock_time.replace(tzinfo=None)


def _interval(value: str) -> timedelta:
    try:
        return msgspec.convert(value, timedelta)
    except msgspec.ValidationError:
        from pydantic import TypeAdapter

        # years and months, as 365 and 30 days, and forms such as "1 day, 02:00:00"
        return TypeAdapter(timedelta).validate_python(value)


def _uuid(value: str, version: int) -> UUID | None:
    uuid = UUID(value)
    return uuid if uuid.version == version else None


def _base64(value: str) -> bytes:
    return base64.b64decode("".join(value.split()), validate=True)


#: by type, the function that reads a text; it returns None or raises ValueError for text that is not of the type
_READERS: Mapping[ColumnType, Callable[[str], Any]] = {
    ColumnType.TEXT: str,
    ColumnType.NUMERIC: lambda value: _storable_decimal(Decimal(value)),
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMP: _timestamp,
    ColumnType.LOCAL_TIMESTAMP: _local_timestamp,
    ColumnType.TIME: _time,
    ColumnType.INTERVAL: _interval,
    ColumnType.UUID: UUID,
    ColumnType.BYTES: _base64,
}
_FROM_BASE64URL = str.maketrans("-_", "+/")
_FORMAT_READERS: Mapping[str, Callable[[str], Any]] = {
    "base64url": lambda value: _base64(value.translate(_FROM_BASE64URL) + "=" * (-len(value) % 4)),
    "hex": bytes.fromhex,
    "binary": str.encode,
    "json": parse_json,
    **{name: partial(_uuid, version=version) for name, version in UUID_VERSIONS.items()},
}


def _from_number(value: int | float | Decimal, type: ColumnType) -> Any:
    try:
        if type is ColumnType.FLOAT:
            number = float(value)
            return number if math.isfinite(number) else None
        if type is ColumnType.NUMERIC:
            return _storable_decimal(Decimal(str(value)))
        if type is ColumnType.INTEGER and value == int(value) and -(2**63) <= value < 2**63:
            return int(value)
    except (ValueError, ArithmeticError):
        return None
    return None


def _storable_decimal(value: Decimal) -> Decimal | None:
    """Return the decimal, or None if it is not a number or if no database can hold its digits."""
    if not value.is_finite():
        return None
    _, _, exponent = value.as_tuple()
    fits = value.adjusted() < _MAX_WHOLE_DIGITS and int(exponent) >= -_MAX_DECIMAL_PLACES
    return value if fits else None


def truncate(text: str, characters: int) -> str:
    """Return at most this many characters of a text, with an ellipsis if it is longer."""
    return text if len(text) <= characters else text[:characters] + "…"
