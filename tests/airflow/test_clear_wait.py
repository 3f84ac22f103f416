"""A person's clear changes the deadline, the attempts and the budget of a job. A retry does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.test_runner import LOG, seal_job

pytestmark = pytest.mark.usefixtures("offline")


def task_context(max_tries: int) -> dict[str, Any]:
    """Return the context of a task that Airflow starts. A clear raises max_tries; a retry does not."""
    ti = SimpleNamespace(id="ti", dag_id="dag", run_id="run", task_id="wait", map_index=-1, max_tries=max_tries)
    return {"ti": SimpleNamespace(**vars(ti), task=None, xcom_push=lambda **_: None)}


def make_sensor(ledger: Any, **options: Any) -> Any:
    import msgspec

    from airflow_provider_batch.core.ledger.job import Reference
    from airflow_provider_batch.sensors.batch import BatchSensor

    manifest = ledger.manifest
    reference = Reference(
        manifest.job_uid,
        ledger.folder.uri,
        "openai_default",
        manifest.requests,
        len(manifest.shards),
        manifest.estimate,
    )
    job = msgspec.to_builtins(reference)
    return BatchSensor(task_id="wait", job=job, deferrable=False, row_retry_delay=timedelta(0), **options)


def state_of(ledger: Any) -> Any:
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    newest = open_ledger(ledger.folder)
    assert newest is not None
    return newest.state()


def test_a_retry_keeps_the_deadline_and_a_clear_after_the_end_sets_a_new_one_and_retries_rows(tmp_path: Path) -> None:
    ledger = seal_job(tmp_path, ["one", "[[fail:500]] two"], requests=2)
    expired_sensor = make_sensor(ledger, deadline=datetime.now(UTC) - timedelta(minutes=1))
    assert expired_sensor.poke(task_context(max_tries=0)).is_done
    ends = state_of(ledger).deadline

    sensor = make_sensor(ledger, deadline=timedelta(hours=1), max_attempts=2)
    poke = sensor.poke(task_context(max_tries=0))
    assert poke.is_done
    assert poke.xcom_value["outcomes"] == {"pending": 2}
    assert state_of(ledger).deadline == ends

    assert not sensor.poke(task_context(max_tries=1)).is_done
    assert state_of(ledger).deadline > datetime.now(UTC)
    assert _poke_until_done(sensor, max_tries=1)["outcomes"] == {"succeeded": 1, "failed": 1}
    assert [shard.attempt for retry_round in state_of(ledger).retry_rounds for shard in retry_round.shards] == [2]

    # The wait has ended, so a retry sends nothing, and a clear allows max_attempts more.
    assert _poke_until_done(sensor, max_tries=1)["retry_rounds"] == 1
    assert _poke_until_done(sensor, max_tries=2)["retry_rounds"] == 3
    assert state_of(ledger).retry_rounds[-1].shards[0].attempt == 4


def _poke_until_done(sensor: Any, max_tries: int) -> Any:
    end = datetime.now(UTC) + timedelta(minutes=1)
    while datetime.now(UTC) < end:
        poke = sensor.poke(task_context(max_tries))
        if poke.is_done:
            return poke.xcom_value
    raise AssertionError("The wait does not end.")


def test_running_submit_with_another_budget_changes_the_budget_of_the_job(tmp_path: Path) -> None:
    from airflow_provider_batch.core.ledger.job import Estimate
    from airflow_provider_batch.worker.generation import change_budget

    ledger = seal_job(tmp_path, ["one"], requests=1, max_cost_usd=5.0, estimate=Estimate(low_usd=1.0, high_usd=9.0))
    for ceiling, records in ((5.0, None), (7.5, 1), (7.5, 1), (None, 2), (6.0, 3)):
        change_budget(ledger, ceiling, None, LOG)
        state = state_of(ledger)
        assert state.ceiling == ceiling
        assert (state.budget and state.budget.number) == records


def test_a_budget_is_rejected_if_no_price_is_known(tmp_path: Path) -> None:
    from airflow_provider_batch.core.ledger.job import Estimate
    from airflow_provider_batch.exceptions import BudgetError
    from airflow_provider_batch.worker.generation import change_budget

    ledger = seal_job(tmp_path, ["one"], requests=1, estimate=Estimate(unknown_models=["m"]))
    with pytest.raises(BudgetError, match="no price is known for m"):
        change_budget(ledger, 5.0, None, LOG)
    assert state_of(ledger).ceiling is None
