"""The author's policy, the steps that a worker can do for a job, and the ways in which a job pauses.

A step is data: the shard, the number of the submission, and what else the worker needs. The worker does the step and
then records its result. Creating a batch costs money, and a worker can be killed at any instruction. So a creation is
also recorded *before* it is done:

    record the intent ──► batches.create ──► record the batch id
            │                  │
            │                  └─ killed or no answer here: a batch may exist. Its nonce is in the ledger, so the next
            │                     worker looks it up instead of creating a second one
            └─ killed here: no batch exists. The next worker looks it up, does not find it, and creates it

The intent is also a claim. It is created exclusively, so only one of several workers creates the batch. A claim
expires: 120 s after the intent (`LOOK_UP_AFTER`), any worker may look the batch up and declare the creation lost. A
worker that was suspended in the meantime must then no longer send its call. So it checks `claim_is_stale`
immediately before the call, and gives up after a quarter of that time. The call itself takes at most 60 s, so it has
ended before anyone looks.

`Reseal`, `GiveUp` and the final pass claim a submission in the same way. The claim on a synchronous shard lasts
25 minutes (`CLAIM_LIFETIME`). The canary takes no claim: two workers may both send its few requests, and the answers
that are recorded first count.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import ShardState, Submission
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.lane import Lane

#: age of an unanswered intent from which the batch is looked up
LOOK_UP_AFTER = timedelta(seconds=120)

#: how long to wait for cancelled batches after the deadline
CANCEL_GRACE = timedelta(minutes=15)

#: how long after the deadline the final pass may start another shard
FINAL_PASS_WINDOW = timedelta(minutes=30)

#: Time that the final pass needs to end by the deadline: to cancel batches and collect their answers, and for each row.
#: 16 rows are sent at a time. The flex tier takes less than a minute for most of them, the standard tier 10 seconds.
FINAL_PASS_LEAD = timedelta(minutes=20)
FLEX_LEAD_PER_ROW = timedelta(seconds=3)
STANDARD_LEAD_PER_ROW = timedelta(seconds=0.6)

#: how long a worker may take for one synchronous shard: 4 minutes of retries, and a request that takes 15 minutes
CLAIM_LIFETIME = timedelta(minutes=25)

#: outcomes that can be retried; the other ones are final
RETRYABLE = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.CANCELLED, Outcome.INVALID_OUTPUT, Outcome.MISSING})

#: outcomes of rows that were never sent to a model
NEVER_SENT = frozenset({Outcome.EXPIRED, Outcome.CANCELLED})


#: the most requests in a shard that is sent synchronously
SHARD_REQUESTS = 4


class Policy(msgspec.Struct, frozen=True):
    """The author's decisions about the wait."""

    #: maximum number of attempts per row, including the first
    max_attempts: int = 3
    retry_on: frozenset[Outcome] = RETRYABLE
    #: whether rows whose answer was cut off at the output cap are retried with a higher cap
    raise_cap: bool = False
    #: retry delay of a row, which doubles with each attempt, and backoff of a model whose queue is full
    backoff: timedelta = timedelta(minutes=5)
    #: maximum number of rows in the final pass; 0 for no final pass
    at_deadline_rows: int = 0
    #: the lane with the highest price that the final pass may use
    at_deadline_lane: Lane = Lane.STANDARD
    #: whether the final pass can use the flex tier, which answers more slowly than the standard tier
    has_flex: bool = False
    #: whether nothing is sent after the canary, because a person decides about the rest
    stop_after_canary: bool = False
    #: when the task last started; account failures recorded before that no longer hold the job
    restarted_at: datetime | None = None


class Upload(NamedTuple):
    """Upload the input file of a shard."""

    shard: ShardState
    number: int


class Create(NamedTuple):
    """Create the batch of a shard. This is the paid step."""

    shard: ShardState
    number: int
    file_id: str


