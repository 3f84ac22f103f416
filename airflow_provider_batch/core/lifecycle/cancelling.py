"""Decides which batches are cancelled when a person ends or resubmits a job, and makes the record of a cancel."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_batch.core.ledger.records import BY_PERSON, CancelRequested
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.steps import Cancel


def cancel_steps(state: JobState, reason: str) -> list[Cancel]:
    """Return a step for every batch of a job that is not recorded as ended.

    A batch that was cancelled before is cancelled again only for `BY_PERSON`.
    """
    return [
        Cancel(shard, submission, reason)
        for shard, submission in state.live_submissions()
        if submission.cancel is None or reason == BY_PERSON
    ]


def cancel_record(step: Cancel, time: datetime) -> CancelRequested:
    """Return the record of a cancel that the provider accepted, or that came after the batch had ended.

    The second case is recorded too, so that nobody cancels the batch again. The wait collects its answers.
    """
    return CancelRequested(step.shard.name, step.submission.number, step.reason, time)
