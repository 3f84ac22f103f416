"""The state of a job: its shards, the submissions of each shard, and the events of the job. `fold.py` computes it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate, Manifest, Shard
from airflow_provider_batch.core.ledger.records import (
    Budget,
    CanaryVerdict,
    CancelRequested,
    CollectionFailed,
    Deadline,
    DuplicateBatch,
    Failure,
    Finished,
    Intent,
    Landed,
    Refused,
    RetryArguments,
    RetryRound,
    Settled,
    Task,
    TaskStarted,
    UploadRefused,
)
from airflow_provider_batch.core.provider.lane import Lane


class Phase(StrEnum):
    """The progress of a shard. `core.lifecycle.phases` lists the transitions."""

    SEALED = "sealed"
    UPLOADED = "uploaded"
    CREATING = "creating"  # an intent is recorded, but neither a batch nor a refusal
    LIVE = "live"
    SETTLED = "settled"
    RESEALED = "resealed"  # a retry round sealed its rows into other shards, which replace it


class Submission(msgspec.Struct):
    """One try at uploading a shard and creating its batch, as recorded."""

    number: int
    file_id: str = ""
    intent: Intent | None = None
    batch_id: str = ""
    created_at: datetime | None = None
    refusal: Refused | None = None
    cancel: CancelRequested | None = None
    #: oldest first
    collection_failures: list[CollectionFailed] = []
    settled: Settled | None = None

    @property
    def ended_at(self) -> datetime | None:
        """The first time at which the batch is known to have ended; None while it may still run."""
        if self.collection_failures:
            return self.collection_failures[0].time
        return self.settled.time if self.settled else None

    @property
    def rejection(self) -> Refused | Settled | None:
        """The record that ended this submission before any request ran; the shard then needs another submission.

        Two workers may record contradictory ends. A batch id and answers are facts, and a refusal yields to them:

        * A worker may conclude from a list that was out of date that a batch was lost, while another worker was about
          to record its id.
        * Two workers may send the same synchronous requests. The provider can refuse one and answer the other.
        """
        if self.refusal and not self.batch_id and not self.settled:
            return self.refusal
        if self.settled and self.settled.failure not in (None, Failure.LINES):
            return self.settled
        return None


class ShardState(msgspec.Struct):
    """A shard and its submissions."""

    spec: Shard
    #: oldest first
    submissions: list[Submission] = []
    #: whether a retry round sealed its rows into other shards before any of them was sent
    is_resealed: bool = False
    #: set for a shard of a retry round: when it was sealed, and the number of attempts that no longer counted then
    sealed_at: datetime | None = None
    forgiven_attempts: int = 0

    @property
    def name(self) -> str:
        """Name of the shard."""
        return self.spec.name

    @property
    def model(self) -> str:
        """Model of all its requests."""
        return self.spec.model

    @property
    def requests(self) -> int:
        """Number of its requests."""
        return self.spec.requests

    @property
    def latest(self) -> Submission | None:
        """The newest submission."""
        return self.submissions[-1] if self.submissions else None

    @property
    def superseded_submissions(self) -> list[Submission]:
        """Earlier submissions that have a batch after all. It was considered lost, so a second one was created."""
        return [submission for submission in self.submissions[:-1] if submission.batch_id and not submission.settled]

    @property
    def lost_sendings(self) -> list[Submission]:
        """Submissions whose worker died while it sent the requests synchronously. They may have been paid for."""
        return [
            submission
            for submission in self.submissions
            if self.spec.synchronous and submission.rejection and submission.rejection.failure is Failure.LOST
        ]

    @property
    def phase(self) -> Phase:
        """The phase of the shard, which follows from its newest submission."""
        last = self.latest
        if self.is_resealed:
            return Phase.RESEALED
        if last is None or last.rejection:
            return Phase.SEALED
        if last.settled:
            return Phase.SETTLED
        if last.batch_id:
            return Phase.LIVE
        if last.intent:
            return Phase.CREATING
        return Phase.UPLOADED if last.file_id else Phase.SEALED

    @property
    def next_number(self) -> int:
        """Number of the submission to which the next record belongs."""
        last = self.latest
        if last is None:
            return 1
        return last.number + 1 if last.rejection else last.number


class JobState(msgspec.Struct):
    """The state of a job, computed from its manifest and its records."""

    manifest: Manifest
    shards: dict[str, ShardState]
    retry_rounds: list[RetryRound] = []
    #: the newest landing
    landed: Landed | None = None
    #: None until the canary was judged, and for a job without a canary
    canary_verdict: CanaryVerdict | None = None
    task_starts: list[TaskStarted] = []
    submit_returned: bool = False
    #: when a person last cancelled the job
    cancelled_at: datetime | None = None
    resubmit_requested: bool = False
    #: (shard name, submission number) of the submissions whose files were deleted at the provider
    files_deleted: set[tuple[str, int]] = msgspec.field(default_factory=set)
    #: refusals of input files, oldest first
    upload_refusals: list[UploadRefused] = []
    #: when the provider last accepted an input file
    uploaded_at: datetime | None = None
    #: the newest record that the wait was over
    finished: Finished | None = None
    #: the newest ceiling, if it was changed after the seal
    budget: Budget | None = None
    #: the newest deadline, and the newest one that came with a fresh allowance of attempts
    deadline_record: Deadline | None = None
    attempts_reset: Deadline | None = None
    #: by batch id: the newest record of each duplicate batch
    duplicate_batches: dict[str, DuplicateBatch] = {}
    #: clear epochs of the wait that have a deadline
    deadline_epochs: set[int] = set()

    @property
    def canary_shards(self) -> list[ShardState]:
        """The shards that are sent before anything is uploaded."""
        return [self.shards[shard.name] for shard in self.manifest.shards if shard.lane is Lane.STANDARD]

    @property
    def final_pass_shards(self) -> list[ShardState]:
        """The shards that are sent synchronously after the deadline."""
        return [
            self.shards[shard.name]
            for retry_round in self.retry_rounds
            for shard in retry_round.shards
            if retry_round.is_final_pass and shard.synchronous
        ]

    @property
    def estimate(self) -> Estimate:
        """The expected tokens and cost: as measured by the canary, or as sealed if there is no verdict."""
        return self.canary_verdict.estimate if self.canary_verdict else self.manifest.estimate

    @property
    def is_cancelled(self) -> bool:
        """Whether a person cancelled the job, and none of its tasks has been cleared since."""
        cancelled_at = self.cancelled_at
        return cancelled_at is not None and not any(start.time > cancelled_at for start in self.task_starts)

    def clear_epochs_of(self, task: Task) -> set[int]:
        """Return the clear epochs in which a task worked on this generation."""
        return {start.clear_epoch for start in self.task_starts if start.task is task}

    def retry_arguments(self, until: datetime | None = None) -> RetryArguments | None:
        """Return what the wait retries, as of its newest start until a time; None before its first start."""
        starts = [
            start for start in self.task_starts if start.retries is not None and (until is None or start.time <= until)
        ]
        return max(starts, key=lambda start: start.time).retries if starts else None

    @property
    def is_wait_over(self) -> bool:
        """Whether the wait has ended, and has not been cleared since."""
        if self.finished is None:
            return False
        return self.deadline_record is None or self.finished.time >= self.deadline_record.time

    @property
    def deadline(self) -> datetime | None:
        """The absolute deadline of the wait, or None if no wait has started."""
        return self.deadline_record.ends_at if self.deadline_record else None

    @property
    def recent_upload_refusals(self) -> list[UploadRefused]:
        """The refusals of input files since the provider last accepted one, oldest first."""
        newest = self.uploaded_at
        return [refusal for refusal in self.upload_refusals if newest is None or refusal.time >= newest]

    @property
    def paid_twice(self) -> int:
        """Number of requests that were answered in more than one batch of the same attempt."""
        return sum(duplicate.completed for duplicate in self.duplicate_batches.values())

    @property
    def lost_requests(self) -> int:
        """Number of requests that a worker was sending synchronously when it died."""
        return sum(shard.requests * len(shard.lost_sendings) for shard in self.shards.values())

    @property
    def ceiling(self) -> float | None:
        """Maximum cost of the job in US dollars, or None for no ceiling."""
        return self.budget.max_cost_usd if self.budget else self.manifest.max_cost_usd

    @property
    def run_ceiling(self) -> float | None:
        """Maximum cost of all jobs of the DAG run in US dollars, or None for no ceiling."""
        return self.budget.max_run_cost_usd if self.budget else self.manifest.max_run_cost_usd

    @property
    def withheld_shards(self) -> list[ShardState]:
        """The shards that exceeded the budget at the end of the wait, and have not been sent since."""
        names = self.finished.withheld if self.finished else []
        shards = [self.shards[name] for name in names if name in self.shards]
        return [shard for shard in shards if shard.phase in (Phase.SEALED, Phase.UPLOADED)]

    @property
    def next_retry_round(self) -> int:
        """Number of the next retry round. The numbers of void rounds are not used again."""
        return (
            max([0, *(retry_round.number for retry_round in self.retry_rounds), *self.manifest.void_retry_rounds]) + 1
        )

    @property
    def retried_submissions(self) -> set[tuple[str, int]]:
        """The (shard name, submission number) of the submissions whose rows are in a later retry round."""
        return {source for retry_round in self.retry_rounds for source in retry_round.sources}

    def live_submissions(self) -> list[tuple[ShardState, Submission]]:
        """Return the shards whose batch exists and is not recorded as ended, each with its newest submission."""
        return [(shard, shard.submissions[-1]) for shard in self.shards.values() if shard.phase is Phase.LIVE]

    def settled_submissions(self) -> list[tuple[ShardState, Submission, Settled]]:
        """Return the submissions whose answers are in staging, first attempts first."""
        entries = [
            (shard, submission, submission.settled)
            for shard in self.shards.values()
            for submission in shard.submissions
            if submission.settled and not submission.rejection
        ]
        return sorted(entries, key=lambda entry: (entry[0].spec.attempt, entry[0].spec.name))
