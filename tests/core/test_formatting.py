"""Amounts, counts and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_batch.core.formatting import (
    format_age,
    format_count,
    format_time,
    format_usd,
    format_usd_range,
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (0.00004, "less than $0.0001"),
        (0.0001, "$0.0001"),
        (Decimal("0.0234"), "$0.0234"),
        (0.12, "$0.12"),
        (0.5, "$0.50"),
        (0.99999, "$1.00"),
        (Decimal(1), "$1.00"),
        (1234.567, "$1,234.57"),
        (-0.25, "-$0.25"),
    ],
)
def test_an_amount_shows_cents_and_more_decimal_places_only_when_it_needs_them(
    amount: float | Decimal, text: str
) -> None:
    assert format_usd(amount) == text


def test_a_range_shows_both_ends_unless_they_read_the_same() -> None:
    assert format_usd_range(0.02, 1.5) == "$0.02 to $1.50"
    assert format_usd_range(0.50001, 0.50002) == "$0.50"


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (1200, "1,200 rows")])
def test_a_count_takes_the_right_form_of_its_noun(count: int, text: str) -> None:
    assert format_count(count, "row") == text


def test_an_irregular_plural_can_be_given() -> None:
    assert format_count(2, "batch", "batches") == "2 batches"


NOW = datetime(2026, 11, 21, 18, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=59.9), "59 s ago"),
        (timedelta(minutes=59, seconds=59), "59 min ago"),
        (timedelta(hours=3, minutes=7), "3 h ago"),
        (timedelta(hours=47), "47 h ago"),
        (timedelta(hours=48), "2 days ago"),
        (timedelta(days=1_234), "1,234 days ago"),
        (-timedelta(hours=30), "in 30 h"),
        (-timedelta(days=3), "in 3 days"),
    ],
)
def test_an_age_is_rounded_down_to_its_largest_unit(age: timedelta, text: str) -> None:
    assert format_age(NOW - age, NOW) == text


def test_a_time_is_shown_in_utc_with_its_age() -> None:
    berlin = (NOW - timedelta(hours=3)).astimezone(timezone(timedelta(hours=1)))
    assert format_time(berlin, NOW) == "2026-11-21 15:50:00 UTC (3 h ago)"
