"""The receipt of a landing states what was paid, what was saved, and whether the deadline was met."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.lifecycle.receipt import receipt
from tests.core.building import NOW

HOUR = timedelta(hours=1)


def landed(**fields: Any) -> Landed:
    """Return a landing of 100 rows whose answers came an hour before the deadline."""
    values: dict[str, Any] = {
        "number": 1,
        "table": "answers",
        "outcomes": {"succeeded": 100},
        "cost_usd": "0.6",
        "standard_cost_usd": "1",
        "reasons": [],
        "time": NOW,
        "lanes": {"batch": 70, "flex": 10, "standard": 20},
        "deadline": NOW,
        "answered_at": NOW - HOUR,
    }
    return Landed(**{**values, **fields})


def test_the_receipt_states_prices_lanes_and_the_deadline() -> None:
    assert receipt(landed()) == (
        "List price: $1.00. Paid: $0.60. Saved: $0.40 (40%). 100 answers: 70 in batches, 10 on flex, 20 at the "
        "standard price (80% at the batch price). Deadline met, 60 min early."
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"answered_at": NOW + 3 * HOUR}, "Deadline missed by 3.0 h."),
        ({"answered_at": NOW + timedelta(seconds=5)}, "Deadline missed by less than a minute."),
        ({"outcomes": {"succeeded": 98, "cancelled": 2}}, "Deadline missed: 2 rows have no answer."),
        ({"outcomes": {"succeeded": 99, "pending": 1}}, "Deadline missed: 1 row has no answer."),
        (
            {"outcomes": {"succeeded": 99, "pending": 1}, "time": NOW - HOUR},
            "1 row has no answer, and the deadline has not passed.",
        ),
        ({"outcomes": {"succeeded": 99, "withheld": 1}}, "Deadline met, 60 min early."),
        ({"lanes": {"batch": 999, "standard": 1}}, "(99% at the batch price)"),
        ({"cost_usd": None}, "Paid: unknown."),
        ({"standard_cost_usd": None}, "Paid: $0.60. The list price is unknown."),
        ({"cost_usd": "0", "standard_cost_usd": "0"}, "Saved: $0.00."),
        ({"cost_usd": "2"}, "Saved: -$1.00 (-100%)."),
    ],
)
def test_the_receipt_is_honest_about_the_rest(fields: dict[str, Any], text: str) -> None:
    assert text in receipt(landed(**fields))


def test_without_answers_or_a_wait_the_receipt_leaves_out_what_it_does_not_know() -> None:
    assert receipt(landed(lanes={}, deadline=None)) == "List price: $1.00. Paid: $0.60. Saved: $0.40 (40%)."
