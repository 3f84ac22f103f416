"""The summary of a landing, and when a landing fails its task."""

from __future__ import annotations

import pytest

from airflow_provider_batch.core.landing.summary import failure_message, rows_not_succeeded
from airflow_provider_batch.core.ledger.records import Landed, Reason
from tests.core.building import NOW

REFUSED = Reason("refused", "refusal", "I cannot help with that", 6)


def landed_record(reasons: list[Reason] | None = None, **outcomes: int) -> Landed:
    return Landed(1, "labels", outcomes, cost_usd=None, standard_cost_usd=None, reasons=reasons or [], time=NOW)


@pytest.mark.parametrize(
    ("outcomes", "partial", "rows"),
    [
        ({"succeeded": 100}, False, 0),
        ({"succeeded": 90, "refused": 6, "pending": 3, "withheld": 1}, False, 10),
        ({"succeeded": 90, "refused": 6, "pending": 3, "withheld": 1}, True, 6),
        ({}, False, 100),
    ],
)
def test_a_partial_landing_ignores_pending_and_withheld_rows(
    outcomes: dict[str, int], partial: bool, rows: int
) -> None:
    assert rows_not_succeeded(outcomes, 100, partial=partial) == rows


@pytest.mark.parametrize(("succeeded", "fails"), [(95, False), (94, True)])
def test_a_failure_rate_of_exactly_the_maximum_is_allowed(succeeded: int, fails: bool) -> None:
    counts = landed_record(succeeded=succeeded, refused=100 - succeeded)
    assert (failure_message(counts, 100, "", max_failure_rate=0.05, partial=False) is not None) is fails


def test_a_job_without_rows_never_fails() -> None:
    assert failure_message(landed_record(), 0, "", max_failure_rate=0.0, partial=False) is None


def test_the_message_names_the_counts_the_table_and_the_reasons() -> None:
    message = failure_message(
        landed_record([REFUSED], succeeded=94, refused=6), 100, "What to do.", max_failure_rate=0.05, partial=False
    )
    assert message is not None
    assert message.startswith("6 of 100 rows did not succeed (6.0%, max_failure_rate is 5.0%). All rows are in")
    assert "labels" in message
    assert "6 rows with refusal: I cannot help with that" in message
    assert message.endswith("What to do.")
