"""The receipt of a job: the list price, what was paid, and whether the deadline was met."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.provider.lane import Lane

#: outcomes of rows without an answer; rows that the budget withheld say nothing about the deadline
_UNANSWERED = (Outcome.EXPIRED, Outcome.CANCELLED, Outcome.MISSING, Outcome.PENDING)
_LANES = {Lane.BATCH: "in batches", Lane.FLEX: "on flex", Lane.STANDARD: "at the standard price"}


def receipt(landed: Landed) -> str:
    """Return the receipt of a landing, in full sentences."""
    return " ".join(filter(None, (_amounts(landed), _lanes(landed), _deadline(landed))))


def _amounts(landed: Landed) -> str:
    if landed.cost_usd is None:
        return "Paid: unknown."
    paid = Decimal(landed.cost_usd)
    if landed.standard_cost_usd is None:
        return f"Paid: {format_usd(paid)}. The list price is unknown."
    list_price = Decimal(landed.standard_cost_usd)
    share = f" ({(list_price - paid) / list_price:.0%})" if list_price else ""
    return (
        f"List price: {format_usd(list_price)}. Paid: {format_usd(paid)}. "
        f"Saved: {format_usd(list_price - paid)}{share}."
    )


def _lanes(landed: Landed) -> str:
    total = sum(landed.lanes.values())
    if not total:
        return ""
    parts = [f"{landed.lanes[lane]:,} {words}" for lane, words in _LANES.items() if landed.lanes.get(lane)]
    cheap = total - landed.lanes.get(Lane.STANDARD, 0)
    # rounded down, so that 100% means all
    return f"{format_count(total, 'answer')}: {', '.join(parts)} ({int(100 * cheap / total)}% at the batch price)."


def _deadline(landed: Landed) -> str:
    if landed.deadline is None:
        return ""
    unanswered = sum(landed.outcomes.get(outcome, 0) for outcome in _UNANSWERED)
    rows = format_count(unanswered, "row has", "rows have")
    if unanswered and landed.time < landed.deadline:
        return f"{rows} no answer, and the deadline has not passed."
    if unanswered:
        return f"Deadline missed: {rows} no answer."
    if landed.answered_at is None:
        return ""
    spare = landed.deadline - landed.answered_at
    if spare >= timedelta(0):
        return f"Deadline met, {_format_minutes(spare)} early."
    return f"Deadline missed by {_format_minutes(-spare)}."


def _format_minutes(duration: timedelta) -> str:
    minutes = round(duration / timedelta(minutes=1))
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
