"""Which batches are cancelled with a job, and the record of a cancel."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import BY_PERSON, KILLED, RESUBMITTED, CancelRequested, Created, Settled
from airflow_provider_batch.core.lifecycle.cancelling import cancel_record, cancel_steps
from tests.core.building import NOW, manifest_of, plain_shard

STATE = fold(
    manifest_of([plain_shard("s0001"), plain_shard("s0002"), plain_shard("s0003"), plain_shard("s0004")]),
    [
        Created("s0001", 1, "running", NOW),
        Created("s0002", 1, "cancelling", NOW),
        CancelRequested("s0002", 1, "deadline", NOW),
        Created("s0003", 1, "collected", NOW),
        Settled("s0003", 1, "collected", "completed", NOW),
    ],
)


@pytest.mark.parametrize(
    ("reason", "batches"),
    [(KILLED, ["running"]), (RESUBMITTED, ["running"]), (BY_PERSON, ["running", "cancelling"])],
)
def test_only_a_person_cancels_a_batch_a_second_time(reason: str, batches: list[str]) -> None:
    assert [step.submission.batch_id for step in cancel_steps(STATE, reason)] == batches


def test_the_record_names_the_submission_and_the_reason() -> None:
    (step,) = cancel_steps(STATE, KILLED)
    later = NOW + timedelta(seconds=1)

    assert cancel_record(step, later) == CancelRequested("s0001", 1, KILLED, later)
