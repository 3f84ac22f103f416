"""How amounts, counts and times are written for people, in logs, errors and pages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

#: an amount of US dollars, possibly as text; None if it is unknown
Amount = float | Decimal | str | None

_SMALLEST = Decimal("0.0001")
_CENT = Decimal("0.01")
#: from this amount on, a range shows cents only
_COARSE = Decimal("0.1")


def format_usd(amount: Amount) -> str:
    """Return an amount of US dollars as in "$1,234.56", "$0.0234", "less than $0.0001" or "unknown".

    Amounts below one dollar show up to four decimal places, so that an amount that is not 0 never reads as 0.
    """
    value = _decimal(amount)
    if value is None:
        return "unknown"
    if value < 0:
        text = format_usd(-value)
        return f"-{text}" if text.startswith("$") else f"{text} below zero"
    if value >= 1 or value == 0:
        return f"${abs(value):,.2f}"
    if value < _SMALLEST:
        return f"less than ${_SMALLEST}"
    text = f"{value:,.4f}"
    return f"${text.removesuffix('0').removesuffix('0')}"


def format_usd_range(low: Amount, high: Amount, likely: Amount = None) -> str:
    """Return a range of US dollars as in "$0.21 to $0.43, most likely $0.30".

    It is a single amount if both ends look the same, and "unknown" if one of them is unknown. A most likely amount that
    is unknown is left out.
    """
    low, high, likely = _decimal(low), _decimal(high), _decimal(likely)
    if low is None or high is None:
        return "unknown"
    if low >= _COARSE:
        low, high = _to_cents(low), _to_cents(high)
        likely = None if likely is None else _to_cents(likely)
    ends = format_usd(low), format_usd(high)
    if ends[0] == ends[1]:
        return ends[0]
    return " to ".join(ends) + ("" if likely is None else f", most likely {format_usd(likely)}")


def _to_cents(amount: Decimal) -> Decimal:
    return amount if amount >= 1 else amount.quantize(_CENT, ROUND_HALF_UP)


def _decimal(amount: Amount) -> Decimal | None:
    """Return an amount as a number, or None if it is unknown: None, infinite, or not a number."""
    value = None if amount is None else Decimal(str(amount))
    return value if value is not None and value.is_finite() else None


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, as in "1 row" or "1,200 rows"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def format_time(time: datetime, now: datetime) -> str:
    """Return a time with its distance from now, as in "2026-11-21 15:42:17 UTC (3 h ago)"."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({format_age(time, now)})"


def format_age(time: datetime, now: datetime) -> str:
    """Return how long ago a time was, as in "3 h ago", or how far ahead it is, as in "in 3 h"."""
    seconds = abs((now - time).total_seconds())
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            distance = f"{int(seconds // length)} {unit}"
            break
    else:
        distance = f"{int(seconds // 86400):,} days"
    if seconds < 1:
        return "just now"
    return f"{distance} ago" if time < now else f"in {distance}"
