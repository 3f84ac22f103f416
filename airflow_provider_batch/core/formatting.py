"""How amounts, counts and times are written for people, in logs, errors and pages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal


def format_usd(amount: float | Decimal) -> str:
    """Return an amount of US dollars as in "$1,234.56", "$0.0234" or "less than $0.0001".

    Amounts below one dollar show up to four decimal places.
    """
    if amount < 0:
        return f"-{format_usd(-amount)}"
    if amount >= 1 or amount == 0:
        return f"${amount:,.2f}"
    if amount < Decimal("0.0001"):
        return "less than $0.0001"
    text = f"{amount:,.4f}"
    return f"${text.removesuffix('0').removesuffix('0')}"


def format_usd_range(low: float | Decimal, high: float | Decimal) -> str:
    """Return a range of US dollars as in "$0.02 to $1.50", or a single amount if both ends look the same."""
    ends = format_usd(low), format_usd(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


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
