"""Batches of a job besides the ones it keeps: found late, because a creation was unanswered and a list was behind.

A creation without an answer is looked up before it is made again. But a list may be late: then the batch is taken for
lost, another is made, and the first one appears afterwards, paid for twice. So the provider is asked once more at the
end of the wait, and at each step of a job that has taken a creation for lost. A batch belongs to a job by the
job_uid in its metadata, never by a name or a file: other deployments share keys and run_ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Submission
from airflow_provider_batch.core.provider.batch import BatchView


class StrayBatches(NamedTuple):
    """What a list of the provider's batches told."""

    #: batches of newest tries that no id was recorded for: the job goes on with them
    to_adopt: list[tuple[ShardState, Submission, BatchView]]
    #: batches that run, or may run, beside the one that is kept: to be cancelled
    to_cancel: list[BatchView]
    #: those that ended: to be counted
    ended: list[BatchView]


def may_have_lost_batches(state: JobState) -> bool:
    """Whether a creation was taken for lost, so that its batch may appear yet, or has appeared since."""
    if any(
        not _is_counted(state, submission)
        for shard in state.shards.values()
        for submission in shard.superseded_submissions
    ):
        return True
    submissions = (submission for shard in state.shards.values() for submission in shard.submissions)
    return any(t.refusal is not None and t.refusal.failure is Failure.LOST and not t.batch_id for t in submissions)


def find_stray_batches(state: JobState, batches: Iterable[BatchView]) -> StrayBatches:
    """Sort the batches that are the job's, but are not kept.

    :param state: read *after* the list was: so the intent of every batch in it is known.
    """
    superseded_submissions = {
        submission.batch_id for shard in state.shards.values() for submission in shard.superseded_submissions
    }
    kept = {
        submission.batch_id for shard in state.shards.values() for submission in shard.submissions
    } - superseded_submissions
    newest = {
        last.intent.nonce: (shard, last)
        for shard in state.shards.values()
        if (last := shard.latest) and last.intent and not last.batch_id and not last.settled
        if shard.phase is not Phase.RESEALED
    }
    found = StrayBatches([], [], [])
    for batch in batches:
        if batch.metadata.get("job_uid") != state.manifest.job_uid or batch.id in kept:
            continue
        unanswered = newest.pop(batch.metadata.get("nonce", ""), None)
        known = state.duplicate_batches.get(batch.id)
        if unanswered is not None:
            found.to_adopt.append((*unanswered, batch))
        elif not batch.status.ended:
            if known is None:
                found.to_cancel.append(batch)
        elif known is None or not known.ended:
            found.ended.append(batch)
    return found


def _is_counted(state: JobState, submission: Submission) -> bool:
    known = state.duplicate_batches.get(submission.batch_id)
    return known is not None and known.ended
