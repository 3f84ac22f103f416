"""How far a job is, told from its ledger alone."""

from __future__ import annotations

from collections import Counter

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.steps import RETRYABLE


def outcomes_so_far(state: JobState) -> dict[str, int]:
    """Rows by outcome, best first; they add up to the rows that are asked, as only these have batches.

    A row that is asked again counts as pending until its new answer is settled. Rows of a try that was asked again are
    told apart by their outcome, as only some outcomes are ever asked again; with a `retry_on` that leaves some of those
    out, their rows count as pending until they are landed. What the budget withheld at the end of the wait counts as
    withheld, though some of it may have had an answer that was to be asked again.
    """
    counts: Counter[Outcome] = Counter()
    raised = {
        source
        for retry_round in state.retry_rounds
        if any(shard.cap_factor > 1 for shard in retry_round.shards)
        for source in retry_round.sources
    }
    for shard, submission, settled in state.settled_submissions():
        if 0 < shard.requests == shard.spec.unneeded_rows:
            continue
        again = (shard.name, submission.number) in state.retried_submissions
        longer = (shard.name, submission.number) in raised
        for outcome in Outcome:
            rows = settled.outcomes.get(outcome, 0)
            if again and outcome is Outcome.FAILED:
                rows -= settled.transient
            elif again and outcome in RETRYABLE:
                rows = 0
            elif longer and outcome is Outcome.INCOMPLETE:
                rows -= settled.cut_off
            counts[outcome] += rows
    counts[Outcome.WITHHELD] += sum(shard.requests for shard in state.withheld_shards)
    counts[Outcome.PENDING] += state.manifest.sent - sum(counts.values())
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome] > 0}
