"""What the records of a job amount to: its state, its shards and the submissions of each. `fold.py` computes it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate, Manifest, Shard
from airflow_provider_batch.core.ledger.records import (
    Budget,
    CanaryVerdict,
    CancelRequested,
    Deadline,
    DuplicateBatch,
    Failure,
    Finished,
    Intent,
    Landed,
    Refused,
    RetryRound,
    Settled,
    Task,
    TaskStarted,
    UploadRefused,
)


class Phase(StrEnum):
    """Where a shard is on its way."""

    SEALED = "sealed"
    UPLOADED = "uploaded"
    CREATING = "creating"  # intent recorded, no answer known
    LIVE = "live"
    SETTLED = "settled"
    RESEALED = "resealed"  # its rows were sealed into the shards of a wave, which take its place


class Submission(msgspec.Struct):
    """One go at having a shard executed."""

    number: int
    file_id: str = ""
    intent: Intent | None = None
    batch_id: str = ""
    created_at: datetime | None = None
    refusal: Refused | None = None
    cancel: CancelRequested | None = None
    settled: Settled | None = None

    @property
    def rejection(self) -> Refused | Settled | None:
        """Why nothing of this try ran, if that is its end; the shard then needs another try.

        What one worker knows counts more than what another one concludes. A batch id is knowledge, and so are answers.
        That a batch was lost is a conclusion: a worker may draw it from a list that was late, while another worker was
        still writing down the id. And of two workers that send the same synchronous requests, one may be
        refused while the other is answered.
        """
        if self.refusal and not self.batch_id and not self.settled:
            return self.refusal
        if self.settled and self.settled.failure not in (None, Failure.LINES):
            return self.settled
        return None


class ShardState(msgspec.Struct):
    """A shard and the tries at it."""

    spec: Shard
    submissions: list[Submission] = []
    #: its rows go on in the shards of a wave, though they were not asked here
    is_resealed: bool = False
    #: when it was sealed, and how many attempts at its rows counted no more then
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
        """The newest try."""
        return self.submissions[-1] if self.submissions else None

    @property
    def superseded_submissions(self) -> list[Submission]:
        """Tries with a batch beside the newest one's: it was taken for lost, another was made, and then its id came."""
        return [submission for submission in self.submissions[:-1] if submission.batch_id and not submission.settled]

    @property
    def phase(self) -> Phase:
        """Where the shard is on its way, from its newest try."""
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
        """Number of the try that the next record belongs to."""
        last = self.latest
        if last is None:
            return 1
        return last.number + 1 if last.rejection else last.number


class JobState(msgspec.Struct):
    """The fold of a ledger: everything that is known of a job."""

    manifest: Manifest
    shards: dict[str, ShardState]
    retry_rounds: list[RetryRound] = []
    #: the newest landing
    landed: Landed | None = None
    #: what the canary said; None before, and for a job without one
    canary_verdict: CanaryVerdict | None = None
    task_starts: list[TaskStarted] = []
    submit_returned: bool = False
    #: the newest of a person's cancels
    cancelled_at: datetime | None = None
    resubmit_requested: bool = False
    #: tries whose files are deleted at the provider
    files_deleted: set[tuple[str, int]] = msgspec.field(default_factory=set)
    #: refusals to take input files, oldest first, and the newest moment at which one was taken
    upload_refusals: list[UploadRefused] = []
    uploaded_at: datetime | None = None
    #: the newest end of the wait
    finished: Finished | None = None
    #: the newest ceiling that takes the place of the seal's
    budget: Budget | None = None
    #: the newest end of the wait that was set, and the newest that came with a fresh allowance of attempts
    deadline_record: Deadline | None = None
    attempts_reset: Deadline | None = None
    #: batches beside those that are kept, by id, as last seen
    duplicate_batches: dict[str, DuplicateBatch] = {}
    #: clears of the wait that are known
    deadline_epochs: set[int] = set()

    @property
    def canary_shards(self) -> list[ShardState]:
        """The shards that are asked before anything is uploaded."""
        return [self.shards[shard.name] for shard in self.manifest.shards if shard.synchronous]

    @property
    def final_pass_shards(self) -> list[ShardState]:
        """The shards that are asked synchronously after the deadline."""
        return [
            self.shards[shard.name]
            for retry_round in self.retry_rounds
            for shard in retry_round.shards
            if shard.synchronous
        ]

    @property
    def estimate(self) -> Estimate:
        """What the job is expected to cost: as measured by the canary, else as sealed."""
        return self.canary_verdict.estimate if self.canary_verdict else self.manifest.estimate

    @property
    def is_cancelled(self) -> bool:
        """A person cancelled the job, and no task of it was cleared since."""
        cancelled_at = self.cancelled_at
        return cancelled_at is not None and not any(task_starts.time > cancelled_at for task_starts in self.task_starts)

    def clear_epochs_of(self, task: Task) -> set[int]:
        """The lives of a task that worked on this generation."""
        return {task_starts.clear_epoch for task_starts in self.task_starts if task_starts.task is task}

    @property
    def deadline(self) -> datetime | None:
        """The absolute end of the wait; None if nothing waited yet."""
        return self.deadline_record.ends_at if self.deadline_record else None

    @property
    def recent_upload_refusals(self) -> list[UploadRefused]:
        """Refusals to take input files since the newest that was taken, oldest first."""
        newest = self.uploaded_at
        return [one for one in self.upload_refusals if newest is None or one.time >= newest]

    @property
    def paid_twice(self) -> int:
        """Requests that were answered in more than one batch of the same attempt; 0, if all is well."""
        return sum(duplicate.completed for duplicate in self.duplicate_batches.values())

    @property
    def ceiling(self) -> float | None:
        """US dollars that the job may cost; None: no ceiling."""
        return self.budget.max_cost_usd if self.budget else self.manifest.max_cost_usd

    @property
    def withheld_shards(self) -> list[ShardState]:
        """Shards that the budget did not reach at the end of the wait, and that did not go on since."""
        names = self.finished.withheld if self.finished else []
        found = [self.shards[name] for name in names if name in self.shards]
        return [shard for shard in found if shard.phase in (Phase.SEALED, Phase.UPLOADED)]

    @property
    def next_retry_round(self) -> int:
        """The number of a wave that is sealed now; those of void waves are not given again."""
        return (
            max([0, *(retry_round.number for retry_round in self.retry_rounds), *self.manifest.void_retry_rounds]) + 1
        )

    @property
    def retried_submissions(self) -> set[tuple[str, int]]:
        """Tries whose rows were asked again already."""
        return {source for retry_round in self.retry_rounds for source in retry_round.sources}

    def live_submissions(self) -> list[tuple[ShardState, Submission]]:
        """Shards whose batch the provider has and has not ended, as far as is recorded."""
        return [(s, s.submissions[-1]) for s in self.shards.values() if s.phase is Phase.LIVE]

    def settled_submissions(self) -> list[tuple[ShardState, Submission, Settled]]:
        """Tries whose answers lie in staging, oldest attempt first."""
        found = [
            (s, t, t.settled) for s in self.shards.values() for t in s.submissions if t.settled and not t.rejection
        ]
        return sorted(found, key=lambda entry: (entry[0].spec.attempt, entry[0].spec.name))
