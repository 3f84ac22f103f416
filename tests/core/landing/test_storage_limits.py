"""Which values a column can store unchanged."""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.landing.storage_limits import ColumnLimits, column_problem

MONEY = ColumnLimits(digits=(12, 2))
DATES = ColumnLimits(format="date")
IDS = ColumnLimits(format="integer", integers=(-(2**31), 2**31 - 1))


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (Decimal("1234.50"), MONEY),
        (Decimal("1234.5000"), MONEY),
        (Decimal("1E+9"), MONEY),
        (Decimal("9999999999.99"), MONEY),
        (0, MONEY),
        (Decimal("0.000"), MONEY),
        (0.87, MONEY),
        (2**53, ColumnLimits(float_bits=64)),
        (Decimal("0.1"), ColumnLimits(float_bits=64)),
        ("so so", ColumnLimits(labels=("so so",))),
        ("2026-02-28", DATES),
        ("0", IDS),
        ("-12", IDS),
        ("6F2B1C9E-0b7e-4d6e-9d3a-0a5f0c1e2d3f", ColumnLimits(format="uuid")),
        ("2026-02-01T01:00:00Z", ColumnLimits(format="timestamp")),
        ("2026-02-01 01:00:00.500", ColumnLimits(format="local timestamp", fraction_digits=1)),
        (datetime(2026, 2, 1, 1, 0, 0, 500_000), ColumnLimits(fraction_digits=1)),
        (100000.0, ColumnLimits(characters=6)),
        (Decimal("1E+3"), ColumnLimits(characters=4)),
        (True, ColumnLimits(characters=1)),
        ([1, 2.0, None], ColumnLimits(is_list=True, element=ColumnLimits(integers=(0, 9)))),
        ([[1], [2]], ColumnLimits(is_list=True, element=ColumnLimits(is_list=True))),
    ],
)
def test_a_value_that_fits_has_no_problem(value: Any, limits: ColumnLimits) -> None:
    assert column_problem(value, limits) is None


@pytest.mark.parametrize(
    ("value", "limits", "problem"),
    [
        (Decimal("1234.567"), MONEY, "digits"),
        (Decimal("10000000000"), MONEY, "digits"),
        (0.1 + 0.2, MONEY, "digits"),
        (Decimal("NaN"), MONEY, "digits"),
        (float("inf"), MONEY, "digits"),
        (2**53 + 1, ColumnLimits(float_bits=64), "floats"),
        (10**400, ColumnLimits(float_bits=64), "floats"),
        (Decimal("0.12345678901234567890"), ColumnLimits(float_bits=64), "floats"),
        (2**24 + 1, ColumnLimits(float_bits=32), "floats"),
        (1234567, ColumnLimits(characters=6), "7 characters"),
        (Decimal("1E+3"), ColumnLimits(bytes=3), "4 characters"),
        (0.1 + 0.2, ColumnLimits(characters=8), "19 characters"),
        ("So so", ColumnLimits(labels=("so so",)), "enum"),
        ("today", DATES, "YYYY-MM-DD"),
        ("01/02/2026", DATES, "YYYY-MM-DD"),
        ("2026-02-30", DATES, "YYYY-MM-DD"),
        ("2026-02-01\n", DATES, "YYYY-MM-DD"),
        ("٢٠٢٦-02-01", DATES, "YYYY-MM-DD"),
        ("007", IDS, "whole number"),
        ("+7", IDS, "whole number"),
        ("-0", IDS, "whole number"),
        ("7.0", IDS, "whole number"),
        (" 7", IDS, "whole number"),
        ("2147483648", IDS, "limits of the column"),
        ("9" * 5000, IDS, "limits of the column"),
        ("x", ColumnLimits(format="uuid"), "UUID"),
        ("2026-02-01T01:00:00", ColumnLimits(format="timestamp"), "with an offset"),
        ("2026-02-01T01:00:00Z", ColumnLimits(format="local timestamp"), "without an offset"),
        (time(1, 0, 0, 1), ColumnLimits(fraction_digits=3), "3 digits"),
        ("a", ColumnLimits(is_list=True), "not a list"),
        ({"a": 1}, ColumnLimits(is_list=True), "not a list"),
        ([1, 1.5], ColumnLimits(is_list=True, element=ColumnLimits(integers=(0, 9))), "in the list"),
        ([1, "2"], ColumnLimits(is_list=True, element=ColumnLimits(integers=(0, 9))), "in the list"),
        ([1, 10], ColumnLimits(is_list=True, element=ColumnLimits(integers=(0, 9))), "in the list"),
        ([1], ColumnLimits(is_list=True, elements=2), "the list has 1"),
    ],
)
def test_a_value_that_would_be_changed_has_a_problem_which_does_not_show_it(
    value: Any, limits: ColumnLimits, problem: str
) -> None:
    text = column_problem(value, limits)
    assert text is not None
    assert problem in text
    assert str(value) not in text or len(str(value)) < 2


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4), st.integers(1, 20), st.integers(0, 6))
def test_a_number_fits_exactly_if_rounding_changes_nothing(number: Decimal, whole_digits: int, scale: int) -> None:
    fits = column_problem(number, ColumnLimits(digits=(whole_digits + scale, scale))) is None
    shifted = number.scaleb(scale)
    assert fits == (shifted == shifted.to_integral_value() and abs(number) < 10**whole_digits)
