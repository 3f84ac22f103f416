"""The record of a landing, and whether too many of its rows failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.landing.refusals import Refusal, adjusted_outcomes, refusal_reasons
from airflow_provider_batch.core.ledger.records import Landed, Reason
from airflow_provider_batch.core.pricing.prices import format_decimal

#: number of reasons that the record of a landing keeps, the most frequent ones
MAX_REASONS = 10


def landed_record(
    landing: Landing, table: str | None, file: str | None, time: datetime, refusals: Sequence[Refusal] = ()
) -> Landed:
    """Return the record of a landing, after all its rows were written.

    :param table: the results table, or None if the rows went to a file.
    :param file: address of the file, or None if the rows went to a table.
    :param refusals: the rows with a value that the table refused.
    """
    reasons = [*refusal_reasons(refusals), *landing.totals.most_common_reasons(MAX_REASONS)]
    return Landed(
        number=1,
        table=table,
        file=file,
        outcomes=adjusted_outcomes(landing.outcomes, refusals),
        tokens=dict(landing.totals.tokens),
        without_usage=landing.totals.without_usage,
        lanes=dict(landing.totals.lanes),
        deadline=landing.deadline,
        answered_at=landing.answered_at,
        cost_usd=format_decimal(landing.totals.cost),
        lowest_cost_usd=format_decimal(landing.totals.lowest_cost),
        standard_cost_usd=format_decimal(landing.totals.standard_cost),
        retried=landing.totals.retried,
        retried_cost_usd=format_decimal(landing.totals.retried_cost),
        reasons=sorted(reasons, key=lambda reason: reason.rows, reverse=True)[:MAX_REASONS],
        time=time,
    )


def rows_not_succeeded(outcomes: Mapping[str, int], requests: int, *, partial: bool) -> int:
    """Return how many rows did not succeed.

    :param partial: whether to leave out rows that are not settled yet or were withheld by the budget.
    """
    excused_outcomes = (Outcome.PENDING, Outcome.WITHHELD) if partial else ()
    return requests - outcomes.get(Outcome.SUCCEEDED, 0) - sum(outcomes.get(outcome, 0) for outcome in excused_outcomes)


def failure_message(
    landed: Landed, requests: int, advice: str, *, max_failure_rate: float, partial: bool
) -> str | None:
    """Return the error message if too many rows failed, or None if few enough did.

    :param requests: number of rows of the job.
    :param advice: what clearing the wait sends, which rows stay, and what to do about them (`ClearedWait`).
    :param max_failure_rate: the share of them, from 0 to 1, that may have an outcome other than succeeded.
    :param partial: whether to leave out rows that are not settled yet or were withheld by the budget.
    """
    failed_rows = rows_not_succeeded(landed.outcomes, requests, partial=partial)
    if not requests or failed_rows / requests <= max_failure_rate:
        return None
    return (
        f"{failed_rows:,} of {format_count(requests, 'row')} did not succeed ({failed_rows / requests:.1%}, "
        f"max_failure_rate is {max_failure_rate:.1%}). All rows are in {landed.location}, each with its outcome. Most "
        f"frequent reasons: {_format_reasons(landed.reasons) or 'no answer yet'}. {advice}"
    )


def _format_reasons(reasons: Sequence[Reason]) -> str:
    return "; ".join(
        f"{format_count(reason.rows, 'row')} with {reason.code}: {reason.message}" for reason in reasons[:3]
    )
