"""Which rows are retried, on which attempt, and after which delay.

An *attempt* is one try of a row by the provider. Rows whose attempt failed for a transient reason are sealed into new
shards, a *retry round*, and every shard of a round carries the number of its attempt:

    s0001     attempt 1    500 rows answered, 12 failed with HTTP 429
    r01-0001  attempt 2    the 12 rows: 9 answered, 3 expired
    r02-0001  attempt 3    the 3 rows; with max_attempts=3, this was their last attempt

A failure before any request ran is not an attempt: a request that the flex tier did not take, a full queue, an input
file that the provider does not find, a creation that was lost, an account that a person has to fix, or, once for each
shard, a batch that failed for an unknown reason. After it, the same shard gets another *submission* on the same
attempt. A batch that failed validation (`Failure.LINES`) ran nothing either. Its valid rows are sealed again without
delay and keep the number of their attempt, and they may be sent even if it was their last one.

Old attempts can be *forgiven*: a person who clears a wait that had ended gives its rows a fresh allowance (see
`deadline.py`). The attempt number keeps counting up, so the number of forgiven attempts is recorded with it, and a
row is retried while

    attempt < forgiven attempts + max_attempts

Rows of a round wait until the last of them is ready, so that they share shards: fewer files and fewer batches. The
delay doubles with each attempt.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import FLEX_UNAVAILABLE, Answer, Outcome
from airflow_provider_batch.core.ledger.records import Failure, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.steps import NEVER_SENT, Policy
from airflow_provider_batch.core.provider.lane import Lane


class Retries(NamedTuple):
    """Settled submissions with rows to retry."""

    #: those to retry now
    due: list[tuple[ShardState, Settled]]
    #: when the retry delay of the others is over; None if there are none
    next_due_at: datetime | None


class UnansweredRows(NamedTuple):
    """Rows without a usable answer, for the final pass."""

    settled_sources: list[tuple[ShardState, Settled]]
    #: shards that were never sent
    unsent_shards: list[ShardState]
    #: number of rows whose batch has not settled; they are left out, since their answers may still come
    unsettled_rows: int


def forgiven_attempts_before(state: JobState, shard: ShardState) -> int:
    """Return how many of the attempts at a shard's rows before this one no longer count."""
    earlier_attempts = shard.spec.attempt - 1
    if _was_sealed_before_reset(state, shard):
        return max(shard.forgiven_attempts, earlier_attempts)
    return shard.forgiven_attempts


def forgiven_attempts_after(state: JobState, shard: ShardState, settled: Settled) -> int:
    """Return how many of the attempts at the rows of a settled submission, including this one, no longer count."""
    earlier = forgiven_attempts_before(state, shard)
    was_settled_before_reset = (
        state.attempts_reset is not None
        and settled.time < state.attempts_reset.time
        and settled.failure is not Failure.LINES
    )
    if was_settled_before_reset and _was_sealed_before_reset(state, shard):
        return max(earlier, shard.spec.attempt)
    return earlier


def _was_sealed_before_reset(state: JobState, shard: ShardState) -> bool:
    return (
        state.attempts_reset is not None and (shard.sealed_at or state.manifest.sealed_at) < state.attempts_reset.time
    )


def is_unwanted(shard: ShardState) -> bool:
    """Return whether every row of the shard changed or disappeared after it was sealed."""
    return 0 < shard.requests == shard.spec.unneeded_rows


def final_pass_policy(policy: Policy) -> Policy:
    """Return the policy of the final pass.

    It sends rows that the policy retries, regardless of the number of their attempts, and rows that were never sent. It
    raises no output cap: a row that was cut off has an answer, although an incomplete one.
    """
    return msgspec.structs.replace(policy, retry_on=policy.retry_on | NEVER_SENT, raise_cap=False)


def extra_attempts(settled: Settled) -> int:
    """Return how many attempts the rows of a settled submission have in addition to `max_attempts`.

    A batch that failed validation ran no request, so its rows have one more.
    """
    return 1 if settled.failure is Failure.LINES else 0


