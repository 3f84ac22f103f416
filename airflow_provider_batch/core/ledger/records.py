"""What a ledger records: one small thing a file, created exclusively and never rewritten. See `core.ledger.ledger`."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate, Shard

#: why batches were cancelled: by `airflow-batch jobs cancel`, …
BY_PERSON = "person"
#: … because a person ended a task that was running, …
KILLED = "killed"
#: … and because their rows are sent from scratch
RESUBMITTED = "resubmitted"


class Failure(StrEnum):
    """Why a whole batch, or its creation, failed although no request ran."""

    CAPACITY = "capacity"  # queue or rate limit: hold back, ask later
    FILE = "file"  # the provider does not find the input file: upload again
    ACCOUNT = "account"  # billing, quota, access, a call refused as wrong: a person must act
    LINES = "lines"  # named lines are invalid: those rows fail, the rest is asked again
    LOST = "lost"  # the creation was never answered and no such batch exists


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """The input file of a try is with the provider."""

    shard: str
    number: int
    file_id: str
    time: datetime


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """A worker is about to create the batch of a submission."""

    shard: str
    number: int
    nonce: str
    file_id: str
    time: datetime


class Created(msgspec.Struct, frozen=True, tag="created"):
    """The batch exists."""

    shard: str
    number: int
    batch_id: str
    time: datetime


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The batch surely does not exist."""

    shard: str
    number: int
    failure: Failure
    message: str
    time: datetime
    #: seconds after which the provider asked to be called again
    retry_after: float | None = None


class UploadRefused(msgspec.Struct, frozen=True, tag="upload_refused"):
    """The provider took no more input files for now (HTTP 429): no upload is begun until a while after.

    It is of no shard's try: whoever uploads the same file meanwhile goes on with that try, and no other may begin.
    """

    number: int
    message: str
    #: once every upload that was under way then had come to its end
    time: datetime
    #: seconds after which the provider asked to be called again
    retry_after: float | None = None


class CancelRequested(msgspec.Struct, frozen=True, tag="cancel_requested"):
    """We asked the provider to cancel the batch."""

    shard: str
    number: int
    reason: str
    time: datetime


class CollectedFile(msgspec.Struct, frozen=True):
    """One result file in staging."""

    name: str
    bytes: int
    sha256: str
    #: the provider's id of it
    file_id: str = ""


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The batch ended, and everything it gave lies in staging."""

    shard: str
    number: int
    batch_id: str
    #: the provider's word for the end
    status: str
    time: datetime
    files: list[CollectedFile] = []
    #: rows of the shard by outcome
    outcomes: dict[str, int] = {}
    #: of the failed rows: how many asking again may help
    transient: int = 0
    #: of the incomplete rows: how many ended at the output cap
    cut_off: int = 0
    #: answers with a usage, their output tokens, and what they cost in US dollars; None if a price is unknown
    answers: int = 0
    output_tokens: int = 0
    cost_usd: str | None = "0"
    #: set if the batch failed validation: nothing of it ran
    failure: Failure | None = None
    message: str = ""
    #: for Failure.LINES: message by line of the input file, from 0; empty if no line is to blame
    line_errors: dict[int, str] = {}


class CanaryVerdict(msgspec.Struct, frozen=True, tag="canary_verdict"):
    """What the answers to the canary say of the requests that are not asked yet."""

    #: the estimate, with the output of the answers in place of a guess
    estimate: Estimate
    time: datetime
    #: why this generation must never be uploaded, for a person; empty if it may
    void: str = ""
    #: True if the price is why
    over_budget: bool = False


class FilesDeleted(msgspec.Struct, frozen=True, tag="files_deleted"):
    """The files of a settled try are deleted at the provider."""

    shard: str
    number: int
    time: datetime


class RetryRound(msgspec.Struct, frozen=True, tag="retry_round"):
    """Rows of settled submissions, sealed again; or rows of shards that were never sent.

    A shard that was never sent is sealed again when it is made smaller, or at the deadline. An intent claims its
    submission first, so that no other worker can create its batch.
    """

    number: int
    #: (shard, n) of the tries whose rows these are
    sources: list[tuple[str, int]]
    shards: list[Shard]
    time: datetime
    #: of the attempts at these rows, how many count no more: a person cleared the wait after them
    forgiven_attempts: int = 0
    #: sealed after the deadline: its synchronous shards are asked at once; the others hold the rest of a source of
    #: which only a part was allowed, and are not sent
    is_final_pass: bool = False
    #: rows without a usable answer that the finish line left, by what left them
    left_out: dict[str, int] = {}


class Deadline(msgspec.Struct, frozen=True, tag="deadline"):
    """The absolute end of the wait, set once for each clear of the wait; retries and deferrals find it."""

    ends_at: datetime
    time: datetime
    #: tells clears of the task apart: Airflow's max_tries, which a clear raises and a retry does not
    clear_epoch: int = 0
    #: True if the wait had ended before: rows without a usable answer get a fresh allowance of attempts
    resets_attempts: bool = False


class Budget(msgspec.Struct, frozen=True, tag="budget"):
    """A ceiling that takes the place of the one before: submit was run again with another."""

    number: int
    #: US dollars; None: no ceiling
    max_cost_usd: float | None
    time: datetime


class DuplicateBatch(msgspec.Struct, frozen=True, tag="duplicate_batch"):
    """A batch of the job beside those it keeps: it was cancelled, or had ended already."""

    batch_id: str
    shard: str
    #: the provider's word for how it is
    status: str
    #: False if it ran when it was found and cancelled
    ended: bool
    #: requests that it had answered: they were paid for twice
    completed: int
    time: datetime


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The wait came to its end."""

    number: int
    time: datetime
    #: shards that were not asked, because the budget did not reach
    withheld: list[str] = []