class SendSynchronously(NamedTuple):
    """Send the requests of a shard synchronously."""

    shard: ShardState
    number: int
    #: The canary comes before everything else, and takes no claim.
    is_canary: bool = False


class JudgeCanary(NamedTuple):
    """Judge the answers of all canaries, and record the verdict."""


class LookUp(NamedTuple):
    """Find out whether an unanswered creation has created a batch."""

    shard: ShardState
    submission: Submission


class Collect(NamedTuple):
    """Stream the result files of a batch into staging, and settle its submission."""

    shard: ShardState
    submission: Submission
    batch: BatchView


class Cancel(NamedTuple):
    """Ask the provider to cancel a batch."""

    shard: ShardState
    submission: Submission
    reason: str


class Retry(NamedTuple):
    """Seal the retryable rows of settled submissions into new shards."""

    sources: list[tuple[ShardState, Settled]]
    #: number of attempts at these rows that no longer count
    forgiven_attempts: int = 0


class Reseal(NamedTuple):
    """Seal the rows of a shard that was never sent into smaller shards. This does not count as an attempt."""

    shard: ShardState
    number: int
    #: maximum estimated tokens, and maximum number of requests, of each new shard
    tokens: int
    requests: int
    #: number of requests of a first part, which come from all over the shard; 0 if the parts follow one another
    first_part: int = 0
    #: the lane of the new shards; None for the lane of the shard
    lane: Lane | None = None


class GiveUp(NamedTuple):
    """Settle a shard that the provider will never accept. Its row fails with the provider's message."""

    shard: ShardState
    number: int
    message: str


class FinalPass(NamedTuple):
    """Seal rows without a usable answer into synchronous shards, as many as the author allows."""

    #: number of the retry round; if another worker seals a round with this number first, the step is skipped
    number: int
    settled_sources: list[tuple[ShardState, Settled]]
    #: shards that were never sent
    unsent_shards: list[ShardState]
    #: number of rows that are left out because their batch has not settled
    unsettled_rows: int


class Wait(NamedTuple):
    """Nothing can be done until one of these batches ends, or until this time."""

    batch_ids: list[str]
    until: datetime | None
    #: whether more can be done as soon as any batch ends, because shards wait for queue capacity or budget
    any_end: bool
    #: names of the shards that exceed what a shared budget leaves now
    withheld: tuple[str, ...] = ()


class Hold(NamedTuple):
    """A person must act. Everything is kept."""

    message: str


class Void(NamedTuple):
    """The canary stopped this generation. Nothing of it is uploaded, and submit must seal a new one."""

    message: str
    over_budget: bool
    #: whether the reason may pass, so that another try of submit may succeed
    may_pass: bool = False


class Finish(NamedTuple):
    """The wait is over, and no more answers will come."""

    #: names of the shards that exceed the budget
    withheld: tuple[str, ...] = ()


Step = (
    SendSynchronously | JudgeCanary | Upload | Create | LookUp | Collect | Cancel | Retry | Reseal | GiveUp | FinalPass
)

Pause = Wait | Hold | Void | Finish


def claim_is_stale(claimed_at: datetime, now: datetime) -> bool:
    """Return whether a worker that claimed a submission may no longer act on it, because others may soon take over.

    A worker can be suspended at any instruction and continue hours later (SIGSTOP, a machine that sleeps). A claim is
    stale after a quarter of `LOOK_UP_AFTER`. The rest is enough for the creation, which takes at most a minute.
    """
    return now - claimed_at > LOOK_UP_AFTER / 4


def may_be_superseded(claimed_at: datetime, now: datetime) -> bool:
    """Return whether another worker may have considered a creation lost that was confirmed only now.

    Nobody looks it up before `LOOK_UP_AFTER`. Half of that leaves room for clocks that differ. A batch that was
    superseded all the same is found when the job continues.
    """
    return now - claimed_at > LOOK_UP_AFTER / 2