def wait_before_retry(state: JobState, shard: ShardState, settled: Settled, policy: Policy) -> timedelta:
    """Return the retry delay of the rows of a settled batch. It doubles with each attempt, plus up to 20%.

    What flex did not answer goes to a batch without delay.

    The addition is derived from the batch id, so that every worker computes the same delay and batches that ended
    together are not retried together.
    """
    if settled.failure is Failure.LINES or shard.spec.lane is Lane.FLEX:
        return timedelta(0)
    spread = hashlib.sha256(f"{settled.batch_id}".encode()).digest()[0] / 255
    doublings = max(shard.spec.attempt - forgiven_attempts_after(state, shard, settled) - 1, 0)
    return policy.backoff * (float(2 ** min(doublings, 10)) * (1 + 0.2 * spread))


def retryable_rows(settled: Settled, policy: Policy) -> int:
    """Return the number of rows of a settled submission that the policy retries."""
    if settled.failure is Failure.LINES:
        return settled.transient
    count = settled.transient if Outcome.FAILED in policy.retry_on else 0
    count += settled.flex_refused if Outcome.EXPIRED not in policy.retry_on else 0
    count += settled.cut_off if policy.raise_cap else 0
    return count + sum(settled.outcomes.get(outcome, 0) for outcome in policy.retry_on if outcome is not Outcome.FAILED)


def is_retryable(answer: Answer, settled: Settled, policy: Policy) -> bool:
    """Return whether the policy retries this row. `retryable_rows` counts the same rows."""
    if settled.failure is Failure.LINES:
        return answer.transient
    if answer.error_code == FLEX_UNAVAILABLE:
        return True
    if answer.outcome is Outcome.INCOMPLETE:
        return policy.raise_cap and is_cut_off(answer)
    if answer.outcome not in policy.retry_on:
        return False
    return answer.transient if answer.outcome is Outcome.FAILED else True


def next_attempt(shard: ShardState, settled: Settled, answer: Answer | None = None) -> int:
    """Return the number of the attempt on which rows of this submission are retried, or the row with this answer."""
    was_not_tried = answer is not None and answer.error_code == FLEX_UNAVAILABLE
    return shard.spec.attempt + (0 if settled.failure is Failure.LINES or was_not_tried else 1)


def has_attempts_left(state: JobState, shard: ShardState, settled: Settled, policy: Policy) -> bool:
    """Return whether the rows of a settled submission have attempts left."""
    allowance = forgiven_attempts_after(state, shard, settled) + policy.max_attempts + extra_attempts(settled)
    return shard.spec.attempt < allowance


def retries(state: JobState, policy: Policy, now: datetime) -> Retries:
    """Return the settled submissions with rows to retry.

    They become due together, once the last retry delay is over. A batch that failed validation does not wait.
    """
    retried = state.retried_submissions
    sources = [
        (shard, settled)
        for shard, submission, settled in state.settled_submissions()
        if (shard.name, submission.number) not in retried
        and (
            (has_attempts_left(state, shard, settled, policy) and retryable_rows(settled, policy))
            or settled.flex_refused
        )
        and not is_unwanted(shard)
    ]
    due_times = (settled.time + wait_before_retry(state, shard, settled, policy) for shard, settled in sources)
    last_due_at = max(due_times, default=now)
    if now >= last_due_at:
        return Retries(sources, None)
    invalid_batches = [(shard, settled) for shard, settled in sources if settled.failure is Failure.LINES]
    return Retries(invalid_batches, last_due_at)


def rows_without_answer(state: JobState, policy: Policy) -> UnansweredRows:
    """Return the rows that the final pass may send: rows without a usable answer whose batch can no longer answer."""
    retried, last_policy = state.retried_submissions, final_pass_policy(policy)
    settled_sources = [
        (shard, settled)
        for shard, submission, settled in state.settled_submissions()
        if (shard.name, submission.number) not in retried
        and retryable_rows(settled, last_policy)
        and not is_unwanted(shard)
    ]
    shards_by_phase: dict[Phase, list[ShardState]] = {phase: [] for phase in Phase}
    final_pass_names = {shard.name for shard in state.final_pass_shards}
    for shard in state.shards.values():
        if shard.name not in final_pass_names and not is_unwanted(shard):
            shards_by_phase[shard.phase].append(shard)
    unsent_shards = shards_by_phase[Phase.SEALED] + shards_by_phase[Phase.UPLOADED]
    unsettled_shards = shards_by_phase[Phase.CREATING] + shards_by_phase[Phase.LIVE]
    return UnansweredRows(settled_sources, unsent_shards, sum(shard.requests for shard in unsettled_shards))
