"""Jobs with more batches than one trigger can carry, and the number of times their worker wakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_job

ROWS = 12


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n:02}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(ROWS)]


@pytest.fixture
def deferrals(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The batch ids of each deferral."""
    from airflow_provider_batch.sensors.batch import BatchSensor

    batch_ids: list[list[str]] = []
    defer = BatchSensor.defer

    def record_and_defer(sensor: BatchSensor, *, trigger: Any, **arguments: Any) -> None:
        batch_ids.append(trigger.batch_ids)
        defer(sensor, trigger=trigger, **arguments)

    monkeypatch.setattr(BatchSensor, "defer", record_and_defer)
    return batch_ids


def landed_rows(warehouse: Path) -> list[tuple[Any, ...]]:
    return query(warehouse, "SELECT custom_id, outcome FROM answers ORDER BY custom_id")


ALL = [(f"T-{n:02}", "succeeded") for n in range(ROWS)]


@pytest.mark.parametrize("max_batches", [500, 5])
def test_a_job_with_more_batches_than_a_trigger_can_carry_waits_for_them_in_turn(
    warehouse: Path,
    tmp_path: Path,
    connect: Callable[..., None],
    deferrals: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    max_batches: int,
) -> None:
    monkeypatch.setattr("airflow_provider_batch.sensors.batch.MAX_BATCHES", max_batches)
    with LocalServer(tmp_path / "server", in_progress=10) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        result = run_job(limits={"requests": 1})

    assert result.states["wait"] == "success"
    assert landed_rows(warehouse) == ALL
    assert deferrals
    assert {len(batch_ids) for batch_ids in deferrals} <= set(range(1, max_batches + 1))
    assert len(deferrals) <= 6
    if max_batches == 500:
        assert len(deferrals[0]) == ROWS
