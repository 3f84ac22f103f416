"""Counts the rows of a running job by outcome, and what it has cost so far, from its ledger alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.records import RetryRound, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.attempts import final_pass_policy, has_attempts_left, is_unwanted
from airflow_provider_batch.core.lifecycle.cleared_wait import policy_of, retried_rows


def outcomes_so_far(state: JobState) -> dict[str, int]:
    """Return the number of rows by outcome, best outcome first.

    They add up to the rows that are sent and those that cannot be sent, because a file that they name is missing or
    cannot be used.

    A row that is retried, or that the wait is going to retry, counts as pending until its new answer is settled. So no
    failure is shown that vanishes later. The ledger has only the number of rows by outcome, not the rows themselves, so
    which of them a retry round took up follows from the arguments of the wait at that time. Rows that exceeded the
    budget at the end of the wait count as withheld, even if some of them failed before and were to be retried.
    """
    counts: Counter[Outcome] = Counter()
    for _, settled, retried in _settled_rows(state):
        counts.update({outcome: settled.outcomes.get(outcome, 0) - retried[outcome] for outcome in Outcome})
    counts[Outcome.WITHHELD] += sum(shard.requests for shard in state.withheld_shards)
    counts[Outcome.PENDING] += state.manifest.sent - sum(counts.values())
    counts[Outcome.INVALID_INPUT] += state.manifest.invalid
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome] > 0}


def cost_so_far(state: JobState) -> float | None:
    """Return the cost of all answers collected so far in US dollars; None if a price or the usage is unknown."""
    costs = [settled.cost_usd for _, _, settled in state.settled_submissions()]
    amounts = [Decimal(cost) for cost in costs if cost is not None]
    return float(sum(amounts)) if len(amounts) == len(costs) else None


def rows_being_retried(state: JobState) -> int:
    """Return the number of pending rows that have failed at least once, and are retried now or soon."""
    retried = sum(
        shard.requests
        for shard in state.shards.values()
        if shard.spec.attempt > 1 and shard.phase not in (Phase.SETTLED, Phase.RESEALED) and not is_unwanted(shard)
    )
    withheld = sum(shard.requests for shard in state.withheld_shards if shard.spec.attempt > 1)
    sources = state.retried_submissions
    soon = sum(
        sum(rows.values())
        for shard, settled, rows in _settled_rows(state)
        if (shard.name, settled.number) not in sources
    )
    return retried - withheld + soon


def _settled_rows(state: JobState) -> Iterator[tuple[ShardState, Settled, Counter[Outcome]]]:
    """Yield the settled submissions, each with the rows that are in a retry round, or will be, by outcome."""
    rounds = {source: retry_round for retry_round in state.retry_rounds for source in retry_round.sources}
    policy = policy_of(state)
    is_ending = state.is_wait_over or state.is_cancelled
    for shard, submission, settled in state.settled_submissions():
        if is_unwanted(shard):
            continue
        retry_round = rounds.get((shard.name, submission.number))
        retried: Counter[Outcome] = Counter()
        if retry_round is not None:
            retried = _rows_of_round(state, retry_round, settled)
        elif not is_ending and has_attempts_left(state, shard, settled, policy):
            retried = retried_rows(settled, policy)
        yield shard, settled, retried


def _rows_of_round(state: JobState, retry_round: RetryRound, settled: Settled) -> Counter[Outcome]:
    """Return the rows of a settled submission that a retry round took up, by outcome."""
    policy = policy_of(state, retry_round.time)
    rows = retried_rows(settled, final_pass_policy(policy) if retry_round.is_final_pass else policy)
    is_cap_raised = any(shard.cap_factor > 1 for shard in retry_round.shards)
    rows[Outcome.INCOMPLETE] = settled.cut_off if is_cap_raised else 0
    return rows
