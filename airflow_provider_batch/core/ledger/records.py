"""The records of a ledger. Each is one small file, created exclusively and never rewritten; see `core.ledger.ledger`.

A record states something that happened, or that a worker is about to do. The state of a job follows from its records
alone; `core.ledger.fold` computes it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate, Shard
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample

#: reason of a cancel: a person called `airflow-batch jobs cancel`
BY_PERSON = "person"
#: reason of a cancel: a person ended a task while it was running
KILLED = "killed"
#: reason of a cancel: the rows are sent from scratch
RESUBMITTED = "resubmitted"


class Failure(StrEnum):
    """The reason why a whole batch, or its creation, failed before any request ran."""

    CAPACITY = "capacity"  # queue or rate limit: wait, then send again
    FILE = "file"  # the provider does not find the input file: upload it again
    ACCOUNT = "account"  # billing, quota, access, or an invalid call: a person must act
    LINES = "lines"  # the provider named invalid lines: those rows fail, the others are retried
    UNKNOWN = "unknown"  # the provider gave no reason that is known, and billed nothing: submit it once more
    BUDGET = "budget"  # a budget that several jobs share does not cover it: wait, then send it
    LOST = "lost"  # the creation was never answered, and the provider lists no such batch


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """The provider has the input file of a submission."""

    shard: str
    number: int
    file_id: str
    time: datetime


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """A worker is about to create the batch of a submission. From now on, no other worker may create it."""

    shard: str
    number: int
    nonce: str
    file_id: str
    time: datetime


class Created(msgspec.Struct, frozen=True, tag="created"):
    """The provider created the batch of a submission."""

    shard: str
    number: int
    batch_id: str
    time: datetime


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The submission has no batch: the provider refused to create it, or a look-up did not find it."""

    shard: str
    number: int
    failure: Failure
    message: str
    time: datetime
    #: seconds that the provider asked us to wait before the next call
    retry_after: float | None = None


class UploadRefused(msgspec.Struct, frozen=True, tag="upload_refused"):
    """The provider accepts no more input files for now (HTTP 429). The next upload starts only after a delay.

    The record belongs to no submission, so it does not end the submission of another worker that uploads the same file.
    """

    number: int
    message: str
    #: when all uploads that were running at the time of the refusal had ended
    time: datetime
    #: seconds that the provider asked us to wait before the next call
    retry_after: float | None = None


class CancelRequested(msgspec.Struct, frozen=True, tag="cancel_requested"):
    """The provider was asked to cancel the batch of a submission."""

    shard: str
    number: int
    reason: str
    time: datetime


