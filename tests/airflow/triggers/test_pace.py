"""When a batch is read again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.triggers.pace import (
    MAX_RETRY_AFTER,
    backoff,
    bounded_retry_after,
    seconds_until_first_read,
    seconds_until_next_read,
)
from tests.airflow.triggers.provider import batch

NOW = time.time()
MINUTE = 60.0


def view(age: float, **changes: Any) -> BatchView:
    return read_batch(batch("b", created_at=int(NOW - age), **changes))


def counts(completed: int) -> dict[str, int]:
    return {"total": 100, "completed": completed, "failed": 1}


def test_a_young_batch_is_read_four_times_as_often_as_an_old_one() -> None:
    assert seconds_until_next_read(view(10), NOW, MINUTE) == MINUTE / 4
    assert seconds_until_next_read(view(3600), NOW, MINUTE) == MINUTE


def test_in_between_the_pause_grows_with_the_age_of_the_batch() -> None:
    assert seconds_until_next_read(view(200), NOW, MINUTE) < seconds_until_next_read(view(400), NOW, MINUTE) < MINUTE


@pytest.mark.parametrize(
    "changes", [{"status": "finalizing"}, {"status": "cancelling"}, {"request_counts": counts(95)}]
)
def test_an_old_batch_that_is_nearly_done_is_read_sooner(changes: dict[str, Any]) -> None:
    assert seconds_until_next_read(view(80_000, **changes), NOW, MINUTE) == MINUTE / 4
    assert seconds_until_next_read(view(80_000, request_counts=counts(50)), NOW, MINUTE) == MINUTE


@given(st.floats(-1e6, 1e9), st.floats(0.01, 3600))
def test_the_authors_interval_is_the_longest_pause_for_any_creation_time(age: float, interval: float) -> None:
    assert interval / 4 <= seconds_until_next_read(view(age), NOW, interval) <= interval
    assert 0 < seconds_until_first_read(interval) <= min(3.0, interval)


@given(st.integers(1, 10_000), st.floats(0.01, 3600))
def test_the_pause_after_failures_grows_up_to_five_minutes_or_the_interval(failures: int, interval: float) -> None:
    assert interval <= backoff(failures, interval) <= max(interval, 300)
    assert backoff(failures, interval) <= backoff(failures + 1, interval)


def test_retry_after_is_a_number_or_a_date_and_has_a_maximum() -> None:
    assert bounded_retry_after("7") == 7
    assert 50 < bounded_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) <= 60
    assert bounded_retry_after("1e9") == MAX_RETRY_AFTER
    for header in (None, "", "-5", "nan", "soon", "Wed, 99 Foo"):
        assert bounded_retry_after(header) == 0
