"""Counts the rows of a running job by outcome, and what it has cost so far, from its ledger alone."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.steps import RETRYABLE


def outcomes_so_far(state: JobState) -> dict[str, int]:
    """Return the number of rows by outcome, best outcome first.

    They add up to the rows that are sent and those that cannot be sent, because a file that they name is missing or
    cannot be used.

    A row that is retried counts as pending until its new answer is settled. The ledger has only the number of rows by
    outcome, not the rows themselves. So if any rows of a submission are retried, all its rows with a retryable outcome
    count as pending. Those whose outcome is not in the author's `retry_on` stay pending here until they land. Rows that
    exceeded the budget at the end of the wait count as withheld, even if some of them failed before and were to be
    retried.
    """
    counts: Counter[Outcome] = Counter()
    submissions_with_raised_cap = {
        source
        for retry_round in state.retry_rounds
        if any(shard.cap_factor > 1 for shard in retry_round.shards)
        for source in retry_round.sources
    }
    for shard, submission, settled in state.settled_submissions():
        if 0 < shard.requests == shard.spec.unneeded_rows:
            continue
        is_retried = (shard.name, submission.number) in state.retried_submissions
        is_cap_raised = (shard.name, submission.number) in submissions_with_raised_cap
        for outcome in Outcome:
            rows = settled.outcomes.get(outcome, 0)
            if is_retried and outcome is Outcome.FAILED:
                rows -= settled.transient
            elif is_retried and outcome in RETRYABLE:
                rows = 0
            elif is_cap_raised and outcome is Outcome.INCOMPLETE:
                rows -= settled.cut_off
            counts[outcome] += rows
    counts[Outcome.WITHHELD] += sum(shard.requests for shard in state.withheld_shards)
    counts[Outcome.PENDING] += state.manifest.sent - sum(counts.values())
    counts[Outcome.INVALID_INPUT] += state.manifest.invalid
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome] > 0}


def cost_so_far(state: JobState) -> float | None:
    """Return the cost of all answers collected so far in US dollars; None if a price or the usage is unknown."""
    costs = [settled.cost_usd for _, _, settled in state.settled_submissions()]
    amounts = [Decimal(cost) for cost in costs if cost is not None]
    return float(sum(amounts)) if len(amounts) == len(costs) else None
