"""What can be done next with a job: the author's policy, the steps, and the ways to pause."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import ShardState, Submission
from airflow_provider_batch.core.provider.batch import BatchView

#: how long an unanswered create is given before the batch is looked up
LOOK_UP_AFTER = timedelta(seconds=120)

#: how long cancelled batches are waited for after the deadline
CANCEL_GRACE = timedelta(minutes=15)

#: how long after the deadline requests are begun at the finish line
FINAL_PASS_WINDOW = timedelta(minutes=30)

#: how long a worker may be at one shard of the finish line: 16 requests at once, each repeated three times at most
CLAIM_LIFETIME = timedelta(minutes=10)

#: outcomes that may be asked again at all; the rest is final
RETRYABLE = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.CANCELLED, Outcome.INVALID_OUTPUT, Outcome.MISSING})

#: rows with these outcomes were never asked
NEVER_SENT = frozenset({Outcome.EXPIRED, Outcome.CANCELLED})


class Policy(msgspec.Struct, frozen=True):
    """What the author decided about the wait."""

    #: how often a row is asked in all
    max_attempts: int = 3
    retry_on: frozenset[Outcome] = RETRYABLE
    #: whether answers that were cut off at the output cap are asked again with a higher one
    raise_cap: bool = False
    #: rows to be asked again wait this long, doubled with each attempt; so does a model whose queue is full
    backoff: timedelta = timedelta(minutes=5)
    #: the most rows that are asked synchronously after the deadline; 0 for none
    at_deadline_rows: int = 0
    #: account failures recorded before this moment are forgiven: the task was started again since
    restarted_at: datetime | None = None


class Upload(NamedTuple):
    """Send the shard's input file."""

    shard: ShardState
    number: int


class Create(NamedTuple):
    """Create the batch: the paid step."""

    shard: ShardState
    number: int
    file_id: str


class SendSynchronously(NamedTuple):
    """Ask the requests of a canary, or of the finish line, synchronously."""

    shard: ShardState
    number: int
    #: True at the finish line
    is_final_pass: bool = False


class JudgeCanary(NamedTuple):
    """Record what the canaries' answers say of the rest."""


class LookUp(NamedTuple):
    """Find out whether an unanswered create made a batch."""

    shard: ShardState
    submission: Submission


class Collect(NamedTuple):
    """Stream the batch's files into staging and settle it."""

    shard: ShardState
    submission: Submission
    batch: BatchView


class Cancel(NamedTuple):
    """Ask the provider to cancel the batch."""

    shard: ShardState
    submission: Submission
    reason: str


class Retry(NamedTuple):
    """Seal the askable rows of these settled tries into new shards."""

    sources: list[tuple[ShardState, Settled]]
    #: of the attempts at these rows, how many count no more
    forgiven_attempts: int = 0


class Reseal(NamedTuple):
    """Seal the rows of a shard, none of which was asked, into smaller shards. No attempt is counted."""

    shard: ShardState
    number: int
    #: the most estimated tokens, and the most requests, of each new shard
    tokens: int
    requests: int


class GiveUp(NamedTuple):
    """Settle a shard that the provider will never take: its row fails in the provider's words."""

    shard: ShardState
    number: int
    message: str


class FinalPass(NamedTuple):
    """Seal rows without a usable answer into shards that are asked synchronously, as many as are allowed."""

    #: of the wave: if another worker seals one of this number first, this step is not to be done
    number: int
    settled_sources: list[tuple[ShardState, Settled]]
    #: shards of which nothing was ever asked
    unsent_shards: list[ShardState]
    #: rows whose batch has not settled: they are left
    unsettled_rows: int


class Wait(NamedTuple):
    """Nothing to do until one of these batches ends, or until the time given."""

    batch_ids: list[str]
    until: datetime | None
    #: True if the end of any batch gives work at once, because shards wait for room
    any_end: bool


class Hold(NamedTuple):
    """A person must act; everything is kept."""

    message: str


class Void(NamedTuple):
    """The canary was refused: nothing of this generation is uploaded, and a new one has to be sealed."""

    message: str
    over_budget: bool


class Finish(NamedTuple):
    """The wait is over: nothing more will come."""

    #: names of the shards that the budget does not reach
    withheld: tuple[str, ...] = ()


Step = (
    SendSynchronously | JudgeCanary | Upload | Create | LookUp | Collect | Cancel | Retry | Reseal | GiveUp | FinalPass
)

Pause = Wait | Hold | Void | Finish


def claim_is_stale(since: datetime, now: datetime) -> bool:
    """Whether a worker that took a try at `since` may no longer act on it: another may soon take it for lost.

    A worker can be stopped at any instruction, and go on hours later (SIGSTOP, a machine that sleeps). A quarter of the
    time before the look-up leaves a creation, which takes a minute at most, the rest.
    """
    return now - since > LOOK_UP_AFTER / 4
