"""Parsing of the `Retry-After` header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_batch.core.provider.retry_after import parse_retry_after


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0", 0), ("1.5", 1.5), ("86400", 86400)])
def test_a_number_is_seconds(header: str, seconds: float) -> None:
    assert parse_retry_after(header) == seconds


def test_a_date_is_the_time_until_then_and_zero_once_it_has_passed() -> None:
    wait = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert wait is not None
    assert 50 < wait <= 60
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "nan", "inf", "1e999", "99 Foo 9999"])
def test_a_missing_or_invalid_header_is_none(header: str | None) -> None:
    assert parse_retry_after(header) is None
