"""Duplicate batches: how a second batch for the same shard can come to exist, and how it is found.

If a creation gets no response, nobody knows whether the batch exists. So the worker first records an *intent* with a
nonce, and sends the nonce in the metadata of the batch. If no batch id follows, another worker looks the nonce up in
the provider's list of batches before it creates anything. That is safe unless the list is out of date:

    worker A     intent, nonce n1 ──► create ──► (no answer; the batch b1 exists)
    worker B         120 s later: lists the batches, b1 is missing ──► records that n1 is lost
    worker B     intent, nonce n2 ──► create ──► b2, recorded
    the list         now shows b1 and b2: b1 is a duplicate batch, and both are billed

Nothing on our side can rule this out, so it is detected instead. The provider's list is read once more at the end of
the wait, and whenever a worker continues a job in which a creation was considered lost. `find_stray_batches` then sorts
what it shows:

    b1, while no second batch was created    adopt it: record its id, and continue with it
    b1, and it may still run                 cancel it
    b1, and it has ended                     count the requests that it answered: they were paid for twice

A batch belongs to a job if its metadata has the `job_uid` of the job. Names, files and run_ids prove nothing, because
other deployments may use the same ones with the same key. A batch with another job_uid is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Submission
from airflow_provider_batch.core.provider.batch import BatchView


class StrayBatches(NamedTuple):
    """Batches of a job whose id is not in its ledger, or that another batch has replaced."""

    #: batches of the newest submission of a shard whose id is not recorded; the job continues with them
    to_adopt: list[tuple[ShardState, Submission, BatchView]]
    #: duplicate batches that may still run
    to_cancel: list[BatchView]
    #: duplicate batches that have ended and are not yet counted
    ended: list[BatchView]


def may_have_lost_batches(state: JobState) -> bool:
    """Return whether a batch that was considered lost may still appear, or has appeared and is not yet counted."""
    if any(
        not _is_counted(state, submission)
        for shard in state.shards.values()
        for submission in shard.superseded_submissions
    ):
        return True
    return any(
        submission.refusal is not None and submission.refusal.failure is Failure.LOST and not submission.batch_id
        for shard in state.shards.values()
        for submission in shard.submissions
    )


def find_stray_batches(state: JobState, batches: Iterable[BatchView]) -> StrayBatches:
    """Return the batches of the job in a list that are not the ones it works with.

    :param state: the state, read *after* the list, so that it contains the intent of every batch in the list.
    """
    superseded_ids = {
        submission.batch_id for shard in state.shards.values() for submission in shard.superseded_submissions
    }
    recorded_ids = {submission.batch_id for shard in state.shards.values() for submission in shard.submissions}
    unanswered = {
        last.intent.nonce: (shard, last)
        for shard in state.shards.values()
        if (last := shard.latest) and last.intent and not last.batch_id and not last.settled
        if shard.phase is not Phase.RESEALED
    }
    kept_ids = recorded_ids - superseded_ids
    stray = StrayBatches([], [], [])
    for batch in batches:
        if batch.metadata.get("job_uid") != state.manifest.job_uid or batch.id in kept_ids:
            continue
        submission = unanswered.pop(batch.metadata.get("nonce", ""), None)
        duplicate = state.duplicate_batches.get(batch.id)
        if submission is not None:
            stray.to_adopt.append((*submission, batch))
        elif not batch.status.ended:
            if duplicate is None:
                stray.to_cancel.append(batch)
        elif duplicate is None or not duplicate.ended:
            stray.ended.append(batch)
    return stray


def _is_counted(state: JobState, submission: Submission) -> bool:
    duplicate = state.duplicate_batches.get(submission.batch_id)
    return duplicate is not None and duplicate.ended
