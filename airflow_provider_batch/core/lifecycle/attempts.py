"""Which rows may be sent again, on which attempt, and after which wait."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import msgspec

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.records import Failure, Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.steps import NEVER_ASKED, Policy


def base_before(state: JobState, shard: ShardState) -> int:
    """Of the attempts at the rows of a shard before this one, how many count no more."""
    made = shard.shard.attempt - 1
    return max(shard.base, made) if _sealed_before_clear(state, shard) else shard.base


def base_after(state: JobState, shard: ShardState, settled: Settled) -> int:
    """Of the attempts at the rows of a settled try, this one included, how many count no more."""
    base = base_before(state, shard)
    asked_before = state.fresh is not None and settled.at < state.fresh.at and settled.failure is not Failure.LINES
    return max(base, shard.shard.attempt) if asked_before and _sealed_before_clear(state, shard) else base


def _sealed_before_clear(state: JobState, shard: ShardState) -> bool:
    return state.fresh is not None and (shard.sealed_at or state.manifest.sealed_at) < state.fresh.at


def is_unwanted(shard: ShardState) -> bool:
    """Every row of the shard changed or vanished since it was sealed."""
    return 0 < shard.shard.requests == shard.shard.unwanted


def at_the_finish_line(policy: Policy) -> Policy:
    """What is asked there: what the policy asks again, however often it was asked, and what was never asked.

    No cap is raised there: those rows have an answer, if not a whole one.
    """
    return msgspec.structs.replace(policy, retry_on=policy.retry_on | NEVER_ASKED, raise_cap=False)


def free_attempts(settled: Settled) -> int:
    """A batch that failed validation asked nothing: its rows may be asked once more than others."""
    return 1 if settled.failure is Failure.LINES else 0


def wait_before_retry(state: JobState, shard: ShardState, settled: Settled, policy: Policy) -> timedelta:
    """Return how long a retry of the rows of a settled batch waits; it doubles with each attempt, up to 20 % more."""
    if settled.failure is Failure.LINES:
        return timedelta(0)
    spread = hashlib.sha256(f"{settled.batch_id}".encode()).digest()[0] / 255
    times = max(shard.shard.attempt - base_after(state, shard, settled) - 1, 0)
    return policy.backoff * (float(2 ** min(times, 10)) * (1 + 0.2 * spread))


def askable_rows(settled: Settled, policy: Policy) -> int:
    """How many rows of a settled try the policy would ask again."""
    if settled.failure is Failure.LINES:
        return settled.transient
    count = settled.transient if Outcome.FAILED in policy.retry_on else 0
    count += settled.cut_off if policy.raise_cap else 0
    return count + sum(settled.outcomes.get(outcome, 0) for outcome in policy.retry_on if outcome is not Outcome.FAILED)


def is_askable(answer: Answer, settled: Settled, policy: Policy) -> bool:
    """Whether the policy asks this row again; `askable_rows` counts the same."""
    if settled.failure is Failure.LINES:
        return answer.transient
    if answer.outcome is Outcome.INCOMPLETE:
        return policy.raise_cap and is_cut_off(answer)
    if answer.outcome not in policy.retry_on:
        return False
    return answer.transient if answer.outcome is Outcome.FAILED else True


def next_attempt(shard: ShardState, settled: Settled) -> int:
    """The attempt that rows of this try are on when they are asked again."""
    return shard.shard.attempt + (0 if settled.failure is Failure.LINES else 1)
