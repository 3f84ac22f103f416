"""When the deadline of a wait is set, and when a cleared wait gets a new one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import Deadline, Finished, Record
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.deadline import deadline_to_record
from tests.core.building import NOW, manifest_of, plain_shard

HOUR = timedelta(hours=1)
LATER = NOW + 31 * HOUR


def job(*records: Record) -> JobState:
    return fold(manifest_of([plain_shard("s0001")]), records)


def test_the_first_start_sets_the_deadline_and_no_retry_moves_it() -> None:
    first = deadline_to_record(job(), 2, NOW + 30 * HOUR, NOW)
    assert first == Deadline(NOW + 30 * HOUR, NOW, clear_epoch=2)
    for state in (job(first), job(first, Finished(1, NOW + HOUR))):
        assert deadline_to_record(state, 2, LATER + 30 * HOUR, LATER) is None


def test_clearing_a_running_wait_keeps_its_deadline() -> None:
    first = Deadline(NOW + 30 * HOUR, NOW, clear_epoch=0)
    same_deadline = deadline_to_record(job(first), 1, NOW + 31 * HOUR, NOW + HOUR)
    assert same_deadline == Deadline(NOW + 30 * HOUR, NOW + HOUR, clear_epoch=1)
    # a worker that is killed after the deadline is retried under the same clear
    assert deadline_to_record(job(first, same_deadline), 1, LATER + 30 * HOUR, LATER) is None


@pytest.mark.parametrize("records", [[], [Finished(1, NOW + HOUR)]])
def test_a_clear_after_the_end_or_the_deadline_sets_a_new_deadline_with_a_fresh_allowance(
    records: list[Finished],
) -> None:
    cleared_at = NOW + 2 * HOUR if records else LATER
    state = job(Deadline(NOW + 30 * HOUR, NOW), *records)
    new_deadline = deadline_to_record(state, 1, cleared_at + 30 * HOUR, cleared_at)
    assert new_deadline == Deadline(cleared_at + 30 * HOUR, cleared_at, clear_epoch=1, resets_attempts=True)
    state = job(Deadline(NOW + 30 * HOUR, NOW), *records, new_deadline)
    same_deadline = deadline_to_record(state, 2, LATER + 99 * HOUR, cleared_at + HOUR)
    assert same_deadline is not None
    assert not same_deadline.resets_attempts
