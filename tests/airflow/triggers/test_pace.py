"""When a batch is looked at again: pure numbers."""

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
    LONGEST_RETRY_AFTER,
    backoff,
    retry_after,
    until_first_look,
    until_next_look,
)
from tests.airflow.triggers.provider import batch

NOW = time.time()
MINUTE = 60.0


def view(age: float, **changes: Any) -> BatchView:
    return read_batch(batch("b", created_at=int(NOW - age), **changes))


def counts(completed: int) -> dict[str, int]:
    return {"total": 100, "completed": completed, "failed": 1}


def test_a_young_batch_is_looked_at_four_times_as_often_as_an_old_one() -> None:
    assert until_next_look(view(10), NOW, MINUTE) == MINUTE / 4
    assert until_next_look(view(3600), NOW, MINUTE) == MINUTE


def test_between_them_the_pause_grows_with_the_age() -> None:
    assert until_next_look(view(200), NOW, MINUTE) < until_next_look(view(400), NOW, MINUTE) < MINUTE


@pytest.mark.parametrize(
    "changes", [{"status": "finalizing"}, {"status": "cancelling"}, {"request_counts": counts(95)}]
)
def test_an_old_batch_that_is_nearly_done_is_looked_at_sooner(changes: dict[str, Any]) -> None:
    assert until_next_look(view(80_000, **changes), NOW, MINUTE) == MINUTE / 4
    assert until_next_look(view(80_000, request_counts=counts(50)), NOW, MINUTE) == MINUTE


@given(st.floats(-1e6, 1e9), st.floats(0.01, 3600))
def test_the_authors_interval_is_the_longest_pause_whatever_a_server_says_of_the_age(age: float, most: float) -> None:
    assert most / 4 <= until_next_look(view(age), NOW, most) <= most
    assert 0 < until_first_look(most) <= min(3.0, most)


@given(st.integers(1, 10_000), st.floats(0.01, 3600))
def test_the_pause_after_failures_grows_up_to_five_minutes_or_the_interval(failures: int, interval: float) -> None:
    assert interval <= backoff(failures, interval) <= max(interval, 300)
    assert backoff(failures, interval) <= backoff(failures + 1, interval)


def test_retry_after_is_a_number_or_a_date_and_has_an_end() -> None:
    assert retry_after("7") == 7
    assert 50 < retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60))) <= 60
    assert retry_after("1e9") == LONGEST_RETRY_AFTER
    for nonsense in (None, "", "-5", "nan", "soon", "Wed, 99 Foo"):
        assert retry_after(nonsense) == 0
