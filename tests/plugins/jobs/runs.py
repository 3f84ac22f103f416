"""Runs of DAGs with a job, as their tasks leave them in Airflow's metadata database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Reference
from airflow_provider_batch.core.lifecycle.summary import LandingResult, WaitResult
from airflow_provider_batch.links.batch import LEDGER_KEY
from airflow_provider_batch.staging.layout import job_folder
from tests.plugins.rows import NOON, Run, Task

RETURNED = "return_value"
ROOT = "file:///srv/staging"
ESTIMATE = Estimate(low_usd=1.0, high_usd=2.0)


def address(dag_id: str, run_id: str, task_id: str = "submit", map_index: int = -1) -> str:
    return job_folder(ROOT, JobKey(dag_id, task_id, run_id, map_index)).uri


def submitted(ledger: str, rows: int = 100, models: tuple[str, ...] = ("gpt-5-mini",)) -> dict[str, Any]:
    """Return the XComs of a submit task."""
    reference = Reference("uid", ledger, "openai_default", rows, 1, ESTIMATE, sent=rows, models=list(models))
    return {LEDGER_KEY: ledger, RETURNED: msgspec.to_builtins(reference)}


def waited(ledger: str, **outcomes: int) -> dict[str, Any]:
    """Return the XComs of a sensor, after one retry round."""
    return {LEDGER_KEY: ledger, RETURNED: msgspec.to_builtins(WaitResult("uid", 2, 1, 0, outcomes))}


def landed(
    ledger: str, cost: str | None = "1.25", standard_cost: str | None = "2.5", **outcomes: int
) -> dict[str, Any]:
    """Return the XComs of a results task."""
    result = LandingResult(
        job_uid="uid",
        table="answers",
        requests=sum(outcomes.values()),
        sent=sum(outcomes.values()),
        duplicates=0,
        reused=0,
        outcomes=outcomes,
        tokens={},
        estimate=ESTIMATE,
        cost="",
        cost_usd=cost,
        standard_cost_usd=standard_cost,
        retried=0,
        retried_cost_usd=None,
        paid_twice=0,
        reasons=[],
        lanes={},
        receipt="",
    )
    return {LEDGER_KEY: ledger, RETURNED: msgspec.to_builtins(result)}


def landed_run(dag_id: str, run_id: str, *, age: int = 0, cost: str | None = "1.25", rows: int = 100) -> Run:
    """Return the run of a job that landed, after one hour.

    :param age: when it started, in hours before noon.
    """
    ledger, start = address(dag_id, run_id), NOON - timedelta(hours=age)
    end = start + timedelta(hours=1)
    return Run(
        dag_id,
        run_id,
        [
            Task("submit", xcoms=submitted(ledger, rows), start=start, end=start),
            Task("wait", "BatchSensor", xcoms=waited(ledger, succeeded=rows - 3, failed=3), start=start, end=end),
            Task(
                "land",
                "BatchResultsOperator",
                xcoms=landed(ledger, cost, succeeded=rows - 3, failed=3),
                start=end,
                end=end,
            ),
        ],
    )
