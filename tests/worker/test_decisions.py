"""What people read before they cancel a job, retry rows or land what is there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import Created, Finished, Record, Settled, Uploaded
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.worker.decisions import cancel_decision, land_decision, retry_decision
from tests.core.building import NOW, manifest_of, plain_shard


def state_of(*records: Record, **manifest: Any) -> JobState:
    """Return the state of a job with two shards of 10 rows, the first of which is in a batch."""
    shards = [plain_shard(f"s000{number}", requests=10, tokens=10_000) for number in (1, 2)]
    return fold(manifest_of(shards, **manifest), [Created("s0001", 1, "batch_1", NOW), *records])


def ended(name: str, **outcomes: int) -> Settled:
    """Return the record of a batch that ended with these rows. All failures are transient."""
    return Settled(name, 1, f"batch_{name}", "completed", NOW, outcomes=outcomes, transient=outcomes.get("failed", 0))


def test_a_cancel_says_how_many_requests_are_running_and_how_many_rows_are_never_sent() -> None:
    decision = cancel_decision(state_of(Uploaded("s0002", 1, "file", NOW)))
    assert decision.possible
    assert decision.explanation == (
        "1 batch with 10 requests may still be running. 10 rows will not be sent. Answers so far are paid for and kept."
    )


def test_a_job_whose_batches_have_all_ended_cannot_be_cancelled() -> None:
    decision = cancel_decision(state_of(ended("s0001", succeeded=10), ended("s0002", succeeded=10)))
    assert not decision.possible
    assert decision.explanation.startswith("No batch of this job is running, and no row waits to be sent.")


def test_a_retry_says_what_it_is_expected_to_cost_and_which_rows_stay() -> None:
    records = [ended("s0001", succeeded=8, failed=2), ended("s0002", succeeded=9, refused=1)]
    prices = {"gpt-5-mini": {"input": 1.0, "output": 0.0}}
    decision = retry_decision(state_of(*records, Finished(1, NOW + timedelta(hours=1)), prices=prices))
    assert decision.possible
    assert decision.explanation.startswith(
        "2 rows will be sent for about $0.002. Clearing the wait and all tasks after it retries 2 rows (2 failed). "
        "1 row stays as it is: 1 refused. "
    )


def test_a_retry_that_sends_nothing_is_not_offered() -> None:
    records = [ended("s0001", succeeded=10), ended("s0002", succeeded=9, refused=1)]
    decision = retry_decision(state_of(*records, Finished(1, NOW)))
    assert not decision.possible
    assert decision.explanation.startswith("Clearing the wait sends nothing. 1 row stays as it is: 1 refused.")


def test_landing_what_is_there_says_what_is_missing_and_that_batches_keep_running() -> None:
    state = state_of(ended("s0001", succeeded=10))
    decision = land_decision(state, is_wait_over=False)
    assert decision.possible
    assert decision.explanation.startswith(
        "The landing writes 10 rows with an outcome. Nothing is sent. 10 rows land as"
    )
    assert "Batches that are running keep running and are paid for." in decision.explanation
    assert "marked as successful" not in land_decision(state, is_wait_over=True).explanation
    assert not land_decision(state_of(), is_wait_over=False).possible