class Reason(msgspec.Struct, frozen=True):
    """Why rows did not succeed, and how many."""

    outcome: str
    code: str
    message: str
    rows: int


class Landed(msgspec.Struct, frozen=True, tag="landed"):
    """The answers were written to a table, to a file, or to both."""

    number: int
    #: name of the results table
    table: str | None
    outcomes: dict[str, int]
    #: US dollars for every answer; None if a price is unknown
    cost_usd: str | None
    standard_cost_usd: str | None
    #: the most frequent first
    reasons: list[Reason]
    time: datetime
    #: requests of the attempts after the first, and what their answers cost: a part of `cost_usd`
    retried: int = 0
    retried_cost_usd: str | None = None
    #: by kind, such as `input_tokens`: what the provider reported for the answers
    tokens: dict[str, int] = {}
    #: absolute address of the file
    file: str | None = None

    @property
    def location(self) -> str:
        """Where the rows are: the table, else the file."""
        return self.table or self.file or "nowhere"


class Task(StrEnum):
    """The tasks of a job whose clears matter to it."""

    SUBMIT = "submit"
    WAIT = "wait"


class TaskStarted(msgspec.Struct, frozen=True, tag="task_started"):
    """A task of the job began.

    Airflow counts the attempts of a task up over retries and clears alike, but a clear alone moves `max_tries`, to the
    attempts made so far plus `retries` (`clear_task_instances`). So it names the life of a task: the first attempt in
    a life records it, a retry finds it recorded.
    """

    task: Task
    #: the task instance's max_tries
    clear_epoch: int
    time: datetime


class Submitted(msgspec.Struct, frozen=True, tag="submitted"):
    """Submit returned: as many batches were created as there was room for."""

    time: datetime


class JobCancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """A person cancelled the job: nothing is sent or asked again until a task of it is cleared."""

    number: int
    time: datetime


class ResubmitRequested(msgspec.Struct, frozen=True, tag="resubmit_requested"):
    """A person wants everything asked anew when submit runs next."""

    time: datetime


Record = (
    Uploaded
    | Intent
    | Created
    | Refused
    | CancelRequested
    | Settled
    | CanaryVerdict
    | RetryRound
    | Deadline
    | Budget
    | Finished
    | UploadRefused
    | DuplicateBatch
    | Landed
    | TaskStarted
    | Submitted
    | JobCancelled
    | ResubmitRequested
    | FilesDeleted
)
SubmissionRecord = Uploaded | Intent | Created | Refused | CancelRequested | Settled
#: records of which a job may have any number, one after the other
NumberedRecord = Landed | JobCancelled | Finished | UploadRefused


def file_name(record: Record) -> str:
    """The name of the file that holds a record: two records of the same thing have the same."""
    kind = record.__struct_config__.tag
    match record:
        case RetryRound() | Landed() | JobCancelled() | Budget() | Finished() | UploadRefused():
            return f"{kind}.{record.number}.json"
        case TaskStarted():
            return f"{kind}.{record.task}.{record.clear_epoch}.json"
        case DuplicateBatch():
            digest = hashlib.sha256(record.batch_id.encode()).hexdigest()[:16]
            return f"{kind}.{digest}.{2 if record.ended else 1}.json"
        case Deadline():
            return f"{kind}.{record.clear_epoch}.json"
        case CanaryVerdict() | Submitted() | ResubmitRequested():
            return f"{kind}.json"
    return f"{kind}.{record.shard}.{record.number}.json"
