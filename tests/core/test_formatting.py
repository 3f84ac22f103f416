"""Amounts, counts and times as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
        (-0.0, "$0.00"),
        (0.00004, "less than $0.0001"),
        (0.0001, "$0.0001"),
        (Decimal("0.0234"), "$0.0234"),
        (0.12, "$0.12"),
        (0.5, "$0.50"),
        (0.99999, "$1.00"),
        (Decimal(1), "$1.00"),
        (1234.567, "$1,234.57"),
        (-0.25, "-$0.25"),
        (Decimal("-0.00002"), "less than $0.0001 below zero"),
        ("0.00000001", "less than $0.0001"),
        ("0.004500", "$0.0045"),
        (None, "unknown"),
        (float("inf"), "unknown"),
        (float("nan"), "unknown"),
        (10**15, "$1,000,000,000,000,000.00"),
    ],
)
def test_an_amount_shows_cents_and_more_decimal_places_only_when_it_needs_them(
    amount: float | Decimal | str | None, text: str
) -> None:
    assert format_usd(amount) == text


def test_a_range_shows_both_ends_unless_they_read_the_same() -> None:
    assert format_usd_range(0.02, 1.5) == "$0.02 to $1.50"
    assert format_usd_range(0.02, 1.5, 0.21) == "$0.02 to $1.50, most likely $0.21"
    assert format_usd_range(0.50001, 0.50002, 0.500015) == "$0.50"
    assert format_usd_range(0.50001, 0.50002) == "$0.50"
    assert format_usd_range(0, 0) == "$0.00"
    assert format_usd_range(0.00001, 0.00002) == "less than $0.0001"
    assert format_usd_range(0.00001, "0.0050") == "less than $0.0001 to $0.005"


def test_a_range_from_ten_cents_on_shows_cents() -> None:
    assert format_usd_range(0.21349, 0.42951) == "$0.21 to $0.43"
    assert format_usd_range(0.09876, 0.42951) == "$0.0988 to $0.4295"


def test_a_range_with_an_unknown_end_is_unknown() -> None:
    assert format_usd_range(None, 1) == format_usd_range(1, None) == format_usd_range(1, float("inf")) == "unknown"


amounts = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False) | st.floats(0, 1e12).map(Decimal)


def read(text: str) -> Decimal:
    return Decimal(text.removeprefix("less than ").removeprefix("$").replace(",", ""))


@given(amounts)
@example(Decimal("0.00005"))
@example(Decimal("0.99995"))
@example(Decimal("0.00009999"))
def test_an_amount_that_is_not_zero_never_reads_as_zero_and_is_right_to_the_last_place(amount: Decimal) -> None:
    text = format_usd(amount)
    assert (text == "$0.00") == (amount == 0)
    assert re.fullmatch(r"(less than )?\$[\d,]+\.\d{2,4}", text)
    if text.startswith("less"):
        assert 0 < amount < read(text)
    else:
        assert abs(read(text) - amount) <= Decimal("0.005" if amount >= 1 else "0.00005")


@given(amounts, amounts)
def test_the_larger_amount_never_reads_as_the_smaller_one(one_amount: Decimal, other_amount: Decimal) -> None:
    low, high = sorted([one_amount, other_amount])
    assert read(format_usd(low)) <= read(format_usd(high))
    ends = [read(end) for end in format_usd_range(low, high).split(" to ")]
    assert ends == sorted(ends)
    assert abs(ends[0] - low) <= Decimal("0.005")
    assert abs(ends[-1] - high) <= Decimal("0.005")


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
