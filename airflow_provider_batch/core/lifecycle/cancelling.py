"""Which batches of a job are cancelled when a person's decision ends it, and what is recorded of a cancel."""

from __future__ import annotations

from datetime import datetime

from airflow_provider_batch.core.ledger.records import BY_PERSON, CancelRequested
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.steps import Cancel


def cancel_steps(state: JobState, reason: str) -> list[Cancel]:
    """Return a step for every batch of a job that is not known to have ended.

    A batch that was cancelled before is cancelled once more only if a person says so (`BY_PERSON`).
    """
    return [
        Cancel(shard, submission, reason)
        for shard, submission in state.live_submissions()
        if submission.cancel is None or reason == BY_PERSON
    ]


def cancel_record(step: Cancel, at: datetime) -> CancelRequested:
    """Return the record of a cancel that the provider has taken, or that came after the end of the batch.

    A batch that had ended is recorded too: it is not cancelled again, and the wait collects its answers.
    """
    return CancelRequested(step.shard.name, step.submission.number, step.reason, at)