class CollectedFile(msgspec.Struct, frozen=True):
    """A result file in staging."""

    #: path inside the job's folder
    name: str
    bytes: int
    sha256: str
    #: the provider's id of the file
    file_id: str = ""


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The batch of a submission has ended, and all its result files are in staging."""

    shard: str
    number: int
    batch_id: str
    #: the provider's status of the batch
    status: str
    time: datetime
    files: list[CollectedFile] = []
    #: number of rows of the shard by outcome
    outcomes: dict[str, int] = {}
    #: number of failed rows whose failure is transient
    transient: int = 0
    #: number of incomplete rows that were cut off at the output cap
    cut_off: int = 0
    #: number of expired rows that the flex tier did not take
    flex_refused: int = 0
    #: number of answers that report their output tokens, and the sum of these
    answers: int = 0
    output_tokens: int = 0
    #: the other sums of `outputs`
    output_squares: float = 0
    output_logs: float = 0
    #: input tokens of the answers that report them, and the estimate for the same requests
    input_tokens: int = 0
    estimated_input_tokens: int = 0
    #: the other sums of `inputs`
    input_answers: int = 0
    input_squares: float = 0
    #: cost of all answers in US dollars; None if a price or the usage of an answer is unknown
    cost_usd: str | None = "0"
    #: set if the batch failed before any of its requests ran
    failure: Failure | None = None
    message: str = ""
    #: for `Failure.LINES`: messages by line of the input file, from 0; empty if the provider named no line
    line_errors: dict[int, str] = {}
    #: path of the file with the rows that did not succeed inside the job's folder, and its sha256 in hex; empty if
    #: there is none; see `core.answers.unsuccessful`
    unsuccessful_file: str = ""
    unsuccessful_sha256: str = ""

    @property
    def outputs(self) -> OutputSample:
        """The output tokens of the answers that report them."""
        return OutputSample(self.answers, self.output_tokens, self.output_squares, self.output_logs)

    @property
    def inputs(self) -> InputSample:
        """The input tokens of the answers that report them."""
        return InputSample(self.input_answers, self.input_tokens, self.estimated_input_tokens, self.input_squares)


class CollectionFailed(msgspec.Struct, frozen=True, tag="collection_failed"):
    """A batch has ended, but its result files could not be downloaded, or contradict what the provider says of them.

    See `core.lifecycle.collection`.
    """

    shard: str
    number: int
    #: number of failures of this batch, including this one
    failures: int
    batch_id: str
    #: what happened, in full sentences
    message: str
    time: datetime
    #: sha256 of each file that was downloaded; empty if a download failed
    digests: list[str] = []


class CanaryVerdict(msgspec.Struct, frozen=True, tag="canary_verdict"):
    """The conclusion from the canary's answers about the requests that have not been sent."""

    #: the estimate, based on the measured output of the answers
    estimate: Estimate
    time: datetime
    #: why this generation must never be uploaded, as a message for a person; empty if it may be uploaded
    void: str = ""
    #: whether the cost is the reason
    over_budget: bool = False
    #: whether the reason may pass: the server failed on every request
    may_pass: bool = False


class FilesDeleted(msgspec.Struct, frozen=True, tag="files_deleted"):
    """The files of a settled submission were deleted at the provider."""

    shard: str
    number: int
    time: datetime


class RetryRound(msgspec.Struct, frozen=True, tag="retry_round"):
    """Rows that were sealed into new shards: rows of settled submissions, or of shards that were never sent.

    A shard that was never sent is resealed if it has to be smaller, or for the final pass. The worker first claims its
    submission with an intent, so that no other worker can create its batch.
    """

    number: int
    #: (shard name, submission number) of the submissions from which the rows come
    sources: list[tuple[str, int]]
    shards: list[Shard]
    time: datetime
    #: number of earlier attempts at these rows that no longer count, because a person cleared the wait after them
    forgiven_attempts: int = 0
    #: whether this round was sealed after the deadline. Its synchronous shards are sent. The others are not: they hold
    #: the remaining rows of a source of which the limits of the final pass allow only a part
    is_final_pass: bool = False
    #: number of rows without a usable answer that the final pass left out, by reason
    left_out: dict[str, int] = {}


class Deadline(msgspec.Struct, frozen=True, tag="deadline"):
    """The absolute deadline of the wait. It is set once per clear epoch. Retries and deferrals keep it."""

    ends_at: datetime
    time: datetime
    #: see `TaskStarted`
    clear_epoch: int = 0
    #: whether rows without a usable answer get a fresh allowance of attempts, because the wait had ended
    resets_attempts: bool = False


class Budget(msgspec.Struct, frozen=True, tag="budget"):
    """New ceilings, which replace the previous ones: submit was run again with others."""

    number: int
    #: US dollars for the job, or None for no ceiling
    max_cost_usd: float | None
    time: datetime
    #: US dollars for all jobs of the DAG run, or None for no ceiling
    max_run_cost_usd: float | None = None


