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
from airflow_provider_batch.core.lifecycle.steps import NEVER_ASKED, Policy


class Retries(NamedTuple):
    """Settled tries with rows to retry."""

    #: those to retry now
    due: list[tuple[ShardState, Settled]]
    #: when the delay of the others is over; None if there are none
    later: datetime | None


class Unanswered(NamedTuple):
    """Rows without a usable answer, for the final pass."""

    settled: list[tuple[ShardState, Settled]]
    #: shards that were never sent
    unsent: list[ShardState]
    #: number of rows whose batch has not settled; they are left out, since their answers may still come
    unsettled: int


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


def retries(state: JobState, policy: Policy, now: datetime) -> Retries:
    """Return the settled tries with rows to retry.

    Rows that wait for their delay are retried together, once the last of them is ready, so that they share shards.
    The valid rows of a batch that failed validation do not wait.
    """
    drained = state.drained
    sources = [
        (shard, settled)
        for shard, tried, settled in state.settled()
        if (shard.shard.name, tried.n) not in drained
        and shard.shard.attempt < base_after(state, shard, settled) + policy.max_attempts + free_attempts(settled)
        and askable_rows(settled, policy)
        and not is_unwanted(shard)
    ]
    delays = (settled.at + wait_before_retry(state, shard, settled, policy) for shard, settled in sources)
    ready = max(delays, default=now)
    if now >= ready:
        return Retries(sources, None)
    return Retries([(shard, settled) for shard, settled in sources if settled.failure is Failure.LINES], ready)


def rows_without_answer(state: JobState, policy: Policy) -> Unanswered:
    """Return what the final pass may send: rows without a usable answer whose batch can no longer answer them."""
    drained, last = state.drained, at_the_finish_line(policy)
    settled = [
        (shard, settled)
        for shard, tried, settled in state.settled()
        if (shard.shard.name, tried.n) not in drained and askable_rows(settled, last) and not is_unwanted(shard)
    ]
    phases: dict[Phase, list[ShardState]] = {phase: [] for phase in Phase}
    final_pass = {shard.shard.name for shard in state.finish_line}
    for shard in state.shards.values():
        if shard.shard.name not in final_pass and not is_unwanted(shard):
            phases[shard.phase].append(shard)
    unsent = phases[Phase.SEALED] + phases[Phase.UPLOADED]
    unsettled = phases[Phase.CREATING] + phases[Phase.LIVE]
    return Unanswered(settled, unsent, sum(shard.shard.requests for shard in unsettled))
