"""Jobs with more batches than a trigger carries, and how often their worker wakes."""

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
    """The batches of each deferral."""
    from airflow_provider_batch.sensors.batch import BatchSensor

    carried: list[list[str]] = []
    defer = BatchSensor.defer

    def noted(sensor: BatchSensor, *, trigger: Any, **arguments: Any) -> None:
        carried.append(trigger.batch_ids)
        defer(sensor, trigger=trigger, **arguments)

    monkeypatch.setattr(BatchSensor, "defer", noted)
    return carried


def landed(warehouse: Path) -> list[tuple[Any, ...]]:
    return query(warehouse, "SELECT custom_id, outcome FROM answers ORDER BY custom_id")


ALL = [(f"T-{n:02}", "succeeded") for n in range(ROWS)]


@pytest.mark.parametrize("most", [500, 5])
def test_a_job_of_more_batches_than_a_trigger_carries_waits_for_them_in_turns(
    warehouse: Path,
    tmp_path: Path,
    connect: Callable[..., None],
    deferrals: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr("airflow_provider_batch.sensors.batch.MAX_BATCHES", most)
    with LocalServer(tmp_path / "server", in_progress=4) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        ran = run_job(limits={"requests": 1})

    assert ran.states["wait"] == "success"
    assert landed(warehouse) == ALL
    assert deferrals
    assert {len(carried) for carried in deferrals} <= set(range(1, most + 1))
    assert len(deferrals) <= 6
    if most == 500:
        assert len(deferrals[0]) == ROWS
