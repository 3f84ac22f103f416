"""What a landing amounts to, and whether too many of its rows failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.records import Landed, Reason
from airflow_provider_batch.core.pricing.prices import format_decimal

#: reasons that a landing keeps, the most frequent ones
MAX_REASONS = 10


def landed_record(landing: Landing, table: str | None, file: str | None, at: datetime) -> Landed:
    """Return the record of a landing whose rows were all written."""
    return Landed(
        number=1,
        table=table,
        file=file,
        outcomes=landing.outcomes,
        tokens=dict(landing.tokens),
        cost_usd=format_decimal(landing.cost),
        standard_cost_usd=format_decimal(landing.standard_cost),
        retried=landing.retried,
        retried_cost_usd=format_decimal(landing.retried_cost),
        reasons=landing.most_common_reasons(MAX_REASONS),
        time=at,
    )


def rows_not_succeeded(outcomes: Mapping[str, int], requests: int, *, partial: bool) -> int:
    """Return how many rows did not succeed.

    :param partial: whether rows that are not settled yet, or that the budget withheld, are left out.
    """
    excused = (Outcome.PENDING, Outcome.WITHHELD) if partial else ()
    return requests - outcomes.get(Outcome.SUCCEEDED, 0) - sum(outcomes.get(outcome, 0) for outcome in excused)


def failure_message(landed: Landed, requests: int, *, max_failure_rate: float, partial: bool) -> str | None:
    """Return why the landing fails the task, or None if few enough rows failed.

    :param requests: rows of the job.
    :param max_failure_rate: the share of them, from 0 to 1, that may end other than succeeded.
    :param partial: whether rows that are not settled yet, or that the budget withheld, are left out.
    """
    bad = rows_not_succeeded(landed.outcomes, requests, partial=partial)
    if not requests or bad / requests <= max_failure_rate:
        return None
    return (
        f"{bad:,} of {requests:,} rows did not succeed ({bad / requests:.1%}, max_failure_rate is "
        f"{max_failure_rate:.1%}). All rows are landed in {landed.location}, with their outcome. Most "
        f"often: {_top(landed.reasons) or 'no answer yet'}. Mend the cause, then clear the wait to ask those rows "
        "again."
    )


def _top(reasons: Sequence[Reason]) -> str:
    return "; ".join(f"{reason.rows:,} x {reason.code}: {reason.message}" for reason in reasons[:3])
