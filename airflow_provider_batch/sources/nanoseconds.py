"""Counts of nanoseconds, as Arrow, NumPy and polars keep them, as Python values. Python itself has microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1)


def timestamp_from_nanoseconds(nanoseconds: int, zone: tzinfo | None) -> datetime | str:
    """Return a timestamp, counted from 1970; one with parts of a microsecond is text.

    :param zone: time zone to express it in, or None for a timestamp without one.
    """
    timestamp = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    if zone is not None:
        timestamp = timestamp.replace(tzinfo=UTC).astimezone(zone)
    digits = nanoseconds % 1000
    return _append_digits(timestamp.isoformat(timespec="microseconds"), digits) if digits else timestamp


def time_from_nanoseconds(nanoseconds: int) -> time | str:
    """Return a time of day, counted from midnight; one with parts of a microsecond is text."""
    moment = (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).time()
    digits = nanoseconds % 1000
    return _append_digits(moment.isoformat(timespec="microseconds"), digits) if digits else moment


def duration_from_nanoseconds(nanoseconds: int) -> timedelta | str:
    """Return a time span; one with parts of a microsecond is an ISO 8601 duration, as text."""
    if nanoseconds % 1000 == 0:
        return timedelta(microseconds=nanoseconds // 1000)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}PT{Decimal(abs(nanoseconds)).scaleb(-9):f}S"


def _append_digits(text: str, digits: int) -> str:
    end = text.index(".") + 7
    return f"{text[:end]}{digits:03d}{text[end:]}"
