"""Computes the state of a job by folding its records into one value. The order of the records does not matter.

Several workers may work on the same job: Airflow can start a second attempt while the first one, whose heartbeat was
lost, is still running, and a person can clear a task that runs. They share nothing but the folder in staging, which
has no locks and no common clock:

    worker A      reads the ledger ──── records an intent ──── creates the batch ──── is suspended for an hour …
    worker B                 reads the ledger ──── its intent already exists, so it stops
    worker C                                              reads the intent ──── looks up the batch ──── records its id

Two properties make this safe:

* A record is created exclusively, under a name that says what happened. Of two workers that record the same event,
  one wins and the other one learns that it lost.
* The state is a pure function of the *set* of records. Each worker lists the folder at a different time, so each may
  see a different part of the job's history, in a different order. But as soon as two workers have read the same
  records, they compute the same state.

So there is one function for each type of record, and none of them depends on the order of the records. If records
replace each other, the highest number or the latest time counts. If they contradict each other, the fact counts, not
the conclusion (see `Submission.rejection`). `tests/core/ledger` checks the fold on random orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import (
    Budget,
    CanaryVerdict,
    CancelRequested,
    CollectionFailed,
    Created,
    Deadline,
    DuplicateBatch,
    FilesDeleted,
    Finished,
    Intent,
    JobCancelled,
    Landed,
    Record,
    Refused,
    ResubmitRequested,
    RetryRound,
    Settled,
    SubmissionRecord,
    Submitted,
    TaskStarted,
    Uploaded,
    UploadRefused,
)
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission
from airflow_provider_batch.exceptions import LedgerError

#: submissions by shard and number, while the records are read
_Submissions = dict[tuple[str, int], Submission]


def fold(manifest: Manifest, records: Iterable[Record]) -> JobState:
    """Return the state of the job with this manifest and these records, in any order.

    :raises LedgerError: if a record belongs to a shard that no generation and no retry round of the job has.
    """
    state = JobState(manifest, {shard.name: ShardState(shard) for shard in manifest.shards})
    submissions: _Submissions = {}
    for record in records:
        HANDLERS[type(record)](state, submissions, record)
    state.upload_refusals.sort(key=lambda refusal: refusal.number)
    void = _add_shards_of_retry_rounds(state)
    _add_submissions(state, submissions, void)
    _mark_resealed(state)
    return state


def _add_retry_round(state: JobState, submissions: _Submissions, record: RetryRound) -> None:
    state.retry_rounds.append(record)


def _add_landed(state: JobState, submissions: _Submissions, record: Landed) -> None:
    if state.landed is None or record.number > state.landed.number:
        state.landed = record


def _add_finished(state: JobState, submissions: _Submissions, record: Finished) -> None:
    if state.finished is None or record.number > state.finished.number:
        state.finished = record


def _add_budget(state: JobState, submissions: _Submissions, record: Budget) -> None:
    if state.budget is None or record.number > state.budget.number:
        state.budget = record


def _add_deadline(state: JobState, submissions: _Submissions, record: Deadline) -> None:
    state.deadline_epochs.add(record.clear_epoch)
    if state.deadline_record is None or record.clear_epoch > state.deadline_record.clear_epoch:
        state.deadline_record = record
    if record.resets_attempts and (
        state.attempts_reset is None or record.clear_epoch > state.attempts_reset.clear_epoch
    ):
        state.attempts_reset = record


def _add_duplicate_batch(state: JobState, submissions: _Submissions, record: DuplicateBatch) -> None:
    if record.batch_id not in state.duplicate_batches or record.ended:
        state.duplicate_batches[record.batch_id] = record


def _add_upload_refused(state: JobState, submissions: _Submissions, record: UploadRefused) -> None:
    state.upload_refusals.append(record)


def _add_canary_verdict(state: JobState, submissions: _Submissions, record: CanaryVerdict) -> None:
    state.canary_verdict = record


def _add_task_started(state: JobState, submissions: _Submissions, record: TaskStarted) -> None:
    state.task_starts.append(record)


def _add_submitted(state: JobState, submissions: _Submissions, record: Submitted) -> None:
    state.submit_returned = True


def _add_job_cancelled(state: JobState, submissions: _Submissions, record: JobCancelled) -> None:
    state.cancelled_at = max(state.cancelled_at or record.time, record.time)


def _add_resubmit_requested(state: JobState, submissions: _Submissions, record: ResubmitRequested) -> None:
    state.resubmit_requested = True


def _add_files_deleted(state: JobState, submissions: _Submissions, record: FilesDeleted) -> None:
    state.files_deleted.add((record.shard, record.number))


def _submission_of(submissions: _Submissions, record: SubmissionRecord) -> Submission:
    key = (record.shard, record.number)
    submission = submissions.get(key)
    if submission is None:
        submission = submissions[key] = Submission(record.number)
    return submission


def _add_uploaded(state: JobState, submissions: _Submissions, record: Uploaded) -> None:
    _submission_of(submissions, record).file_id = record.file_id
    if state.uploaded_at is None or record.time > state.uploaded_at:
        state.uploaded_at = record.time


def _add_intent(state: JobState, submissions: _Submissions, record: Intent) -> None:
    submission = _submission_of(submissions, record)
    submission.intent = record
    submission.file_id = submission.file_id or record.file_id


def _add_created(state: JobState, submissions: _Submissions, record: Created) -> None:
    submission = _submission_of(submissions, record)
    submission.batch_id, submission.created_at = record.batch_id, record.time


def _add_refused(state: JobState, submissions: _Submissions, record: Refused) -> None:
    _submission_of(submissions, record).refusal = record


def _add_cancel_requested(state: JobState, submissions: _Submissions, record: CancelRequested) -> None:
    _submission_of(submissions, record).cancel = record


def _add_collection_failed(state: JobState, submissions: _Submissions, record: CollectionFailed) -> None:
    submission = _submission_of(submissions, record)
    submission.batch_id = submission.batch_id or record.batch_id
    submission.collection_failures.append(record)
    submission.collection_failures.sort(key=lambda failure: failure.failures)


def _add_settled(state: JobState, submissions: _Submissions, record: Settled) -> None:
    submission = _submission_of(submissions, record)
    submission.settled = record
    submission.batch_id = submission.batch_id or record.batch_id


#: the function that adds a record to the state, by type of record
HANDLERS: dict[type[Record], Callable[[JobState, _Submissions, Any], None]] = {
    ResubmitRequested: _add_resubmit_requested,
    TaskStarted: _add_task_started,
    Budget: _add_budget,
    CancelRequested: _add_cancel_requested,
    Created: _add_created,
    Deadline: _add_deadline,
    FilesDeleted: _add_files_deleted,
    Finished: _add_finished,
    Intent: _add_intent,
    CanaryVerdict: _add_canary_verdict,
    Landed: _add_landed,
    Refused: _add_refused,
    CollectionFailed: _add_collection_failed,
    Settled: _add_settled,
    JobCancelled: _add_job_cancelled,
    Submitted: _add_submitted,
    DuplicateBatch: _add_duplicate_batch,
    Uploaded: _add_uploaded,
    UploadRefused: _add_upload_refused,
    RetryRound: _add_retry_round,
}


def _add_shards_of_retry_rounds(state: JobState) -> set[str]:
    """Add the shards of all valid retry rounds, oldest round first. Return the names of the shards of void rounds."""
    manifest = state.manifest
    void = {
        shard.name
        for retry_round in state.retry_rounds
        if retry_round.number in manifest.void_retry_rounds
        for shard in retry_round.shards
    }
    state.retry_rounds = [
        retry_round for retry_round in state.retry_rounds if retry_round.number not in manifest.void_retry_rounds
    ]
    state.retry_rounds.sort(key=lambda retry_round: retry_round.number)
    reindexed = {shard.name: shard for shard in manifest.reindexed}
    for retry_round in state.retry_rounds:
        for shard in retry_round.shards:
            spec = reindexed.get(shard.name, shard)
            state.shards[shard.name] = ShardState(
                spec, sealed_at=retry_round.time, forgiven_attempts=retry_round.forgiven_attempts
            )
    return void


def _add_submissions(state: JobState, submissions: _Submissions, void: set[str]) -> None:
    """Add the submissions to their shards, oldest first.

    Submissions of another generation or of a void retry round are left out.

    :raises LedgerError: if no generation and no retry round has the shard of a submission.
    """
    for (name, _), submission in sorted(submissions.items()):
        shard = state.shards.get(name)
        if shard is not None:
            shard.submissions.append(submission)
        elif name not in void and not _is_of_another_generation(name, state.manifest):
            raise LedgerError(
                f"The ledger of job {state.manifest.job_uid} holds a record of shard {name!r}, but neither the job's "
                "seal nor a retry round has that shard. Nothing was changed. A file of the job is missing in staging, "
                "or a wrong one was added: restore the job's folder, or run the job under a new run_id."
            )


def _mark_resealed(state: JobState) -> None:
    """Mark the shards whose rows were sealed into a retry round before any of them was sent."""
    retried = state.retried_submissions
    for shard in state.shards.values():
        if (last := shard.latest) and (shard.name, last.number) in retried:
            shard.is_resealed = not (last.settled or last.batch_id)


def _is_of_another_generation(name: str, manifest: Manifest) -> bool:
    """Return whether a shard belongs to an earlier or a later generation of the lineage."""
    generation = int(name[1:4]) if name.startswith("g") and name[1:4].isdigit() else 1
    is_earlier = lineage_root(manifest) <= generation < manifest.generation
    return is_earlier or generation > manifest.generation


def lineage_root(manifest: Manifest) -> int:
    """Return the first generation of the manifest's lineage; see `core.ledger.ledger`."""
    return manifest.root or manifest.generation