class DuplicateBatch(msgspec.Struct, frozen=True, tag="duplicate_batch"):
    """A second batch for the same shard, created by accident. See `core.lifecycle.duplicate_batches`."""

    batch_id: str
    shard: str
    #: the provider's status of the batch
    status: str
    #: whether it had ended; if it had not, it was cancelled
    ended: bool
    #: number of requests that it had answered, and that were paid for twice
    completed: int
    time: datetime


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The wait is over."""

    number: int
    time: datetime
    #: names of the shards that were not sent, because they exceed the budget
    withheld: list[str] = []
    #: if a budget that several jobs share is the reason: which one, and who holds how much of it, in full sentences
    shared_budget: str = ""


class Reason(msgspec.Struct, frozen=True):
    """A reason why rows did not succeed, and their number."""

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
    #: cost of all answers in US dollars, and what they would cost at the standard price; None if the price or the
    #: usage of an answer is unknown
    cost_usd: str | None
    standard_cost_usd: str | None
    #: most frequent first
    reasons: list[Reason]
    time: datetime
    #: `cost_usd` if cached input has every discount that it may have; None if unknown
    lowest_cost_usd: str | None = None
    #: number of requests sent in attempts after the first, and the cost of their answers, which is part of `cost_usd`
    retried: int = 0
    retried_cost_usd: str | None = None
    #: sums of the tokens that the provider reported for the answers, by kind, such as `input`
    tokens: dict[str, int] = {}
    #: number of requests whose cost is unknown, because the answer does not report its usage or never arrived
    without_usage: int = 0
    #: absolute address of the file
    file: str | None = None
    #: number of answers that used tokens, by the lane in which they were answered
    lanes: dict[str, int] = {}
    #: the deadline of the wait, and when the last answers were collected
    deadline: datetime | None = None
    answered_at: datetime | None = None

    @property
    def location(self) -> str:
        """The table in which the rows are, or the file if there is no table."""
        return self.table or self.file or "nowhere"


class Task(StrEnum):
    """A task whose starts are recorded, because clearing it changes what happens to the job."""

    SUBMIT = "submit"
    WAIT = "wait"


class RetryArguments(msgspec.Struct, frozen=True):
    """The arguments of the wait that decide which rows it retries."""

    max_attempts: int
    #: outcomes that are retried
    retry_on: list[str]
    #: whether rows whose answer was cut off at the output cap are retried with a higher cap
    raise_cap: bool = False


class TaskStarted(msgspec.Struct, frozen=True, tag="task_started"):
    """A task of the job started for the first time in its clear epoch.

    Airflow increments the try number on retries and clears alike. But only a clear changes `max_tries`: it sets it to
    the number of attempts so far plus `retries` (`clear_task_instances`). The value of `max_tries` therefore numbers
    the periods between clears, the *clear epochs* of a task. The first attempt of an epoch creates this record. A
    retry in the same epoch finds it and adds nothing.
    """

    task: Task
    #: the `max_tries` of the task instance
    clear_epoch: int
    time: datetime
    #: of the wait, so that others can say which rows it retries; None for submit
    retries: RetryArguments | None = None


class Submitted(msgspec.Struct, frozen=True, tag="submitted"):
    """The submit task succeeded. It has created as many batches as the queue capacity allowed."""

    time: datetime


class JobCancelled(msgspec.Struct, frozen=True, tag="job_cancelled"):
    """A person cancelled the job. Nothing is sent or retried until a task of the job is cleared."""

    number: int
    time: datetime


class ResubmitRequested(msgspec.Struct, frozen=True, tag="resubmit_requested"):
    """A person wants every row to be sent from scratch when submit runs next."""

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
    | CollectionFailed
)
SubmissionRecord = Uploaded | Intent | Created | Refused | CancelRequested | CollectionFailed | Settled


def file_name(record: Record) -> str:
    """Return the name of a record's file. Two records of the same event have the same name, so only one can exist."""
    kind = record.__struct_config__.tag
    match record:
        case RetryRound() | Landed() | JobCancelled() | Budget() | Finished() | UploadRefused():
            return f"{kind}.{record.number}.json"
        case TaskStarted():
            return f"{kind}.{record.task}.{record.clear_epoch}.json"
        case DuplicateBatch():
            digest = hashlib.sha256(record.batch_id.encode()).hexdigest()[:16]
            return f"{kind}.{digest}.{2 if record.ended else 1}.json"
        case CollectionFailed():
            return f"{kind}.{record.shard}.{record.number}.{record.failures}.json"
        case Deadline():
            return f"{kind}.{record.clear_epoch}.json"
        case CanaryVerdict() | Submitted() | ResubmitRequested():
            return f"{kind}.json"
    return f"{kind}.{record.shard}.{record.number}.json"
