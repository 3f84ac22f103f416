"""Which rows may be sent again, on which attempt, and after which wait."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.records import Failure, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.steps import NEVER_SENT, Policy


class Retries(NamedTuple):
    """Settled tries with rows to retry."""

    #: those to retry now
    due: list[tuple[ShardState, Settled]]
    #: when the delay of the others is over; None if there are none
    next_due_at: datetime | None


class UnansweredRows(NamedTuple):
    """Rows without a usable answer, for the final pass."""

    settled_sources: list[tuple[ShardState, Settled]]
    #: shards that were never sent
    unsent_shards: list[ShardState]
    #: number of rows whose batch has not settled; they are left out, since their answers may still come
    unsettled_rows: int


def forgiven_attempts_before(state: JobState, shard: ShardState) -> int:
    """Of the attempts at the rows of a shard before this one, how many count no more."""
    made = shard.spec.attempt - 1
    return max(shard.forgiven_attempts, made) if _sealed_before_clear(state, shard) else shard.forgiven_attempts


def forgiven_attempts_after(state: JobState, shard: ShardState, settled: Settled) -> int:
    """Of the attempts at the rows of a settled try, this one included, how many count no more."""
    base = forgiven_attempts_before(state, shard)
    asked_before = (
        state.attempts_reset is not None
        and settled.time < state.attempts_reset.time
        and settled.failure is not Failure.LINES
    )
    return max(base, shard.spec.attempt) if asked_before and _sealed_before_clear(state, shard) else base


def _sealed_before_clear(state: JobState, shard: ShardState) -> bool:
    return (
        state.attempts_reset is not None and (shard.sealed_at or state.manifest.sealed_at) < state.attempts_reset.time
    )


def is_unwanted(shard: ShardState) -> bool:
    """Every row of the shard changed or vanished since it was sealed."""
    return 0 < shard.requests == shard.spec.unneeded_rows


def final_pass_policy(policy: Policy) -> Policy:
    """What is asked there: what the policy asks again, however often it was asked, and what was never asked.

    No cap is raised there: those rows have an answer, if not a whole one.
    """
    return msgspec.structs.replace(policy, retry_on=policy.retry_on | NEVER_SENT, raise_cap=False)


def extra_attempts(settled: Settled) -> int:
    """A batch that failed validation asked nothing: its rows may be asked once more than others."""
    return 1 if settled.failure is Failure.LINES else 0


def wait_before_retry(state: JobState, shard: ShardState, settled: Settled, policy: Policy) -> timedelta:
    """Return how long a retry of the rows of a settled batch waits; it doubles with each attempt, up to 20 % more."""
    if settled.failure is Failure.LINES:
        return timedelta(0)
    spread = hashlib.sha256(f"{settled.batch_id}".encode()).digest()[0] / 255
    times = max(shard.spec.attempt - forgiven_attempts_after(state, shard, settled) - 1, 0)
    return policy.backoff * (float(2 ** min(times, 10)) * (1 + 0.2 * spread))


def retryable_rows(settled: Settled, policy: Policy) -> int:
    """How many rows of a settled try the policy would ask again."""
    if settled.failure is Failure.LINES:
        return settled.transient
    count = settled.transient if Outcome.FAILED in policy.retry_on else 0
    count += settled.cut_off if policy.raise_cap else 0
    return count + sum(settled.outcomes.get(outcome, 0) for outcome in policy.retry_on if outcome is not Outcome.FAILED)


def is_retryable(answer: Answer, settled: Settled, policy: Policy) -> bool:
    """Whether the policy asks this row again; `retryable_rows` counts the same."""
    if settled.failure is Failure.LINES:
        return answer.transient
    if answer.outcome is Outcome.INCOMPLETE:
        return policy.raise_cap and is_cut_off(answer)
    if answer.outcome not in policy.retry_on:
        return False
    return answer.transient if answer.outcome is Outcome.FAILED else True


def next_attempt(shard: ShardState, settled: Settled) -> int:
    """The attempt that rows of this try are on when they are asked again."""
    return shard.spec.attempt + (0 if settled.failure is Failure.LINES else 1)


def retries(state: JobState, policy: Policy, now: datetime) -> Retries:
    """Return the settled tries with rows to retry.

    Rows that wait for their delay are retried together, once the last of them is ready, so that they share shards.
    The valid rows of a batch that failed validation do not wait.
    """
    drained = state.retried_submissions
    sources = [
        (shard, settled)
        for shard, submission, settled in state.settled_submissions()
        if (shard.name, submission.number) not in drained
        and shard.spec.attempt
        < forgiven_attempts_after(state, shard, settled) + policy.max_attempts + extra_attempts(settled)
        and retryable_rows(settled, policy)
        and not is_unwanted(shard)
    ]
    delays = (settled.time + wait_before_retry(state, shard, settled, policy) for shard, settled in sources)
    ready = max(delays, default=now)
    if now >= ready:
        return Retries(sources, None)
    return Retries([(shard, settled) for shard, settled in sources if settled.failure is Failure.LINES], ready)


def rows_without_answer(state: JobState, policy: Policy) -> UnansweredRows:
    """Return what the final pass may send: rows without a usable answer whose batch can no longer answer them."""
    drained, last = state.retried_submissions, final_pass_policy(policy)
    settled = [
        (shard, settled)
        for shard, submission, settled in state.settled_submissions()
        if (shard.name, submission.number) not in drained and retryable_rows(settled, last) and not is_unwanted(shard)
    ]
    phases: dict[Phase, list[ShardState]] = {phase: [] for phase in Phase}
    final_pass = {shard.name for shard in state.final_pass_shards}
    for shard in state.shards.values():
        if shard.name not in final_pass and not is_unwanted(shard):
            phases[shard.phase].append(shard)
    unsent = phases[Phase.SEALED] + phases[Phase.UPLOADED]
    unsettled = phases[Phase.CREATING] + phases[Phase.LIVE]
    return UnansweredRows(settled, unsent, sum(shard.requests for shard in unsettled))
