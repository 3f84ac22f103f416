"""What clearing the wait sends, which rows stay as they are, and what people read about that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import (
    Created,
    Failure,
    Finished,
    Landed,
    Reason,
    Record,
    RetryArguments,
    RetryRound,
    Settled,
    Task,
    TaskStarted,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.attempts import retryable_rows
from airflow_provider_batch.core.lifecycle.cleared_wait import Stay, clear_wait, policy_of, retried_rows
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far, rows_being_retried
from airflow_provider_batch.core.lifecycle.status import status_of
from airflow_provider_batch.core.lifecycle.steps import Policy
from tests.core.building import NOW, manifest_of, plain_shard

LATER = NOW + timedelta(hours=1)


def settled(name: str, failure: Failure | None = None, **counts: Any) -> list[Record]:
    """Return the records of a batch that ended with these rows."""
    numbers = {key: counts.pop(key) for key in ("transient", "cut_off", "flex_refused") if key in counts}
    batch = f"batch_{name}"
    return [
        Created(name, 1, batch, NOW),
        Settled(name, 1, batch, "completed", NOW, outcomes=counts, failure=failure, **numbers),
    ]


def started(**arguments: Any) -> TaskStarted:
    """Return the start of a wait with these arguments."""
    fields: dict[str, Any] = {"max_attempts": 3, "retry_on": ["failed", "expired"]} | arguments
    return TaskStarted(Task.WAIT, 0, NOW - timedelta(hours=1), RetryArguments(**fields))


def state_of(*records: Any, rows: int = 10, **manifest: Any) -> JobState:
    """Return the state of a job with one shard and these records."""
    return fold(manifest_of([plain_shard("s0001", requests=rows)], **manifest), records)


def test_transient_failures_and_rows_that_never_ran_are_retried() -> None:
    cleared = clear_wait(
        state_of(*settled("s0001", succeeded=4, failed=2, transient=2, expired=3, missing=1), Finished(1, NOW))
    )
    assert cleared.retried == {"failed": 2, "expired": 3, "missing": 1}
    assert cleared.sent == 6
    assert cleared.stays == {}
    assert str(cleared) == ("Clearing the wait and all tasks after it retries 6 rows (2 failed, 3 expired, 1 missing).")


def test_rows_that_a_clear_sends_nothing_for_are_counted_with_what_a_person_can_do() -> None:
    records = settled("s0001", succeeded=2, incomplete=3, cut_off=2, refused=4, failed=1, transient=0)
    cleared = clear_wait(state_of(*records, Finished(1, NOW)))
    assert cleared.sent == 0
    assert cleared.stays == {Stay.REFUSED: 4, Stay.CUT_OFF: 2, Stay.INCOMPLETE: 1, Stay.REJECTED: 1}
    text = str(cleared)
    assert text.startswith(
        "Clearing the wait sends nothing. 8 rows stay as they are: 4 refused, 2 cut off at the output cap, "
    )
    assert 'set on_incomplete="raise_cap"' in text
    assert text.count("clear submit and all tasks after it") == 1
    assert "a new run whose submit has reuse_from set" in text


def test_the_arguments_of_the_wait_decide() -> None:
    rows = settled("s0001", failed=3, transient=3, invalid_output=2, incomplete=5, cut_off=5)
    cleared = clear_wait(state_of(*rows, started(raise_cap=True)))
    assert cleared.retried == {"failed": 3, "incomplete": 5}
    assert cleared.stays == {Stay.EXCLUDED: 2}
    assert "add them to it and clear the wait" in str(cleared)
    assert policy_of(state_of(started(max_attempts=7))).max_attempts == 7
    assert policy_of(state_of()) == Policy()


def test_rows_that_a_retry_round_took_up_are_not_counted_again_and_the_others_are_left_behind() -> None:
    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", requests=3, attempt=2)], NOW)
    rows = settled("s0001", succeeded=2, failed=3, transient=3, invalid_output=2, incomplete=3, cut_off=3)
    state = state_of(started(), *rows, retry_round, *settled("r01-0001", failed=3, transient=3), Finished(1, NOW))
    cleared = clear_wait(state)
    assert cleared.retried == {"failed": 3}
    assert cleared.stays == {Stay.LEFT_BEHIND: 5}
    assert "raise_cap" not in str(cleared)


def test_rows_outside_of_settled_batches() -> None:
    shards = [plain_shard(f"s000{n}", requests=n) for n in range(1, 4)]
    records: list[Record] = [Created("s0001", 1, "batch_1", NOW), Finished(1, NOW, ["s0003"])]
    cleared = clear_wait(fold(manifest_of(shards), records))
    assert (cleared.unsettled, cleared.unsent, cleared.stays) == (1, 2, {Stay.WITHHELD: 3})
    assert "Clearing the wait sends 2 rows for the first time." in str(cleared)
    assert "raise max_cost_usd" in str(cleared)


def test_a_value_that_the_table_does_not_take_needs_another_table_and_no_request() -> None:
    reasons = [Reason("invalid_output", "storage", "too long", 2), Reason("refused", "refusal", "no", 1)]
    landed = Landed(1, "labels", {"succeeded": 7, "invalid_output": 2}, None, None, reasons, LATER)
    cleared = clear_wait(state_of(*settled("s0001", succeeded=9, refused=1), landed))
    assert cleared.stays == {Stay.REFUSED: 1, Stay.STORAGE: 2}
    assert "change the table and clear the landing, which sends nothing" in str(cleared)


def test_nothing_is_said_about_a_job_whose_rows_all_succeeded() -> None:
    landed = Landed(1, "labels", {"succeeded": 10}, None, None, [], LATER)
    state = state_of(*settled("s0001", succeeded=10), landed)
    assert str(clear_wait(state)) == ""
    assert status_of(state).advice == (
        "Nothing to do. To write the rows again, clear the landing, which sends no requests."
    )


@pytest.mark.parametrize("raise_cap", [False, True])
@pytest.mark.parametrize("retry_on", [[], ["failed"], ["expired", "missing"], ["failed", "invalid_output"]])
@pytest.mark.parametrize("failure", [None, Failure.LINES])
def test_the_rows_by_outcome_add_up_to_the_rows_that_the_lifecycle_retries(
    raise_cap: bool, retry_on: list[str], failure: Failure | None
) -> None:
    (_, record) = settled(
        "s0001", failure, failed=5, transient=3, expired=4, flex_refused=2, missing=1, incomplete=6, cut_off=2
    )
    assert isinstance(record, Settled)
    policy = policy_of(state_of(started(retry_on=retry_on, raise_cap=raise_cap)))
    assert sum(retried_rows(record, policy).values()) == retryable_rows(record, policy)


def test_failures_that_are_going_to_be_retried_count_as_pending() -> None:
    rows = settled("s0001", succeeded=6, failed=3, transient=2, expired=1)
    running = state_of(started(), *rows)
    assert outcomes_so_far(running) == {"succeeded": 6, "failed": 1, "pending": 3}
    assert rows_being_retried(running) == 3

    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", requests=3, attempt=2)], NOW)
    sent_again = state_of(started(), *rows, retry_round)
    assert outcomes_so_far(sent_again) == outcomes_so_far(running)
    assert rows_being_retried(sent_again) == 3

    answered = state_of(started(), *rows, retry_round, *settled("r01-0001", succeeded=3))
    assert outcomes_so_far(answered) == {"succeeded": 9, "failed": 1}
    assert rows_being_retried(answered) == 0


def test_failures_count_as_failed_once_nothing_retries_them() -> None:
    rows = settled("s0001", succeeded=6, failed=4, transient=4)
    for state in (state_of(started(), *rows, Finished(1, LATER)), state_of(started(max_attempts=1), *rows)):
        assert outcomes_so_far(state) == {"succeeded": 6, "failed": 4}
        assert rows_being_retried(state) == 0


def test_outcomes_that_retry_on_leaves_out_keep_their_outcome_while_other_rows_are_retried() -> None:
    rows = settled("s0001", succeeded=5, failed=3, transient=3, missing=2)
    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", requests=3, attempt=2)], NOW)
    assert outcomes_so_far(state_of(started(), *rows, retry_round)) == {"succeeded": 5, "missing": 2, "pending": 3}
