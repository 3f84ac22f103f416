"""Conversion of Python values to the forms that databases take: sanitized text, JSON, timestamps in UTC."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.schema.native import NativeValue, format_json

_NANOSECONDS = re.compile(r"\.\d{7}")

_JSON = msgspec.json.Encoder(decimal_format="number")
_TOLERANT_JSON = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


def sanitize(text: str) -> str:
    r"""Return text that UTF-8 can encode: surrogate pairs are joined, lone surrogates become U+FFFD.

    Models answer with JSON such as "\ud83d", which Python reads as a lone surrogate and no database stores.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def json_text(value: Any) -> str:
    """Return the value as compact JSON. NUL characters, which PostgreSQL's jsonb refuses, are removed; NaN is null."""
    if isinstance(value, NativeValue):
        text = value.text if value.is_json else format_json(value.value)
        return _plain_json(value.value) if "\\u0000" in text else text
    try:
        encoded = _JSON.encode(value).decode()
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; integers over 64 bits
        return _plain_json(value)
    return _plain_json(value) if "\\u0000" in encoded else encoded


def json_line(value: Any) -> bytes:
    """Return the value as compact JSON for a file, which may contain NUL characters; NaN is null."""
    try:
        return _JSON.encode(value)
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; integers over 64 bits
        return _TOLERANT_JSON.encode(_sanitize_json(value, sanitize))


def _plain_json(value: Any) -> str:
    return _TOLERANT_JSON.encode(_sanitize_json(value, lambda text: sanitize(text).replace("\0", ""))).decode()


def _sanitize_json(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _sanitize_json(member, clean) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_sanitize_json(member, clean) for member in value]
    if isinstance(value, float | Decimal) and not math.isfinite(value):  # JSON has no NaN and no infinities
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return Decimal(value)  # which the encoder writes with all its digits
    return value


def to_utc(timestamp: datetime) -> datetime:
    """Return the timestamp in UTC. A timestamp without a time zone is assumed to be in UTC."""
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def to_iso(timestamp: datetime) -> str:
    """Return ISO 8601 in UTC, always with microseconds, so that the texts sort like the timestamps."""
    return to_utc(timestamp).isoformat(timespec="microseconds")


def local_timestamp(value: Any) -> datetime:
    """Return a timestamp without a time zone. Raises TypeError for anything else."""
    timestamp: datetime = require_type(datetime, value)
    if timestamp.tzinfo is not None:
        raise TypeError("a timestamp with a time zone")
    return timestamp


def local_iso(value: Any) -> str:
    """Return a timestamp without a time zone as ISO 8601, always with microseconds. Raises TypeError for others."""
    return local_timestamp(value).isoformat(timespec="microseconds")


def clock_time(value: Any) -> time:
    """Return a time of day without a time zone. Raises TypeError for anything else."""
    result: time = require_type(time, value)
    if result.tzinfo is not None:
        raise TypeError("a time with a time zone")
    return result


def clock_iso(value: Any) -> str:
    """Return a time of day as ISO 8601, always with microseconds. Raises TypeError for anything else."""
    return clock_time(value).isoformat(timespec="microseconds")


def iso_duration(value: Any) -> str:
    """Return a time span as an ISO 8601 duration. Raises TypeError for anything else."""
    duration: str = msgspec.to_builtins(require_type(timedelta, value))
    return duration


def uuid_text(value: Any) -> str:
    """Return a UUID as text. Raises TypeError for anything else."""
    return str(require_type(UUID, value))


def date_or_text(text: str) -> date | str:
    """Return a date, or the text of one that Python does not have: infinity, or a year before 1 or after 9999."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def timestamp_or_text(text: str) -> datetime | str:
    """Return a timestamp, or the text of one that Python does not have, such as infinity, or with nanoseconds."""
    try:
        return text if _NANOSECONDS.search(text) else datetime.fromisoformat(text)
    except ValueError:
        return text


def time_or_text(text: str) -> time | str:
    """Return a time of day, or the text of one that Python does not have: 24:00:00, or with nanoseconds."""
    try:
        return text if text.startswith("24") or _NANOSECONDS.search(text) else time.fromisoformat(text)
    except ValueError:
        return text


def require_type(type_: type, value: Any) -> Any:
    """Return the value. Raises TypeError if it is not of this type."""
    if not isinstance(value, type_):
        raise TypeError(type_)
    return value


def text(value: Any) -> str:
    """Return text that UTF-8 can encode. Raises TypeError for anything but text."""
    return sanitize(require_type(str, value))


def text_without_nul(value: Any) -> str:
    """Return text for a database that cannot store NUL characters. Raises TypeError for anything but text."""
    return text(value).replace("\0", "")


def integer(value: Any) -> int:
    """Return an integer. Raises TypeError for anything else."""
    return int(require_type(int, value))


def decimal(value: Any) -> Decimal:
    """Return a number as a decimal, with the digits of its usual notation."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def binary(value: Any) -> bytes:
    """Return any bytes-like object as bytes."""
    return bytes(memoryview(value))


def read_lob(value: Any) -> Any:
    """Return the value, read from its handle if the driver returned one, as python-oracledb does for CLOB and BLOB."""
    return value.read() if hasattr(value, "read") else value
