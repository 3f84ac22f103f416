"""Batches that the provider refuses to show: for a while, because they are not visible yet, or for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import query, run_job
from tests.airflow.test_clear_wait import make_sensor, state_of, task_context
from tests.airflow.test_odd_results import worker_of
from tests.airflow.test_runner import seal_job

pytestmark = pytest.mark.usefixtures("offline")

MODES: list[dict[str, Any]] = [{}, {"deferrable": False}, {"deferrable": False, "mode": "reschedule"}]
NEVER = 1_000_000
#: no batch can be retrieved
ALL_REFUSED = Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=404)


def outcomes(warehouse: Path) -> list[tuple[Any, ...]]:
    return query(warehouse, "SELECT outcome, count(*) FROM answers GROUP BY 1")


@pytest.mark.parametrize("wait", MODES)
def test_a_batch_that_becomes_visible_with_a_delay_is_waited_for(
    warehouse: Path, faulty_server: LocalServer, wait: dict[str, Any]
) -> None:
    faulty_server.set_faults(Fault(kind=Kind.HIDDEN, retrieves=3))
    result = run_job(wait={"poke_interval": 0.1, **wait}, limits={"requests": 2})
    assert result.states["wait"] == "success"
    assert outcomes(warehouse) == [("succeeded", 5)]
    assert result.return_values["wait"]["retry_rounds"] == 0


@pytest.mark.parametrize("wait", MODES)
def test_if_every_read_is_refused_the_wait_fails_with_the_reason_and_advice(
    warehouse: Path, faulty_server: LocalServer, wait: dict[str, Any]
) -> None:
    faulty_server.set_faults(ALL_REFUSED)
    before = faulty_server.calls().get("retrieve", 0)
    result = run_job(wait={"poke_interval": 0.1, **wait})
    assert result.states["wait"] == "failed"
    message = result.error("wait")
    assert "the provider refused 5 times in a row to show the batches that are left" in message
    assert "HTTP 404" in message
    assert "clear this task" in message
    assert "mark this task as successful" in message
    assert faulty_server.calls()["retrieve"] - before <= 10


def test_a_batch_that_is_never_shown_does_not_keep_the_answers_of_the_others(
    warehouse: Path, faulty_server: LocalServer, tmp_path: Path
) -> None:
    faulty_server.set_faults(Fault(kind=Kind.HIDDEN, retrieves=NEVER, times=1))
    result = run_job(wait={"poke_interval": 0.1}, limits={"requests": 1})
    assert result.states["wait"] == "failed"
    assert "mark this task as successful" in result.error("wait")

    from airflow_provider_batch.worker.open_job import open_job

    state = open_job(result.return_values["submit"]).state()
    assert len(state.settled_submissions()) == 4
    assert len(state.live_submissions()) == 1


def test_after_the_deadline_a_refused_batch_is_waited_for_only_until_the_grace_period_ends(
    tmp_path: Path, faulty_server: LocalServer
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import CANCEL_GRACE, Finish

    faulty_server.set_faults(ALL_REFUSED)
    ledger = seal_job(tmp_path, ["one", "two"], requests=1)
    worker_of(ledger).run({})
    sensor = make_sensor(ledger, deadline=datetime.now(UTC) - timedelta(minutes=1), poke_interval=3600)
    assert not sensor.poke(task_context(max_tries=0)).is_done
    assert all(submission.cancel is not None for _, submission in state_of(ledger).live_submissions())

    later = worker_of(ledger)
    later._clock = lambda: datetime.now(UTC) + CANCEL_GRACE
    assert isinstance(later.run(later.observe()), Finish)


def test_a_refused_key_costs_a_worker_one_read(tmp_path: Path, faulty_server: LocalServer) -> None:
    ledger = seal_job(tmp_path, ["one", "two", "three"], requests=1)
    worker_of(ledger).run({})
    faulty_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=401))
    before = faulty_server.calls().get("retrieve", 0)
    worker = worker_of(ledger)
    assert worker.observe() == {}
    assert len(worker.refused_reads) == 3
    assert faulty_server.calls()["retrieve"] - before == 1


def test_a_refusal_that_only_the_trigger_saw_does_not_fail_the_wait(tmp_path: Path, faulty_server: LocalServer) -> None:
    """The batches became visible before the worker read them."""
    from airflow.sdk.exceptions import TaskDeferred

    faulty_server.set_faults(Fault(kind=Kind.STUCK))
    ledger = seal_job(tmp_path, ["one"], requests=1)
    worker_of(ledger).run({})
    sensor = make_sensor(ledger)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.resume(task_context(max_tries=0), {"reason": "refused", "message": "HTTP 404"})
    assert deferred.value.kwargs == {"refused_looks": 0}


def test_starts_of_the_worker_that_find_every_batch_refused_are_counted(
    tmp_path: Path, faulty_server: LocalServer
) -> None:
    """A trigger that is woken before it has counted five refusals must not make the wait endless."""
    from airflow.sdk.exceptions import TaskDeferred

    from airflow_provider_batch.exceptions import JobHeldError

    faulty_server.set_faults(ALL_REFUSED)
    ledger = seal_job(tmp_path, ["one"], requests=1)
    worker_of(ledger).run({})
    sensor = make_sensor(ledger)
    arguments: dict[str, int] = {}
    for _ in range(5):
        with pytest.raises(TaskDeferred) as deferred:
            sensor.resume(task_context(max_tries=0), {"reason": "due"}, **arguments)
        arguments = deferred.value.kwargs or {}
    with pytest.raises(JobHeldError, match="All answers so far are kept"):
        sensor.resume(task_context(max_tries=0), {"reason": "due"}, **arguments)


@pytest.mark.parametrize("fault", [Fault(kind=Kind.STALE_IN_LIST), Fault(kind=Kind.LATE_IN_LIST, seconds=100_000)])
def test_a_job_ends_although_the_list_of_batches_is_out_of_date(
    warehouse: Path, faulty_server: LocalServer, fault: Fault
) -> None:
    faulty_server.set_faults(fault)
    result = run_job(wait={"poke_interval": 0.1}, limits={"requests": 1})
    assert result.states["wait"] == "success"
    assert outcomes(warehouse) == [("succeeded", 5)]
