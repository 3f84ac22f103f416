"""When the result files of an ended batch are downloaded again, and when the batch is held for a person.

A download can be wrong without an error: a gateway answers with a page of its own, or cuts a file off. If such files
settled a batch, its rows would count as missing, and would be sent and paid for again. So a worker settles a batch only
if the files agree with what the provider says about them (`core.answers.agreement`). Otherwise it records a
`CollectionFailed`, and the files are downloaded again, each time after twice the delay:

    batch ended ── failed ── 30 s ── failed ── 1 min ── failed ── 2 min ── … ── failed the 7th time: held

The delay starts at a tenth of the backoff (30 s by default) and is at most an hour. A batch that failed `MAX_FAILURES`
times is *held*: nothing more is done about it, its rows are never sent again, and they land as pending. The rest of the
job continues, ends and lands without it. A person who clears the wait starts the count again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_provider_batch.core.ledger.records import CollectionFailed, Task
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission

#: number of failures after which a batch is held
MAX_FAILURES = 7
#: minimum and maximum delay between two downloads
MIN_DELAY = timedelta(seconds=1)
MAX_DELAY = timedelta(hours=1)


def recent_failures(state: JobState, submission: Submission) -> list[CollectionFailed]:
    """Return the failures since the wait was last cleared, oldest first."""
    starts = [start.time for start in state.task_starts if start.task is Task.WAIT]
    cleared_at = max(starts, default=None)
    return [failure for failure in submission.collection_failures if cleared_at is None or failure.time >= cleared_at]


def collect_again_at(state: JobState, submission: Submission, backoff: timedelta) -> datetime | None:
    """Return when the files are to be downloaded again, or None if no download has failed."""
    failures = recent_failures(state, submission)
    if not failures:
        return None
    delay = max(backoff / 10, MIN_DELAY) * float(2 ** (len(failures) - 1))
    return failures[-1].time + min(delay, MAX_DELAY)


def is_held(state: JobState, submission: Submission) -> bool:
    """Return whether the files failed too often, so that a person must act."""
    return len(recent_failures(state, submission)) >= MAX_FAILURES


def held_batches(state: JobState) -> list[tuple[ShardState, CollectionFailed]]:
    """Return the shards whose batch waits for a person, each with its last failure.

    If the wait has ended at its deadline, a batch waits for a person even if its files failed less often.
    """
    finished_at = state.finished.time if state.finished else None
    return [
        (shard, failures[-1])
        for shard, submission in state.live_submissions()
        if (failures := recent_failures(state, submission))
        and (is_held(state, submission) or (finished_at is not None and failures[-1].time <= finished_at))
    ]


def describe_held(failure: CollectionFailed) -> str:
    """Return what happened to a held batch, and what a person can do, in full sentences."""
    return (
        f"{failure.message} Batch {failure.batch_id} is held: its rows are not sent again, and land as pending. Look "
        "at the batch and its files at the provider, then clear the wait to download them again. If they are still the "
        "same and their size is right, they are believed then, and rows without a line are retried."
    )
